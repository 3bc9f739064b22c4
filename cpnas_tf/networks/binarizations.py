"""The 1-bit kernels of the papers that CP-NAS compares with, by the names of `BINARIZATIONS`.

They differ in the gradient and in what they learn beside the kernel; each gives every filter two
values, -s and +s. The losses that go with two of them are `training.pcnn` and `training.bonn`.

References:
    XNOR-Net (Rastegari et al., 2016); Bi-Real Net (Liu et al., 2018); PCNN (Gu et al., 2019); BONN
    (Zhao et al., 2019).
"""

import math
from typing import Any

import larq as lq
import tensorflow as tf

from cpnas_tf.catalogue import BINARIZATIONS, Binarization
from cpnas_tf.networks.quantizers import (
    DepthwiseMagnitudeAwareSign,
    UnscaledSign,
    all_layers,
    filter_scale,
)
from cpnas_tf.settings import SettingError, check


def find_binarization(name: str, activations: int) -> Binarization:
    """The row of `BINARIZATIONS` of a name.

    Raises:
        ValueError: if there is none, or its activations cannot have so many bits.
    """
    check(binarization=name, activations=activations)
    found = BINARIZATIONS[name]
    if activations not in found.activations:
        known = " or ".join(map(str, found.activations))
        raise SettingError(
            "activations",
            f"activations must be {known} for the binarization {name}, received: {activations}",
        )
    return found


def kernel_quantizer(
    name: str, *, depthwise: bool = False, unscaled_gradient: bool = False
) -> str | lq.quantizers.Quantizer:
    """A new quantizer for one kernel.

    Args:
        name: a binarization, of `BINARIZATIONS`.
        depthwise: whether the kernel is a depthwise one, with a filter per channel.
        unscaled_gradient: whether the gradient through the signs leaves out the filters' scale.
    """
    kind = BINARIZATIONS[name].kernel
    if kind in _KERNELS:
        return _KERNELS[kind](depthwise=depthwise, unscaled_gradient=unscaled_gradient)
    if unscaled_gradient or kind == "unscaled":
        return UnscaledSign(depthwise=depthwise)
    return DepthwiseMagnitudeAwareSign() if depthwise else "magnitude_aware_sign"


def kernels_of(
    model: tf.keras.Model, kind: type["_KernelSign"]
) -> list[tuple[tf.Variable, "_KernelSign"]]:
    """The latent kernels that quantizers of a kind make 1-bit, each with its quantizer.

    Args:
        model: a built Keras model.
        kind: `PcnnSign` or `BonnSign`.

    Raises:
        ValueError: if there are none.
    """
    found = [
        (getattr(layer, kernel), quantizer)
        for layer in all_layers(model)
        for kernel, quantizer in _quantizers(layer)
        if isinstance(quantizer, kind)
    ]
    if not found:
        raise ValueError(f"the model {model.name!r} has no kernel that {kind.__name__} binarizes")
    return found


def learned_scales(layer: tf.keras.layers.Layer) -> list[tf.Variable]:
    """What the quantizers of a layer learn beside its kernel."""
    return [weight for _, quantizer in _quantizers(layer) for weight in quantizer.weights]


def _quantizers(layer):
    """The kernels of a layer that a quantizer of this module makes 1-bit, by attribute."""
    for prefix, kernel in (("kernel", "kernel"), ("depthwise", "depthwise_kernel")):
        quantizer = getattr(layer, f"{prefix}_quantizer", None)
        if isinstance(quantizer, _KernelSign):
            yield kernel, quantizer


class _KernelSign(lq.quantizers.SteSign):
    """Makes a kernel `[height, width, in, out]` 1-bit: a scale of each filter times signs.

    Args:
        depthwise: whether the kernel is a depthwise one, `[height, width, channels, 1]`.
        unscaled_gradient: whether the gradient through the signs leaves out the scale.
    """

    def __init__(
        self, depthwise: bool = False, unscaled_gradient: bool = False, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.depthwise, self.unscaled_gradient = depthwise, unscaled_gradient

    def get_config(self) -> dict[str, Any]:
        own = {"depthwise": self.depthwise, "unscaled_gradient": self.unscaled_gradient}
        return {**super().get_config(), **own}

    def _scaled(self, signs, scale):
        """Scale * signs, with the gradients of both."""
        if not self.unscaled_gradient:
            return scale * signs
        constant = tf.stop_gradient(signs)
        return scale * constant + (signs - constant)

    def _filter_weight(self, name, kernel_shape, initial):
        """A learned vector, of the shape of one filter."""
        filters = 2 if self.depthwise else 1  # the last axes, that a filter does not extend over
        shape = [*kernel_shape[:-filters], *[1] * filters]
        return self.add_weight(
            name=name, shape=shape, initializer=tf.keras.initializers.Constant(initial)
        )


@lq.utils.register_keras_custom_object
class XnorSign(_KernelSign):
    """alpha * sign(W), alpha = mean |W| of a filter, with the gradient through alpha as well.

    With g the gradient by the 1-bit filter of n elements, that by W_i is

        sign(W_i) / n * sum over j of g_j sign(W_j) + alpha 1[|W_i| <= 1] g_i

    References:
        XNOR-Net, section 3.1; its first term is a sum over the filter, as alpha depends on all j.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        scale = filter_scale(inputs, depthwise=self.depthwise)
        return self._scaled(super().call(inputs), scale)


@lq.utils.register_keras_custom_object
class PcnnSign(_KernelSign):
    """The projection of a kernel C: of -a and +a, a = mean |C| of the layer, what is nearest.

    W is a learned vector of a filter's shape, of which the forward pass has the mean: it gives
    a sign(mean(W) C). The gradient d by that goes through the elements of W,

        by C: d 1[|W C| <= 1] W, by W: the sum over the filters of d 1[|W C| <= 1] C

    It has no factor a, so that `unscaled_gradient` changes nothing. Decision: one projection (the
    paper's J = 1), at first 1 everywhere.

    Attributes:
        projection: W, once built.

    References:
        PCNN (Gu et al., AAAI 2019), sections 3.1 and 3.4.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        self.projection = self._filter_weight("projection", input_shape, 1.0)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        signs = super().call(self.projection * inputs)
        return projected(inputs, self.projection) + (signs - tf.stop_gradient(signs))


def projected(kernel: tf.Tensor, projection: tf.Tensor) -> tf.Tensor:
    """PCNN's 1-bit kernel a sign(mean(W) C), without a gradient.

    Args:
        kernel: C, of any shape.
        projection: W, of a shape that broadcasts to it.
    """
    scale = tf.reduce_mean(tf.abs(kernel))
    signs = lq.math.sign(tf.reduce_mean(projection) * kernel)
    return tf.stop_gradient(scale * signs)


@lq.utils.register_keras_custom_object
class BonnSign(_KernelSign):
    """sign(k) / mean(w), w a learned vector of a filter's shape.

    BONN's loss makes w k close to sign(k), so that sign(k) / mean(w) is close to k. Decision: w
    starts where a kernel of Keras's default initializer, uniform on [-L, L], has the smallest
    ||sign(k) - w k||^2, at 3 / (2 L).

    Attributes:
        scale: w, once built.

    References:
        BONN (Zhao et al., ICCV 2019), section 3.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        *window, inputs, outputs = input_shape
        limit = math.sqrt(6 / (math.prod(window) * (inputs + outputs)))
        self.scale = self._filter_weight("scale", input_shape, 1.5 / limit)
        super().build(input_shape)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return self._scaled(super().call(inputs), 1 / tf.reduce_mean(self.scale))


_KERNELS = {"xnor": XnorSign, "pcnn": PcnnSign, "bonn": BonnSign}
