"""A training of a second: 26 images of three classes, and networks of a few weights."""

import os

import cpnas_tf  # noqa: F401, isort: skip
import numpy as np
import tensorflow as tf

from cpnas_tf import data, training
from cpnas_tf.genotypes import EDGES, Genotype
from cpnas_tf.networks.cells import build_network
from cpnas_tf.runs.history import TIMES
from cpnas_tf.training import callback
from cpnas_tf.training.child_parent import ChildParentLoss

EPOCHS, STEPS, BATCH = 4, 3, 8
CLASS_NAMES = ("zero", "one", "two")
GENOTYPE = Genotype(
    normal=("none",) * len(EDGES),
    reduce=("skip_connect", "max_pool_3x3", *["none"] * (len(EDGES) - 3), "dil_conv_3x3"),
)
NETWORK = {"cells": 1, "channels": 2}
AUGMENTATION = {"crop_padding": 1, "flip": True, "cutout": 2}


def make_images(count, *, seed):
    """Images whose brighter third tells the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(len(CLASS_NAMES), size=count)
    images = random.integers(0, 200, size=(count, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 3] += 55
    return data.Images(images.astype(np.uint8), labels, CLASS_NAMES)


IMAGES = make_images(STEPS * BATCH + 2, seed=1)
VALIDATION = make_images(11, seed=2)


def small_model(*, filters=2, classes=3):
    tf.keras.utils.set_random_seed(0)
    images = tf.keras.Input([8, 8, 1])
    x = tf.keras.layers.Conv2D(filters, 3, name="convolution")(images)
    x = tf.keras.layers.BatchNormalization(name="bn")(x)
    x = tf.keras.layers.Flatten()(x)
    return tf.keras.Model(images, tf.keras.layers.Dense(classes, name="logits")(x))


def child_model(**settings):
    tf.keras.utils.set_random_seed(0)
    shape = {"input_shape": (8, 8, 1), "classes": len(CLASS_NAMES)}
    return build_network(GENOTYPE, **shape, **{**NETWORK, **settings})


def child_loss():
    return ChildParentLoss(filter_weight=0.5, centre_weight=0.25)


def train(model, folder, images=IMAGES, **settings):
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 0.05, **settings}
    return training.train(model, images, validation=VALIDATION, directory=folder, **settings)


def train_child(model, folder, loss=None, **settings):
    settings = {"optimizer": "adam", "augmentation": AUGMENTATION, **settings}
    return train(model, folder, child_parent=loss or child_loss(), **settings)


def untimed(history):
    """The history without what tells how long it took."""
    return [{name: row[name] for name in row if name not in TIMES} for row in history]


def values(variables):
    return {f"{n} {variable.name}": np.array(variable) for n, variable in enumerate(variables)}


def assert_same(found, expected):
    """Compares dicts of arrays bit by bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name


def state(model, loss=None):
    """All that a training step changes: weights, BN averages, optimizer and class centres."""
    variables = values([*model.variables, *model.optimizer.variables])
    return {**variables, "centres": loss.centres.numpy()} if loss else variables


def checkpoint_files(folder):
    return {
        path.name: path.read_bytes()
        for path in (folder / "checkpoints").iterdir()
        if path.is_file()
    }


def truncate(path, size):
    """Cuts a file to a share of its size, or by a number of bytes if negative."""
    total = os.path.getsize(path)
    os.truncate(path, total + size if size < 0 else int(total * size))


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def at_epoch(monkeypatch, hook, epoch, action, *, call=1):
    """Does `action(model)` at the start of the n-th call of a training's hook in an epoch."""
    original = getattr(callback.EpochCallback, hook)
    calls = []

    def act(self, *args, **kwargs):
        if len(self.rows) + 1 == epoch:
            calls.append(hook)
            if len(calls) == call:
                action(self.model)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(callback.EpochCallback, hook, act)
