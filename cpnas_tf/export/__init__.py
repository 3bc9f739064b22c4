"""Shipping a trained network: SavedModel, flatbuffers and model card."""

from cpnas_tf.export.bundle import check_output, export

__all__ = ["check_output", "export"]
