"""The flatbuffer for Larq Compute Engine (LCE), which computes 1-bit convolutions on bits.

LCE has no depthwise 1-bit convolution: those stay float convolutions of signs, with kernels of 32
bits per weight. Here such a kernel is stored as bits, 32 channels per word, and each call unpacks
it first, exactly.

References:
    Bannink et al., "Larq Compute Engine: Design, Benchmark, and Deploy State-of-the-Art Binarized
    Neural Networks", 2021.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from cpnas_tf.export import flatbuffer
from cpnas_tf.networks.quantizers import binarizes_input

_WORD = 32


def convert(model: tf.keras.Model) -> bytes | None:
    """Converts a Keras model that has 1-bit convolutions of signs.

    Args:
        model: a functional or sequential Keras model from images in [-1, 1] to logits.

    Returns:
        See `flatbuffer.convert`; None for a model that has nothing for LCE.

    Raises:
        ImportError: if LCE is not installed.
        ValueError: if the model calls a layer several times.
    """
    if not any(map(binarizes_input, model.layers)):
        return None
    import larq_compute_engine as lce

    # LCE computes nonsense on maps that are smaller than the kernel, unless they are padded.
    converted = flatbuffer.convert(model, lce.convert_saved_model, pad_small_maps=True)
    unpacking = schema.OperatorCodeT()
    unpacking.customCode = "LceDequantize"
    unpacking.builtinCode = unpacking.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    depthwise = schema.BuiltinOperator.DEPTHWISE_CONV_2D
    return flatbuffer.pack_kernels(converted, {depthwise: _packed}, unpacking)


def runner(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """The function from images, uint8 `[n, height, width, channels]`, to logits, `[n, classes]`."""
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    return Interpreter(content).predict


def _packed(kernel, tensor):
    """Bits of a kernel `[1, height, width, channels]` of +1 and -1."""
    if (np.abs(kernel) != 1).any():
        return None
    # LCE's bits are 1 for -1, the first channel in the lowest.
    bits = np.pad(kernel < 0, [(0, 0)] * 3 + [(0, -kernel.shape[3] % _WORD)])
    tensor.type = schema.TensorType.INT32
    tensor.shape = [*kernel.shape[:3], bits.shape[3] // _WORD]
    return np.packbits(bits, axis=3, bitorder="little")
