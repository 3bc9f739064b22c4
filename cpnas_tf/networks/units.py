"""The units that operations and cells are made of: convolutions and pooling with their BN.

`LarqUnits` makes Keras layers of them, for derived networks; the supernets have units over their
shared weights (`search.banks`). Both take the same calls.

Precision is an argument. The child has a sign on the input and on the weights of every convolution,
the parent ReLU and real weights at the same places (Decision: so their kernels match one to one).
Decision: each convolution, the depthwise and the pointwise one, has a batch normalization of its
own; a separable unit is thus sign, 1-bit depthwise, BN, sign, 1-bit pointwise, BN. (Larq's
`QuantSeparableConv2D` does not binarize what goes between the two.)

`real_inputs` names the kinds of convolution whose input a child leaves real, as its `*` and `**`
networks for ImageNet do. Decision: nothing takes the sign's place there. "Not binarized" says no
more; the next sign, behind the convolution and its BN, is nonlinear enough, and a ReLU would throw
away half of what not binarizing keeps. The kernel stays 1-bit.

Batch normalization uses the paper's framework's constants (PyTorch's: momentum 0.9 in Keras's
sense, epsilon 1e-5). Padding is "same" with zeros.

References:
    CP-NAS, section 2.2; XNOR-Net (Rastegari et al., 2016) for the scale of a 1-bit kernel.
"""

import collections
from collections.abc import Callable, Sequence

import larq as lq
import tensorflow as tf

from cpnas_tf.catalogue import Unit, named_unit
from cpnas_tf.networks.binarizations import find_binarization, kernel_quantizer
from cpnas_tf.networks.layers import ChannelMeans, ChannelShift, RPReLU
from cpnas_tf.networks.quantizers import Relu
from cpnas_tf.settings import check

BN_MOMENTUM = 0.9
BN_EPSILON = 1e-5


def check_keras() -> None:
    """Refuses settings of Keras, such as of the user's `keras.json`, that change all networks.

    Raises:
        ValueError: naming them, and what to set.
    """
    found = tf.keras.backend.floatx(), tf.keras.backend.image_data_format()
    if found != ("float32", "channels_last"):
        raise ValueError(
            "networks need Keras's floatx float32 and image_data_format channels_last, received: "
            f"{' and '.join(found)}: call tf.keras.backend.set_floatx and set_image_data_format, "
            "or change keras.json"
        )


def further(x: tf.Tensor) -> tf.Tensor:
    """Maps `[batch, height, width, ...]` without their first row and their first column.

    Equals `x[:, 1:, 1:]`, whose gradient is ten times slower on a CPU than this slice's padding.
    """
    others = len(x.shape) - 3
    return tf.slice(x, [0, 1, 1, *[0] * others], [-1] * len(x.shape))


def find_unit(unit: str | Unit) -> Unit:
    """The `Unit` of some names, see `catalogue.named_unit`, or the one given.

    Raises:
        ValueError: if a name is unknown.
    """
    check(unit=unit)
    return unit if isinstance(unit, Unit) else named_unit(unit)


class Units:
    """What the units of derived networks and of the supernet share: their parts and names.

    Args:
        precision: "child" or "parent".
        real_inputs: the kinds of `REAL_INPUTS` whose input a child does not binarize.
        unit: names, as `find_unit` takes them, or a `Unit`.
        binarization: of a child's convolutions, a name of `BINARIZATIONS`.
        activations: the bits of a child's, 1 or 32; with 32 it has the parent's ReLU.
    """

    # What a subclass gives: tensors to tensors.
    add: Callable[..., tf.Tensor]
    concatenate: Callable[..., tf.Tensor]
    _pointwise: Callable[..., tf.Tensor]
    _halves: Callable[..., list[tf.Tensor]]
    _depthwise: Callable[..., tf.Tensor]
    _batch_norm: Callable[..., tf.Tensor]
    _channel_shift: Callable[..., tf.Tensor]
    _rprelu: Callable[..., tf.Tensor]
    _halved: Callable[..., tf.Tensor]
    _channel_means: Callable[..., tf.Tensor]
    _mean: Callable[..., tf.Tensor]

    def __init__(
        self,
        precision: str,
        *,
        real_inputs: Sequence[str] = (),
        unit: str | Unit = "paper",
        binarization: str = "cpnas",
        activations: int = 1,
    ) -> None:
        check(precision=precision, real_inputs=real_inputs)
        self.unit = find_unit(unit)
        self.child = precision == "child"
        self._sign = find_binarization(binarization, activations).sign
        self._binarization, self._activations = binarization, activations
        self._real_inputs = tuple(real_inputs)
        self.scope = ""
        self._counts: collections.Counter[str] = collections.Counter()

    def activation(self, kind: str) -> str | None:
        """What is before a convolution of this kind: "sign", "approx_sign", "relu" or None."""
        if not self.child or self._activations != 1:
            return "relu"
        if kind in self._real_inputs:
            return None
        return "approx_sign" if self.unit.approx_sign else "sign"

    def zeros_like(self, x: tf.Tensor) -> tf.Tensor:
        """Zeros of a tensor's shape, whatever is in it."""
        return tf.zeros_like(x)

    def every_other(self, x: tf.Tensor) -> tf.Tensor:
        """Every other row and column of maps `[batch, height, width, channels]`.

        From the first or, in an aligned unit, from the second.
        """
        first = int(self.unit.aligned)
        return x[:, first::2, first::2]

    def name(self, kind: str) -> str:
        """A name for the next part of this kind in the current scope."""
        name = f"{self.scope}_{kind}" if self.scope else kind
        self._counts[name] += 1
        return name if self._counts[name] == 1 else f"{name}_{self._counts[name]}"

    def pointwise(self, x: tf.Tensor, filters: int, *, kind: str = "pointwise") -> tf.Tensor:
        """Activation, 1x1 convolution, BN."""
        y = self._batch_norm(self._pointwise(self._in_front(x), filters, kind))
        return self._around(x, y)

    def factorized_reduction(
        self, x: tf.Tensor, filters: int, *, kind: str = "pointwise"
    ) -> tf.Tensor:
        """Activation, two stride-2 1x1 convolutions, the second a pixel further, BN."""
        halves = self._halves(self._in_front(x), filters // 2, kind)
        return self._around(x, self._batch_norm(self.concatenate(halves)))

    def depthwise(
        self, x: tf.Tensor, size: int, *, stride: int = 1, dilation: int = 1
    ) -> tf.Tensor:
        """Activation, depthwise convolution, BN."""
        y = self._depthwise(self._in_front(x), size, stride=stride, dilation=dilation)
        return self._around(x, self._batch_norm(y))

    def _in_front(self, x):
        """What a unit's activation gets of its input x."""
        x = self._batch_norm(x) if self.unit.norm_first else x
        return self._channel_shift(x) if self.unit.rsign else x

    def _around(self, x, y):
        """The output of a unit on x that convolves and normalizes to y."""
        y = self._with_shortcut(x, y)
        return self._rprelu(y) if self.unit.rprelu else y

    def _with_shortcut(self, x, y):
        """Maps y plus the shortcut, if there is one: maps x of the same width."""
        filters = y.shape[-1]
        if not self.unit.shortcuts or x.shape[-1] % filters:
            return y
        x = x if x.shape[1:3] == y.shape[1:3] else self._halved(x)
        return self.add([y, x if x.shape[-1] == filters else self._channel_means(x, filters)])

    def node(self, parts: Sequence[tf.Tensor], *, cell: int, target: int) -> tf.Tensor:
        """A node of a cell: the sum or the mean of what its edges give, at least one tensor."""
        del cell, target
        if len(parts) == 1:
            return parts[0]
        return self._mean(parts) if self.unit.mean_nodes else self.add(parts)


class LarqUnits(Units):
    """The units as Keras layers, Larq's quantized ones in a child, under readable names."""

    def _quantizers(self, kind, **binary):
        """A convolution's arguments for its activation and, in a child, those of a 1-bit kernel."""
        activation = self.activation(kind)
        quantizer = {"sign": self._sign, "relu": Relu()}.get(activation, activation)
        return {"input_quantizer": quantizer, **(binary if self.child else {})}

    def _kernel_quantizer(self, *, depthwise=False):
        return kernel_quantizer(
            self._binarization,
            depthwise=depthwise,
            unscaled_gradient=self.unit.unscaled_gradient,
        )

    def _convolution(self, x, filters, *, size=1, stride=1, padding="same", **quantizers):
        return lq.layers.QuantConv2D(
            filters,
            size,
            strides=stride,
            padding=padding,
            use_bias=False,
            name=self.name("convolution"),
            **quantizers,
        )(x)

    def _pointwise(self, x, filters, kind, *, stride=1):
        quantizers = self._quantizers(
            kind, kernel_quantizer=self._kernel_quantizer(), kernel_constraint="weight_clip"
        )
        return self._convolution(x, filters, stride=stride, **quantizers)

    def _batch_norm(self, x):
        return tf.keras.layers.BatchNormalization(
            momentum=BN_MOMENTUM, epsilon=BN_EPSILON, name=self.name("bn")
        )(x)

    def stem(self, x: tf.Tensor, filters: int, *, stride: int = 1, relu: bool = False) -> tf.Tensor:
        """ReLU if wanted, a 3x3 convolution, BN; all real, in child and parent."""
        activation = {"input_quantizer": Relu()} if relu else {}
        return self._batch_norm(self._convolution(x, filters, size=3, stride=stride, **activation))

    def _halves(self, x, filters, kind):
        return [self._pointwise(part, filters, kind, stride=2) for part in (x, further(x))]

    def _halved(self, x):
        return tf.keras.layers.AveragePooling2D(2, name=self.name("halved"))(x)

    def _channel_means(self, x, filters):
        return ChannelMeans(filters, name=self.name("channel_means"))(x)

    def _channel_shift(self, x):
        return ChannelShift(name=self.name("shift"))(x)

    def _rprelu(self, x):
        return RPReLU(name=self.name("rprelu"))(x)

    def _mean(self, parts):
        return tf.keras.layers.average(parts)

    def add(self, parts: Sequence[tf.Tensor]) -> tf.Tensor:
        """The sum of two tensors or more of one shape."""
        return tf.keras.layers.add(parts)

    def concatenate(self, parts: Sequence[tf.Tensor], *, name: str | None = None) -> tf.Tensor:
        """Tensors side by side, along the channels."""
        return tf.keras.layers.concatenate(parts, name=name)

    def _depthwise(self, x, size, *, stride, dilation):
        quantizers = self._quantizers(
            "depthwise",
            depthwise_quantizer=self._kernel_quantizer(depthwise=True),
            depthwise_constraint="weight_clip",
        )
        return lq.layers.QuantDepthwiseConv2D(
            size,
            strides=stride,
            dilation_rate=dilation,
            padding="same",
            use_bias=False,
            name=self.name("depthwise"),
            **quantizers,
        )(x)

    def pool(self, x: tf.Tensor, kind: str, *, stride: int) -> tf.Tensor:
        """3x3 pooling, "max" or "avg" (which does not count the padding), BN."""
        layers = {"max": tf.keras.layers.MaxPooling2D, "avg": tf.keras.layers.AveragePooling2D}
        x = layers[kind](3, strides=stride, padding="same", name=self.name(f"{kind}_pool"))(x)
        return self._batch_norm(x)

    def classifier(self, x: tf.Tensor, classes: int) -> tf.Tensor:
        """Global average pooling and a real dense layer: logits `[batch, classes]`."""
        x = tf.keras.layers.GlobalAveragePooling2D(name=self.name("pool"))(x)
        return tf.keras.layers.Dense(classes, name=self.name("logits"), dtype="float32")(x)

    def auxiliary_classifier(self, x: tf.Tensor, classes: int) -> tf.Tensor:
        """DARTS' auxiliary tower, real in child and parent: logits `[batch, classes]`.

        ReLU, average pooling to 2x2, 1x1 convolution to 128 channels, BN, ReLU, 2x2 convolution to
        768, BN, ReLU, dense layer. Decision: the pooling's windows lie at the corners, of 5x5
        pixels, or of what fits twice into less; of 8x8 and 7x7 maps that is what DARTS does on
        CIFAR-10 and ImageNet. Decision: BN follows both convolutions, as in DARTS on CIFAR-10; its
        code for ImageNet lacks the second one and says that this is a typo.
        """
        window = [min(5, size - 1) for size in x.shape[1:3]]
        strides = [size - reach for size, reach in zip(x.shape[1:3], window, strict=True)]
        x = tf.keras.layers.ReLU(name=self.name("relu"))(x)
        x = tf.keras.layers.AveragePooling2D(window, strides, name=self.name("avg_pool"))(x)
        x = self._batch_norm(self._convolution(x, 128))
        x = self._convolution(x, 768, size=2, padding="valid", input_quantizer=Relu())
        x = tf.keras.layers.ReLU(name=self.name("relu"))(self._batch_norm(x))
        return self.classifier(x, classes)
