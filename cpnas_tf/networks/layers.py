"""The layers that Keras and Larq lack."""

import random
from typing import Any

import larq as lq
import tensorflow as tf

from cpnas_tf.settings import check


class _State(tf.train.Checkpoint):
    """Holds variables that Keras takes for no weights, but looks for in a checkpoint."""

    @tf.train.Checkpoint.save_counter.setter  # type: ignore[untyped-decorator]
    def save_counter(self, value: Any) -> None:
        """Lets a SavedModel be loaded, which sets all that was saved; nothing is counted here."""


@lq.utils.register_keras_custom_object
class DropPath(tf.keras.layers.Layer):
    """Drops an edge, for some images of a training batch, and makes up for it in the others.

    In training each image's maps are multiplied by 0 with the probability scale * rate, else by
    1 / (1 - scale * rate); in inference nothing is done. Scale and the random generator are in a
    model's checkpoints, but are no weights. The generator's seed is drawn from Python's `random`,
    which `tf.keras.utils.set_random_seed` seeds.

    Args:
        rate: probability, in [0, 1).

    Attributes:
        scale: float32 variable in [0, 1], at first 1.

    References:
        FractalNet (Larsson et al., 2017), section 4, as used in DARTS.
    """

    def __init__(self, rate: float, **settings: Any) -> None:
        super().__init__(**settings)
        check(drop_path=rate)
        self.rate = rate
        self._state = _State(
            scale=tf.Variable(1.0, trainable=False, name="scale"),
            generator=tf.random.Generator.from_seed(random.randrange(2**31)),
        )

    @property
    def scale(self) -> tf.Variable:
        return self._state.scale

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Drops some images' `[height, width, channels]` of `[batch, height, width, channels]`."""
        if not training:
            return x
        keep = 1.0 - self.scale * self.rate
        kept = self._state.generator.uniform([tf.shape(x)[0], 1, 1, 1]) < keep
        return x * tf.cast(tf.where(kept, 1.0 / keep, 0.0), x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}


def channel_means(x: tf.Tensor, filters: int) -> tf.Tensor:
    """Maps `[batch, height, width, groups * filters]` averaged over the groups of channels."""
    shape = [-1, *x.shape[1:3], x.shape[-1] // filters, filters]
    return tf.reduce_mean(tf.reshape(x, shape), axis=3)


@lq.utils.register_keras_custom_object
class ChannelMeans(tf.keras.layers.Layer):
    """`channel_means` as a layer: the shortcut around a convolution that has fewer filters.

    Args:
        filters: channels of the output; those of the input are a multiple.
    """

    def __init__(self, filters: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.filters = filters

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Averages `[batch, height, width, channels]` to `[batch, height, width, filters]`."""
        return channel_means(x, self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters}


@lq.utils.register_keras_custom_object
class ChannelShift(tf.keras.layers.Layer):
    """Adds a learned number to each channel: a threshold, of minus it, where a sign follows.

    References:
        ReActNet (Liu et al., 2020), RSign.
    """

    def build(self, input_shape: Any) -> None:
        self.shift = self.add_weight("shift", input_shape[-1:], initializer="zeros")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x + self.shift


def rprelu(x: tf.Tensor, threshold: tf.Tensor, slope: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """A PReLU of x - threshold, plus offset; all three have one number per channel."""
    x = x - threshold
    return tf.nn.relu(x) - slope * tf.nn.relu(-x) + offset


INITIAL_SLOPE = 0.25  # of a PReLU (He et al., 2015)


@lq.utils.register_keras_custom_object
class RPReLU(tf.keras.layers.Layer):
    """`rprelu` with learned numbers.

    References:
        ReActNet (Liu et al., 2020).
    """

    def build(self, input_shape: Any) -> None:
        slopes = tf.keras.initializers.Constant(INITIAL_SLOPE)
        self.threshold = self.add_weight("threshold", input_shape[-1:], initializer="zeros")
        self.slope = self.add_weight("slope", input_shape[-1:], initializer=slopes)
        self.offset = self.add_weight("offset", input_shape[-1:], initializer="zeros")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return rprelu(x, self.threshold, self.slope, self.offset)
