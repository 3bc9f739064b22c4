"""Settles Keras 2 and quiets TensorFlow's log before any test module imports TensorFlow."""

import os

import cpnas_tf  # noqa: F401, isort: skip
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="module")
def deterministic():
    """The same numbers in each run of a module's tests."""
    import tensorflow as tf
    from tensorflow.python.framework.config import disable_op_determinism

    tf.keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    yield
    disable_op_determinism()


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """An empty folder, where the first command prepares the digits."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def genotype(tmp_path):
    """A genotype's file."""
    from commands import GENOTYPE

    GENOTYPE.save(tmp_path / "genotype.json")
    return tmp_path / "genotype.json"
