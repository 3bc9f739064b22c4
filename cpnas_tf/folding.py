"""A network's weights for inference: batch normalization as thresholds where only signs follow.

A 1-bit convolution gives alpha * n, where n is the whole number sum(sign(H) * signs). With what
follows, sign(gamma * (alpha * n - mean) / sqrt(variance + epsilon) + beta) is 1 exactly if n >= t
for a whole number t, or if n <= t where gamma < 0; there the filter changes its signs instead. So
five numbers a channel become one, and nothing rounds any more.

References:
    FINN (Umuroglu et al., 2017), section 4.2.2, for batch normalization as thresholds.
"""

import numpy as np
import tensorflow as tf

from cpnas_tf.packing import OneBitKernel, binarizes_input, one_bit_kernels


def fold(model, *, exact=True):
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
    kernels = one_bit_kernels(model)
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
