"""Logs for TensorBoard, which need not be installed to write them.

`tf.summary.scalar` and `tf.summary.image` live in TensorBoard; `tf.summary.write`, which they call,
does not.
"""

import os
from collections.abc import Mapping

import tensorflow as tf

from cpnas_tf.errors import first_line

_METADATA = tf.compat.v1.SummaryMetadata
_SUFFIX = ".cpnas_tf"  # tells a run's own logs from those of others in the same folder

_SCALAR, _IMAGES = 1, 3  # the data classes of a tensor of numbers, and of a list of files


class Summaries:
    """Writes scalars and pictures of a run into a folder.

    Args:
        folder: of the run's logs; made with the first one.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder, self._writer = os.fspath(folder), None

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        *,
        pictures: Mapping[str, bytes] | None = None,
    ) -> None:
        """Writes what belongs to a step.

        Args:
            step: its number.
            scalars: numbers by name; a name such as `accuracy/child` sorts it under `accuracy`.
            pictures: PNG files' contents by name.

        Raises:
            OSError: if the folder cannot be written (a full disk included).
        """
        try:
            self._write(step, scalars, pictures or {})
        except tf.errors.OpError as error:
            raise OSError(f"cannot write {self._folder}: {first_line(error)}") from error

    def _write(self, step, scalars, pictures):
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._folder, filename_suffix=_SUFFIX)
        with self._writer.as_default(step=step):
            for name, value in scalars.items():
                metadata = _metadata("scalars", _SCALAR)
                tf.summary.write(name, tf.cast(value, tf.float32), metadata=metadata)
            for name, png in pictures.items():
                height, width, _ = tf.io.decode_png(png).shape
                parts = [str(width), str(height), png]
                tf.summary.write(name, tf.constant(parts), metadata=_metadata("images", _IMAGES))
        self._writer.flush()


def _metadata(plugin, data_class):
    plugin = _METADATA.PluginData(plugin_name=plugin)
    return _METADATA(plugin_data=plugin, data_class=data_class)
