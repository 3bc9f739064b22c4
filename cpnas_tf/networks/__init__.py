"""The networks: units, operations and cells, what they cost, and those of the paper's tables."""

from cpnas_tf.networks.cells import build_network, walk

__all__ = ["build_network", "walk"]
