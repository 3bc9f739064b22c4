"""The searches: Child-Parent search with its Oracle, and PC-DARTS."""

from cpnas_tf.search.oracle import ChildParentOracle
from cpnas_tf.search.pc_darts import PCDarts
from cpnas_tf.search.tuner import ChildParentTuner, plan_search, search

__all__ = ["ChildParentOracle", "ChildParentTuner", "PCDarts", "plan_search", "search"]
