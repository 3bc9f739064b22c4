"""Distillation: a trained network teaches another one with its softmax.

References:
    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def check_teacher(model: tf.keras.Model, teacher: tf.keras.Model) -> None:
    """Raises ValueError unless `teacher` can teach `model`."""
    if teacher is model:
        raise ValueError("a network cannot be its own teacher: give another one")
    for name in ("input_shape", "output_shape"):
        own, other = getattr(model, name)[1:], getattr(teacher, name)[1:]
        if own != other:
            raise ValueError(
                f"the teacher's {name} is {other} and that of the network to be trained {own}: "
                "train the teacher on the same images and classes"
            )


def distillation_loss(logits: tf.Tensor, taught: tf.Tensor, *, temperature: float) -> tf.Tensor:
    """The divergence of a network's softmax from its teacher's, a mean over the batch.

    T^2 * KL(softmax(taught / T) || softmax(logits / T)). The factor T^2 keeps the size of the
    gradients as T changes (section 2.1).

    Args:
        logits: of the network, `[batch, classes]`.
        taught: the teacher's, `[batch, classes]`; no gradient goes through them.
        temperature: T > 0.

    Returns:
        A float32 scalar >= 0.
    """
    logits, taught = (tf.cast(each, tf.float32) / temperature for each in (logits, taught))
    targets = tf.nn.log_softmax(tf.stop_gradient(taught))
    divergence = tf.exp(targets) * (targets - tf.nn.log_softmax(logits))
    return temperature**2 * tf.reduce_mean(tf.reduce_sum(divergence, axis=-1))


class TaughtModel(tf.keras.Model):
    """A functional model whose loss is (1 - w) times the compiled one and w the distillation's.

    The teacher sees the batch that the model sees, in inference mode. It is not trained and no part
    of the model: neither its weights nor its checkpoints hold it. Outputs beside the first (an
    auxiliary tower) are taught too, with their loss weights. The logs have the distillation loss of
    the first output as `distillation`, and the sum as `loss`.
    """

    def teach(
        self,
        teacher: tf.keras.Model,
        *,
        weight: float,
        temperature: float,
        output_weights: Sequence[float],
    ) -> None:
        """Sets the teacher: a Keras model from the same images to logits `[batch, classes]`."""
        # In a function, so that Keras does not take it for a layer of this model.
        self._ask = lambda images: teacher(images, training=False)
        self._share, self._temperature = weight, temperature
        self._output_weights = output_weights
        self._mean = tf.keras.metrics.Mean("distillation")

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None
    ) -> tf.Tensor:
        compiled = super().compute_loss(x, y, y_pred, sample_weight)
        taught = self._ask(x)
        losses = [
            distillation_loss(logits, taught, temperature=self._temperature)
            for logits in tf.nest.flatten(y_pred)
        ]
        self._mean.update_state(losses[0])
        total = tf.add_n(
            [share * loss for share, loss in zip(self._output_weights, losses, strict=True)]
        )
        # The replicas' gradients are summed: each takes its share, as of Keras's own losses.
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        compiled = tf.cast(compiled, tf.float32)
        return (1 - self._share) * compiled + self._share * total / replicas

    def train_step(self, data: Any) -> dict[str, Any]:
        logs = super().train_step(data)
        total = (1 - self._share) * logs["loss"] + self._share * logs["distillation"]
        return {**logs, "loss": total}


def taught_by(
    teacher: tf.keras.Model,
    model: tf.keras.Model,
    *,
    weight: float,
    temperature: float,
    output_weights: Sequence[float] = (1.0,),
) -> TaughtModel:
    """A model of a network's layers that is trained with a teacher, see `TaughtModel`.

    Args:
        teacher: a Keras model from the same images to logits; it stays as it is.
        model: the functional model to be taught.
        weight: share of the teacher in the loss, in [0, 1]; 1 leaves the labels out.
        temperature: T of the softmax of both.
        output_weights: the loss weight of each output.
    """
    taught = TaughtModel(model.inputs, model.outputs, name=model.name)
    taught.teach(teacher, weight=weight, temperature=temperature, output_weights=output_weights)
    return taught
