"""The optimizers of a supernet: a step of some rows of weights, with what each row keeps.

They are written for rows since Keras's own change all of a variable in each step: its momentum
would move what was not sampled, and its Adam would correct the bias of all rows alike.
"""

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from cpnas_tf.settings import SettingError

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7  # of Adam, Keras's


class RowOptimizer(Protocol):
    """An optimizer of rows of weights. It has no state: what a row keeps is in its slots."""

    @staticmethod
    def slots(bank: tf.Tensor) -> dict[str, tf.Tensor]:
        """What to keep for a bank `[edges, operations, parameters]`: zeros by the slot's name."""

    @staticmethod
    def step(
        weights: tf.Tensor,
        gradients: tf.Tensor,
        slots: Sequence[tf.Tensor],
        *,
        learning_rate: tf.Tensor,
        momentum: float,
        weight_decay: float,
    ) -> tuple[tf.Tensor, ...]:
        """One step.

        Args:
            weights, gradients: float `[rows, parameters]`.
            slots: their rows of the slots, in the order of `slots`.
            learning_rate, momentum, weight_decay: scalars.

        Returns:
            The new weights and slots.
        """


class _SGD:
    """SGD with momentum in the original framework's form, with L2.

    With the gradient g at w: v = momentum v + g + weight_decay w and w = w - learning_rate v.
    """

    @staticmethod
    def slots(bank):
        return {"momentum": tf.zeros_like(bank)}

    @staticmethod
    def step(weights, gradients, slots, *, learning_rate, momentum, weight_decay):
        (velocity,) = slots
        velocity = momentum * velocity + gradients + weight_decay * weights
        return weights - learning_rate * velocity, velocity


class _Adam:
    """Adam as Keras has it, with L2 in the gradient; it does not use `momentum`.

    A row counts its own steps (exactly, up to 2^24), so that the bias is corrected by how often
    that row was sampled.
    """

    @staticmethod
    def slots(bank):
        zeros = tf.zeros_like(bank)
        return {"mean": zeros, "square": zeros, "count": zeros[..., :1]}

    @staticmethod
    def step(weights, gradients, slots, *, learning_rate, momentum, weight_decay):
        del momentum
        mean, square, count = slots
        gradients = gradients + weight_decay * weights
        count = count + 1
        mean = BETA_1 * mean + (1 - BETA_1) * gradients
        square = BETA_2 * square + (1 - BETA_2) * tf.square(gradients)
        rate = learning_rate * tf.sqrt(1 - BETA_2**count) / (1 - BETA_1**count)
        return weights - rate * mean / (tf.sqrt(square) + EPSILON), mean, square, count


_ROW_OPTIMIZERS: dict[str, type[RowOptimizer]] = {"sgd": _SGD, "adam": _Adam}


def find_row_optimizer(name: str) -> type[RowOptimizer]:
    """The optimizer "sgd" or "adam".

    Raises:
        ValueError: if there is no optimizer of that name.
    """
    if name not in _ROW_OPTIMIZERS:
        known = ", ".join(_ROW_OPTIMIZERS)
        raise SettingError("optimizer", f"optimizer must be one of {known}, received: {name!r}")
    return _ROW_OPTIMIZERS[name]
