"""The operations of the search space, written once, and the units they are made of.

An operation is a function `(units, x, stride)`; the units are convolutions with their activation
and batch normalization, and pooling with its own. `LarqUnits` makes Keras layers of them, for
derived networks; the supernet has units over its shared weights. So both run the same operations,
kernel for kernel.

Precision is an argument. The child has a sign on the input and on the weights of every convolution,
the parent ReLU and real weights at the same places (Decision: so their kernels match one to one).
Decision: each convolution, the depthwise and the pointwise one, has a batch normalization of its
own; a separable unit is thus sign, 1-bit depthwise, BN, sign, 1-bit pointwise, BN. (Larq's
`QuantSeparableConv2D` does not binarize what goes between the two.)

Batch normalization uses the paper's framework's constants (PyTorch's: momentum 0.9 in Keras's
sense, epsilon 1e-5). Padding is "same" with zeros.

References:
    CP-NAS, section 2.2; DARTS (Liu et al., 2019) for the operations; XNOR-Net (Rastegari et al.,
    2016) for the scale of a 1-bit kernel.
"""

import collections

import larq as lq
import tensorflow as tf

PRECISIONS = ("child", "parent")
BN_MOMENTUM = 0.9
BN_EPSILON = 1e-5


def check_precision(precision):
    """Raises ValueError unless `precision` is "child" or "parent"."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be child or parent, received: {precision!r}")


@lq.utils.register_keras_custom_object
class DepthwiseMagnitudeAwareSign(lq.quantizers.SteSign):
    """Binarizes a depthwise kernel to alpha * sign(H), with one alpha = mean |H| a channel.

    Decision: Larq's `MagnitudeAwareSign` averages over all axes but the last, which on a depthwise
    kernel `[height, width, channels, 1]` is one alpha for the whole layer; a filter there is a
    channel.
    """

    def call(self, inputs):
        """Quantizes `[height, width, channels, 1]`; no gradient flows through alpha."""
        scale = tf.stop_gradient(tf.reduce_mean(tf.abs(inputs), axis=[0, 1], keepdims=True))
        return scale * super().call(inputs)


@lq.utils.register_keras_custom_object
class Relu(lq.quantizers.Quantizer):
    """The parent's activation, in its convolutions as the child's sign is.

    As layers of their own the ReLUs would make the parent's graph deeper, and Keras orders layers,
    and so kernels, by their depth.
    """

    def call(self, inputs):
        return tf.nn.relu(inputs)


class Units:
    """What the units of derived networks and of the supernet share: precision and names."""

    def __init__(self, precision):
        check_precision(precision)
        self.child = precision == "child"
        self.scope = ""
        self._counts = collections.Counter()

    def name(self, kind):
        """A name for the next part of this kind in the current scope."""
        name = f"{self.scope}_{kind}" if self.scope else kind
        self._counts[name] += 1
        return name if self._counts[name] == 1 else f"{name}_{self._counts[name]}"


class LarqUnits(Units):
    """The units as Keras layers, Larq's quantized ones in a child, under readable names."""

    def _activated(self, **binary):
        """A layer's arguments for an activation: sign and `binary` in a child, else ReLU."""
        if self.child:
            return {"input_quantizer": "ste_sign", **binary}
        return {"input_quantizer": Relu()}

    def _convolution(self, x, filters, *, size=1, stride=1, real=False):
        activated = self._activated(
            kernel_quantizer="magnitude_aware_sign", kernel_constraint="weight_clip"
        )
        return lq.layers.QuantConv2D(
            filters,
            size,
            strides=stride,
            padding="same",
            use_bias=False,
            name=self.name("convolution"),
            **({} if real else activated),
        )(x)

    def _batch_norm(self, x):
        return tf.keras.layers.BatchNormalization(
            momentum=BN_MOMENTUM, epsilon=BN_EPSILON, name=self.name("bn")
        )(x)

    def stem(self, x, filters):
        """A real 3x3 convolution and BN, in child and parent."""
        return self._batch_norm(self._convolution(x, filters, size=3, real=True))

    def pointwise(self, x, filters):
        """Activation, 1x1 convolution, BN."""
        return self._batch_norm(self._convolution(x, filters))

    def factorized_reduction(self, x, filters):
        """Activation, two stride-2 1x1 convolutions, the second a pixel further, BN."""
        halves = [self._convolution(part, filters // 2, stride=2) for part in (x, x[:, 1:, 1:])]
        return self._batch_norm(tf.keras.layers.concatenate(halves))

    def depthwise(self, x, size, *, stride=1, dilation=1):
        """Activation, depthwise convolution, BN."""
        activated = self._activated(
            depthwise_quantizer=DepthwiseMagnitudeAwareSign(), depthwise_constraint="weight_clip"
        )
        x = lq.layers.QuantDepthwiseConv2D(
            size,
            strides=stride,
            dilation_rate=dilation,
            padding="same",
            use_bias=False,
            name=self.name("depthwise"),
            **activated,
        )(x)
        return self._batch_norm(x)

    def pool(self, x, kind, *, stride):
        """3x3 pooling, "max" or "avg" (which does not count the padding), BN."""
        layers = {"max": tf.keras.layers.MaxPooling2D, "avg": tf.keras.layers.AveragePooling2D}
        x = layers[kind](3, strides=stride, padding="same", name=self.name(f"{kind}_pool"))(x)
        return self._batch_norm(x)

    def classifier(self, x, classes):
        """Global average pooling and a real dense layer: logits `[batch, classes]`."""
        x = tf.keras.layers.GlobalAveragePooling2D(name=self.name("pool"))(x)
        return tf.keras.layers.Dense(classes, name=self.name("logits"), dtype="float32")(x)


def _none(units, x, stride):
    del units
    return tf.zeros_like(x[:, ::stride, ::stride])


def _skip_connect(units, x, stride):
    return x if stride == 1 else units.factorized_reduction(x, x.shape[-1])


def _pool(kind):
    return lambda units, x, stride: units.pool(x, kind, stride=stride)


def _sep_conv(size):
    def apply(units, x, stride):
        for unit_stride in (stride, 1):
            x = units.depthwise(x, size, stride=unit_stride)
            x = units.pointwise(x, x.shape[-1])
        return x

    return apply


def _dil_conv(size):
    def apply(units, x, stride):
        if stride == 1:
            x = units.depthwise(x, size, dilation=2)
        else:  # equals stride 2 with dilation 2, which Keras refuses, and is four times cheaper
            x = units.depthwise(x[:, ::stride, ::stride], size)
        return units.pointwise(x, x.shape[-1])

    return apply


OPERATION_FUNCTIONS = {
    "none": _none,
    "skip_connect": _skip_connect,
    "max_pool_3x3": _pool("max"),
    "avg_pool_3x3": _pool("avg"),
    "sep_conv_3x3": _sep_conv(3),
    "sep_conv_5x5": _sep_conv(5),
    "dil_conv_3x3": _dil_conv(3),
    "dil_conv_5x5": _dil_conv(5),
}
