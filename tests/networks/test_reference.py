"""The reference networks: their costs in plain arithmetic, and their wiring, written once more."""

import itertools

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf.networks import costs
from cpnas_tf.networks.binarizations import PcnnSign, XnorSign
from cpnas_tf.networks.quantizers import UnscaledSign
from cpnas_tf.networks.reference import (
    birealnet18,
    build,
    resnet18,
    resnet18_1bit,
    wrn22,
    wrn22_1bit,
)

# With the sign of their 3x3 convolutions but the stem, and the kernels.
NETWORKS = {
    "wrn22": (wrn22, {}, None, None),
    "resnet18": (resnet18, {}, None, None),
    "wrn22_1bit": (wrn22_1bit, {}, "SteSign", "MagnitudeAwareSign"),
    "resnet18_1bit": (resnet18_1bit, {}, "SteSign", "MagnitudeAwareSign"),
    "birealnet18": (birealnet18, {}, "ApproxSign", "MagnitudeAwareSign"),
    "wrn22_1bit pcnn": (
        *(wrn22_1bit, {"binarization": "pcnn", "activations": 32}),
        *(None, "PcnnSign"),
    ),
    "resnet18_1bit xnor": (
        *(resnet18_1bit, {"binarization": "xnor", "activations": 32}),
        *(None, "XnorSign"),
    ),
    "birealnet18 bonn": (birealnet18, {"binarization": "bonn"}, "SteSign", "BonnSign"),
}
# The kernels of 3x3 convolutions between the stem and the classifier, by stage: six in each of
# WRN-22's, four in each of ResNet-18's.
WRN_STAGES = [9 * (a * b + 5 * b * b) for a, b in ((64, 64), (64, 128), (128, 256))]
RESNET_STAGES = [9 * (a * b + 3 * b * b) for a, b in ((64, 64), (64, 128), (128, 256), (256, 512))]
WRN_SHORTCUTS = [64 * 128, 128 * 256]
RESNET_SHORTCUTS = [*WRN_SHORTCUTS, 256 * 512]


def total(network):
    return costs.total(costs.layer_costs(network()))


def test_wrn22():
    stem, classifier = 27 * 64, 256 * 10 + 10
    counts = total(wrn22)
    parameters = stem + sum(WRN_STAGES) + sum(WRN_SHORTCUTS) + classifier
    assert counts["real_parameters"] == parameters == 4_321_482
    assert counts["bits"] / 1e6 == pytest.approx(138.29, abs=0.005)
    kernels = [stem + WRN_STAGES[0], *np.add(WRN_STAGES[1:], WRN_SHORTCUTS)]
    macs = np.dot(kernels, [32**2, 16**2, 8**2]) + 256 * 10
    assert counts["flops"] == counts["real_macs"] == macs
    assert macs / 1e6 == pytest.approx(647.69, abs=0.005)
    assert counts["binary_parameters"] == counts["binary_macs"] == 0


def test_wrn22_1bit():
    counts = total(wrn22_1bit)
    stem, classifier = 27 * 64, 256 * 10 + 10
    assert counts["binary_parameters"] == sum(WRN_STAGES)
    assert counts["real_parameters"] == stem + sum(WRN_SHORTCUTS) + classifier
    assert counts["bits"] / 1e6 == pytest.approx(5.71, rel=0.01)  # CP-NAS, Table 3
    assert counts["binary_macs"] == np.dot(WRN_STAGES, [32**2, 16**2, 8**2])
    shortcuts = np.dot(WRN_SHORTCUTS, [16**2, 8**2])
    assert counts["real_macs"] == stem * 32**2 + shortcuts + 256 * 10


def test_resnet18():
    counts = total(resnet18)
    convolutions = 49 * 3 * 64 + sum(RESNET_STAGES) + sum(RESNET_SHORTCUTS)
    assert convolutions == 11_166_912  # the 11.17 M of CP-NAS, Table 2
    assert counts["real_parameters"] == convolutions + 512 * 1000 + 1000 == 11_679_912
    kernels = np.add(RESNET_STAGES, [0, *RESNET_SHORTCUTS])
    macs = 49 * 3 * 64 * 112**2 + np.dot(kernels, [56**2, 28**2, 14**2, 7**2]) + 512 * 1000
    assert counts["flops"] == counts["real_macs"] == macs


def test_resnet18_1bit_costs_as_birealnet18():
    assert total(resnet18_1bit) == total(birealnet18)


def test_birealnet18():
    counts = total(birealnet18)
    assert counts["binary_parameters"] == sum(RESNET_STAGES)
    real = 49 * 3 * 64 + sum(RESNET_SHORTCUTS) + 512 * 1000 + 1000
    assert counts["real_parameters"] == real
    assert counts["binary_macs"] == np.dot(RESNET_STAGES, [56**2, 28**2, 14**2, 7**2])
    shortcuts = np.dot(RESNET_SHORTCUTS, [28**2, 14**2, 7**2])
    assert counts["real_macs"] == 49 * 3 * 64 * 112**2 + shortcuts + 512 * 1000


@pytest.mark.parametrize("name", ["pcnn", "xnor"])
def test_wrn22_with_1_bit_kernels_alone(name):
    """One bit per weight, and the MACs of WRN-22."""
    counts = costs.total(costs.layer_costs(wrn22_1bit(binarization=name, activations=32)))
    one_bit, real = total(wrn22_1bit), total(wrn22)
    for count in ("binary_parameters", "real_parameters", "bits"):
        assert counts[count] == one_bit[count]
    assert counts["binary_macs"] == 0
    assert counts["flops"] == counts["real_macs"] == real["real_macs"]


@pytest.fixture(scope="module", params=NETWORKS)
def small(request):
    """Each network for images of 32x32 and 3 classes, with batch normalization that does a lot."""
    network, settings, *_ = NETWORKS[request.param]
    model = network(input_shape=(32, 32, 3), classes=3, **settings)
    model.row = request.param
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def images(batch=2):
    return np.random.default_rng(0).uniform(-1, 1, (batch, 32, 32, 3)).astype("float32")


def wide_resnet(layer, x, activation):
    """Zagoruyko and Komodakis, 2016: BN, activation, convolution; twice a block."""
    x = layer("stem")(x)
    for block in itertools.product((1, 2, 3), (1, 2, 3)):
        name = "stage{}_block{}".format(*block)
        activated = activation(layer(f"{name}_bn1")(x))
        halves = block in ((2, 1), (3, 1))
        shortcut = layer(f"{name}_shortcut")(activated) if halves else x
        hidden = activation(layer(f"{name}_bn2")(layer(f"{name}_conv1")(activated)))
        x = layer(f"{name}_conv2")(hidden) + shortcut
    return tf.nn.relu(layer("last_bn")(x))


def residual_network(layer, x, activation):
    """He et al., 2016, Fig. 2 and Table 1."""
    x = activation(layer("stem_bn")(layer("stem")(x)))
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    for block in itertools.product((1, 2, 3, 4), (1, 2)):
        name = "stage{}_block{}".format(*block)
        halves = block in ((2, 1), (3, 1), (4, 1))
        shortcut = layer(f"{name}_shortcut_bn")(layer(f"{name}_shortcut")(x)) if halves else x
        x = activation(layer(f"{name}_conv1_bn")(layer(f"{name}_conv1")(x)))
        x = activation(layer(f"{name}_conv2_bn")(layer(f"{name}_conv2")(x)) + shortcut)
    return x


def bi_real_network(layer, x, activation):
    """Liu et al., 2018, Fig. 3: a shortcut around every 1-bit convolution and its BN."""
    x = tf.nn.max_pool2d(layer("stem_bn")(layer("stem")(x)), 3, 2, "SAME")
    for stage, block, number in itertools.product((1, 2, 3, 4), (1, 2), (1, 2)):
        name, shortcut = f"stage{stage}_block{block}", x
        if stage > 1 and block == number == 1:
            pooled = tf.nn.avg_pool2d(x, 2, 2, "SAME")
            shortcut = layer(f"{name}_shortcut_bn")(layer(f"{name}_shortcut")(pooled))
        convolution = layer(f"{name}_conv{number}")
        x = layer(f"{name}_conv{number}_bn")(convolution(activation(x))) + shortcut
    return x


def test_wiring(small):
    """A sign is in its convolution."""
    activation = tf.identity if NETWORKS[small.row][2] else tf.nn.relu
    walk = {"wrn22": wide_resnet, "resnet18": residual_network, "birealnet18": bi_real_network}
    walked = walk[small.name.removesuffix("_1bit")]
    features = walked(small.get_layer, images(), activation)
    logits = small.get_layer("logits")(tf.reduce_mean(features, axis=(1, 2)))
    np.testing.assert_allclose(small(images()), logits, rtol=1e-4, atol=1e-4)


def test_1_bit_convolutions_are_the_3x3_ones_but_the_stem(small):
    *_, sign, quantizer = NETWORKS[small.row]
    for layer in small.layers:
        if isinstance(layer, lq.layers.QuantConv2D):
            found = [layer.input_quantizer, layer.kernel_quantizer]
            names = [each and type(each).__name__ for each in found]
            if quantizer and layer.kernel_size == (3, 3) and layer.name != "stem":
                assert names == [sign, quantizer]
                assert isinstance(layer.kernel_constraint, lq.constraints.WeightClip)
            else:
                assert names == [None, None]


def test_the_gradient_reaches_every_trainable_variable(small):
    labels = np.arange(8) % 3
    with tf.GradientTape() as tape:
        logits = small(images(batch=8), training=True)
        loss = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    gradients = tape.gradient(loss, small.trainable_variables)
    for variable, gradient in zip(small.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.name
        assert np.isfinite(gradient).all(), variable.name
        assert np.any(gradient != 0), variable.name


SMALL = {"input_shape": (32, 32, 3), "classes": 3}


def test_build_binarizes_a_1_bit_network():
    def kernel(name, **settings):
        convolution = "stage1_block1_conv1"
        return type(build(name, **SMALL, **settings).get_layer(convolution).kernel_quantizer)

    assert kernel("birealnet18", binarization="bireal_code") is UnscaledSign
    assert kernel("wrn22_1bit", binarization="pcnn", activations=32) is PcnnSign
    assert kernel("resnet18_1bit", binarization="xnor") is XnorSign


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wrn22", {"binarization": "pcnn"}, "binarization is of 1-bit networks, wrn22 is a real"),
        ("resnet18", {"activations": 32}, "activations is of 1-bit networks, resnet18 is a real"),
        ("wrn22_1bit", {"binarization": "bnn"}, "binarization must be one of .*: 'bnn'"),
        ("wrn22_1bit", {"binarization": "bonn", "activations": 32}, "must be 1 for .* bonn, "),
        ("birealnet18", {"activations": 32}, "activations must be 1 for the binarization bireal"),
        ("vgg", {}, "unknown reference network 'vgg', expected one of: wrn22, "),
    ],
)
def test_what_is_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        build(name, **SMALL, **settings)
