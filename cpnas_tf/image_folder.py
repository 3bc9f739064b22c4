"""Own images: a folder of files, one folder a split and in it one a class, read into memory.

    FOLDER/train/cat/1.jpg    FOLDER/test/cat/7.jpg
    FOLDER/train/dog/2.png    FOLDER/test/dog/8.png

The layout is that of TFDS's `ImageFolder`; each split's is the one that Keras's
`image_dataset_from_directory` reads. The classes are the names of the folders, sorted.
"""

import concurrent.futures
import os

import numpy as np
import tensorflow as tf

from cpnas_tf.augmentation import centre_window
from cpnas_tf.images import Images
from cpnas_tf.workdir import first_line

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
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
            others in the other split, or if files are broken, tiny, or of several sizes without an
            `image_size`.
    """
    classes = _files(path, split)
    files = [file for files in classes.values() for file in files]
    shape = _shape(files[0], image_size)
    images = np.empty([len(files), *shape], np.uint8)

    def read(index):
        try:
            images[index] = _read(files[index], shape if image_size is None else image_size)
        except ValueError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor() as pool:
        errors = [error for error in pool.map(read, range(len(files))) if error]
    if errors:
        raise ValueError(f"{len(errors)} of {len(files)} images cannot be used: {errors[0]}")
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return Images(images, labels, tuple(classes))


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
    return _decode(file).shape if image_size is None else (image_size, image_size, 3)


def _read(file, size):
    """Reads an image and brings it to a size: a shape that it has to have, or a new side."""
    image = _decode(file)
    if isinstance(size, int):
        return _resize(image, size)
    if image.shape != size:
        height, width, _ = image.shape
        raise ValueError(
            f"{file} has {height}x{width} pixels, the first image {size[0]}x{size[1]}: "
            "image_size (--config.data.image_size), the side that all are to get, is needed"
        )
    return image


def _decode(file):
    try:
        contents = tf.io.read_file(file)
        image = tf.io.decode_image(contents, channels=3, expand_animations=False).numpy()
    except tf.errors.OpError as error:
        raise ValueError(f"{file} is broken ({first_line(error)})") from None
    height, width, _ = image.shape
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"{file} has {height}x{width} pixels, "
            f"at least {SMALLEST_SIDE}x{SMALLEST_SIDE} are needed"
        )
    return image


def _resize(image, size):
    row, column, height, width = centre_window(*image.shape[:2]).numpy()
    image = image[row : row + height, column : column + width]
    return tf.cast(tf.round(tf.image.resize(image, [size, size], antialias=True)), tf.uint8)
