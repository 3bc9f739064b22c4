"""A Keras model's inference as a graph on given weights, bit for bit what Keras computes.

A 1-bit network magnifies rounding: where a sum is within 1e-7 of 0, another order of the same
additions flips a sign, and with it perhaps the prediction. So the graph has Keras's operations in
Keras's order; what is folded is exact, see `folding`.
"""

import math
from collections.abc import Mapping, Sequence

import larq as lq
import tensorflow as tf

from cpnas_tf.networks.quantizers import binarizes_input, is_depthwise


def logits(
    model: tf.keras.Model,
    images: tf.Tensor,
    *,
    kernels: Mapping[str, tf.Tensor],
    vectors: Mapping[str, Sequence[tf.Tensor]],
    pad_small_maps: bool = False,
) -> tf.Tensor:
    """Runs a model in inference, with other weights for the layers that have some.

    Args:
        model: a functional or sequential Keras model that calls each layer once.
        images: a tensor for its input.
        kernels, vectors: tensors in the place of those that `folding.fold` gives.
        pad_small_maps: whether to pad maps smaller than a 1-bit kernel by an operation of its own.

    Raises:
        ValueError: if the model is another one.
    """
    tensors, signs = {id(model.input): images}, {}

    def known(value):
        return tensors.get(id(value), value)

    def sign(x):  # once for all that look at x
        if x.ref() not in signs:
            signs[x.ref()] = lq.math.sign(x)
        return signs[x.ref()]

    def call(layer, *args, **kwargs):
        if layer.name in kernels:
            (x,) = args
            if binarizes_input(layer):
                x = sign(x)
            elif layer.input_quantizer is not None:
                x = tf.nn.relu(x)
            return _convolve(layer, x, kernels[layer.name], pad_small_maps)
        if layer.name in vectors:
            return _normalize(layer, *args, *vectors[layer.name])
        return layer(*args, **kwargs)

    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.InputLayer):
            continue
        if len(layer.inbound_nodes) != 1:
            raise ValueError(f"cannot export a model that calls {layer.name!r} several times")
        node = layer.inbound_nodes[0]
        args, kwargs = tf.nest.map_structure(known, (node.call_args, node.call_kwargs))
        tensors[id(node.outputs)] = call(layer, *args, **kwargs)
    return tensors[id(model.output)]


def _convolve(layer, x, kernel, pad_small_maps):
    strides = [1, *layer.strides, 1]
    if not is_depthwise(layer):
        if pad_small_maps and min(x.shape[1:3]) < max(layer.kernel_size) and binarizes_input(layer):
            return tf.nn.conv2d(_padded(layer, x), kernel, strides, "VALID")
        return tf.nn.conv2d(x, kernel, strides, "SAME", dilations=layer.dilation_rate)
    if not binarizes_input(layer):  # whose sums round: as Keras does it
        return tf.nn.depthwise_conv2d(x, kernel, strides, "SAME", dilations=layer.dilation_rate)
    # Not `tf.nn.depthwise_conv2d`, which moves a dilated one's pixels into the batch and back.
    return tf.raw_ops.DepthwiseConv2dNative(
        input=x,
        filter=kernel,
        strides=strides,
        padding="SAME",
        dilations=[1, *layer.dilation_rate, 1],
    )


def _padded(layer, x):
    """A layer's input with the zeros around it that padding "same" stands for."""
    paddings = [[0, 0]]
    for size, window, stride in zip(x.shape[1:3], layer.kernel_size, layer.strides, strict=True):
        zeros = max((math.ceil(size / stride) - 1) * stride + window - size, 0)
        paddings.append([zeros // 2, zeros - zeros // 2])
    return tf.pad(x, [*paddings, [0, 0]])


def _normalize(layer, x, *vectors):
    if len(vectors) == 1:
        return x - vectors[0]
    gamma, beta, mean, variance = vectors
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=layer.epsilon,
        is_training=False,
    ).y
