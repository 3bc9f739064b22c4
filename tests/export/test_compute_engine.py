import collections
import sys

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from exportable import IMAGES, make_network, normalized

from cpnas_tf.data.augmentation import normalize
from cpnas_tf.export import compute_engine, flatbuffer
from cpnas_tf.export.bundle import ROUNDING, nearest_to_zero
from cpnas_tf.export.packing import packable_kernels


@pytest.fixture(scope="module")
def converted():
    pytest.importorskip("larq_compute_engine")
    return compute_engine.convert(make_network())


@pytest.fixture
def with_float_depthwise(converted, monkeypatch):
    monkeypatch.setattr(flatbuffer, "pack_kernels", lambda content, *args: content)
    return compute_engine.convert(make_network())


def predict(content):
    return compute_engine.runner(content)(IMAGES.images)


def operators(content):
    """How often each operator occurs, and the bytes of the constants that each kind reads."""
    from larq_compute_engine.mlir.python import tflite_schema as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    codes = [
        code.customCode.decode() if code.customCode else names[code.builtinCode]
        for code in model.operatorCodes
    ]
    (graph,) = model.subgraphs
    count, size = collections.Counter(), collections.Counter()
    for operator in graph.operators:
        name = codes[operator.opcodeIndex]
        count[name] += 1
        for index in set(operator.inputs) - {-1}:
            data = model.buffers[graph.tensors[index].buffer].data
            size[name] += 0 if data is None else len(data)
    return count, size


class TestChild:
    def test_predicts_what_keras_does(self, converted):
        expected = make_network()(normalized(IMAGES), training=False).numpy()
        logits = predict(converted)
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        assert set(logits.argmax(axis=1)) == {0, 1, 2}

    def test_of_residual_units_predicts_what_keras_does(self):
        pytest.importorskip("larq_compute_engine")
        network = make_network(unit="residual")
        content = compute_engine.convert(network)
        decided = nearest_to_zero(network, IMAGES.images) > ROUNDING
        assert decided.mean() > 0.5
        expected = network(normalized(IMAGES), training=False).numpy()
        logits = predict(content)
        np.testing.assert_allclose(logits[decided], expected[decided], atol=1e-4)
        assert set(logits.argmax(axis=1)) == {0, 1, 2}
        kernels = packable_kernels(network)
        depthwise = sum("depthwise" in name for name in kernels)
        assert operators(content)[0]["LceBconv2d"] == len(kernels) - depthwise

    def test_1_bit_convolutions_are_those_of_lce(self, converted):
        count, size = operators(converted)
        kernels = packable_kernels(make_network())
        depthwise = sum("depthwise" in name for name in kernels)
        assert count["LceBconv2d"] == len(kernels) - depthwise
        assert count["CONV_2D"] == 1  # the stem
        assert count["DEPTHWISE_CONV_2D"] == depthwise

    def test_depthwise_kernels_are_bits(self, converted, with_float_depthwise):
        kernels = packable_kernels(make_network())
        depthwise = [kernel.signs for name, kernel in kernels.items() if "depthwise" in name]
        count, size = operators(with_float_depthwise)
        unpacked = count["LceDequantize"]
        biases = sum(4 * signs.shape[2] for signs in depthwise)
        assert size["DEPTHWISE_CONV_2D"] == 4 * sum(signs.size for signs in depthwise) + biases
        count, size = operators(converted)
        assert size["DEPTHWISE_CONV_2D"] == biases
        assert count["LceDequantize"] == unpacked + len(depthwise)
        # Up to 32 channels a word of four bytes.
        assert size["LceDequantize"] == sum(4 * signs.shape[0] ** 2 for signs in depthwise)
        np.testing.assert_array_equal(
            predict(converted),
            predict(with_float_depthwise),
        )

    def test_needs_lce(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "larq_compute_engine", None)
        with pytest.raises(ModuleNotFoundError):
            compute_engine.convert(make_network())


def test_a_network_without_1_bit_convolutions_is_none_of_lces(monkeypatch):
    monkeypatch.setitem(sys.modules, "larq_compute_engine", None)
    assert compute_engine.convert(make_network("parent")) is None


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_maps_smaller_than_a_kernel(size, stride):
    """LCE 0.16 computes nonsense on those of 1x1 and 2x2."""
    pytest.importorskip("larq_compute_engine")
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Conv2D(32, 1, input_shape=(size, size, 1)),
            lq.layers.QuantConv2D(
                32,
                3,
                strides=stride,
                padding="same",
                input_quantizer="ste_sign",
                kernel_quantizer="magnitude_aware_sign",
                use_bias=False,
            ),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(3),
        ]
    )
    pixels = np.random.default_rng(0).integers(0, 256, (8, size, size, 1), np.uint8)
    expected = model(normalize(pixels), training=False).numpy()
    logits = compute_engine.runner(compute_engine.convert(model))(pixels)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1
