"""The paper's units and recipe, written plainly in Keras and Larq, train to the same end."""

import cpnas_tf  # noqa: F401, isort: skip
import math

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from small_training import BATCH, IMAGES, STEPS, train

from cpnas_tf import data
from cpnas_tf.genotypes import EDGES, Genotype
from cpnas_tf.networks.cells import build_network

pytestmark = pytest.mark.usefixtures("deterministic")

layers = tf.keras.layers
EPOCHS = 2
CELL = dict.fromkeys(EDGES, "none") | {
    (0, 2): "skip_connect",
    (1, 2): "max_pool_3x3",
    (2, 3): "dil_conv_3x3",
    (0, 4): "sep_conv_3x3",
    (2, 5): "avg_pool_3x3",
}


def sign_of_channels(kernel):
    alpha = tf.stop_gradient(tf.reduce_mean(tf.abs(kernel), axis=[0, 1], keepdims=True))
    return alpha * lq.quantizers.SteSign()(kernel)


def norm(x):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def pointwise(x, *, filters=4, stride=1):
    return lq.layers.QuantConv2D(
        filters,
        1,
        strides=stride,
        padding="same",
        use_bias=False,
        input_quantizer="ste_sign",
        kernel_quantizer="magnitude_aware_sign",
        kernel_constraint="weight_clip",
    )(x)


def separable(x, *, stride=1, dilation=1):
    x = lq.layers.QuantDepthwiseConv2D(
        3,
        strides=stride,
        dilation_rate=dilation,
        padding="same",
        use_bias=False,
        input_quantizer="ste_sign",
        depthwise_quantizer=sign_of_channels,
        depthwise_constraint="weight_clip",
    )(x)
    return norm(pointwise(norm(x)))


def plain_child():
    """One reduction cell of `CELL`, C = 2 doubled to 4, for images of 8x8 and three classes."""
    images = tf.keras.Input([8, 8, 1])
    stem = norm(layers.Conv2D(6, 3, padding="same", use_bias=False)(images))
    input0, input1 = norm(pointwise(stem)), norm(pointwise(stem))
    halves = [pointwise(x, filters=2, stride=2) for x in (input0, input0[:, 1:, 1:])]
    pooled = norm(layers.MaxPooling2D(3, 2, padding="same")(input1))
    node2 = layers.add([norm(layers.concatenate(halves)), pooled])
    node3 = separable(node2, dilation=2)
    node4 = separable(separable(input0, stride=2))
    node5 = norm(layers.AveragePooling2D(3, 1, padding="same")(node2))
    x = layers.GlobalAveragePooling2D()(layers.concatenate([node2, node3, node4, node5]))
    return tf.keras.Model(images, layers.Dense(3)(x))


def train_plainly(model):
    """SGD 0.025 with momentum 0.9, cosine to 0, gradients clipped at 5, then L2 of 3e-4."""
    cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    velocities = [tf.zeros_like(variable) for variable in model.trainable_variables]

    @tf.function
    def gradients_of(images, labels):
        loss = cross_entropy(labels, model(images, training=True))
        return tf.gradients(loss, model.trainable_variables)

    batches = data.batches(IMAGES, batch_size=BATCH, seed=0, epochs=EPOCHS)
    for step, (images, labels) in enumerate(batches.take(EPOCHS * STEPS)):
        gradients, _ = tf.clip_by_global_norm(gradients_of(images, labels), 5.0)
        rate = 0.0125 * (1 + math.cos(math.pi * step / (EPOCHS * STEPS)))
        for number, variable in enumerate(model.trainable_variables):
            gradient = gradients[number] + 3e-4 * variable
            velocities[number] = 0.9 * velocities[number] - rate * gradient
            variable.assign_add(velocities[number])
            if variable.constraint:
                variable.assign(variable.constraint(variable))


def test_a_training_by_the_papers_recipe_is_that_of_keras_and_larq(tmp_path):
    tf.keras.utils.set_random_seed(0)
    ours = build_network(
        Genotype(("none",) * len(EDGES), tuple(CELL.values())),
        input_shape=(8, 8, 1),
        classes=3,
        cells=1,
        channels=2,
    )
    plain = plain_child()
    plain.set_weights(ours.get_weights())
    images = IMAGES.images / np.float32(127.5) - 1
    np.testing.assert_array_equal(plain(images), ours(images))
    before = ours.get_weights()
    train(ours, tmp_path, epochs=EPOCHS, learning_rate=0.025)
    train_plainly(plain)
    names = [weight.name for weight in ours.weights]
    ends = ours.get_weights(), plain.get_weights()
    moved = []
    for name, old, found, expected in zip(names, before, *ends, strict=True):
        moved.append(np.abs(expected - old).max())
        tolerance = 0.01 * moved[-1] + 1e-7
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=name)
    assert np.mean(np.greater(moved, 1e-5)) > 0.9  # a BN's offset before another BN does not
