"""The 1-bit kernels: alpha * sign(H), and which layers of a network have them."""

from collections.abc import Iterator
from typing import Any

import larq as lq
import tensorflow as tf


def filter_axes(kernel: tf.Tensor, depthwise: bool) -> list[int]:
    """The axes of a kernel, as `reconstruct` takes it, that one filter extends over."""
    return list(range(len(kernel.shape) - (2 if depthwise else 1)))


def filter_scale(kernel: tf.Tensor, *, depthwise: bool = False) -> tf.Tensor:
    """The alpha = mean |H| of each filter, of a shape that broadcasts to the kernel's.

    Args:
        kernel, depthwise: see `reconstruct`.
    """
    return tf.reduce_mean(tf.abs(kernel), axis=filter_axes(kernel, depthwise), keepdims=True)


@lq.utils.register_keras_custom_object
class DepthwiseMagnitudeAwareSign(lq.quantizers.SteSign):
    """Binarizes a depthwise kernel to alpha * sign(H), with one alpha = mean |H| per channel.

    Decision: Larq's `MagnitudeAwareSign` averages over all axes but the last, which on a depthwise
    kernel `[height, width, channels, 1]` is one alpha for the whole layer; a filter there is a
    channel.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Quantizes `[height, width, channels, 1]`; no gradient flows through alpha."""
        return tf.stop_gradient(filter_scale(inputs, depthwise=True)) * super().call(inputs)


def unscaled_gradient(signs: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
    """Scale * signs, whose gradient with respect to `signs` is 1 instead of `scale`."""
    return signs + tf.stop_gradient(scale * signs - signs)


@lq.utils.register_keras_custom_object
class UnscaledSign(lq.quantizers.SteSign):
    """alpha * sign(H) whose gradient is that of sign(H), without the factor alpha.

    Args:
        depthwise: whether the kernel is a depthwise one, with one alpha per channel.
    """

    def __init__(self, depthwise: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.depthwise = depthwise

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Quantizes `[height, width, in, out]`; no gradient flows through alpha."""
        scale = filter_scale(inputs, depthwise=self.depthwise)
        return unscaled_gradient(super().call(inputs), scale)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "depthwise": self.depthwise}


@lq.utils.register_keras_custom_object
class Relu(lq.quantizers.Quantizer):
    """The parent's activation, in its convolutions as the child's sign is.

    As layers of their own the ReLUs would make the parent's graph deeper, and Keras orders layers,
    and so kernels, by their depth.
    """

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(inputs)


# The quantizers of Larq's layers, and the kernels that they quantize.
_KERNELS = {
    "kernel_quantizer": "kernel",
    "depthwise_quantizer": "depthwise_kernel",
    "pointwise_quantizer": "pointwise_kernel",
}


def reconstruct(kernel: tf.Tensor, *, depthwise: bool = False) -> tf.Tensor:
    """The best 1-bit approximation of each filter, H^ = alpha * sign(H) with alpha = mean |H|.

    The scale alpha minimizes ||H - alpha * sign(H)||^2, and sign(0) = +1 as in Larq. Decision: one
    alpha for each channel of a depthwise kernel, where Larq's `magnitude_aware_sign` has one for
    the whole kernel.

    Args:
        kernel: H, `[height, width, in, out]` of a convolution, `[in, out]` of a dense layer, with a
            filter per output; or `[height, width, channels, multiplier]` if `depthwise`.
        depthwise: whether each channel is a filter of its own.

    Returns:
        H^, of the kernel's shape and dtype.
    """
    kernel = tf.convert_to_tensor(kernel)
    scale = filter_scale(kernel, depthwise=depthwise)
    return tf.where(kernel < 0, -scale, scale)


def all_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """The layers of a model, those inside other layers too."""
    return [module for module in model.submodules if isinstance(module, tf.keras.layers.Layer)]


def one_bit_kernels(model: tf.keras.Model) -> list[tuple[tf.Variable, bool]]:
    """Each latent kernel that a Larq layer makes 1-bit, and whether it is a depthwise one.

    Args:
        model: a built Keras model.

    Returns:
        A list of `(variable, depthwise)`, as `reconstruct` takes them.
    """
    kernels = []
    for layer in all_layers(model):
        for attribute, kernel in _KERNELS.items():
            quantizer = getattr(layer, attribute, None)
            one_bit = getattr(quantizer, "precision", None) == 1
            if one_bit and not isinstance(quantizer, lq.quantizers.NoOp):
                kernels.append((getattr(layer, kernel), kernel == "depthwise_kernel"))
    return kernels


SIGNS = (lq.quantizers.SteSign, lq.quantizers.ApproxSign, lq.quantizers.SwishSign)


def binarizes_input(layer: tf.keras.layers.Layer) -> bool:
    """Whether a layer has a sign on its input."""
    return isinstance(getattr(layer, "input_quantizer", None), SIGNS)


def readers(layer: tf.keras.layers.Layer) -> Iterator[tf.keras.layers.Layer]:
    """The layers of a functional model that get a layer's output, or a slice of it."""
    for node in layer.outbound_nodes:
        if getattr(node.layer, "symbol", None) == "slice":
            yield from readers(node.layer)
        else:
            yield node.layer


def is_depthwise(layer: tf.keras.layers.Layer) -> bool:
    """Whether a Larq layer is a depthwise convolution, with filters of one channel."""
    return isinstance(layer, lq.layers.QuantDepthwiseConv2D)
