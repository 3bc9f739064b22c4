"""A trained network as a flatbuffer: what the one of Larq Compute Engine and LiteRT's share."""

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema

from cpnas_tf.data.augmentation import normalize
from cpnas_tf.export.folding import fold
from cpnas_tf.export.inference import logits


def convert(
    model: tf.keras.Model, converter: Callable[[str], bytes], *, pad_small_maps: bool = False
) -> bytes:
    """Converts a SavedModel of a Keras model, in which all that is packed or folded is constant.

    Args:
        model: a functional or sequential Keras model from images in [-1, 1] to logits.
        converter: makes a flatbuffer of the SavedModel in a folder.
        pad_small_maps: see `inference.logits`.

    Returns:
        The bytes of the flatbuffer, from `images`, uint8 `[1, height, width, channels]`, to
        `logits`, float32 `[1, classes]`.

    Raises:
        ValueError: if the model calls a layer several times.
    """
    module = tf.Module()
    kernels, vectors, module.weights = fold(model, exact=False)
    constants = {
        name: np.where(kernel.signs, kernel.scales, -kernel.scales)
        for name, kernel in kernels.items()
    }

    @tf.function(
        input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="images")],
        autograph=False,
    )
    def serve(images):
        given = {"kernels": constants, "vectors": vectors, "pad_small_maps": pad_small_maps}
        return {"logits": logits(model, normalize(images), **given)}

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=serve)
        return converter(folder)


def pack_kernels(
    flatbuffer: bytes,
    packers: dict[int, Callable[[np.ndarray, Any], np.ndarray | None]],
    unpacking: Any,
) -> bytes:
    """Stores kernels packed, and has an operator in front of each convolution unpack them.

    Args:
        flatbuffer: its bytes.
        packers: by the builtin code of a kind of convolution, a function of a constant kernel,
            float32 of 4 dimensions, and of its tensor, a `schema.TensorT`. It returns what is to be
            stored and describes it in the tensor, or returns None where that is the kernel as it
            is.
        unpacking: the unpacking operator's `schema.OperatorCodeT`.

    Returns:
        The bytes of the new flatbuffer.
    """
    model = schema.ModelT.InitFromPackedBuf(flatbuffer)
    (graph,) = model.subgraphs
    code = len(model.operatorCodes)
    model.operatorCodes.append(unpacking)
    operators: list[Any] = []
    kernels: dict[int, int] = {}  # where a convolution finds its kernel now, by where it was
    for operator in graph.operators:
        packer = packers.get(model.operatorCodes[operator.opcodeIndex].builtinCode)
        if packer:
            x, kernel, *more = operator.inputs
            if kernel not in kernels:
                kernels[kernel] = _pack(graph.tensors, kernel, model.buffers, packer)
                if kernels[kernel] != kernel:
                    operators.append(_operator(code, kernel, kernels[kernel]))
            operator.inputs = [x, kernels[kernel], *more]
        operators.append(operator)
    graph.operators = operators
    return _finished(model)


def _pack(tensors, index, buffers, packer):
    """Packs a kernel where it is stored; returns the number of the tensor for the unpacked one."""
    tensor = tensors[index]
    data = buffers[tensor.buffer].data
    if data is None or tensor.type != schema.TensorType.FLOAT32:
        return index
    shape = list(tensor.shape)
    packed = packer(np.frombuffer(data.tobytes(), "<f4").reshape(shape), tensor)
    if packed is None:
        return index
    buffers[tensor.buffer].data = np.frombuffer(packed.tobytes(), np.uint8)
    unpacked = schema.TensorT()
    unpacked.shape, unpacked.name = shape, tensor.name + b"_unpacked"
    tensors.append(unpacked)
    return len(tensors) - 1


def _operator(code, source, target):
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, [source], [target]
    return operator


def _finished(model):
    import flatbuffers

    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
