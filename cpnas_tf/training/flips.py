"""Whether a 1-bit network trains: the share of its weights whose sign has changed."""

from collections.abc import Sequence

import tensorflow as tf


class SignFlips(tf.Module):
    """Counts the flipped signs of 1-bit kernels; its two variables belong into a checkpoint.

    Args:
        kernels: the latent weights, variables of any shape, at least one.
    """

    def __init__(self, kernels: Sequence[tf.Variable]) -> None:
        super().__init__()
        # In a function, so that a checkpoint of the signs does not hold the kernels as well.
        self._signs = lambda: tf.concat(
            [tf.reshape(tf.convert_to_tensor(kernel) >= 0, [-1]) for kernel in kernels], axis=0
        )
        with tf.device("CPU"):
            self._initial = tf.Variable(self._signs(), trainable=False)
            self._previous = tf.Variable(self._initial, trainable=False)

    def count(self) -> tuple[float, float]:
        """The shares of flipped signs since the call before and since the start, in [0, 1]."""
        signs = self._signs()
        recent, total = (
            float(tf.reduce_mean(tf.cast(signs != before, tf.float32)))
            for before in (self._previous, self._initial)
        )
        self._previous.assign(signs)
        return recent, total
