"""The searches: Child-Parent search with its Oracle, and PC-DARTS."""

from cpnas_tf.search.cpnas import ChildParentSearch, search
from cpnas_tf.search.oracle import ChildParentOracle
from cpnas_tf.search.pc_darts import PCDarts
from cpnas_tf.search.tuner import ChildParentTuner

__all__ = ["ChildParentOracle", "ChildParentSearch", "ChildParentTuner", "PCDarts", "search"]
