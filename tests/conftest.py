"""Settles Keras 2 and quiets TensorFlow's log before any test module imports TensorFlow."""

import gc
import os

import cpnas_tf  # noqa: F401, isort: skip
import pytest
from made_once import made_once

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@pytest.fixture(scope="module", autouse=True)
def keep_collections_short():
    """Has no later garbage collection look at what a module's tests and their imports leave."""
    yield
    gc.collect()
    gc.freeze()


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
def shared_folder(tmp_path_factory, request):
    """A folder that xdist's processes have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if hasattr(request.config, "workerinput") else folder


@pytest.fixture(scope="session")
def data_dir(shared_folder):
    """The folder where the digits are prepared."""
    return made_once(shared_folder / "data", prepare_digits)


def prepare_digits(folder):
    from cpnas_tf import data

    data.load("digits", "train", data_dir=folder)


@pytest.fixture
def genotype(tmp_path):
    """A genotype's file."""
    from commands import GENOTYPE

    GENOTYPE.save(tmp_path / "genotype.json")
    return tmp_path / "genotype.json"
