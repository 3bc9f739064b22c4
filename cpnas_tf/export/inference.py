"""A Keras model's inference as a graph on given weights, bit for bit what Keras computes.

A 1-bit network magnifies rounding: where a sum is within 1e-7 of 0, another order of the same
additions flips a sign, and with it perhaps the prediction. So the graph has Keras's operations in
Keras's order; what is folded is exact, see `fold`.
"""

import math
from collections.abc import Mapping, Sequence

import larq as lq
import numpy as np
import tensorflow as tf

from cpnas_tf.export.packing import OneBitKernel, packable_kernels
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
        kernels, vectors: tensors in the place of those that `fold` gives.
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


def fold(
    model: tf.keras.Model, *, exact: bool = True
) -> tuple[dict[str, OneBitKernel], dict[str, list[np.ndarray]], list[tf.Variable]]:
    """Takes a Keras model's weights apart, and folds batch normalizations into 1-bit kernels.

    Folded are those that lie between 1-bit convolutions of signs and feed nothing else.

    Args:
        model: a functional Keras model.
        exact: whether to leave a batch normalization as it is where a threshold comes so close to a
            whole number that Keras's rounding may decide on which side it is.

    Returns:
        `(kernels, vectors, weights)`: `OneBitKernel` by layer name, where folded with a scale of 1;
        lists of float32 `[channels]` by the batch normalization's name, `[t - 1/2]` where it is
        folded (n - t + 1/2 is never 0), else `[gamma, beta, mean, variance]`; and the list of the
        other layers' variables.
    """
    kernels = packable_kernels(model)
    vectors = {
        layer.name: [weight.numpy() for weight in layer.weights]
        for layer in model.layers
        if _is_norm_of_maps(layer)
    }
    weights = [
        getattr(weight, "latent_variable", weight)
        for layer in model.layers
        if layer.name not in {*kernels, *vectors}
        for weight in layer.weights
    ]
    on_signs = {name for name in kernels if binarizes_input(model.get_layer(name))}
    for name in on_signs:
        kernel, consumers = kernels[name], _consumers(model.get_layer(name))
        if len(consumers) != 1 or consumers[0].name not in vectors:
            continue
        norm = consumers[0]
        if all(layer.name in on_signs for layer in _consumers(norm)):
            folded = _fold(kernel, norm, exact)
            if folded is not None:
                kernels[name], vectors[norm.name] = folded
    return kernels, vectors, weights


def _is_norm_of_maps(layer):
    is_norm = isinstance(layer, tf.keras.layers.BatchNormalization)
    return is_norm and bool(layer.fused) and len(layer.weights) == 4


def _consumers(layer):
    return [node.layer for node in layer.outbound_nodes]


def _fold(kernel, norm, exact):
    """The kernel and t - 1/2, or None if Keras's rounding might give other signs."""
    gamma, beta, mean, variance = (weight.numpy().astype(np.float64) for weight in norm.weights)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    alpha = kernel.scales.ravel()
    fan_in = kernel.signs.size // alpha.size
    with np.errstate(divide="ignore", invalid="ignore"):
        threshold = (mean - beta / scale) / alpha
        rounding = 2.0**-22 * (fan_in + np.abs(mean / alpha) + np.abs(beta / scale / alpha))
        is_close = np.abs(threshold - np.rint(threshold)) <= rounding
    if exact and (is_close & (np.abs(threshold) <= fan_in + 1)).any():
        return None
    is_negative = scale < 0
    # Where gamma is 0, t is infinite or, for the sign of 0, which is 1, not a number.
    whole = np.ceil(np.where(is_negative, -threshold, threshold))
    whole = np.nan_to_num(whole, nan=-np.inf).clip(-fan_in, fan_in + 1)
    signs = kernel.signs ^ is_negative.reshape(kernel.scales.shape)
    return OneBitKernel(signs, np.ones([1] * 4, np.float32)), [(whole - 0.5).astype(np.float32)]
