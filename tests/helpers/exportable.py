"""Small networks and images for the tests of all that is exported."""

import functools

import numpy as np
import tensorflow as tf

from cpnas_tf.data.images import Images
from cpnas_tf.genotypes import OPERATIONS, Genotype
from cpnas_tf.networks.cells import build_network

CLASS_NAMES = ("zero", "one", "two")
# Each operation once: 8 of them on the first 8 edges.
# The paper's **.
REAL_INPUTS = ("depthwise", "preprocessing")
CELL = OPERATIONS + ("none",) * 6


def make_images(count, shape=(8, 8, 1)):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, size=(count, *shape)).astype(np.uint8)
    return Images(images, random.integers(len(CLASS_NAMES), size=count), CLASS_NAMES)


IMAGES = make_images(40)


def normalized(images):
    return images.images.astype(np.float32) / 127.5 - 1


@functools.cache
def make_network(precision="child", **settings):
    """A network of one cell, a reduction, whose BN layers have seen images. Not to be changed."""
    tf.keras.utils.set_random_seed(0)
    network = build_network(
        Genotype(CELL, CELL),
        input_shape=(8, 8, 1),
        classes=len(CLASS_NAMES),
        cells=1,
        channels=4,
        precision=precision,
        **settings,
    )
    randomize_norms(network)
    for _ in range(10):
        network(normalized(IMAGES), training=True)
    mean = tf.reduce_mean(network(normalized(IMAGES), training=False), axis=0)
    network.get_layer("classifier_logits").bias.assign_sub(mean)  # so that it predicts all classes
    return network


def randomize_norms(network):
    """Gives batch normalizations scales of both signs, and offsets."""
    random = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.gamma.assign(random.normal(size=layer.gamma.shape))
            layer.beta.assign(random.normal(size=layer.beta.shape))


def small_model():
    images = tf.keras.Input([8, 8, 1])
    x = tf.keras.layers.Flatten()(images)
    return tf.keras.Model(images, tf.keras.layers.Dense(3, name="logits")(x))
