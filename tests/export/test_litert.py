import collections

import numpy as np
import pytest
from exportable import IMAGES, REAL_INPUTS, make_network, normalized, small_model
from tensorflow.lite.python import schema_py_generated as schema

from cpnas_tf.export import flatbuffer, litert
from cpnas_tf.export.packing import packable_kernels

CONVOLUTIONS = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)


@pytest.fixture(scope="module")
def converted():
    return litert.convert(make_network())


def kernels(content):
    """The tensors that convolutions' kernels are unpacked from, and how many are stored as floats.

    Those of one kernel used twice come once.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    (graph,) = model.subgraphs
    codes = [code.builtinCode for code in model.operatorCodes]
    sources = {
        operator.outputs[0]: operator.inputs[0]
        for operator in graph.operators
        if codes[operator.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE
    }
    read = {
        operator.inputs[1]
        for operator in graph.operators
        if codes[operator.opcodeIndex] in CONVOLUTIONS
    }
    packed = [graph.tensors[sources[index]] for index in read & sources.keys()]
    sizes = collections.Counter({"floats": len(read - sources.keys())})
    sizes["packed"] = sum(len(model.buffers[tensor.buffer].data) for tensor in packed)
    assert {tensor.type for tensor in packed} <= {schema.TensorType.INT8}
    return packed, sizes


@pytest.mark.parametrize(
    "make",
    [
        make_network,
        lambda: make_network("parent"),
        lambda: make_network(real_inputs=REAL_INPUTS),
        small_model,
    ],
    ids=["child", "parent", "real inputs", "small"],
)
def test_predicts_what_keras_does(make):
    model = make()
    expected = model(normalized(IMAGES), training=False).numpy()
    logits = litert.runner(litert.convert(model))(IMAGES.images)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_1_bit_kernels_are_a_byte_per_weight(converted):
    one_bit = packable_kernels(make_network())
    packed, sizes = kernels(converted)
    assert len(packed) == len(one_bit)
    assert sizes["packed"] == sum(kernel.signs.size for kernel in one_bit.values())
    assert sizes["floats"] == 1  # the stem's


def test_unpacking_is_exact(converted, monkeypatch):
    monkeypatch.setattr(flatbuffer, "pack_kernels", lambda content, *args: content)
    with_floats = litert.convert(make_network())
    assert len(with_floats) > len(converted)
    np.testing.assert_array_equal(
        litert.runner(converted)(IMAGES.images), litert.runner(with_floats)(IMAGES.images)
    )


def test_a_real_kernel_stays_as_it_is():
    packed, sizes = kernels(litert.convert(make_network("parent")))
    assert not packed
    assert sizes["floats"] > 5


def test_a_filter_of_zeros_stays_zero():
    kernel = np.zeros([2, 1, 1, 3], np.float32)
    kernel[0] = [-0.25, 0.25, 0.25]
    tensor = schema.TensorT()
    found = litert._packed(kernel, tensor, axis=0)
    assert found.ravel().tolist() == [-1, 1, 1, 0, 0, 0]
    assert tensor.quantization.scale.tolist() == [0.25, 1]
