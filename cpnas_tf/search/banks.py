"""Banks of weights: one variable for an operation on all edges of one shape, and its units."""

import functools
import math
import operator
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from cpnas_tf.catalogue import Unit
from cpnas_tf.networks import formulations
from cpnas_tf.networks.formulations import approx_sign, ste_sign
from cpnas_tf.networks.layers import INITIAL_SLOPE, channel_means, rprelu
from cpnas_tf.networks.quantizers import filter_scale, unscaled_gradient
from cpnas_tf.networks.units import BN_EPSILON, Units
from cpnas_tf.settings import SettingError


def check_partial(channels: int, partial: int) -> None:
    """Raises ValueError unless 1/`partial` of the channels is a whole number."""
    if channels % partial:
        raise SettingError(
            "channels",
            f"channels must be a multiple of partial = {partial}, received: {channels}",
        )


def connect_partially(x: tf.Tensor, mixed: tf.Tensor, *, partial: int, stride: int) -> tf.Tensor:
    """Joins the mixture of the first channels to the others, untouched, and shuffles the channels.

    Args:
        x: the edge's input, `[batch, height, width, channels]`.
        mixed: the mixture of operations on its first 1/K of the channels.
        partial: K. The shuffle, with K groups, brings channels that were mixed among the first 1/K
            of the next edge and others out of it.
        stride: of the edge; with 2 the other channels are halved by 2x2 max pooling.

    Returns:
        `[batch, height / stride, width / stride, channels]`.
    """
    if partial == 1:
        return mixed
    rest = x[..., mixed.shape[-1] :]
    if stride > 1:
        rest = tf.nn.max_pool2d(rest, stride, stride, "VALID")
    y = tf.concat([mixed, rest], axis=-1)
    shape, channels = tf.shape(y)[:3], y.shape[-1]
    groups = tf.reshape(y, tf.concat([shape, [partial, channels // partial]], axis=0))
    return tf.reshape(tf.transpose(groups, [0, 1, 2, 4, 3]), tf.concat([shape, [channels]], axis=0))


class Layout:
    """What a network's units ask for, in order: how its parameters lie in a flat vector."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, tuple[int, ...], float | str]] = []

    def take(self, name: str, shape: Sequence[int], initial: float | str) -> tf.Tensor:
        """Notes a parameter's name, shape, and `initial` (a number, or "glorot_uniform")."""
        self.taken.append((name, tuple(shape), initial))
        return tf.zeros(shape)

    @property
    def sizes(self) -> list[int]:
        """How many numbers each parameter has."""
        return [math.prod(shape) for _, shape, _ in self.taken]

    def values(self, vector: tf.Tensor) -> Callable[[str, Sequence[int], float | str], tf.Tensor]:
        """A `take` that hands out a flat tensor's pieces in the same order."""
        rest = vector.shape[0] - sum(self.sizes)
        pieces = iter(tf.split(vector, [*self.sizes, rest])) if self.taken else iter(())

        def take(name, shape, initial):
            del name, initial
            piece = next(pieces)
            return piece if len(shape) == 1 else tf.reshape(piece, shape)

        return take

    def initial_values(self, random: np.random.Generator) -> np.ndarray:
        """A flat vector of initial values, as Keras's layers would draw them."""
        return np.concatenate([np.zeros(0)] + [_initialize(t, random) for t in self.taken])

    def layers(self, vector: np.ndarray) -> dict[str, list[np.ndarray]]:
        """Cuts a flat array into a dict from layer name to that layer's arrays."""
        layers: dict[str, list[np.ndarray]] = {}
        pieces = np.split(vector, np.cumsum(self.sizes))
        for (name, shape, _), piece in zip(self.taken, pieces, strict=False):
            layers.setdefault(name, []).append(piece.reshape(shape))
        return layers


def _initialize(parameter, random):
    _, shape, initial = parameter
    if initial != "glorot_uniform":
        return np.full(math.prod(shape), initial)
    field = math.prod(shape[:-2])
    limit = math.sqrt(6 / (field * (shape[-2] + shape[-1])))
    return random.uniform(-limit, limit, math.prod(shape))


class BankUnits(Units):
    """The units as plain TensorFlow operations; BN uses batch statistics.

    Args:
        precision: "child" or "parent".
        take: gives the next parameter, `(name, shape, initial) -> float32 tensor`.
        dtype: of the convolutions.
        real_inputs, unit, activations: as of `Units`.

    Attributes:
        edge_counts: how many edges of each node `(cell, target)` carry an operation, an integer
            tensor each, where the search may take some away; they count for means alone.
    """

    def __init__(
        self,
        precision: str,
        take: Callable[[str, Sequence[int], float | str], tf.Tensor],
        dtype: str = "float32",
        *,
        real_inputs: Sequence[str] = (),
        unit: str | Unit = "paper",
        activations: int = 1,
    ) -> None:
        super().__init__(precision, real_inputs=real_inputs, unit=unit, activations=activations)
        self._take, self._dtype = take, dtype
        self.edge_counts: dict[tuple[int, int], tf.Tensor] = {}

    def _activated(self, x, kind):
        functions = {"sign": ste_sign, "approx_sign": approx_sign, "relu": tf.nn.relu}
        return functions.get(self.activation(kind), tf.identity)(x)

    def _kernel(self, kind, shape, *, binary, depthwise=False):
        kernel = self._take(self.name(kind), shape, "glorot_uniform")
        if binary:
            scale = tf.stop_gradient(filter_scale(kernel, depthwise=depthwise))
            signs = ste_sign(kernel)
            unscaled = self.unit.unscaled_gradient
            kernel = unscaled_gradient(signs, scale) if unscaled else scale * signs
        return tf.cast(kernel, self._dtype)

    def _batch_norm(self, x):
        name, width = self.name("bn"), [x.shape[-1]]
        scale, offset = self._take(name, width, 1.0), self._take(name, width, 0.0)
        return tf.compat.v1.nn.fused_batch_norm(
            x, scale, offset, epsilon=BN_EPSILON, is_training=True
        )[0]

    def stem(self, x: tf.Tensor, filters: int, *, stride: int = 1, relu: bool = False) -> tf.Tensor:
        x = tf.cast(tf.nn.relu(x) if relu else x, self._dtype)
        kernel = self._kernel("convolution", [3, 3, x.shape[-1], filters], binary=False)
        return self._batch_norm(tf.nn.conv2d(x, kernel, stride, "SAME"))

    def _pointwise(self, x, filters, kind):
        kernel = self._kernel("convolution", [1, 1, x.shape[-1], filters], binary=self.child)
        return formulations.pointwise(self._activated(x, kind), kernel)

    def _halves(self, x, filters, kind):
        parts = [formulations.every_other(x, first=first) for first in (0, 1)]
        return [self._pointwise(part, filters, kind) for part in parts]

    def every_other(self, x: tf.Tensor) -> tf.Tensor:
        return formulations.every_other(x, first=int(self.unit.aligned))

    def _halved(self, x):
        return tf.nn.avg_pool2d(x, 2, 2, "VALID")

    def _channel_means(self, x, filters):
        return channel_means(x, filters)

    def _channel_shift(self, x):
        return x + tf.cast(self._take(self.name("shift"), [x.shape[-1]], 0.0), x.dtype)

    def _rprelu(self, x):
        name = self.name("rprelu")
        numbers = [self._take(name, [x.shape[-1]], value) for value in (0.0, INITIAL_SLOPE, 0.0)]
        return rprelu(x, *(tf.cast(number, x.dtype) for number in numbers))

    def node(self, parts: Sequence[tf.Tensor], *, cell: int, target: int) -> tf.Tensor:
        count = self.edge_counts.get((cell, target))
        if not self.unit.mean_nodes or count is None:
            return super().node(parts, cell=cell, target=target)
        total = parts[0] if len(parts) == 1 else self.add(parts)
        return total / tf.cast(tf.maximum(count, 1), total.dtype)

    def _mean(self, parts):
        return self.add(parts) / len(parts)

    def add(self, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        return functools.reduce(operator.add, parts)

    def concatenate(self, parts: Sequence[tf.Tensor], *, name: str | None = None) -> tf.Tensor:
        return tf.concat(parts, axis=-1, name=name)

    def _depthwise(self, x, size, *, stride, dilation):
        shape = [size, size, x.shape[-1], 1]
        kernel = self._kernel("depthwise", shape, binary=self.child, depthwise=True)
        x = self._activated(x, "depthwise")
        return formulations.depthwise(x, kernel, stride=stride, dilation=dilation)

    def pool(self, x: tf.Tensor, kind: str, *, stride: int) -> tf.Tensor:
        if kind == "avg":
            return self._batch_norm(tf.nn.avg_pool2d(x, 3, stride, "SAME"))
        return self._batch_norm(formulations.max_pool(x, 3, stride=stride))

    def classifier(self, x: tf.Tensor, classes: int) -> tf.Tensor:
        x, name = tf.reduce_mean(tf.cast(x, tf.float32), axis=[1, 2]), self.name("logits")
        kernel = self._take(name, [x.shape[-1], classes], "glorot_uniform")
        return tf.matmul(x, kernel) + self._take(name, [classes], 0.0)
