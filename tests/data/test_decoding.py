import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from cpnas_tf.data.decoding import decode, exif_orientation

RANDOM = np.random.default_rng(0)
IMAGE = Image.fromarray(RANDOM.integers(256, size=(6, 4, 3)).astype(np.uint8)).resize((16, 24))


def jpeg(exif=None):
    file = io.BytesIO()
    IMAGE.save(file, "JPEG", quality=95, **({} if exif is None else {"exif": exif}))
    return file.getvalue()


def exif_bytes(orientation, *, order="<", before=0):
    """An EXIF segment's content with `before` other entries before the orientation."""
    entries = [struct.pack(f"{order}HHII", 0x0100, 4, 1, 7)] * before
    entries.append(struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return b"Exif\0\0" + head + directory


@pytest.mark.parametrize("before", [0, 5])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_what_pillow_shows(orientation, order, before):
    content = jpeg(exif_bytes(orientation, order=order, before=before))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    assert expected.shape == ((24, 16, 3) if orientation < 5 else (16, 24, 3))
    found = tf.function(decode, autograph=False)(tf.constant(content), expected.shape)
    np.testing.assert_array_equal(found, expected)


def test_no_orientation_and_nonsense_are_1():
    whole = exif_bytes(6)
    assert exif_orientation(jpeg()).numpy() == 1
    assert exif_orientation(jpeg(whole)).numpy() == 6
    for content in (exif_bytes(0), exif_bytes(9), exif_bytes(65_535), whole[:12], whole[:6]):
        assert exif_orientation(jpeg(content)).numpy() == 1


def test_any_octet_of_the_orientation_may_be_wrong():
    content = jpeg(exif_bytes(6))
    start = content.index(b"Exif")
    for place in range(start, start + 28):
        broken = bytearray(content)
        broken[place] = 0xFF
        assert 1 <= exif_orientation(bytes(broken)).numpy() <= 8


@pytest.mark.parametrize("orientation", [1, 6])
def test_another_shape_is_an_error(orientation):
    shape = (16, 24, 3) if orientation == 1 else (24, 16, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="images must have"):
        decode(tf.constant(jpeg(exif_bytes(orientation))), shape)
