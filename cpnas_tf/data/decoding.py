"""JPEG and PNG files decoded in a graph: upright, with the accurate DCT, framed and resized.

So a served network sees the pixels that the reader of its training gave it. (A PNG file's
orientation, which cameras do not write, is not read here.)

References:
    Exif 2.32 (CIPA DC-008), sections 4.5 and 4.6.4, for the orientation.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cpnas_tf.data.augmentation import MIDDLE, Framing, frame

# Of a photo; the readers of training images (Pillow) have the same limit.
MAX_PIXELS = 178_956_970
_PNG = np.frombuffer(b"\x89PNG\r\n\x1a\n", ">i4").astype(np.int32)
_EXIF = b"Exif\x00\x00"
_ORIENTATION = 0x0112
# EXIF lies in one of the first segments of a JPEG file; a segment is not longer.
_SEARCHED = 65_536 + 64
_ENTRIES = 64


def decode(contents: tf.Tensor, shape: Sequence[int], framing: Framing = MIDDLE) -> tf.Tensor:
    """Makes an image of this shape of a JPEG or PNG file of any size.

    An upright image that has the shape stays as it is; of any other the middle is resized. The
    header goes first: a small file can hold an image that fills the memory.

    Args:
        contents: the file's bytes, a string scalar.
        shape: `(height, width, channels)`.
        framing: what of a photo of another size is taken.

    Returns:
        uint8 `[height, width, channels]`.
    """
    is_jpeg = tf.io.is_jpeg(contents)
    orientation = tf.cond(is_jpeg, lambda: exif_orientation(contents), lambda: tf.constant(1))
    size = tf.cond(
        is_jpeg,
        lambda: tf.io.extract_jpeg_shape(contents)[:2],
        lambda: _png_size(contents),
    )
    fits = tf.reduce_all(size > 0) & (tf.reduce_prod(tf.cast(size, tf.int64)) <= MAX_PIXELS)
    message = f"an image must have 1 to {MAX_PIXELS} pixels"
    with tf.control_dependencies([tf.debugging.Assert(fits, [message])]):
        contents = tf.identity(contents)
    image = tf.cond(
        is_jpeg,
        lambda: tf.io.decode_jpeg(contents, channels=shape[2], dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(contents, channels=shape[2]),
    )
    image = upright(image, orientation)
    has_shape = tf.reduce_all(tf.shape(image)[:2] == shape[:2])
    image = tf.cond(has_shape, lambda: image, lambda: frame(image, shape[:2], framing))
    return tf.ensure_shape(image, shape)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image `[height, width, channels]` as an EXIF orientation, 1 to 8, says."""
    image = tf.cond(orientation > 4, lambda: _transpose(image), lambda: image)
    flipped_columns = tf.reduce_any(orientation == [2, 3, 6, 7])
    flipped_rows = tf.reduce_any(orientation == [3, 4, 7, 8])
    image = tf.cond(flipped_columns, lambda: image[:, ::-1], lambda: image)
    return tf.cond(flipped_rows, lambda: image[::-1], lambda: image)


def _transpose(image):
    """Swaps rows and columns. `tf.transpose` of uint8 logs that oneDNN wants AVX-512."""
    height, width, channels = tf.unstack(tf.shape(image))
    places = tf.range(width)[:, tf.newaxis] + width * tf.range(height)
    return tf.gather(tf.reshape(image, [-1, channels]), places)


def exif_orientation(contents: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG file, int32 1 to 8; 1 where it has none."""
    head = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 0, _SEARCHED), tf.uint8), tf.int32)
    # Zeros behind the end: reading there finds no entry.
    head = tf.pad(head, [[0, 12 * _ENTRIES + 32]])
    starts = tf.stack(
        [head[index : tf.size(head) - len(_EXIF) + index] for index in range(len(_EXIF))]
    )
    found = tf.where(tf.reduce_all(starts == np.frombuffer(_EXIF, np.uint8)[:, np.newaxis], 0))
    return tf.cond(
        tf.size(found) > 0,
        lambda: _orientation(head, tf.cast(found[0, 0], tf.int32) + len(_EXIF)),
        lambda: tf.constant(1),
    )


def _orientation(head, start):
    """The orientation of the TIFF header that begins at `start`, in its first directory."""
    little = head[start] == ord("I")

    def number(octets):
        """An unsigned number of octets `[..., n]`, in the file's byte order."""
        weights = np.array([1 << (8 * place) for place in range(octets.shape[-1])], np.int32)
        return tf.reduce_sum(octets * tf.where(little, weights, weights[::-1]), axis=-1)

    offset = number(tf.ensure_shape(head[start + 4 : start + 8], [4]))
    # A broken offset leads nowhere.
    directory = tf.clip_by_value(start + offset, start, tf.size(head) - 12 * _ENTRIES - 2)
    entries = tf.reshape(head[directory + 2 :][: 12 * _ENTRIES], [_ENTRIES, 12])
    count = number(tf.ensure_shape(head[directory : directory + 2], [2]))
    is_orientation = (number(entries[:, :2]) == _ORIENTATION) & (tf.range(_ENTRIES) < count)
    values = tf.boolean_mask(number(entries[:, 8:10]), is_orientation)
    value = tf.concat([values, [1]], 0)[0]
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _png_size(contents):
    """Height and width from the header of a PNG file, int32 [2]."""
    header = tf.io.decode_raw(contents, tf.int32, little_endian=False, fixed_length=24)
    is_png = tf.reduce_all(header[:2] == _PNG)
    with tf.control_dependencies([tf.debugging.Assert(is_png, ["an image is no JPEG or PNG"])]):
        return tf.stack([header[5], header[4]])
