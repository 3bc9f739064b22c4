"""Loading saved Keras models that hold layers, quantizers and optimizers of Larq or of cpnas_tf."""

import os

import larq  # noqa: F401, Keras finds by name what an imported module has registered
import tensorflow as tf

from cpnas_tf.files import local_path
from cpnas_tf.networks import quantizers, units  # noqa: F401
from cpnas_tf.training import optimizers  # noqa: F401


def load_model(path: str | os.PathLike[str]) -> tf.keras.Model:
    """Loads a model that `model.save(path)` wrote, compiled if it was saved so.

    Args:
        path: a `.keras` file, an `.h5` file or the folder of a SavedModel.

    Raises:
        ValueError: if no file can have this path.
        OSError: if there is no file or folder of this name, or none that Keras can read.

    Examples:
        >>> import cpnas_tf
        >>> network = cpnas_tf.build_network(
        ...     cpnas_tf.Genotype.load("darts"), input_shape=[8, 8, 1], classes=2, cells=3
        ... )
        >>> network.save("network.keras")
        >>> cpnas_tf.load_model("network.keras").output_shape
        (None, 2)
    """
    return tf.keras.models.load_model(local_path(path))
