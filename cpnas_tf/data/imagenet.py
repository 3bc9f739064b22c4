"""ImageNet as TFDS stores it: JPEG files in shards, read and decoded as they are needed."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from cpnas_tf.catalogue import DATASETS
from cpnas_tf.data.augmentation import (
    Framing,
    augment_batches,
    centre_window,
    draw_windows,
    resize,
)
from cpnas_tf.settings import SettingError

IMAGE_SIZE = DATASETS["imagenet2012"].shape[0]
# TFDS has no labels for ImageNet's own test images: as everywhere, its validation images are ours.
SPLITS = {"train": "train", "test": "validation"}
ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "test": "ILSVRC2012_img_val.tar"}
# Evaluation looks at 224 pixels of 256 of the shorter side. Decision: without antialiasing, as in
# TensorFlow's recipes for ImageNet; that would take longer than to decode the file.
FRAMING = Framing(share=0.875, antialias=False)
# A stream reads this many files at once, and shuffles this many JPEG files (some 0.2 GB) at once.
_FILES_AT_ONCE = 16
_SHUFFLED = 2048


def load(
    builder: tfds.core.DatasetBuilder, split: str, *, image_size: int | None = None
) -> StoredImages:
    """Opens a split of ImageNet.

    Args:
        builder: TFDS's builder of it.
        split: one of `SPLITS`.
        image_size: side of the images, in pixels; 224 by default.

    Returns:
        `StoredImages`.

    Raises:
        ValueError: if it has not been prepared, or a part of it is missing.
    """
    root = os.fspath(builder.data_path.parent.parent)
    if not builder.data_path.exists():
        raise SettingError(
            "data_dir",
            f"imagenet2012 is not in {root}: register at https://image-net.org/download-images, "
            f"download {' and '.join(ARCHIVES.values())} into {root}/downloads/manual, then run "
            f"tfds build imagenet2012 --data_dir={root}; or pass the data_dir that holds it",
        )
    if SPLITS[split] not in builder.info.splits:
        raise ValueError(
            f"{builder.data_path} has no {SPLITS[split]} images: delete it, put {ARCHIVES[split]} "
            f"into {root}/downloads/manual, and run tfds build imagenet2012 --data_dir={root}"
        )
    instructions = builder.info.splits[SPLITS[split]].file_instructions
    missing = [each.filename for each in instructions if not tf.io.gfile.exists(each.filename)]
    if missing:
        raise ValueError(f"{len(missing)} files of imagenet2012 are missing, such as {missing[0]}")
    return StoredImages(
        tuple((each.filename, each.skip, each.take) for each in instructions),
        builder.info.features,
        image_size or IMAGE_SIZE,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class StoredImages:
    """Labelled images that stay in their files; the functions of `data` take them as `Images`.

    TFDS has shuffled them when it wrote the files, so any run of them is a sample.

    Attributes:
        pieces: of the files, in their order: (path, records to leave out, records to take).
        features: TFDS's features of a record.
        image_size: side of the images, in pixels.
        origin: see `Images`.
    """

    pieces: tuple[tuple[str, int, int], ...]
    features: tfds.features.FeaturesDict
    image_size: int = IMAGE_SIZE
    origin: dict[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return sum(count for _, _, count in self.pieces)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes' names: WordNet's numbers."""
        return tuple(self.features["label"].names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.image_size, self.image_size, 3

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """int32 [n], the labels; all files are read for them, and no image is decoded."""
        dataset = self._records().map(lambda record: self._parse(record)[1])
        return np.fromiter(dataset.as_numpy_iterator(), np.int32, len(self))

    @property
    def images(self) -> _Decoded:
        """The images, uint8 [n, image_size, image_size, 3], decoded when they are asked for."""
        return _Decoded(self)

    def part(self, start: int, stop: int) -> StoredImages:
        """The images from number `start` to before number `stop`."""
        pieces, first = [], 0
        for path, skip, count in self.pieces:
            begin, end = max(start - first, 0), min(stop - first, count)
            if begin < end:
                pieces.append((path, skip + begin, end - begin))
            first += count
        return dataclasses.replace(self, pieces=tuple(pieces))

    def draw(self, *sizes: int, seed: int) -> tuple[StoredImages, ...]:
        """Draws disjoint parts of these sizes, each `StoredImages`.

        Decision: the files are drawn, not the images one by one, so that a small part does not
        mean to read everything.
        """
        order = np.random.RandomState(seed).permutation(len(self.pieces))
        drawn = dataclasses.replace(self, pieces=tuple(self.pieces[index] for index in order))
        ends = np.cumsum(sizes).tolist()
        return tuple(drawn.part(end - size, end) for size, end in zip(sizes, ends, strict=True))

    def training_batches(
        self,
        *,
        batch_size: int,
        seed: int,
        epochs: int,
        first_step: int,
        augmentation: Mapping[str, Any],
    ) -> tf.data.Dataset:
        """The stream of `data.batches`; the records before `first_step` are read, not decoded."""
        crop_area = augmentation.get("crop_area", 0.0)
        steps = len(self) // batch_size
        first_epoch, skipped = divmod(first_step, steps)
        seed = tf.constant(seed, tf.int64)

        def epoch_records(epoch):
            return self._shuffled_records(tf.stack([seed, epoch])).take(steps * batch_size)

        def decode(position, record):
            jpeg, label = self._parse(record)
            window_seed = tf.stack([seed, position])
            return self._decode(jpeg, crop_area=crop_area, seed=window_seed), label

        return augment_batches(
            tf.data.Dataset.range(first_epoch, epochs)
            .flat_map(epoch_records)
            .skip(skipped * batch_size)
            .enumerate(start=first_step * batch_size)
            .map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
            .batch(batch_size, drop_remainder=True),
            seed=seed,
            first_step=first_step,
            **{**augmentation, "crop_area": 0.0},
        )

    def in_order(self) -> tf.data.Dataset:
        """A `tf.data.Dataset` of the images, uint8, and their labels."""

        def decode(record):
            jpeg, label = self._parse(record)
            return self._decode(jpeg), label

        return self._records().map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _records(self):
        return tf.data.Dataset.from_tensor_slices(self._columns()).flat_map(_read)

    def _columns(self):
        paths, *numbers = zip(*self.pieces, strict=True)
        return tf.constant(paths), *(tf.constant(column, tf.int64) for column in numbers)

    def _shuffled_records(self, seed):
        """The records in an order made of `seed`: first the files, then blocks of their records.

        `tf.data`'s own `shuffle` would make it of TensorFlow's global seed too.
        """
        shuffle = tf.random.experimental.stateless_shuffle
        order = shuffle(tf.range(len(self.pieces)), seed)

        def shuffle_block(block, records):
            return tf.gather(
                records, shuffle(tf.range(tf.size(records)), tf.random.fold_in(seed, block))
            )

        return (
            tf.data.Dataset.from_tensor_slices(
                tuple(tf.gather(column, order) for column in self._columns())
            )
            .interleave(
                _read,
                cycle_length=_FILES_AT_ONCE,
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            .batch(_SHUFFLED)
            .enumerate()
            .map(shuffle_block)
            .prefetch(1)
            .unbatch()
        )

    def _parse(self, record):
        example = self.features.deserialize_example(
            record, decoders={"image": tfds.decode.SkipDecoding()}
        )
        return example["image"], tf.cast(example["label"], tf.int32)

    def _decode(self, jpeg, *, crop_area=0.0, seed=None):
        """The middle of a JPEG file, or with a `crop_area` a random window of it, resized."""
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(jpeg))
        if crop_area:
            window = draw_windows(seed, 1, height, width, smallest_area=crop_area)[0]
        else:
            window = centre_window(height, width, share=FRAMING.share)
        image = tf.io.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method="INTEGER_ACCURATE")
        return resize(image, [self.image_size] * 2, antialias=FRAMING.antialias)


def _read(path, skip, count):
    return tf.data.TFRecordDataset(path).skip(skip).take(count)


class _Decoded:
    """`StoredImages` as what can be sliced like an array of their pixels."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, stored: StoredImages) -> None:
        self._stored = stored
        self.shape = (len(stored), *stored.image_shape)

    def __len__(self) -> int:
        return len(self._stored)

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, step = key.indices(len(self))
        if step != 1:
            raise IndexError(f"only slices of neighbours can be read, received the step {step}")
        pixels = np.empty([max(stop - start, 0), *self.shape[1:]], self.dtype)
        if len(pixels):
            dataset = self._stored.part(start, stop).in_order()
            for index, (image, _) in enumerate(dataset.as_numpy_iterator()):
                pixels[index] = image
        return pixels
