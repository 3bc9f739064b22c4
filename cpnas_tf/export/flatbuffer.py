"""A trained network as a flatbuffer for devices: Larq Compute Engine's (LCE), or plain TFLite.

LCE computes 1-bit convolutions on bits, but has no depthwise one: those stay float convolutions of
signs, with kernels of 32 bits per weight. Here such a kernel is stored as bits, 32 channels per
word, and each call unpacks it first, exactly.

References:
    Bannink et al., "Larq Compute Engine: Design, Benchmark, and Deploy State-of-the-Art Binarized
    Neural Networks", 2021.
"""

import tempfile
import warnings

import numpy as np
import tensorflow as tf

from cpnas_tf.data.augmentation import normalize
from cpnas_tf.export.inference import fold, logits
from cpnas_tf.networks.quantizers import binarizes_input

_WORD = 32


def convert(model: tf.keras.Model) -> bytes:
    """Converts a Keras model, with LCE if it has 1-bit convolutions of signs.

    Args:
        model: a functional or sequential Keras model from images in [-1, 1] to logits.

    Returns:
        The bytes of the flatbuffer, from `images`, uint8 `[1, height, width, channels]`, to
        `logits`, float32 `[1, classes]`.

    Raises:
        ImportError: if LCE is needed and not installed.
        ValueError: if the model calls a layer several times.
    """
    if any(map(binarizes_input, model.layers)):
        import larq_compute_engine as lce

        return _pack_depthwise(_convert(model, lce.convert_saved_model))
    return _convert(model, lambda path: tf.lite.TFLiteConverter.from_saved_model(path).convert())


def predict(flatbuffer: bytes, images: np.ndarray) -> np.ndarray:
    """Runs what `convert` made.

    Args:
        flatbuffer: its bytes.
        images: uint8 `[n, height, width, channels]`.

    Returns:
        Logits, float32 `[n, classes]`.
    """
    if b"LceQuantize" in flatbuffer:
        from larq_compute_engine.tflite.python.interpreter import Interpreter

        return Interpreter(flatbuffer).predict(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it moves to another package
        interpreter = tf.lite.Interpreter(
            model_content=flatbuffer,
            # The delegate that it would use writes to stderr that it is there.
            experimental_op_resolver_type=(
                tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            ),
        )
    run = interpreter.get_signature_runner()
    return np.concatenate([run(images=image[np.newaxis])["logits"] for image in images])


def _convert(model, converter):
    """Converts a SavedModel of it, in which all that is packed or folded is constant."""
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
        given = {"kernels": constants, "vectors": vectors}
        # LCE computes nonsense on maps that are smaller than the kernel, unless they are padded.
        return {"logits": logits(model, normalize(images), **given, pad_small_maps=True)}

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=serve)
        return converter(folder)


def _pack_depthwise(flatbuffer):
    """Stores depthwise kernels of +1 and -1 as bits; an LCE operator before each unpacks them."""
    import flatbuffers
    from larq_compute_engine.mlir.python import tflite_schema as schema

    model = schema.ModelT.InitFromPackedBuf(flatbuffer)
    (graph,) = model.subgraphs
    builtin = [code.builtinCode for code in model.operatorCodes]
    unpack = schema.OperatorCodeT()
    unpack.customCode = "LceDequantize"
    unpack.builtinCode = unpack.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes.append(unpack)
    operators = []
    for operator in graph.operators:
        if builtin[operator.opcodeIndex] == schema.BuiltinOperator.DEPTHWISE_CONV_2D:
            _pack(graph.tensors[operator.inputs[1]], model.buffers, schema)
            operators += _unpacking(operator, graph, len(builtin), schema)
        operators.append(operator)
    graph.operators = operators
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _pack(tensor, buffers, schema):
    """Packs a kernel, float32 `[1, height, width, channels]`, in place, if it is of +1 and -1."""
    if tensor.type != schema.TensorType.FLOAT32:
        return  # the kernel of an operator before, too
    kernel = np.frombuffer(buffers[tensor.buffer].data.tobytes(), "<f4").reshape(tensor.shape)
    if (np.abs(kernel) == 1).all():
        # LCE's bits are 1 for -1, the first channel in the lowest.
        bits = np.pad(kernel < 0, [(0, 0)] * 3 + [(0, -kernel.shape[3] % _WORD)])
        buffers[tensor.buffer].data = np.packbits(bits, axis=3, bitorder="little").ravel()
        tensor.type = schema.TensorType.INT32
        tensor.shape = [*kernel.shape[:3], bits.shape[3] // _WORD]


def _unpacking(operator, graph, code, schema):
    """Has a depthwise operator read an unpacked kernel; returns the operator for that, if any."""
    packed, output = (graph.tensors[i] for i in (operator.inputs[1], operator.outputs[0]))
    if packed.type != schema.TensorType.INT32:
        return []
    unpacked = schema.TensorT()
    unpacked.shape = [*packed.shape[:3], output.shape[3]]
    unpacked.name = packed.name + b"_unpacked"
    unpacking = schema.OperatorT()
    unpacking.opcodeIndex = code
    x, kernel, bias = operator.inputs
    unpacking.inputs, unpacking.outputs = [kernel], [len(graph.tensors)]
    operator.inputs = [x, len(graph.tensors), bias]
    graph.tensors.append(unpacked)
    return [unpacking]
