"""The networks that the paper's tables compare with, as Keras models of Larq layers.

Each function takes `input_shape`, `(height, width, channels)` of an image scaled to [-1, 1], and
`classes`, and gives a functional `tf.keras.Model` from images `[batch, height, width, channels]` to
logits `[batch, classes]`. Stems, classifiers and the convolutions of shortcuts are real in all of
them. Those of 1-bit kernels also take `binarization`, a name of `catalogue.BINARIZATIONS`, and
`activations`, the bits of their activations, 1 or 32; real ones have a ReLU where others have a
sign.

References:
    CP-NAS, Tables 1 to 3. Wide ResNet: Zagoruyko and Komodakis, 2016; its 22 layers of widths
    64-64-128-256: PCNN (Gu et al., 2019). ResNet: He et al., 2016. Bi-Real Net: Liu et al., 2018.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import larq as lq
import tensorflow as tf

from cpnas_tf.catalogue import REFERENCE_NETWORKS
from cpnas_tf.networks.binarizations import find_binarization, kernel_quantizer
from cpnas_tf.networks.units import BN_EPSILON, BN_MOMENTUM, check_keras
from cpnas_tf.settings import SettingError


class _Kind(NamedTuple):
    """What the 3x3 convolutions but the stem are.

    Attributes:
        binarization: of their kernels, None of real ones.
        sign: Larq's name of the sign on their inputs, None of real ones, which have a ReLU.
    """

    binarization: str | None = None
    sign: str | None = None

    def quantizers(self) -> dict[str, Any]:
        """The arguments that make a layer such a convolution."""
        if self.binarization is None:
            return {}
        return {
            "input_quantizer": self.sign,
            "kernel_quantizer": kernel_quantizer(self.binarization),
            "kernel_constraint": "weight_clip",
        }

    def activated(self, x: tf.Tensor) -> tf.Tensor:
        """What such a convolution gets of maps x; a sign is in the convolution itself."""
        return x if self.sign else _relu(x)


_REAL = _Kind()


def _one_bit(binarization, activations):
    found = find_binarization(binarization, activations)
    return _Kind(binarization, found.sign if activations == 1 else None)


def build(
    name: str, *, binarization: str | None = None, activations: int | None = None, **shape: Any
) -> tf.keras.Model:
    """Builds one of `REFERENCE_NETWORKS`.

    Args:
        name: its name.
        binarization, activations: of one with 1-bit kernels; by default its own.
        shape: `input_shape` and `classes`; the paper's by default.

    Raises:
        ValueError: if the name is unknown, the network cannot be binarized so, or Keras's settings
            change all networks.
    """
    check_keras()
    if name not in REFERENCE_NETWORKS:
        known = ", ".join(REFERENCE_NETWORKS)
        raise ValueError(f"unknown reference network {name!r}, expected one of: {known}")
    builders = {"wrn22": wrn22, "wrn22_1bit": wrn22_1bit, "resnet18": resnet18}
    builders |= {"resnet18_1bit": resnet18_1bit, "birealnet18": birealnet18}
    settings: dict[str, Any] = {"binarization": binarization, "activations": activations}
    given = {setting: value for setting, value in settings.items() if value is not None}
    if given and REFERENCE_NETWORKS[name] == "parent":
        setting, value = next(iter(given.items()))
        raise SettingError(
            setting, f"{setting} is of 1-bit networks, {name} is a real one, received: {value!r}"
        )
    return builders[name](**given, **shape)


def wrn22(*, input_shape: Sequence[int] = (32, 32, 3), classes: int = 10) -> tf.keras.Model:
    """WRN-22 in full precision: stages of 64, 128 and 256 channels, three blocks each."""
    return _wide_resnet(input_shape, classes, _REAL, name="wrn22")


def wrn22_1bit(
    *,
    input_shape: Sequence[int] = (32, 32, 3),
    classes: int = 10,
    binarization: str = "cpnas",
    activations: int = 1,
) -> tf.keras.Model:
    """WRN-22 with 1-bit kernels in all 3x3 convolutions but the stem.

    Decision: a sign takes the place of each ReLU before such a convolution. The rest is WRN-22's,
    the real shortcuts over two convolutions as well.
    """
    kind = _one_bit(binarization, activations)
    return _wide_resnet(input_shape, classes, kind, name="wrn22_1bit")


def resnet18(*, input_shape: Sequence[int] = (224, 224, 3), classes: int = 1000) -> tf.keras.Model:
    """ResNet-18 in full precision, with 1x1 convolutions in the shortcuts that halve the size."""
    return _residual_network(input_shape, classes, _REAL, name="resnet18")


def resnet18_1bit(
    *,
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    binarization: str = "cpnas",
    activations: int = 1,
) -> tf.keras.Model:
    """ResNet-18 with 1-bit kernels in all 3x3 convolutions, and signs for their ReLUs."""
    kind = _one_bit(binarization, activations)
    return _residual_network(input_shape, classes, kind, name="resnet18_1bit")


def birealnet18(
    *,
    input_shape: Sequence[int] = (224, 224, 3),
    classes: int = 1000,
    binarization: str = "bireal",
    activations: int = 1,
) -> tf.keras.Model:
    """Bi-Real Net of 18 layers: the 1-bit ResNet-18 with a shortcut around every convolution."""
    images = tf.keras.Input(input_shape, name="images")
    x = _max_pool(_imagenet_stem(images))
    block = functools.partial(_bi_real_block, kind=_one_bit(binarization, activations))
    x = _stages(x, block, widths=(64, 128, 256, 512), blocks=2)
    return _classifier(images, x, classes, name="birealnet18")


def _wide_resnet(input_shape, classes, kind, *, name):
    images = tf.keras.Input(input_shape, name="images")
    x = _convolution(images, 64, 3, name="stem")
    block = functools.partial(_wide_block, kind=kind)
    x = _stages(x, block, widths=(64, 128, 256), blocks=3)
    return _classifier(images, _relu(_batch_norm(x, name="last_bn")), classes, name=name)


def _residual_network(input_shape, classes, kind, *, name):
    images = tf.keras.Input(input_shape, name="images")
    x = kind.activated(_imagenet_stem(images))
    block = functools.partial(_basic_block, kind=kind)
    x = _stages(_max_pool(x), block, widths=(64, 128, 256, 512), blocks=2)
    return _classifier(images, x, classes, name=name)


def _stages(x, block, *, widths, blocks):
    """A stage a width; the first block of all but the first stage halves the size."""
    for stage, width in enumerate(widths, start=1):
        for number in range(1, blocks + 1):
            stride = 2 if stage > 1 and number == 1 else 1
            x = block(x, width, stride, f"stage{stage}_block{number}")
    return x


def _wide_block(x, width, stride, name, *, kind):
    """Twice BN, activation, convolution; a shortcut that halves starts behind the activation."""
    shortcut = x
    for number, conv_stride in ((1, stride), (2, 1)):
        x = kind.activated(_batch_norm(x, name=f"{name}_bn{number}"))
        if conv_stride == 2:
            shortcut = _convolution(x, width, 1, stride=2, name=f"{name}_shortcut")
        conv = {"stride": conv_stride, "name": f"{name}_conv{number}"}
        x = _convolution(x, width, 3, **conv, **kind.quantizers())
    return tf.keras.layers.add([x, shortcut])


def _basic_block(x, width, stride, name, *, kind):
    """Convolution, BN, activation, convolution, BN; the sum with the shortcut; activation."""
    shortcut = x
    if stride == 2:
        shortcut = _convolution_bn(x, width, 1, stride=2, name=f"{name}_shortcut")
    x = _convolution_bn(x, width, 3, stride=stride, name=f"{name}_conv1", **kind.quantizers())
    x = _convolution_bn(kind.activated(x), width, 3, name=f"{name}_conv2", **kind.quantizers())
    return kind.activated(tf.keras.layers.add([x, shortcut]))


def _bi_real_block(x, width, stride, name, *, kind):
    """Twice activation, 1-bit convolution, BN and the sum with the shortcut."""
    for number, conv_stride in ((1, stride), (2, 1)):
        shortcut = x
        if conv_stride == 2:
            shortcut = tf.keras.layers.AveragePooling2D(2, padding="same")(x)
            shortcut = _convolution_bn(shortcut, width, 1, name=f"{name}_shortcut")
        conv = {"stride": conv_stride, "name": f"{name}_conv{number}"}
        x = _convolution_bn(kind.activated(x), width, 3, **conv, **kind.quantizers())
        x = tf.keras.layers.add([x, shortcut])
    return x


def _imagenet_stem(images):
    return _convolution_bn(images, 64, 7, stride=2, name="stem")


def _max_pool(x):
    return tf.keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)


def _convolution_bn(x, filters, size, *, name, **settings):
    return _batch_norm(_convolution(x, filters, size, name=name, **settings), name=f"{name}_bn")


def _convolution(x, filters, size, *, name, stride=1, **quantizers):
    return lq.layers.QuantConv2D(
        filters, size, strides=stride, padding="same", use_bias=False, name=name, **quantizers
    )(x)


def _batch_norm(x, *, name):
    return tf.keras.layers.BatchNormalization(momentum=BN_MOMENTUM, epsilon=BN_EPSILON, name=name)(
        x
    )


def _relu(x):
    return tf.keras.layers.ReLU()(x)


def _classifier(images, x, classes, *, name):
    x = tf.keras.layers.GlobalAveragePooling2D()(x)
    logits = tf.keras.layers.Dense(classes, name="logits", dtype="float32")(x)
    return tf.keras.Model(images, logits, name=name)
