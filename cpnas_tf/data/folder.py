"""Own images: a folder of files, one folder a split and in it one a class, read into memory.

    FOLDER/train/cat/1.jpg    FOLDER/test/cat/7.jpg
    FOLDER/train/dog/2.png    FOLDER/test/dog/8.png

The layout is that of TFDS's `ImageFolder`; each split's is the one that Keras's
`image_dataset_from_directory` reads. The classes are the names of the folders, sorted.
"""

import hashlib
import math
import os

import numpy as np
import tensorflow as tf

from cpnas_tf.data.augmentation import centre_window, resize
from cpnas_tf.data.images import Images
from cpnas_tf.errors import first_line

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
# The names that a split's folder may have.
SPLITS = {"train": ("train",), "test": ("test", "validation", "val")}
SMALLEST_SIDE = 8


def describe(path, split, *, image_size=None):
    """The shape of the images and the number of classes; see `load`.

    Returns:
        `((height, width, 3), classes)`.
    """
    classes = _files(path, split)
    first = next(iter(classes.values()))[0]
    return _shape(first, image_size), len(classes)


def load(path, split, *, image_size=None):
    """Reads the images of a split, in the order of their classes' and files' names.

    Grey images, and those with a palette, transparency or the colours of print, become RGB, as
    TensorFlow decodes them; transparency is dropped. Decision: of an image of another size the
    largest square in its middle is resized, so that nothing is stretched.

    Args:
        path: the folder.
        split: one of `SPLITS`.
        image_size: side of the images, in pixels; by default they stay as they are, which has to
            be of one size.

    Returns:
        `Images`.

    Raises:
        ValueError: if a folder is missing, there are fewer than two classes, one without images, or
            others in the other split, if files are broken, tiny, or of several sizes without an
            `image_size`, or if the images do not fit in memory.
    """
    classes = _files(path, split)
    files = [file for files in classes.values() for file in files]
    shape = _shape(files[0], image_size)
    _check_memory(path, len(files), shape)
    images = np.empty([len(files), *shape], np.uint8)
    decoded = iter(
        tf.data.Dataset.from_tensor_slices(files).map(
            lambda file: _decode(file, image_size),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    )
    errors = []
    for index, file in enumerate(files):
        try:
            image = _read(file, lambda: next(decoded))
            images[index] = _check_shape(file, image, shape)
        except ValueError as error:
            errors.append(error)
    if errors:
        raise ValueError(f"{len(errors)} of {len(files)} images cannot be used: {errors[0]}")
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    origin = {f"{split}/{name}": _origin(files) for name, files in classes.items()}
    return Images(images, labels, tuple(classes), origin)


def _origin(files):
    """What tells a class's files from others, without reading them: count, sizes and names."""
    sizes = [os.path.getsize(file) for file in files]
    names = [os.fsencode(os.path.basename(file)) for file in files]
    digest = hashlib.sha256(repr([*zip(names, sizes, strict=True)]).encode()).hexdigest()
    return f"{len(files)} images, {sum(sizes)} bytes, {digest[:12]}"


def _files(path, split):
    """The paths of the image files by class."""
    folder = _folder(path, split)
    if folder is None:
        raise ValueError(
            f"folder not found: {path}/{split}; "
            f"expected are images as {path}/train/CLASS/1.jpg and {path}/test/CLASS/2.jpg"
        )
    names = _subfolders(folder)
    if len(names) < 2:
        raise ValueError(
            f"{folder} needs a folder for each of at least 2 classes, received: "
            f"{', '.join(names) or 'none'}"
        )
    _check_same(path, split, names)
    return {name: _image_files(os.path.join(folder, name)) for name in names}


def _folder(path, split):
    folders = (os.path.join(path, name) for name in SPLITS[split])
    return next(filter(os.path.isdir, folders), None)


def _subfolders(folder):
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        )


def _check_same(path, split, names):
    """Compares the classes with those of the other split, if it is there."""
    other = "test" if split == "train" else "train"
    folder = _folder(path, other)
    different = sorted(set(names) ^ set(_subfolders(folder))) if folder else []
    if different:
        has, lacks = (split, other) if different[0] in names else (other, split)
        raise ValueError(
            f"{path} has different classes in train and test, "
            f"such as {different[0]!r}, which is in {has} and not in {lacks}"
        )


def _image_files(folder):
    names = sorted(
        name
        for name in os.listdir(folder)
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    )
    if not names:
        raise ValueError(f"no image in {folder}, expected are files *{', *'.join(SUFFIXES)}")
    return [os.path.join(folder, name) for name in names]


def _shape(file, image_size):
    if image_size is not None:
        return image_size, image_size, 3
    return _read(file, lambda: _decode(file, image_size)).shape


def _check_memory(path, count, shape):
    needed = count * math.prod(shape)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise ValueError(
            f"{count} images of {shape[0]}x{shape[1]} pixels in {path} need {needed / 1e9:.1f} GB "
            f"of memory, this machine has {there / 1e9:.1f} GB: a smaller image_size is needed"
        )


def _decode(file, image_size):
    """The image in a file, uint8 [height, width, 3], and the size that it has there, int32 [2]."""
    image = tf.io.decode_image(tf.io.read_file(file), channels=3, expand_animations=False)
    image = tf.ensure_shape(image, [None, None, 3])
    size = tf.shape(image)[:2]
    if image_size is not None:
        row, column, height, width = tf.unstack(centre_window(size[0], size[1]))
        image = image[row : row + height, column : column + width]
        image = resize(image, image_size)
    return image, size


def _read(file, decode):
    """What `decode` makes of a file, checked."""
    try:
        image, (height, width) = decode()
    except tf.errors.OpError as error:
        raise ValueError(f"{file} is broken ({first_line(error)})") from None
    _check_bmp(file)
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"{file} has {height}x{width} pixels, "
            f"at least {SMALLEST_SIDE}x{SMALLEST_SIDE} are needed"
        )
    return image


def _check_bmp(file):
    """Refuses a BMP file with a palette, whose positions TensorFlow would take for shades."""
    if file.lower().endswith(".bmp"):
        with open(file, "rb") as opened:
            bits = int.from_bytes(opened.read(30)[28:], "little")
        if bits not in (24, 32):
            raise ValueError(f"{file} is a BMP file of {bits} bits a pixel: save it as PNG")


def _check_shape(file, image, shape):
    if image.shape != shape:
        raise ValueError(
            f"{file} has {image.shape[0]}x{image.shape[1]} pixels, the first image "
            f"{shape[0]}x{shape[1]}: image_size (--config.data.image_size), the side that all are "
            "to get, is needed"
        )
    return image
