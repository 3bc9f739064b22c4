"""The 1-bit kernels of other papers: values and gradients against NumPy, and networks of them."""

import cpnas_tf  # noqa: F401, isort: skip
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf.catalogue import BINARIZATIONS, Unit
from cpnas_tf.genotypes import Genotype
from cpnas_tf.networks import costs
from cpnas_tf.networks.binarizations import kernel_quantizer, projected
from cpnas_tf.networks.cells import build_network
from cpnas_tf.networks.quantizers import Relu, UnscaledSign, binarizes_input
from cpnas_tf.training.models import load_model

RANDOM = np.random.default_rng(0)
KERNELS = [
    pytest.param([3, 3, 2, 4], False, id="convolution"),
    pytest.param([1, 1, 5, 3], False, id="pointwise"),
    pytest.param([3, 3, 4, 1], True, id="depthwise"),
]


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def filter_axes(depthwise):
    return (0, 1) if depthwise else (0, 1, 2)


def backward(quantizer, kernel, upstream):
    """A quantizer's value, its gradient by the kernel, and the one by what it learns."""
    variable = tf.Variable(kernel, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = quantizer(variable)
        loss = tf.reduce_sum(upstream.astype("float32") * value)
    return value, *tape.gradient(loss, [variable, *quantizer.trainable_weights])


def random_case(shape):
    kernel = RANDOM.normal(size=shape)  # beyond the window |x| <= 1, too
    kernel.flat[0] = 0.0
    return kernel, RANDOM.normal(size=shape)


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize(("shape", "depthwise"), KERNELS)
def test_xnor_equals_its_formula(shape, depthwise, unscaled):
    kernel, upstream = random_case(shape)
    axes = {"axis": filter_axes(depthwise), "keepdims": True}
    alpha, elements = np.abs(kernel).mean(**axes), kernel[..., 0, 0].size if depthwise else None
    elements = elements or kernel[..., 0].size
    quantizer = kernel_quantizer("xnor", depthwise=depthwise, unscaled_gradient=unscaled)
    value, gradient = backward(quantizer, kernel, upstream)
    np.testing.assert_allclose(value, alpha * sign(kernel), rtol=1e-6)
    # XNOR-Net's first term; TensorFlow's |W| has the derivative 0 at 0.
    first = np.sign(kernel) / elements * (upstream * sign(kernel)).sum(**axes)
    second = (1 if unscaled else alpha) * (np.abs(kernel) <= 1) * upstream
    np.testing.assert_allclose(gradient, first + second, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("shape", "depthwise"), KERNELS)
@pytest.mark.parametrize("mean", [1.0, -0.5])
def test_pcnn_equals_its_formula(shape, depthwise, mean):
    kernel, upstream = random_case(shape)
    quantizer = kernel_quantizer("pcnn", depthwise=depthwise)
    quantizer.build(tf.TensorShape(shape))
    free = (2, 3) if depthwise else (3,)  # axes that a filter does not extend over
    assert quantizer.projection.shape == [1 if i in free else n for i, n in enumerate(shape)]
    np.testing.assert_array_equal(quantizer.projection, 1.0)
    projection = mean + 0.3 * RANDOM.normal(size=quantizer.projection.shape)
    projection += mean - projection.mean()
    quantizer.projection.assign(projection)
    value, by_kernel, by_projection = backward(quantizer, kernel, upstream)
    scale = np.abs(kernel).mean()
    # Of -a and +a the nearest to mean(W) C.
    distances = [np.abs(mean * kernel - each) for each in (scale, -scale)]
    nearest = np.where(distances[0] <= distances[1], scale, -scale)
    np.testing.assert_allclose(value, nearest, rtol=1e-6)
    passed = upstream * (np.abs(projection * kernel) <= 1)
    np.testing.assert_allclose(by_kernel, passed * projection, rtol=1e-4, atol=1e-6)
    expected = (passed * kernel).sum(axis=free, keepdims=True)
    np.testing.assert_allclose(by_projection, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize(("shape", "depthwise"), KERNELS)
def test_bonn_equals_its_formula(shape, depthwise, unscaled):
    kernel, upstream = random_case(shape)
    quantizer = kernel_quantizer("bonn", depthwise=depthwise, unscaled_gradient=unscaled)
    quantizer.build(tf.TensorShape(shape))
    scale = RANDOM.uniform(2, 4, size=quantizer.scale.shape)
    quantizer.scale.assign(scale)
    value, by_kernel, by_scale = backward(quantizer, kernel, upstream)
    mean = scale.mean()
    np.testing.assert_allclose(value, sign(kernel) / mean, rtol=1e-6)
    passed = upstream * (np.abs(kernel) <= 1) * (1 if unscaled else 1 / mean)
    np.testing.assert_allclose(by_kernel, passed, rtol=1e-4, atol=1e-6)
    by_mean = -np.sum(upstream * sign(kernel)) / mean**2
    np.testing.assert_allclose(by_scale, np.full(scale.shape, by_mean / scale.size), rtol=1e-4)


def test_bonns_vector_starts_where_it_fits_kerass_kernels():
    kernel = tf.keras.initializers.GlorotUniform(0)([3, 3, 64, 64]).numpy()
    quantizer = kernel_quantizer("bonn")
    quantizer.build(tf.TensorShape(kernel.shape))
    best = np.abs(kernel).sum() / np.square(kernel).sum()  # least squares of ||sign(k) - w k||
    np.testing.assert_allclose(quantizer.scale, np.full([3, 3, 64, 1], best), rtol=0.01)


def test_a_projection_passes_no_gradient():
    kernel, projection = tf.Variable([[0.5, -2.0]]), tf.Variable([[1.0]])
    with tf.GradientTape() as tape:
        value = projected(kernel, projection)
    assert tape.gradient(value, [kernel, projection]) == [None, None]


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(
    ("name", "unscaled", "expected"),
    [
        ("cpnas", False, None),
        ("bireal", False, None),
        ("cpnas", True, UnscaledSign),
        ("bireal", True, UnscaledSign),
        ("bireal_code", False, UnscaledSign),
    ],
)
def test_the_others_have_the_childs_kernels(name, unscaled, expected, depthwise):
    quantizer = kernel_quantizer(name, depthwise=depthwise, unscaled_gradient=unscaled)
    if expected:
        assert type(quantizer) is expected
        assert quantizer.depthwise == depthwise
    else:
        own = type(kernel_quantizer("cpnas", depthwise=depthwise))
        assert type(quantizer) is own


CONVOLUTIONS = ("sep_conv_3x3", "skip_connect", *["none"] * 11, "dil_conv_5x5")
GENOTYPE = Genotype(CONVOLUTIONS, CONVOLUTIONS)
NETWORK = {"input_shape": (8, 8, 1), "classes": 3, "cells": 1, "channels": 4}
POSSIBLE = [(name, bits) for name, found in BINARIZATIONS.items() for bits in found.activations]


def quantizers(network):
    """The quantizers of inputs and kernels of a network's 1-bit convolutions."""
    for layer in network.layers:
        kernel = getattr(layer, "kernel_quantizer", None)
        kernel = kernel or getattr(layer, "depthwise_quantizer", None)
        if kernel is not None:
            yield layer.input_quantizer, kernel


@pytest.mark.parametrize(("name", "bits"), POSSIBLE)
def test_a_childs_signs_and_kernels_are_those_of_its_row(name, bits):
    child = build_network(GENOTYPE, **NETWORK, binarization=name, activations=bits)
    row = BINARIZATIONS[name]
    sign_kind = Relu if bits == 32 else type(lq.quantizers.get(row.sign))
    expected = {
        type(lq.quantizers.get(kernel_quantizer(name, depthwise=each))) for each in (False, True)
    }
    found = list(quantizers(child))
    assert len(found) == 2 + 2 + 4 + 2
    assert {type(kernel) for _, kernel in found} == expected
    assert {type(quantizer) for quantizer, _ in found} == {sign_kind}


def configs(**settings):
    """What the layers of a network are; Keras numbers their quantizers from 0."""
    tf.keras.backend.clear_session()
    network = build_network(GENOTYPE, **NETWORK, **settings)
    return [layer.get_config() for layer in network.layers]


def test_without_a_binarization_a_child_is_the_papers():
    assert configs() == configs(binarization="cpnas", activations=1)


def test_a_parent_is_real_whatever_binarizes_its_child():
    other = configs(precision="parent", binarization="pcnn", activations=32)
    assert configs(precision="parent") == other


def test_real_activations_cost_one_bit_a_weight_and_real_macs():
    child = costs.profile(build_network(GENOTYPE, **NETWORK))
    for name in ("cpnas", "xnor", "pcnn"):
        network = build_network(GENOTYPE, **NETWORK, binarization=name, activations=32)
        found = costs.profile(network)
        for count in ("parameters", "binary_parameters", "memory_mbit"):
            assert found[count] == child[count], "what a projection learns is no part of it"
        assert found["binary_macs_m"] == 0
        macs = child["real_macs_m"] + child["binary_macs_m"]
        assert found["real_macs_m"] == pytest.approx(macs)


def test_what_bonn_learns_costs_nothing():
    child, bonn = (
        costs.total(costs.layer_costs(build_network(GENOTYPE, **NETWORK, binarization=name)))
        for name in ("cpnas", "bonn")
    )
    assert child == bonn


@pytest.mark.parametrize(("name", "bits"), [("pcnn", 32), ("bonn", 1)])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
def test_what_is_learned_beside_a_kernel_is_trained_saved_and_loaded(tmp_path, name, bits):
    network = build_network(GENOTYPE, **NETWORK, binarization=name, activations=bits)
    learned = [kernel.trainable_weights[0] for _, kernel in quantizers(network)]
    for variable in learned:
        assert any(variable is weight for weight in network.trainable_weights)
        variable.assign_add(RANDOM.uniform(size=variable.shape))
    images = RANDOM.uniform(-1, 1, size=[2, 8, 8, 1]).astype("float32")
    for path in (tmp_path / "network.keras", tmp_path / "network.h5"):
        network.save(path)
        loaded = load_model(path)
        np.testing.assert_array_equal(loaded(images), network(images))
        for (_, kernel), variable in zip(quantizers(loaded), learned, strict=True):
            np.testing.assert_array_equal(kernel.trainable_weights[0], variable)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"binarization": "rbonn"}, "binarization must be one of cpnas, xnor, .*: 'rbonn'"),
        ({"activations": 8}, "activations must be 1 or 32 bits, received: 8"),
        (
            {"binarization": "bonn", "activations": 32},
            "activations must be 1 for the binarization bonn, received: 32",
        ),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        build_network(GENOTYPE, **NETWORK, **settings)


def test_a_unit_without_the_factor_alpha_has_none_in_any_binarization():
    for name in ("xnor", "bonn"):
        unit = Unit(unscaled_gradient=True)
        network = build_network(GENOTYPE, **NETWORK, binarization=name, unit=unit)
        assert all(kernel.unscaled_gradient for _, kernel in quantizers(network))
        assert all(binarizes_input(layer) for layer in network.layers if "depthwise" in layer.name)
