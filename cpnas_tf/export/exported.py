"""An export that is asked about photos."""

import io
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from PIL import Image

from cpnas_tf.data import folder
from cpnas_tf.data.augmentation import Framing
from cpnas_tf.data.decoding import decode
from cpnas_tf.errors import first_line
from cpnas_tf.export import litert
from cpnas_tf.files import local_path, plain_path, read_json
from cpnas_tf.runs.workdir import check_format

FLATBUFFER = "model_litert.tflite"
_KEYS = {"image_shape", "classes", "framing"}  # of export.json


class Exported:
    """What `export` wrote, ready to be asked.

    Args:
        directory: the export's folder.
        flatbuffer: whether to ask the flatbuffer of LiteRT instead of the SavedModel.

    Attributes:
        class_names: the classes' names, in the order of the probabilities.

    Raises:
        ValueError: if it is no export, or one of another version.
    """

    def __init__(self, directory: str | os.PathLike[str], *, flatbuffer: bool = False) -> None:
        directory = local_path(directory)
        path = os.path.join(directory, "export.json")
        summary = read_json(path) if os.path.isfile(path) else None
        if not isinstance(summary, dict):
            raise ValueError(f"{directory} holds no export: run `cpnas export` first")
        check_format(summary, path)
        missing = sorted(_KEYS - summary.keys())
        if missing:
            raise ValueError(f"{path} lacks {', '.join(missing)}: export the network again")
        asked = os.path.join(directory, FLATBUFFER if flatbuffer else "saved_model")
        if not os.path.exists(asked):
            raise ValueError(f"{asked} is missing: export the network again")
        self.class_names = tuple(summary["classes"])
        self._ask = _flatbuffer(asked, summary) if flatbuffer else _saved_model(asked)

    def ask(self, photo: str | os.PathLike[str]) -> np.ndarray:
        """The probabilities of the classes of a photo.

        The photo is read as the images of the training were: of any size, upright.

        Args:
            photo: the file of an image, of a kind that `data.folder` reads.

        Returns:
            float32 `[classes]`.

        Raises:
            ValueError: if the file is none that can be read.
        """
        try:
            return self._ask(_encoded(photo))
        except tf.errors.OpError as error:
            raise ValueError(f"{photo} is broken ({first_line(error)})") from None


def _saved_model(path):
    """The function from the content of a JPEG or PNG file to the probabilities."""
    try:
        with plain_path(path) as plain:
            loaded = tf.saved_model.load(plain)
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"{path} cannot be read ({first_line(error)})") from None
    if "serve_bytes" not in loaded.signatures:
        raise ValueError(f"{path} takes no photos: its images have other channels")

    def ask(content):
        answer = loaded.signatures["serve_bytes"](image_bytes=tf.constant([content]))
        return answer["probabilities"][0].numpy()

    return ask


def _flatbuffer(path, summary):
    """As `_saved_model`, of LiteRT's flatbuffer."""
    with open(path, "rb") as file:
        run = litert.runner(file.read())
    framing = Framing(**summary["framing"])

    def ask(content):
        image = decode(tf.constant(content), summary["image_shape"], framing)
        (logits,) = run(image.numpy()[np.newaxis])
        return tf.nn.softmax(logits).numpy()

    return ask


def find_photos(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """The files of photos: those that are named, and all images of the folders that are.

    Raises:
        ValueError: if there is no such file, or a folder has no image.
    """
    photos: list[str] = []
    for path in map(local_path, paths):
        photos += folder.image_files(path) if os.path.isdir(path) else [path]
    return photos


def thumbnail(photo: str | os.PathLike[str], side: int) -> np.ndarray:
    """A photo, upright, of at most `side` pixels in each direction; uint8 [height, width, 3]."""
    image = Image.fromarray(folder.decode(photo))
    image.thumbnail((side, side))
    return np.asarray(image)


def _encoded(photo: str | os.PathLike[str]) -> bytes:
    """A photo as a JPEG or PNG file that a graph decodes as the training's reader did."""
    pixels = folder.decode(photo)  # of a broken file TensorFlow would write more than its error
    if folder.is_plain(photo):
        with open(photo, "rb") as file:
            return file.read()
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return png.getvalue()
