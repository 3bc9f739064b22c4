"""From pixels to what a network sees: normalization and, in training, augmentation.

A window is a part of an image: its upper row, left column, height and width, in pixels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from cpnas_tf.settings import checked


def normalize(images: tf.Tensor) -> tf.Tensor:
    """Maps uint8 0..255 to float32 [-1, 1] (CP-NAS, section 3.1)."""
    # Not a division: TensorFlow makes it this product in graphs, and they would differ from eager.
    return tf.cast(images, tf.float32) * (1 / 127.5) - 1.0


def augment_batches(
    dataset: tf.data.Dataset,
    *,
    seed: int,
    first_step: int,
    fetch: Callable[..., tuple[tf.Tensor, tf.Tensor]] = lambda batch: batch,
    **settings: Any,
) -> tf.data.Dataset:
    """Augments a `tf.data.Dataset` of batches, each by its own step of a stream.

    Args:
        dataset: of batches: uint8 images and labels, or what `fetch` makes those of.
        seed: of the stream; the augmentation of a step is made of `(seed, step)`.
        first_step: the step of the first batch.
        fetch: from an element of `dataset` to images and labels.
        settings: keyword arguments of `augment`.

    Returns:
        `tf.data.Dataset` of augmented images and labels.
    """

    @tf.autograph.experimental.do_not_convert  # it would spread an error over many lines
    def make_batch(step, batch):
        images, labels = fetch(batch)
        seeds = tf.stack([tf.constant(seed, tf.int64), step])
        return augment(images, seeds, **settings), labels

    return dataset.enumerate(start=first_step).map(
        make_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )


@checked("augmentation")
def augment(
    images: tf.Tensor,
    seed: tf.Tensor,
    *,
    crop_area: float = 0.0,
    crop_padding: int = 0,
    flip: bool = False,
    cutout: int = 0,
) -> tf.Tensor:
    """Crops, flips, normalizes and cuts out a whole batch at once, a pure function of `seed`.

    Args:
        images: uint8 [batch, height, width, channels].
        seed: two integers, as TensorFlow's stateless random operations take them.
        crop_area: smallest share of an image's area that a random window takes, which is then
            resized to the image's size (see `draw_windows`); 0.08 is usual on ImageNet, and 0
            draws no windows.
        crop_padding: border of zeros, in pixels, added on each side before a random crop back to
            the image's size.
        flip: whether to mirror each image, left to right, with probability 1/2.
        cutout: side, in pixels, of the square that is set to 0 after normalization; its centre is
            a random pixel, and what lies outside the image is lost.

    Returns:
        float32 [batch, height, width, channels] in [-1, 1].

    Raises:
        ValueError: if `crop_padding` or `cutout` is negative, or `crop_area` not in [0, 1].

    References:
        DARTS' code, `_data_transforms_cifar10`: these operations in this order, on CIFAR-10 with
        `crop_padding=4, flip=True, cutout=16`. DeVries and Taylor, "Improved Regularization of
        Convolutional Neural Networks with Cutout", 2017.
    """
    batch = tf.shape(images)[0]
    height, width = images.shape[1:3]
    window_seed, crop_seed, flip_seed, cutout_seed = tf.unstack(tf.random.split(seed, 4))
    if crop_area:
        windows = draw_windows(window_seed, batch, height, width, smallest_area=crop_area)
        images = resize_windows(images, windows)
    if crop_padding or flip:
        offsets = 2 * crop_padding + 1
        images = crop(
            images,
            _draw_pixels(crop_seed, batch, offsets, offsets),
            tf.random.stateless_uniform([batch], flip_seed) < (0.5 if flip else 0.0),
            padding=crop_padding,
        )
    images = normalize(images)
    if cutout:
        images = cut_out(images, _draw_pixels(cutout_seed, batch, height, width), size=cutout)
    return images


def _draw_pixels(seed, batch, height, width):
    """Draws int32 [batch, 2], rows in 0..height - 1 and columns in 0..width - 1."""
    uniform = tf.random.stateless_uniform([batch, 2], seed)
    return tf.cast(uniform * [float(height), float(width)], tf.int32)


def crop(images: tf.Tensor, corners: tf.Tensor, mirrored: tf.Tensor, *, padding: int) -> tf.Tensor:
    """Crops zero-padded images back to their size and mirrors some of them, left to right.

    Args:
        images: [batch, height, width, channels].
        corners: int32 [batch, 2], row and column of each crop's upper left pixel in the padded
            image, in 0..2 * padding.
        mirrored: bool [batch], which crops to mirror.
        padding: width of the border of zeros, in pixels.
    """
    height, width = images.shape[1:3]
    images = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    rows = corners[:, :1] + tf.range(height)
    columns = corners[:, 1:] + tf.where(
        mirrored[:, tf.newaxis], tf.range(width)[::-1], tf.range(width)
    )
    return tf.gather(tf.gather(images, rows, batch_dims=1), columns, axis=2, batch_dims=1)


def cut_out(images: tf.Tensor, centres: tf.Tensor, *, size: int) -> tf.Tensor:
    """Sets a square of each image to 0.

    Args:
        images: float32 [batch, height, width, channels].
        centres: int32 [batch, 2], row and column of the squares' centres; the square of an even
            size begins `size / 2` pixels before its centre.
        size: the squares' side, in pixels.
    """
    height, width, channels = images.shape[1:]
    first = centres - size // 2
    rows = tf.range(height) - first[:, :1]
    # A column a channel: to broadcast over the channels would take thrice as long.
    columns = tf.repeat(tf.range(width), channels) - first[:, 1:]
    in_rows, in_columns = ((offset >= 0) & (offset < size) for offset in (rows, columns))
    square = in_rows[:, :, tf.newaxis] & in_columns[:, tf.newaxis, :]
    lines = tf.reshape(images, [-1, height, width * channels])
    return tf.reshape(tf.where(square, 0.0, lines), [-1, height, width, channels])


def draw_windows(
    seed: tf.Tensor, count: int, height: int, width: int, *, smallest_area: float
) -> tf.Tensor:
    """Draws random windows of an image, of any size and place and nearly square.

    A window's area is uniform between `smallest_area` and 1 of the image's, the logarithm of its
    width over its height uniform between those of 3/4 and 4/3. Decision: a side that is longer than
    the image's is cut, where others draw again.

    Args:
        seed: two integers.
        count: how many windows.
        height, width: the image's, in pixels.
        smallest_area: in (0, 1].

    Returns:
        int32 [count, 4]: row, column, height and width of each window.

    References:
        Szegedy et al., "Going Deeper with Convolutions", 2015, section 6.
    """
    uniform = tf.random.stateless_uniform([count, 4], seed)
    area = smallest_area + (1 - smallest_area) * uniform[:, 0]
    aspect_ratio = tf.exp((2 * uniform[:, 1] - 1) * math.log(4 / 3))
    sides = tf.cast([height, width], tf.float32)
    area *= tf.reduce_prod(sides)
    size = tf.sqrt(tf.stack([area / aspect_ratio, area * aspect_ratio], axis=1))
    size = tf.clip_by_value(tf.round(size), 1.0, sides)
    corner = tf.floor(uniform[:, 2:] * (sides - size + 1))
    return tf.cast(tf.concat([corner, size], axis=1), tf.int32)


class Framing(NamedTuple):
    """What of a photo a network sees; how a data set's reader makes images of one size.

    Attributes:
        share: side of the window in the photo's middle, as a share of the largest one that has the
            proportions of the network's images.
        antialias: whether the window is resized without aliasing.
    """

    share: float = 1.0
    antialias: bool = True


MIDDLE = Framing()


def frame(image: tf.Tensor, size: Sequence[int], framing: Framing = MIDDLE) -> tf.Tensor:
    """Resizes the middle of a photo.

    Args:
        image: uint8 [height, width, channels].
        size: (height, width) of the result, in pixels.
        framing: what of the photo is taken.

    Returns:
        uint8 [*size, channels].
    """
    photo_size = tf.shape(image)[:2]
    row, column, height, width = tf.unstack(
        centre_window(*tf.unstack(photo_size), share=framing.share, proportions=size)
    )
    window = image[row : row + height, column : column + width]
    return resize(window, size, antialias=framing.antialias)


def centre_window(
    height: int, width: int, *, share: float = 1.0, proportions: Sequence[int] = (1, 1)
) -> tf.Tensor:
    """The window in the middle of an image that has a share of the sides of the largest possible.

    Args:
        height, width: the image's, in pixels.
        share: in (0, 1].
        proportions: the window's (height, width) but for a factor; a square by default.

    Returns:
        int32 [4]: row, column, height and width of the window.
    """
    sides, shape = (tf.cast(tf.stack(pair), tf.float32) for pair in ([height, width], proportions))
    window = tf.round(share * tf.reduce_min(sides / shape) * shape)
    window = tf.cast(tf.maximum(window, 1.0), tf.int32)
    return tf.concat([(tf.stack([height, width]) - window) // 2, window], axis=0)


def resize(images: tf.Tensor, size: Sequence[int], *, antialias: bool = True) -> tf.Tensor:
    """Resizes whole images bilinearly.

    Args:
        images: [..., height, width, channels].
        size: (height, width) of the result, in pixels.
        antialias: whether without aliasing.

    Returns:
        uint8 [..., *size, channels].
    """
    resized = tf.image.resize(images, list(size), antialias=antialias)
    return tf.cast(tf.round(resized), tf.uint8)


def resize_windows(images: tf.Tensor, windows: tf.Tensor) -> tf.Tensor:
    """Cuts a window out of each image and enlarges it to the image's size, bilinearly.

    Args:
        images: [batch, height, width, channels].
        windows: int32 [batch, 4].

    Returns:
        float32 [batch, height, width, channels].
    """
    windows = tf.cast(windows, tf.float32)
    height, width = images.shape[1:3]
    rows = _bilinear(windows[:, 0], windows[:, 2], height)
    columns = _bilinear(windows[:, 1], windows[:, 3], width)
    images = tf.einsum("bow,bhwc->bhoc", columns, tf.cast(images, tf.float32))
    return tf.einsum("boh,bhwc->bowc", rows, images)


def _bilinear(first, size, length):
    """The weight of each pixel of a line in each one of the enlarged part: [batch, length, length].

    The part is `size` pixels from `first`, float32 [batch]; what lies beyond has no weight.
    """
    pixels = tf.range(length, dtype=tf.float32)
    centres = (pixels + 0.5) * size[:, tf.newaxis] / length - 0.5
    centres = first[:, tf.newaxis] + tf.clip_by_value(centres, 0.0, size[:, tf.newaxis] - 1)
    return tf.nn.relu(1 - tf.abs(centres[..., tf.newaxis] - pixels))
