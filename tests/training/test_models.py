import subprocess
import sys

import cpnas_tf  # isort: skip
import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf.networks.cells import build_network
from cpnas_tf.training.optimizers import SGD

IMAGES = np.random.default_rng(0).normal(size=[2, 8, 8, 1]).astype("float32")
LOAD = """
import sys
import cpnas_tf
assert "tensorflow" not in sys.modules
import numpy as np
images, *paths = sys.argv[1:]
for path in paths:
    model = cpnas_tf.load_model(path)
    np.save(path + ".npy", model(np.load(images)))
    print(type(model.optimizer).__module__, type(model.optimizer).__name__)
"""


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_a_fresh_process_loads_what_keras_saved(tmp_path):
    names = ["sep_conv_3x3", "skip_connect", "max_pool_3x3", *["none"] * 11]
    network = build_network(
        cpnas_tf.Genotype(normal=names, reduce=names),
        input_shape=[8, 8, 1],
        classes=3,
        cells=1,
        channels=4,
        drop_path=0.1,
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(SGD(0.1, l2=1e-4), loss)
    paths = [tmp_path / name for name in ("network.keras", "network.h5", "saved")]
    for path in paths:
        network.save(path)
    np.save(tmp_path / "images.npy", IMAGES)
    process = subprocess.run(
        [sys.executable, "-c", LOAD, tmp_path / "images.npy", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stdout.split("\n") == ["cpnas_tf.training.optimizers SGD"] * 3 + [""], process
    for path in paths:
        np.testing.assert_allclose(np.load(f"{path}.npy"), network(IMAGES), rtol=1e-5)


def test_a_path_with_no_model_is_an_error(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        cpnas_tf.load_model(tmp_path / "nowhere.keras")
