"""The optimizers of a training: Keras's, under a cosine schedule, with L2 as the paper has it.

References:
    CP-NAS, section 3.1: SGD, cosine to 0, L2, gradient clipping at 5. Its framework is DARTS'.
"""

from collections.abc import Collection
from typing import Any

import tensorflow as tf

from cpnas_tf import settings

_Optimizer: Any = object  # what `_OrderedSums` and `_L2` are mixed into


class _OrderedSums(_Optimizer):
    """Adds up a tensor's gradients in pairs, so that equal steps are equal bit for bit.

    Where a tensor has several uses, a tape adds their gradients by one `AddN`, in an order that
    depends on which buffer is free. Residual units have many such tensors.
    """

    def compute_gradients(self, loss: Any, var_list: Any, tape: Any = None) -> list[Any]:
        """As Keras's, in the graph of a training step; elsewhere Keras's own."""
        if tape is None or tf.executing_eagerly():
            return super().compute_gradients(loss, var_list, tape)
        tree = tf.AggregationMethod.EXPERIMENTAL_TREE
        gradients = tf.gradients(loss, var_list, aggregation_method=tree)
        return list(zip(gradients, var_list, strict=True))


class _L2(_Optimizer):
    """Adds L2 to the gradients after clipping, as the original framework does.

    Keras's own `weight_decay` is decoupled from the gradient, and a regularizer would be clipped.
    What Keras is told to leave out of its own (`exclude_from_weight_decay`) is left out here.
    """

    def __init__(self, *args: Any, l2: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._l2 = l2

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        if self._l2 and self._use_weight_decay(variable):
            gradient = gradient + self._l2 * tf.convert_to_tensor(variable)
        super().update_step(gradient, variable)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l2": self._l2}


@tf.keras.utils.register_keras_serializable("cpnas_tf")
class SGD(_OrderedSums, _L2, tf.keras.optimizers.SGD):
    """Keras's SGD with `l2` times the variable added to each gradient (DARTS: on all variables)."""


@tf.keras.utils.register_keras_serializable("cpnas_tf")
class Adam(_OrderedSums, _L2, tf.keras.optimizers.Adam):
    """Keras's Adam with `l2` times the variable added to each gradient."""


@tf.keras.utils.register_keras_serializable("cpnas_tf")
class Bop(Adam):
    """Bop for 1-bit kernels, Adam for all else.

    Of a kernel's gradients g Bop keeps the mean m = m + gamma (g - m). A weight w whose sign m has,
    with |m| > threshold, becomes -w. So alpha = mean |w| stays what it was.

    Decision: gamma follows the learning rate, of which it is a share.

    Larq's `Bop` and `CaseOptimizer` are for Keras's earlier optimizers and for kernels of +-1.

    Args:
        args, kwargs: of `Adam`.
        binary_kernels: the kernels; they are not in the optimizer's config.
        threshold: of |m|.
        gamma_share: gamma over the learning rate.

    References:
        Helwegen et al., "Latent Weights Do Not Exist: Rethinking Binarized Neural Network
        Optimization", NeurIPS 2019.
    """

    def __init__(
        self,
        *args: Any,
        binary_kernels: Collection[tf.Variable] = (),
        threshold: float = 1e-8,
        gamma_share: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._binary = {self._var_key(kernel) for kernel in binary_kernels}
        self._threshold, self._gamma_share = threshold, gamma_share

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        key = self._var_key(variable)
        if key not in self._binary:
            super().update_step(gradient, variable)
            return
        gamma = self._gamma_share * tf.cast(self.learning_rate, variable.dtype)
        mean = self._momentums[self._index_dict[key]]
        mean.assign_add(gamma * (gradient - mean))
        turns = tf.sign(variable) * mean > self._threshold
        variable.assign(tf.where(turns, -variable, variable))

    def get_config(self) -> dict[str, Any]:
        own = {"threshold": self._threshold, "gamma_share": self._gamma_share}
        return {**super().get_config(), **own}


def check_warmup(warmup_epochs: int, *, epochs: int) -> None:
    """Raises ValueError unless epochs are left after the warm-up."""
    if warmup_epochs >= epochs:
        raise settings.SettingError(
            "warmup_epochs",
            f"warmup_epochs must be less than the {epochs} epochs, received: {warmup_epochs}",
        )


def make_optimizer(
    name: str,
    *,
    learning_rate: float,
    steps: int,
    warmup_steps: int = 0,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    without_decay: Collection[tf.Variable] = (),
    binary_kernels: Collection[tf.Variable] = (),
    gradient_clip: float = 0.0,
) -> tf.keras.optimizers.Optimizer:
    """The optimizer of a training run under a cosine schedule, with L2 and clipping.

    Args:
        name: "sgd", "adam", or "bop", see `Bop`.
        learning_rate: at the first step, or at the end of the warm-up.
        steps: the number of steps after which the learning rate is 0, warm-up included.
        warmup_steps: over how many of them the learning rate first rises linearly from 0.
        momentum: of SGD; the others have their own.
        weight_decay: L2 on all variables but those of `without_decay`.
        without_decay: variables without L2.
        binary_kernels: the latent weights that Bop turns; they have no L2 with it.
        gradient_clip: largest global norm of the gradient; 0 for none.

    Raises:
        ValueError: if the name is unknown or a number is out of range.
    """
    settings.check(
        optimizer=name,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        gradient_clip=gradient_clip,
    )
    schedule = _cosine(learning_rate, steps, warmup_steps)
    # On a GPU Keras would have XLA compile the update of each of a network's hundreds of variables
    # alone; `jit_compile` of the model compiles them together.
    options: dict[str, Any] = {
        "l2": weight_decay,
        "global_clipnorm": gradient_clip or None,
        "jit_compile": False,
    }
    if name == "adam":
        optimizer = Adam(schedule, **options)
    elif name == "bop":
        optimizer = Bop(schedule, binary_kernels=binary_kernels, **options)
    else:
        optimizer = SGD(schedule, momentum=momentum, **options)
    optimizer.exclude_from_weight_decay(var_list=list(without_decay))
    return optimizer


def _cosine(learning_rate, steps, warmup_steps):
    schedule = tf.keras.optimizers.schedules.CosineDecay
    if not warmup_steps:
        return schedule(learning_rate, steps)
    return schedule(
        0.0, steps - warmup_steps, warmup_target=learning_rate, warmup_steps=warmup_steps
    )
