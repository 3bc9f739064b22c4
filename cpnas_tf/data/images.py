"""Labelled images in memory."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cpnas_tf.data.augmentation import augment_batches, resize
from cpnas_tf.settings import SettingError, shown

_RESIZED_AT_ONCE = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Labelled images in memory.

    Attributes:
        images: uint8 [n, height, width, channels].
        labels: int32 [n], positions in `class_names`.
        class_names: the classes' names.
        origin: what `data.load` read them from, a text per part, such as `{"train/cat": "8 images
            (5120 bytes, checksum 3f2a9c04)"}`; the same files give the same text. Empty for images
            that it did not read.

    Raises:
        ValueError: if the arrays have other types or shapes, a label names no class, or two classes
            have one name.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: Sequence[str]
    origin: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                "images must be uint8 [n, height, width, channels], "
                f"received: {images.dtype} {list(images.shape)}"
            )
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{len(images)} images need as many integer labels, "
                f"received: {labels.dtype} {list(labels.shape)}"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
            raise ValueError(
                f"labels must be in 0..{len(self.class_names) - 1}, the positions of the class "
                f"names, received: {labels.min()}..{labels.max()}"
            )
        names = tuple(self.class_names)
        if not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
            raise ValueError(f"class_names must be different texts, received: {shown(names)}")
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.astype(np.int32))
        object.__setattr__(self, "class_names", names)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""
        return self.images.shape[1:]

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def take(self, indices: np.ndarray | slice) -> Images:
        """The images at `indices`, int [m], in that order."""
        return Images(self.images[indices], self.labels[indices], self.class_names)

    def draw(self, *sizes: int, seed: int) -> tuple[Images, ...]:
        """Draws disjoint parts of these sizes, each `Images`."""
        order = np.random.RandomState(seed).permutation(len(self))
        ends = np.cumsum(sizes)
        return tuple(
            self.take(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)
        )

    def resize(self, side: int) -> Images:
        """The images at `side` x `side` pixels, bilinearly and without aliasing."""
        shape = (side, side, self.images.shape[3])
        check_memory(len(self), shape)
        resized = np.empty([len(self), *shape], np.uint8)
        for start in range(0, len(self), _RESIZED_AT_ONCE):
            part = slice(start, start + _RESIZED_AT_ONCE)
            resized[part] = resize(self.images[part], [side, side])
        return Images(resized, self.labels, self.class_names)

    def training_batches(
        self,
        *,
        batch_size: int,
        seed: int,
        epochs: int,
        first_step: int,
        augmentation: Mapping[str, Any],
    ) -> tf.data.Dataset:
        """The stream of `data.batches`."""
        steps = len(self) // batch_size
        pixels, labels = self._tensors

        def epoch_indices(epoch):
            order = tf.random.experimental.stateless_shuffle(
                tf.range(len(self)), seed=tf.stack([tf.constant(seed, tf.int64), epoch])
            )
            return tf.data.Dataset.from_tensor_slices(
                tf.reshape(order[: steps * batch_size], [steps, batch_size])
            )

        first_epoch, skipped = divmod(first_step, steps)
        return augment_batches(
            tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_indices).skip(skipped),
            fetch=lambda indices: (tf.gather(pixels, indices), tf.gather(labels, indices)),
            seed=seed,
            first_step=first_step,
            **augmentation,
        )

    def in_order(self) -> tf.data.Dataset:
        """A `tf.data.Dataset` of the images, uint8, and their labels."""
        return tf.data.Dataset.from_tensor_slices(self._tensors)

    @functools.cached_property
    def _tensors(self):
        with tf.device("CPU"):
            return tf.constant(self.images), tf.constant(self.labels)


def check_memory(count: int, shape: Sequence[int]) -> None:
    """Raises ValueError if so many images of a shape do not fit into the machine's memory."""
    needed = count * math.prod(shape)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise SettingError(
            "image_size",
            f"image_size must be smaller: {count} images of {shape[0]}x{shape[1]} pixels "
            f"need {needed / 1e9:.1f} GB of memory, this machine has {there / 1e9:.1f} GB",
        )
