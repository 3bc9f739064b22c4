"""Own images: a folder of files, one folder per split and in it one per class, read into memory.

    FOLDER/train/cat/1.jpg    FOLDER/test/cat/7.jpg        FOLDER/cat/1.jpg
    FOLDER/train/dog/2.png    FOLDER/test/dog/8.png   or   FOLDER/dog/2.png

The layout is that of TFDS's `ImageFolder`; each split's, and that of a folder without splits, is
the one that Keras's `image_dataset_from_directory` reads. The classes are the names of the folders,
sorted by Unicode's code points: capitals first.

There may be a folder to validate on beside those, and then no choice is made by the test images. A
folder without splits is divided into three, class by class: 70% of the images to train on, 15% to
validate on and 15% to test with. The names of the files alone decide which are which.
"""

import concurrent.futures
import contextlib
import hashlib
import math
import os
import stat
import statistics
import unicodedata
import warnings
import zlib

import numpy as np
from absl import logging
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from cpnas_tf.catalogue import SMALLEST_SIDE
from cpnas_tf.data.augmentation import frame
from cpnas_tf.data.images import Images, check_memory
from cpnas_tf.files import check_utf8
from cpnas_tf.settings import SettingError

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg"),
    *(".png", ".tif", ".tiff", ".webp"),
)
# Images that are not read, but that are not left out without a word either.
OTHER_SUFFIXES = (".arw", ".cr2", ".dng", ".eps", ".heic", ".heif", ".nef", ".psd", ".svg")
# The names that a split's folder may have. Without a test folder, one to validate on is for tests.
SPLITS = {"train": ("train",), "test": ("test",), "validation": ("validation", "valid", "val")}
HELD_OUT = 0.15  # of a class in a folder without splits, for each of validation and test
# A side that is chosen is a multiple of 4, for two reduction cells.
_MULTIPLE = 4
_MANY_PIXELS, _SIDE_OF_MANY = 2_000_000, 32


def describe(
    path: str | os.PathLike[str],
    split: str,
    *,
    image_size: int | None = None,
    largest_size: int | None = None,
) -> tuple[tuple[int, int, int], int]:
    """The shape of the images and the number of classes; see `load`.

    Returns:
        `((height, width, 3), classes)`.
    """
    image_size = _chosen(path, image_size, largest_size)
    classes = _files(path, split)
    first = next(iter(classes.values()))[0]
    return _shape(first, image_size), len(classes)


def load(
    path: str | os.PathLike[str],
    split: str,
    *,
    image_size: int | None = None,
    largest_size: int | None = None,
) -> Images:
    """Reads the images of a split, in the order of their classes' and files' names.

    Every image is what `PIL.Image.open(file).convert("RGB")` gives after its EXIF orientation is
    applied: upright, the first frame of an animation, JPEG decoded by the accurate DCT. Grey images
    and those with a palette or the colours of print become RGB. Transparency is dropped, as Keras
    and torchvision do it. Of 16 bits per sample the upper 8 count. What a file is, its content
    says, not its name's suffix. Decision: of an image of another size the largest square in its
    middle is resized, so that nothing is stretched.

    Folders below a class's folder belong to the class. Hidden files are left out. A class's name is
    its folder's in Unicode's composed form (NFC), so that folders from different systems agree.

    Args:
        path: the folder.
        split: one of `SPLITS`.
        image_size: side of the images, in pixels; by default they stay as they are, which has to
            be of one size.
        largest_size: the largest side that `choose_size` may choose for `image_size`, if that is
            not given.

    Returns:
        `Images`.

    Raises:
        ValueError: if a folder is missing, there are fewer than two classes, one without images, or
            others in the other split, if files are broken, tiny, or of several sizes without an
            `image_size`, or if the images do not fit in memory.
    """
    image_size = _chosen(path, image_size, largest_size)
    classes = _files(path, split)
    files = [file for files in classes.values() for file in files]
    shape = _shape(files[0], image_size)
    check_memory(len(files), shape)
    images = np.empty([len(files), *shape], np.uint8)

    def read(index):
        images[index] = _check_shape(files[index], _read(files[index], image_size), shape)

    errors = []
    with _quiet(), concurrent.futures.ThreadPoolExecutor() as pool:
        for done in [pool.submit(read, index) for index in range(len(files))]:
            try:
                done.result()
            except ValueError as error:
                errors.append(error)
    if errors:
        first, message = (
            errors[0],
            f"{len(errors)} of {len(files)} images cannot be used: {errors[0]}",
        )
        if isinstance(first, SettingError):
            raise SettingError(first.setting, message)
        raise ValueError(message)
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    root = _root(path, split)
    origin = {f"{split}/{name}": _origin(files, root) for name, files in classes.items()}
    return Images(images, labels, tuple(classes), origin)


def has_validation(path: str | os.PathLike[str]) -> bool:
    """Whether there are images to validate on beside those to train on and those to test with."""
    return _is_whole(path) or all(_folder(path, split) for split in SPLITS)


def choose_size(path: str | os.PathLike[str], largest: int) -> int:
    """A side of all images, in pixels, that suits the images to train on.

    It enlarges at most half of them. Decision: images of it have at most 2 million pixels together,
    a size that is quick to train on, or else 32 pixels on each side: 64 up to 488 images, 32 from
    1953 on.

    Args:
        path: the folder.
        largest: the largest side.

    Raises:
        ValueError: if a folder is missing, or none of the files is an image.
    """
    files = [file for files in _files(path, "train").values() for file in files]
    with _quiet(), concurrent.futures.ThreadPoolExecutor() as pool:
        sides = [side for side in pool.map(_shorter_side, files) if side]
    if not sides:
        raise ValueError(f"none of the {len(files)} images in {path} can be read")
    many = max(_SIDE_OF_MANY, math.isqrt(_MANY_PIXELS // len(files)))
    side = min(statistics.median_low(sides), largest, many)
    return max(side - side % _MULTIPLE, SMALLEST_SIDE)


def _chosen(path, image_size, largest_size):
    return choose_size(path, largest_size) if image_size is None and largest_size else image_size


def _shorter_side(file):
    """The shorter side of the image in a file, in pixels; None of a broken one, refused later."""
    try:
        with Image.open(file) as image:
            return min(image.size)
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return None


def _origin(files, root):
    """What tells a class's files from others: count, size, and a checksum of names and contents."""
    size, checksum = 0, 0
    names = {unicodedata.normalize("NFC", os.path.relpath(file, root)): file for file in files}
    for name, file in sorted(names.items()):
        with open(file, "rb") as opened:
            content = opened.read()
        size += len(content)
        checksum = zlib.crc32(content, zlib.crc32(f"{name}\0{len(content)}\0".encode(), checksum))
    return f"{len(files)} images ({size} bytes, checksum {checksum:08x})"


def _files(path, split):
    """The paths of the image files by class."""
    folder = _root(path, split)
    if folder is None:
        raise ValueError(
            f"folder not found: {path}/{split}; expected are images as {path}/train/CLASS/1.jpg "
            f"and {path}/test/CLASS/2.jpg, or as {path}/CLASS/1.jpg, to be divided"
        )
    classes = _subfolders(folder)
    if len(classes) < 2:
        raise ValueError(
            f"{folder} needs a folder for each of at least 2 classes, received: "
            f"{', '.join(classes) or 'none'}"
        )
    if not _is_whole(path):
        _check_same(path, split, classes)
        return {name: image_files(folder) for name, folder in classes.items()}
    return {name: _part(image_files(folder), split, folder) for name, folder in classes.items()}


def _folder(path, split):
    """The folder of a split; None if there is none."""
    folders = (os.path.join(path, name) for name in SPLITS[split])
    return next(filter(os.path.isdir, folders), None)


def _is_whole(path):
    """Whether a folder has the classes' folders in it and none of splits."""
    has_splits = any(_folder(path, split) for split in SPLITS)
    return not has_splits and os.path.isdir(path) and bool(_subfolders(path))


def _root(path, split):
    """The folder with the classes' folders that a split's images are in; None if there is none."""
    if _is_whole(path):
        return path
    found = _folder(path, split)
    return _folder(path, "validation") if split == "test" and not found else found


def _part(files, split, folder):
    """A split's part of the files of a class that are in a folder, in their order.

    The files are dealt out in the order of their names' hashes, so that neighbours in a series of
    photos come apart, and that a further photo moves few of the others.
    """
    if len(files) < len(SPLITS):
        raise ValueError(
            f"{folder} needs at least {len(SPLITS)} images, to train on, to validate on and to "
            f"test with, received: {len(files)}"
        )
    names = {file: unicodedata.normalize("NFC", os.path.relpath(file, folder)) for file in files}
    dealt = sorted(files, key=lambda file: hashlib.sha256(names[file].encode()).digest())
    end = max(1, round(HELD_OUT * len(files)))
    parts = {"test": dealt[:end], "validation": dealt[end : 2 * end], "train": dealt[2 * end :]}
    part = {*parts[split]}
    return [file for file in files if file in part]


def _subfolders(folder):
    """The folders of the classes by the classes' names, in the names' order."""
    with os.scandir(folder) as entries:
        paths = sorted(
            entry.path for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        )
    classes = {}
    for path in paths:
        name = _class_name(path)
        if name in classes:
            raise ValueError(
                f"{path!r} and {classes[name]!r} are the same name in two forms of Unicode: "
                "rename one of them"
            )
        classes[name] = path
    return dict(sorted(classes.items()))


def _class_name(path):
    """The name of a class in composed form; it is a line of the text files that are written."""
    check_utf8(path)
    name = os.path.basename(path)
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        raise ValueError(f"the folder {path!r} has a control character in its name: rename it")
    return unicodedata.normalize("NFC", name)


def _check_same(path, split, names):
    """Compares the classes with those of another split, if it is there."""
    other = "test" if split == "train" else "train"
    folder = _root(path, other)
    different = sorted(set(names) ^ set(_subfolders(folder))) if folder else []
    if different:
        has, lacks = (split, other) if different[0] in names else (other, split)
        both = " and ".join(each for each in SPLITS if each in (split, other))
        raise ValueError(
            f"{path} has different classes in {both}, "
            f"such as {different[0]!r}, which is in {has} and not in {lacks}"
        )


def image_files(folder: str | os.PathLike[str]) -> list[str]:
    """The paths of the images in a folder, those in its subfolders included, in order.

    Raises:
        ValueError: if there is none.
    """
    files: list[str] = []
    left_out: list[str] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = [name for name in folders if name.lower().endswith(SUFFIXES)]  # refused later
        for name in sorted([*images, *(name for name in names if not name.startswith("."))]):
            path = os.path.join(parent, name)
            if name.lower().endswith(SUFFIXES):
                check_utf8(path)
                files.append(path)
            elif name.lower().endswith(OTHER_SUFFIXES):
                left_out.append(path)
    if left_out:
        logging.warning(
            "%d images are left out, such as %s: save them as JPEG or PNG",
            len(left_out),
            left_out[0],
        )
    if not files:
        raise ValueError(f"no image in {folder}, expected are files *{', *'.join(SUFFIXES)}")
    return files


@contextlib.contextmanager
def _quiet():
    """Keeps Pillow's warnings, of odd metadata and large images, from the user."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def _shape(file, image_size):
    if image_size is not None:
        return image_size, image_size, 3
    with _quiet():
        return _read(file, None).shape


def _read(file, image_size):
    """The image in a file, uint8 [height, width, 3], its middle resized to `image_size` if given.

    Raises:
        ValueError: naming the file, if it is broken, no image or too small.
    """
    image = decode(file)
    height, width = image.shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"{file} has {height}x{width} pixels, "
            f"at least {SMALLEST_SIDE}x{SMALLEST_SIDE} are needed"
        )
    if image_size is not None:
        image = frame(image, [image_size, image_size]).numpy()
    return image


def decode(file: str | os.PathLike[str]) -> np.ndarray:
    """The image in a file as a viewer shows it, uint8 [height, width, 3].

    Raises:
        ValueError: naming the file, if it is broken or no image.
    """
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise ValueError(f"{file} is no file: remove it, or give the folder another name")
        with Image.open(file) as image:
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError:
        raise ValueError(f"{file} is broken (no image that can be read)") from None
    except (OSError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"{file} is broken ({reason})") from None


def is_plain(file: str | os.PathLike[str]) -> bool:
    """Whether TensorFlow decodes a file as `decode` does, by `data.decoding`."""
    try:
        with _quiet(), Image.open(file) as image:
            is_upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            is_turned = image.format == "JPEG" or is_upright
            return image.format in ("JPEG", "PNG") and image.mode in ("RGB", "L") and is_turned
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return False


def _to_rgb(image):
    if image.mode.startswith("I"):  # 16 bits per sample: the upper 8
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def _check_shape(file, image, shape):
    if image.shape != shape:
        raise SettingError(
            "image_size",
            f"image_size, the side that all images are to get, is needed: {file} has "
            f"{image.shape[0]}x{image.shape[1]} pixels, the first image {shape[0]}x{shape[1]}",
        )
    return image
