"""Data sets by name, and the `tf.data` pipelines over them.

`load` reads a data set through TensorFlow Datasets (TFDS), or from a folder of own files. `batches`
gives the training stream, a pure function of its arguments: what a step sees depends on the seed
and on the step's number, not on the steps before it, so that a stopped run goes on with exactly the
images it would have seen.
"""

import contextlib
import dataclasses
import io
import os
import sys
import urllib.error
import urllib.request

import tensorflow_datasets as tfds

from cpnas_tf.catalogue import DATASETS, FOLDER, SPLIT, SPLITS
from cpnas_tf.data import digits, folder, imagenet
from cpnas_tf.data.augmentation import MIDDLE, Framing
from cpnas_tf.data.images import Images
from cpnas_tf.data.streams import AnyImages
from cpnas_tf.errors import first_line
from cpnas_tf.files import exclusive, local_path
from cpnas_tf.settings import SettingError, checked


@checked("data")
def describe(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    largest_size: int | None = None,
) -> tuple[tuple[int, int, int], int]:
    """The shape of a data set's images and its number of classes, without reading them.

    Args:
        name, split, data_dir, image_size, largest_size: see `load`.

    Returns:
        `((height, width, channels), classes)`.

    Raises:
        ValueError: if the name or the split is unknown, the size impossible, or a folder not one of
            images.
    """
    _check_split(name, split)
    if name.startswith(FOLDER):
        path = _folder(name, data_dir)
        return folder.describe(path, split, image_size=image_size, largest_size=largest_size)
    known = DATASETS[name]
    shape = (image_size, image_size, *known.shape[2:]) if image_size else known.shape
    return shape, known.classes


@checked("data")
def load(
    name: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    largest_size: int | None = None,
) -> AnyImages:
    """Reads one split of a data set, in its fixed order.

    Digits are prepared on the spot; Fashion-MNIST and CIFAR-10 are downloaded by TFDS if they are
    not there; ImageNet stays in its files, whose images are decoded as they are needed.

    Args:
        name: one of `DATASETS`, or "folder:PATH" for own images, see `data.folder`.
        split: one of `SPLITS`. ImageNet's test images are what it calls validation images. Of the
            data sets that are neither ImageNet nor a folder also the first images of one, written
            as in TFDS: "train[:10000]".
        data_dir: the TFDS data directory, TFDS's own by default; it is also where a relative PATH
            begins.
        image_size: side that the images are resized to, in pixels. Needed for a folder with images
            of several sizes, unless `largest_size` is given; 224 by default for ImageNet; the
            others have a size of their own.
        largest_size: the largest side of a folder's images, in pixels, if `image_size` is to be
            chosen from them, see `data.folder.choose_size`; other data sets leave it aside.

    Returns:
        `Images`, or for ImageNet `data.imagenet.StoredImages`.

    Raises:
        ValueError: if the name or the split is unknown, the size impossible, if the data set is not
            there and cannot be prepared, or if what is there cannot be read.

    Examples:
        >>> import cpnas_tf
        >>> images = cpnas_tf.load("digits", "test", data_dir="data")
        >>> len(images), images.image_shape, images.classes
        (360, (8, 8, 1), 10)
    """
    _check_split(name, split)
    if name.startswith(FOLDER):
        return folder.load(
            _folder(name, data_dir), split, image_size=image_size, largest_size=largest_size
        )
    builder = _builder(name, data_dir)
    if name == "imagenet2012":
        stored = imagenet.load(builder, split, image_size=image_size)
        return _with_origin(stored, builder, split)
    if not builder.data_path.exists():
        _prepare(builder)
        builder = _builder(name, data_dir)
    whole, count = SPLIT.fullmatch(split).groups()  # type: ignore[union-attr] # see `checked`
    try:
        images, labels = builder.as_dataset(
            split=whole,
            batch_size=-1,
            as_supervised=True,
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        class_names = tuple(builder.info.features["label"].names)
        images = Images(images.numpy(), labels.numpy(), class_names)
    except Exception as error:  # TFDS and tf.data raise many types for broken files
        raise _unreadable(builder.data_path, error) from error
    if count and int(count) > len(images):
        raise SettingError(
            "split",
            f"split must be of the {len(images)} images in {name}'s {whole}, received: {split!r}",
        )
    images = images.take(slice(int(count or len(images))))
    images = images.resize(image_size) if image_size else images
    return _with_origin(images, builder, split)


def load_validation(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    largest_size: int | None = None,
) -> Images | None:
    """Reads the images to validate on; None of a data set that has no such part.

    Only a folder can have one: all other data sets are validated on a part of the training images.

    Args:
        name, data_dir, image_size, largest_size: see `load`.

    Raises:
        ValueError: see `load`.
    """
    if not name.startswith(FOLDER):
        return None
    path = _folder(name, data_dir)
    if not folder.has_validation(path):
        return None
    return folder.load(path, "validation", image_size=image_size, largest_size=largest_size)


def framing(name: str) -> Framing:
    """What the reader of a data set takes of a photo whose size is not the images'."""
    return imagenet.FRAMING if name == "imagenet2012" else MIDDLE


def _with_origin(images, builder, split):
    origin = {split: f"{len(images)} images of {builder.name} {builder.version}"}
    return dataclasses.replace(images, origin=origin)


def _check_split(name, split):
    has_parts = name in DATASETS and name != "imagenet2012"
    if split not in SPLITS and not has_parts:
        raise SettingError("split", f"split must be train or test for {name}, received: {split!r}")


def _folder(name, data_dir):
    return os.path.join(local_path(data_dir or ""), local_path(name.removeprefix(FOLDER)))


def _builder(name, data_dir):
    data_dir = data_dir and local_path(data_dir)
    try:
        return tfds.builder(name, data_dir=data_dir)
    except Exception as error:
        raise _unreadable(f"{data_dir or tfds.core.constants.DATA_DIR}/{name}", error) from error


def _prepare(builder):
    """Downloads and writes a data set; of several processes one does, and the others wait for it.

    TFDS writes in a folder whose name it draws from Python's global generator, the same name for
    two processes with one seed, and renames it at the end: hence the lock. A process killed midway
    leaves that folder, which TFDS ignores, and the system releases its lock.
    """
    is_bundled = isinstance(builder, digits.Digits)
    root = os.fspath(builder.data_path.parent.parent)
    try:
        if not is_bundled:
            _check_connection(next(iter(builder.url_infos)))
        shown = _quiet() if is_bundled else _on_stderr()
        with exclusive(os.path.join(root, builder.name), wait=True), shown:
            builder.download_and_prepare()
    except Exception as error:
        advice = (
            "pass a data_dir that can be written"
            if is_bundled
            else "pass the data_dir that holds it, or prepare it where there is a network: "
            f"tfds build {builder.name} --data_dir={root}"
        )
        raise SettingError(
            "data_dir",
            f"{builder.name} is not in {root} and cannot be prepared there "
            f"({first_line(error)}): {advice}",
        ) from error


def _check_connection(url):
    """Tries once to reach `url`: without a network TFDS would repeat itself for minutes.

    Raises:
        OSError: if there is no answer; any answer will do.
    """
    request = urllib.request.Request(url, method="HEAD")
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=10).close()


@contextlib.contextmanager
def _quiet():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def _on_stderr():
    """Has TFDS show its progress on standard error, if there is one."""
    stream = sys.stderr or io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield


def _unreadable(folder, error):
    return SettingError(
        "data_dir",
        f"cannot read the data set in {folder} ({first_line(error)}): "
        "delete that folder to prepare it again, or pass another data_dir",
    )
