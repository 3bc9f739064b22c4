"""Streams of batches for training and for evaluation, and the parts that a search splits off."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from cpnas_tf.data.augmentation import normalize
from cpnas_tf.data.imagenet import StoredImages
from cpnas_tf.data.images import Images
from cpnas_tf.settings import SettingError, check, checked

AnyImages = Images | StoredImages  # what `data.load` gives, and every function of `data` takes


@checked("split")
def split_for_search(
    images: AnyImages,
    *,
    validation: AnyImages | None = None,
    train_fraction: float | None = 0.5,
    validation_fraction: float = 0.05,
    train_images: int | None = None,
    validation_images: int | None = None,
    most_images: int | None = None,
    seed: int = 0,
) -> tuple[AnyImages, AnyImages]:
    """Draws the two disjoint parts of a training set that the search trains and validates on.

    Args:
        images: `Images` or `StoredImages` to draw from.
        validation: the data set's own images to validate on, if it has such a part. Then none of
            `images` are taken for that.
        train_fraction: share of `images` to train on; None for all that are not validated on.
        validation_fraction: share of `images` to validate on.
        train_images: number of images to train on, instead of the fraction.
        validation_images: number of images to validate on, instead of the fraction.
        most_images: the largest number of images to train on; that to validate on is a quarter.
        seed: of the draw, 0..2^32 - 1.

    Returns:
        `(train, validation)`, of the type of `images`.

    Raises:
        ValueError: if a part would be empty, or both together more than there is.

    References:
        CP-NAS, section 3.1: 50% of the training set to train, 5% to validate.
    """
    held_out = 0
    if validation is None:
        held_out = _part("validation", len(images), validation_fraction, validation_images)
    rest = len(images) - held_out
    if train_fraction is None and train_images is None:
        train_images = rest
    train = _part("train", len(images), train_fraction, train_images)
    if train > rest:
        first, second = (
            f"{part}_{'fraction' if count is None else 'images'}"
            for part, count in (("train", train_images), ("validation", validation_images))
        )
        raise SettingError(
            first,
            f"{first} and {second} must be at most the {len(images)} images that there are, "
            f"received: {train} and {held_out} images",
        )
    part, drawn = images.draw(train, held_out, seed=seed)
    validation = drawn if validation is None else validation
    if most_images is None:
        return part, validation
    return _at_most(part, most_images, seed), _at_most(validation, most_images // 4 or 1, seed)


def _at_most(images, count, seed):
    return images.draw(count, seed=seed)[0] if len(images) > count else images


@checked("split")
def hold_out(
    images: AnyImages,
    *,
    validation_fraction: float | None = None,
    validation_images: int | None = None,
    seed: int = 0,
) -> tuple[AnyImages, AnyImages | None]:
    """Splits a validation part off the images of a training.

    What is chosen by the validation images (an epoch, a setting) then never sees the test images.

    Args:
        images: `Images`.
        validation_fraction: share of `images` to validate on; None for none.
        validation_images: how many to validate on, instead of the fraction.
        seed: of the split.

    Returns:
        `(train, validation)`, of the type of `images`; validation is None if there is none.

    Raises:
        ValueError: if there are not more images than that.
    """
    if validation_images is None:
        if validation_fraction is None:
            return images, None
        validation_images = _part("validation", len(images), validation_fraction, None)
    if validation_images >= len(images):
        raise SettingError(
            "validation_images",
            f"validation_images must be 1 to {len(images) - 1} of the {len(images)} training "
            f"images, received: {validation_images}",
        )
    return split_for_search(
        images,
        train_images=len(images) - validation_images,
        validation_images=validation_images,
        seed=seed,
    )


def _part(name, total, fraction, count):
    size = int(round((fraction or 0) * total, 6)) if count is None else count
    if size < 1:
        setting = f"{name}_fraction"
        raise SettingError(
            setting, f"{setting} must be at least one of the {total} images, received: {fraction}"
        )
    return size


def steps_per_epoch(images: AnyImages, *, batch_size: int) -> int:
    """The number of full batches in `images`; what remains is dropped.

    Raises:
        ValueError: if there is not one full batch.
    """
    check(batch_size=batch_size)
    if len(images) < batch_size:
        raise SettingError(
            "batch_size",
            f"batch_size must be at most the {len(images)} images to train on, "
            f"received: {batch_size}",
        )
    return len(images) // batch_size


def batches(
    images: AnyImages,
    *,
    batch_size: int,
    seed: int,
    epochs: int = 1,
    first_step: int = 0,
    augmentation: Mapping[str, Any] | None = None,
) -> tf.data.Dataset:
    """The training stream from step `first_step` to the end of the first `epochs` epochs.

    Every epoch is a new permutation of the images, made of `(seed, epoch)`; the augmentation of a
    step is made of `(seed, step)`. A stream that starts at `first_step` is therefore the tail of
    the whole one, and costs nothing for the steps before it; of ImageNet, the records before it in
    its own epoch are read and not decoded. Epoch e alone is
    `epochs=e + 1, first_step=e * steps_per_epoch(...)`.

    Args:
        images: `Images` or `StoredImages`.
        batch_size: images per batch; the last, smaller batch of an epoch is dropped.
        seed: of the whole stream.
        epochs: number of epochs of the whole stream, those before `first_step` included.
        first_step: steps of the whole stream to leave out.
        augmentation: keyword arguments of `augmentation.augment`; nothing is augmented by default.

    Returns:
        `tf.data.Dataset` of images, float32 [batch_size, height, width, channels] in [-1, 1], and
        labels, int32 [batch_size].

    Raises:
        ValueError: if there are fewer images than a batch, the stream would end before it starts,
            or the augmentation is impossible.
    """
    steps = steps_per_epoch(images, batch_size=batch_size)
    _check_augmentation(images, augmentation)
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, received: {epochs}")
    if not 0 <= first_step <= epochs * steps:
        raise ValueError(
            f"{epochs} epochs have the steps 0..{epochs * steps}, received first_step={first_step}"
        )
    return (
        images.training_batches(
            batch_size=batch_size,
            seed=seed,
            epochs=epochs,
            first_step=first_step,
            augmentation=augmentation or {},
        )
        .apply(tf.data.experimental.assert_cardinality(epochs * steps - first_step))
        .prefetch(tf.data.AUTOTUNE)
        .apply(_without_tuning)
    )


def evaluation_batches(images: AnyImages, *, batch_size: int) -> tf.data.Dataset:
    """All images once, in their order; the last batch may be smaller.

    Returns:
        `tf.data.Dataset` of images, float32 [batch, height, width, channels] in [-1, 1], and
        labels, int32 [batch].
    """
    check(batch_size=batch_size)
    return (
        images.in_order()
        .batch(batch_size)
        .map(
            lambda batch, labels: (normalize(batch), labels),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .prefetch(tf.data.AUTOTUNE)
        .apply(_without_tuning)
    )


def _without_tuning(stream):
    """Fixes a stream's parallel calls and buffers at once instead of tuning them as it runs.

    An iterator that ends waits for the thread that tunes, which sleeps the longer the longer the
    iterator has lived: at its end a search stood still for up to a minute.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return stream.with_options(options)


def _check_augmentation(images, augmentation):
    check(augmentation=augmentation)
    padding, side = (augmentation or {}).get("crop_padding", 0), min(images.image_shape[:2])
    if padding > side:
        raise SettingError(
            "augmentation.crop_padding",
            f"augmentation.crop_padding must be at most {side}, the images' side, "
            f"received: {padding}",
        )
