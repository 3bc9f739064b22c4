"""The flatbuffer that stock LiteRT runs, with 1-bit kernels of 8 bits per weight, exactly.

LiteRT (before: TensorFlow Lite) has wheels for Linux on x86 and Arm, macOS and Windows, and comes
with Android. It has no 1-bit convolution: it computes floats. What is 1-bit is stored as -1 and +1
in int8 with a scale per filter, and is unpacked when the interpreter starts.
"""

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from cpnas_tf.export import flatbuffer

# Where a kernel of each kind of convolution has its filters.
_KERNEL_AXES = {
    schema.BuiltinOperator.CONV_2D: 0,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D: 3,
}


def convert(model: tf.keras.Model) -> bytes:
    """Converts a Keras model; see `flatbuffer.convert`."""
    unpacking = schema.OperatorCodeT()
    unpacking.builtinCode = unpacking.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    unpacking.version = 5  # the first with a scale per channel
    packers: dict[int, Callable[[np.ndarray, Any], np.ndarray | None]] = {
        code: functools.partial(_packed, axis=axis) for code, axis in _KERNEL_AXES.items()
    }
    return flatbuffer.pack_kernels(flatbuffer.convert(model, _convert), packers, unpacking)


def runner(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """The function from images, uint8 `[n, height, width, channels]`, to logits, `[n, classes]`.

    It runs in LiteRT or, where that is not installed, in the interpreter of TensorFlow's that
    LiteRT replaces.
    """
    run = _interpreter(content).get_signature_runner()

    def predict(images):
        return np.concatenate([run(images=image[np.newaxis])["logits"] for image in images])

    return predict


def kernel_counts(content: bytes) -> dict[str, int]:
    """How many kernels of convolutions a flatbuffer stores in int8, and how many as floats.

    Args:
        content: what `convert` made.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    (graph,) = model.subgraphs
    codes = [code.builtinCode for code in model.operatorCodes]
    kernels, unpacked = set(), set()
    for operator in graph.operators:
        code = codes[operator.opcodeIndex]
        if code in _KERNEL_AXES:
            kernels.add(operator.inputs[1])
        elif code == schema.BuiltinOperator.DEQUANTIZE:
            unpacked.add(operator.outputs[0])
    return {"int8_kernels": len(kernels & unpacked), "float_kernels": len(kernels - unpacked)}


def _convert(folder):
    return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def _interpreter(content):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        Interpreter = tf.lite.Interpreter  # noqa: N806
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore", UserWarning)  # that TensorFlow's moves to LiteRT
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()  # which makes the delegate that says so
        return interpreter


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what is written to standard error: that XNNPACK is there."""
    stderr, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nothing)


def _packed(kernel, tensor, *, axis):
    """-1, 0 and +1 of a kernel whose magnitudes are equal in each slice along an axis."""
    magnitudes = np.abs(kernel)
    others = tuple(other for other in range(kernel.ndim) if other != axis)
    scales = magnitudes.max(axis=others, keepdims=True)
    if (magnitudes != scales).any():
        return None
    tensor.type = schema.TensorType.INT8
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = np.where(scales > 0, scales, 1).ravel().astype(np.float32)
    tensor.quantization.zeroPoint = np.zeros(scales.size, np.int64)
    tensor.quantization.quantizedDimension = axis
    return np.sign(kernel).astype(np.int8)
