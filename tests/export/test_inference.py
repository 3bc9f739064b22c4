import numpy as np
import pytest
import tensorflow as tf
from exportable import (
    IMAGES,
    REAL_INPUTS,
    make_images,
    make_network,
    normalized,
    randomize_norms,
)

from cpnas_tf.export.folding import fold
from cpnas_tf.export.inference import logits
from cpnas_tf.genotypes import Genotype
from cpnas_tf.networks.cells import add_auxiliary_tower, build_network
from cpnas_tf.networks.reference import birealnet18, wrn22_1bit


def run(model, images, **settings):
    kernels, vectors, _ = fold(model, **settings)
    kernels = {
        name: np.where(kernel.signs, kernel.scales, -kernel.scales)
        for name, kernel in kernels.items()
    }
    return logits(model, tf.constant(images), kernels=kernels, vectors=vectors).numpy()


class TestLogits:
    """Not close to what Keras computes, but equal: a 1-bit network magnifies any difference."""

    @pytest.mark.parametrize("precision", ["child", "parent"])
    def test_equal_those_of_keras(self, precision):
        network = make_network(precision)
        images = normalized(IMAGES)
        expected = network(images, training=False).numpy()
        assert len(np.unique(expected)) > 100
        np.testing.assert_array_equal(run(network, images), expected)
        folded = run(network, images, exact=False)
        np.testing.assert_array_equal(folded, expected)

    @pytest.mark.parametrize(
        "settings",
        [
            {"real_inputs": REAL_INPUTS[:1]},
            {"real_inputs": REAL_INPUTS},
            {"drop_path": 0.5},
            {"activations": 32},
            {"activations": 32, "binarization": "pcnn"},
            {"binarization": "bonn"},
            {"unit": "residual"},
            {"unit": "residual", "precision": "parent"},
            {"unit": "residual,rsign,rprelu,approx_sign,aligned"},
        ],
    )
    def test_equal_those_of_keras_with_other_settings(self, settings):
        network, images = make_network(**settings), normalized(IMAGES)
        expected = network(images, training=False).numpy()
        assert len(np.unique(expected)) > 100
        np.testing.assert_array_equal(run(network, images), expected)

    def test_equal_those_of_keras_with_the_stem_for_imagenet_and_a_tower(self):
        genotype = Genotype(("sep_conv_3x3",) * 14, ("dil_conv_3x3",) * 14)
        settings = {"cells": 2, "channels": 4, "stem": "imagenet", "real_inputs": REAL_INPUTS}
        network = build_network(genotype, input_shape=(64, 64, 3), classes=3, **settings)
        add_auxiliary_tower(network)
        randomize_norms(network)
        images = normalized(make_images(4, (64, 64, 3)))
        expected = network(images, training=False).numpy()
        np.testing.assert_array_equal(run(network, images), expected)

    def test_equal_those_of_keras_without_training(self):
        genotype = Genotype(("sep_conv_3x3",) * 14, ("dil_conv_5x5",) * 14)
        child = build_network(genotype, input_shape=(8, 8, 1), classes=3, cells=2, channels=8)
        images = normalized(IMAGES)
        expected = child(images, training=False).numpy()
        np.testing.assert_array_equal(run(child, images), expected)

    @pytest.mark.parametrize(
        ("make", "settings"),
        [
            (wrn22_1bit, {}),
            (wrn22_1bit, {"binarization": "pcnn", "activations": 32}),
            (birealnet18, {}),
        ],
    )
    def test_of_other_1_bit_networks(self, make, settings):
        model = make(input_shape=(32, 32, 3), classes=10, **settings)
        randomize_norms(model)
        images = normalized(make_images(2, (32, 32, 3)))
        expected = model(images, training=False).numpy()
        np.testing.assert_array_equal(run(model, images), expected)

    def test_of_a_sequential_model_with_dropout(self):
        layers = [tf.keras.layers.Flatten(), tf.keras.layers.Dropout(0.5)]
        model = tf.keras.Sequential([tf.keras.Input([8, 8, 1]), *layers])
        images = normalized(IMAGES)
        np.testing.assert_array_equal(run(model, images), images.reshape(40, 64))

    def test_a_shared_layer_is_refused(self):
        images = tf.keras.Input([4])
        dense = tf.keras.layers.Dense(4, name="twice")
        model = tf.keras.Model(images, dense(dense(images)))
        with pytest.raises(ValueError, match="calls 'twice' several times"):
            run(model, np.zeros([1, 4], np.float32))
