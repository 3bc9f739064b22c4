"""1-bit kernels: found in a Keras model, and kept in a SavedModel with one bit per weight.

References:
    XNOR-Net (Rastegari et al., 2016) for alpha * sign(H).
"""

import collections
import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import larq as lq
import numpy as np
import tensorflow as tf

from cpnas_tf.networks.quantizers import Relu, binarizes_input, is_depthwise

# TensorFlow hands out a part of a tensor without copying it where the part starts at a multiple of
# 64 bytes, which it only knows of the rows of a matrix.
_ROW = 16


class OneBitKernel(NamedTuple):
    """A kernel scales * signs.

    Attributes:
        signs: bool, True for +1, in the shape of the kernel.
        scales: float32, alpha of each filter, of a shape that broadcasts to that of the signs.
    """

    signs: np.ndarray
    scales: np.ndarray


def packable_kernels(model: tf.keras.Model) -> dict[str, OneBitKernel]:
    """Finds the convolutions of a Keras model whose kernels are binarized.

    Returns:
        A dict of `OneBitKernel` by the names of layers that do nothing but convolution, on the
        signs of their inputs, on the inputs' ReLU or on what they are given, with zeros around it.
    """
    return {
        layer.name: kernel
        for layer in model.layers
        if (kernel := _one_bit_kernel(layer)) is not None
    }


def _one_bit_kernel(layer):
    if is_depthwise(layer):
        quantizer, kernel, axes = layer.depthwise_quantizer, layer.depthwise_kernel, (0, 1)
    elif isinstance(layer, lq.layers.QuantConv2D):
        quantizer, kernel, axes = layer.kernel_quantizer, layer.kernel, (0, 1, 2)
    else:
        return None
    known_input = layer.input_quantizer is None or isinstance(layer.input_quantizer, Relu)
    if quantizer is None or not (known_input or binarizes_input(layer)):
        return None
    has_more = layer.use_bias or layer.pad_values or layer.padding != "same"
    if has_more or layer.activation is not tf.keras.activations.linear:
        return None
    kernel = quantizer(getattr(kernel, "latent_variable", kernel)).numpy()
    scales = np.abs(kernel).max(axis=axes, keepdims=True)
    return OneBitKernel(kernel >= 0, scales) if (np.abs(kernel) == scales).all() else None


class PackedKernels(tf.saved_model.experimental.TrackableResource):
    """1-bit kernels that a SavedModel stores packed and unpacks once, when it is loaded.

    Kernels of one shape are stacked in a bank. What is unpacked is one float32 tensor, bank after
    bank, which lives as long as the process; equal kernels share it.

    Attributes:
        bits: uint8 variable, the signs, eight a byte, the first in the highest bit.
        scales: float32 variable, the scales.
    """

    def __init__(self, kernels: Mapping[str, OneBitKernel]) -> None:
        """Packs a non-empty dict of `OneBitKernel` by name."""
        super().__init__()
        names = collections.defaultdict(list)
        for name, (signs, scales) in kernels.items():
            names[signs.shape, scales.shape].append(name)
        self._names = list(names.values())
        banks = [[kernels[name] for name in bank] for bank in self._names]
        all_signs = [np.stack([kernel.signs for kernel in bank]) for bank in banks]
        all_scales = [np.stack([kernel.scales for kernel in bank]) for bank in banks]
        self._shapes = [signs.shape for signs in all_signs]
        self._scale_shapes = [scales.shape for scales in all_scales]
        self.bits = tf.Variable(np.packbits(flat(all_signs)), trainable=False)
        self.scales = tf.Variable(flat(all_scales), trainable=False)
        content = hashlib.sha256(repr(self._shapes).encode())
        for variable in (self.bits, self.scales):
            content.update(variable.numpy().tobytes())
        self._shared_name = f"kernels_{content.hexdigest()}"

    def _create_resource(self):
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=None, shared_name=self._shared_name)

    def _initialize(self):
        """Unpacks; TensorFlow calls it when it loads the SavedModel."""
        places = tf.constant([7, 6, 5, 4, 3, 2, 1, 0], tf.uint8)
        bits = tf.bitwise.right_shift(self.bits[:, tf.newaxis], places) & 1
        bits = tf.reshape(bits, [-1])[: sum(map(math.prod, self._shapes))]
        signs = _split(2.0 * tf.cast(bits, tf.float32) - 1.0, self._shapes)
        scales = _split(self.scales, self._scale_shapes)
        rows = []
        for bank in map(tf.multiply, signs, scales):
            padding = -math.prod(bank.shape) % _ROW
            rows.append(tf.reshape(tf.pad(tf.reshape(bank, [-1]), [[0, padding]]), [-1, _ROW]))
        tf.raw_ops.AssignVariableOp(resource=self.resource_handle, value=tf.concat(rows, axis=0))

    def unpacked(self) -> dict[str, tf.Tensor]:
        """The kernels as float32 tensors, by name."""
        sizes = [math.ceil(math.prod(shape) / _ROW) for shape in self._shapes]
        rows = tf.raw_ops.ReadVariableOp(resource=self.resource_handle, dtype=tf.float32)
        parts = tf.split(tf.ensure_shape(rows, [sum(sizes), _ROW]), sizes)
        unpacked: dict[str, tf.Tensor] = {}
        for names, part, shape in zip(self._names, parts, self._shapes, strict=True):
            if math.prod(shape) % _ROW:
                part = tf.reshape(part, [-1])[: math.prod(shape)]
            unpacked.update(zip(names, tf.unstack(tf.reshape(part, shape)), strict=True))
        return unpacked


def flat(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """The elements of arrays, one array after the other."""
    return np.concatenate([array.ravel() for array in arrays])


def _split(values, shapes):
    """The inverse of `flat`."""
    parts = tf.split(values, [math.prod(shape) for shape in shapes])
    return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
