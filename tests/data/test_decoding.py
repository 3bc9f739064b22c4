import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from cpnas_tf.data import decoding, folder
from cpnas_tf.data.augmentation import Framing
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


def photo(height, width, suffix, **settings):
    """An image with edges and a texture, in a file."""
    coarse = Image.fromarray(RANDOM.integers(256, size=(5, 7, 3)).astype(np.uint8))
    file = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(file, suffix, **settings)
    return file.getvalue()


def test_a_photo_of_any_size_is_what_the_folders_reader_makes_of_it(tmp_path):
    photos = {
        "large.jpg": photo(301, 517, "JPEG", quality=90),
        "turned.jpg": photo(90, 40, "JPEG", exif=exif_bytes(6)),
        "small.png": photo(9, 11, "PNG"),
        "same.png": photo(16, 16, "PNG"),
    }
    for name, content in photos.items():
        for part in ("train/cat", "train/dog"):
            (tmp_path / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / part / name).write_bytes(content)
    read = folder.load(tmp_path, "train", image_size=16).images
    decoded = tf.function(decode, autograph=False)
    for image, name in zip(read, sorted(photos), strict=False):
        found = decoded(tf.constant(photos[name]), (16, 16, 3))
        np.testing.assert_array_equal(found, image, err_msg=name)


def test_a_framing_takes_less_of_a_photo():
    content = photo(128, 192, "JPEG")
    framing = Framing(share=0.5, antialias=False)
    image = np.asarray(Image.open(io.BytesIO(content)))
    expected = np.rint(tf.image.resize(image[32:96, 64:128], [16, 16]))
    np.testing.assert_array_equal(decode(tf.constant(content), (16, 16, 3), framing), expected)


def test_a_photo_has_the_proportions_of_the_networks_images():
    content = photo(128, 192, "PNG")
    image = np.asarray(Image.open(io.BytesIO(content)))
    expected = np.rint(tf.image.resize(image[:, 64:128], [24, 12], antialias=True))
    np.testing.assert_array_equal(decode(tf.constant(content), (24, 12, 3)), expected)


@pytest.mark.parametrize("size", [(20_000, 20_000), (0, 8), (2**32 - 1, 2**32 - 1)])
def test_a_header_of_too_many_pixels_or_none_is_an_error(size):
    content = photo(8, 8, "PNG")
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have 1 to 178956970 pixels"):
        decode(tf.constant(content[:16] + struct.pack(">II", *size) + content[24:]), (8, 8, 3))


def test_the_limit_is_pillows():
    assert 2 * Image.MAX_IMAGE_PIXELS == decoding.MAX_PIXELS
