"""The data: data sets by name, folders of images, augmentation, and streams of batches."""

from cpnas_tf.data.datasets import describe, load
from cpnas_tf.data.images import Images
from cpnas_tf.data.streams import (
    AnyImages,
    batches,
    evaluation_batches,
    hold_out,
    split_for_search,
    steps_per_epoch,
)

__all__ = [
    "AnyImages",
    "Images",
    "batches",
    "describe",
    "evaluation_batches",
    "hold_out",
    "load",
    "split_for_search",
    "steps_per_epoch",
]
