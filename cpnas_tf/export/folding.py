"""Folds batch normalizations that are seen by signs alone, exactly.

Of such a normalization only the sign matters: on which side of a threshold per channel its input
is. The sign of a negative gamma goes into the 1-bit kernels.

- Behind a 1-bit convolution of signs the input is alpha * n, with a whole number n: the threshold
  is one of n, and alpha goes as well.
- Elsewhere, such as in front of a residual unit's convolution, it is the smallest input at which
  Keras's own result changes its sign, which is found by bisection: each rounded step of
  gamma * (x - mean) / sigma + beta rises or falls with x, so there is one such place.
"""

import numpy as np
import tensorflow as tf

from cpnas_tf.export.packing import OneBitKernel, packable_kernels
from cpnas_tf.networks.quantizers import binarizes_input, readers

_FARTHEST = np.float32(1e30)  # where a threshold is looked for, as a magnitude
_BELOW_ALL = -np.finfo(np.float32).max


def fold(
    model: tf.keras.Model, *, exact: bool = True
) -> tuple[dict[str, OneBitKernel], dict[str, list[np.ndarray]], list[tf.Variable]]:
    """Takes a Keras model's weights apart, and folds what can be folded.

    Args:
        model: a functional Keras model.
        exact: whether a threshold of whole numbers that comes so close to one that Keras's rounding
            may decide on which side it is is found by bisection as well.

    Returns:
        `(kernels, vectors, weights)`: `OneBitKernel` by layer name, where folded with a scale of 1;
        lists of float32 `[channels]` by the batch normalization's name, where it is folded of one,
        the thresholds (`[t - 1/2]` of whole numbers: n - t + 1/2 is never 0), else
        `[gamma, beta, mean, variance]`; and the list of the other layers' variables.
    """
    kernels = packable_kernels(model)
    norms = {layer.name: layer for layer in model.layers if _is_norm_of_maps(layer)}
    vectors = {name: [weight.numpy() for weight in norm.weights] for name, norm in norms.items()}
    weights = [
        getattr(weight, "latent_variable", weight)
        for layer in model.layers
        if layer.name not in {*kernels, *vectors}
        for weight in layer.weights
    ]
    on_signs = {name for name in kernels if binarizes_input(model.get_layer(name))}
    for norm in norms.values():
        convolutions = {layer.name for layer in readers(norm)}
        if not convolutions or not convolutions <= on_signs:
            continue
        if not _fold_before(kernels, vectors, norm, on_signs, exact):
            _fold_behind(kernels, vectors, norm, convolutions)
    return kernels, vectors, weights


def _is_norm_of_maps(layer):
    is_norm = isinstance(layer, tf.keras.layers.BatchNormalization)
    return is_norm and bool(layer.fused) and len(layer.weights) == 4


def _fold_before(kernels, vectors, norm, on_signs, exact):
    """Folds a normalization into the 1-bit convolution before it, if it can; returns whether."""
    before = norm.inbound_nodes[0].inbound_layers
    if before.name not in on_signs or len(before.outbound_nodes) != 1:
        return False
    folded = _whole_thresholds(kernels[before.name], norm, exact)
    if folded is not None:
        kernels[before.name], vectors[norm.name] = folded
    return folded is not None


def _whole_thresholds(kernel, norm, exact):
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


def _fold_behind(kernels, vectors, norm, convolutions):
    """Turns a normalization into thresholds, and the kernels around that see it fall."""
    if any(kernels[name].signs.shape[2] != norm.input_shape[3] for name in convolutions):
        return  # grouped ones
    thresholds, is_negative = _thresholds(norm)
    vectors[norm.name] = [thresholds]
    for name in convolutions:
        signs = kernels[name].signs ^ is_negative.reshape([1, 1, -1, 1])
        kernels[name] = kernels[name]._replace(signs=signs)


def _thresholds(norm):
    """The t and whether to negate, so that sign(norm(x)) = +-sign(x - t): `[channels]` each."""
    falls = norm.gamma.numpy() < 0
    shape = [1, *norm.input_shape[1:]]

    def is_beyond(x):
        y = norm(np.broadcast_to(x, shape), training=False)[0, 0, 0].numpy()
        return (y >= 0) != falls

    # Floats in their order as whole numbers: those of not beyond, and of beyond.
    high = np.full(shape[-1], _FARTHEST.view(np.int32), np.int64)
    low = -high
    never, always = ~is_beyond(_floats(high)), is_beyond(_floats(low))
    while (high - low > 1).any():
        middle = (low + high) // 2
        beyond = is_beyond(_floats(middle))
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    thresholds = np.where(never | always, _BELOW_ALL, _floats(high))
    return thresholds.astype(np.float32), falls ^ never


def _floats(ordered):
    """The float32 at a place in the order of all, 0 at 0."""
    return np.copysign(np.abs(ordered).astype(np.int32).view(np.float32), ordered)
