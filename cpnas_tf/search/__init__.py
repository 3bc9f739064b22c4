"""The searches: Child-Parent search with its Oracle, the guided search with its, and PC-DARTS."""

from cpnas_tf.search.cpnas import ChildParentSearch, search
from cpnas_tf.search.guided import GuidedSearch
from cpnas_tf.search.guided_oracle import GuidedOracle
from cpnas_tf.search.oracle import ChildParentOracle
from cpnas_tf.search.pc_darts import PCDarts
from cpnas_tf.search.tuner import ChildParentTuner

__all__ = [
    "ChildParentOracle",
    "ChildParentSearch",
    "ChildParentTuner",
    "GuidedOracle",
    "GuidedSearch",
    "PCDarts",
    "search",
]
