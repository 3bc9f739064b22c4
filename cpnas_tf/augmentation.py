"""From pixels to what a network sees: normalization and, in training, DARTS' augmentation."""

import tensorflow as tf


def normalize(images):
    """Maps uint8 0..255 to float32 [-1, 1] (CP-NAS, section 3.1)."""
    # Not a division: TensorFlow makes it this product in graphs, and they would differ from eager.
    return tf.cast(images, tf.float32) * (1 / 127.5) - 1.0


def augment(images, seed, *, crop_padding=0, flip=False, cutout=0):
    """Crops, flips, normalizes and cuts out a whole batch at once, a pure function of `seed`.

    Args:
        images: uint8 [batch, height, width, channels].
        seed: two integers, as TensorFlow's stateless random operations take them.
        crop_padding: border of zeros, in pixels, added on each side before a random crop back to
            the image's size.
        flip: whether to mirror each image, left to right, with probability 1/2.
        cutout: side, in pixels, of the square that is set to 0 after normalization; its centre is
            a random pixel, and what lies outside the image is lost.

    Returns:
        float32 [batch, height, width, channels] in [-1, 1].

    Raises:
        ValueError: if `crop_padding` or `cutout` is negative.

    References:
        DARTS' code, `_data_transforms_cifar10`: these operations in this order, on CIFAR-10 with
        `crop_padding=4, flip=True, cutout=16`. DeVries and Taylor, "Improved Regularization of
        Convolutional Neural Networks with Cutout", 2017.
    """
    for name, value in (("crop_padding", crop_padding), ("cutout", cutout)):
        if value < 0:
            raise ValueError(f"{name} must be at least 0, received: {value}")
    batch = tf.shape(images)[0]
    height, width = images.shape[1:3]
    crop_seed, flip_seed, cutout_seed = tf.unstack(tf.random.split(seed, 3))
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


def crop(images, corners, mirrored, *, padding):
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


def cut_out(images, centres, *, size):
    """Sets a square of each image to 0.

    Args:
        images: float32 [batch, height, width, channels].
        centres: int32 [batch, 2], row and column of the squares' centres; the square of an even
            size begins `size / 2` pixels before its centre.
        size: the squares' side, in pixels.
    """
    height, width = images.shape[1:3]
    first = centres - size // 2
    rows = tf.range(height) - first[:, :1]
    columns = tf.range(width) - first[:, 1:]
    in_rows, in_columns = ((offset >= 0) & (offset < size) for offset in (rows, columns))
    square = in_rows[:, :, tf.newaxis, tf.newaxis] & in_columns[:, tf.newaxis, :, tf.newaxis]
    return tf.where(square, 0.0, images)
