"""Terms beside the compiled loss of a Keras classifier, put into its `fit` by a callback."""

import abc
import contextlib
import threading
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from cpnas_tf import devices


class LossTerms(tf.keras.callbacks.Callback, abc.ABC):
    """Adds terms to the loss of a compiled Keras classifier while `fit` runs.

    Each term is computed in float32, also under mixed precision, and added to the compiled loss
    before any loss scaling. In the training logs `loss` is the total, `cross_entropy` is what Keras
    alone would report (regularization losses included), and each term is there under its name
    without its weight, all averaged over the epoch. The validation logs have no terms. Sample and
    class weights act on the compiled loss only. Labels are integers, or one-hot `[batch, classes]`
    (of soft labels the largest counts). If the loss is a cross-entropy of probabilities and the
    model gives none, the first batch ends with an error.

    While `fit` runs, the model has this callback's `train_function`. Layers and losses are changed
    only within a step, so that the model can be evaluated and saved between two steps as usual.
    After `fit` the model is as before. A `fit` that raised leaves the train function behind: the
    next `fit` drops it, and a `train_on_batch` before that trains with the terms. A model may have
    its own `train_step` if that calls `compute_loss`.

    A subclass says in `_plan` what a model's terms need, and computes them in `_compute`. One that
    needs features sets `_layer` to the layer that gives them, and asks `_features` for them.

    Args:
        warmup_epochs: over how many epochs the weights rise, linearly, from 0 in the first.
    """

    _supports_tf_logs = True  # Keras need not wait for the values of a batch's logs

    def __init__(self, *, warmup_epochs: int = 0) -> None:
        super().__init__()
        self.warmup_epochs = warmup_epochs
        self._built_for: tf.keras.Model | None = None
        self._layer: Any = None
        self._plain = None  # Keras's train function; `_step` is another one, traced with the terms

    @abc.abstractmethod
    def _plan(self, model: tf.keras.Model) -> dict[str, float]:
        """Finds and makes what the terms of a model need; returns their weights by name.

        It runs in the scope of the model's strategy. A term of weight 0 is left out.
        """

    @abc.abstractmethod
    def _compute(self, labels: tf.Tensor) -> dict[str, tf.Tensor]:
        """The terms of one replica's batch, float32 scalars without their weights."""

    @property
    def state(self) -> Mapping[str, tf.Variable]:
        """What a checkpoint has to hold, once built: variables that training changes, by name."""
        return {}

    def build(self, model: tf.keras.Model) -> None:
        """Makes what the terms need; `fit` does it as well.

        Call it before `fit` to restore the `state` from a checkpoint. A second call with the same
        model does nothing, one with another model starts anew.

        Args:
            model: a built Keras classifier.

        Raises:
            ValueError: if the model lacks what a term needs.
        """
        if model is self._built_for:
            return
        self._built_for = self._plain = self._layer = None
        self._share = tf.constant(1.0)
        self._replica = threading.local()  # tf.distribute runs each replica in its own thread
        with model.distribute_strategy.scope():
            if self.warmup_epochs:
                self._share = shared_variable(0.0, name="share")
            self._weights = self._plan(model)
            self._row_error = shared_variable(0.0, name="row_error")
            self._means = {name: tf.keras.metrics.Mean(name) for name in self._weights}
        self._built_for = model

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """The terms' means over the epoch."""
        return list(self._means.values())

    def on_train_begin(self, logs: Any = None) -> None:
        """Gives `fit` a training step with the terms, in the place of Keras's own."""
        model, history = self.model, getattr(self.model, "history", None)  # each `fit` has its own
        self.build(model)
        found = model.train_function
        if hasattr(found, "restore"):  # of another callback of this kind, or of a `fit` that raised
            if found.history is history:
                raise ValueError(f"fit takes one {type(self).__name__}, received more")
            found.restore()
        plain = model.train_function, model.train_tf_function
        if plain[0] is not self._plain:  # else `_step` of the last `fit` is there, and traced
            model.make_train_function(force=True)
            self._plain, self._step = plain[0], (model.train_function, model.train_tf_function)
        self._rows_checked = not _expects_probabilities(model)

        def restore():
            model.train_function, model.train_tf_function = plain

        def train(iterator):
            if getattr(model, "history", None) is not history:  # left behind by a `fit` that raised
                restore()
                return plain[0](iterator)
            return self._train(iterator)

        vars(train).update(history=history, restore=restore)
        model.train_function, model.train_tf_function = train, self._step[1]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the epoch's means, and sets the share of their weights that the terms have."""
        for mean in self._means.values():
            mean.reset_state()
        if self.warmup_epochs:
            self._share.assign(min(1.0, epoch / self.warmup_epochs))

    def on_train_end(self, logs: Any = None) -> None:
        """Gives Keras's own training step back."""
        self.model.train_function.restore()

    def _train(self, iterator):
        """Runs Keras's training step, with the terms in the model's loss and in its logs."""
        model, layer = self.model, self._layer
        wrapped = [
            (model, "train_step", self._with_logs(model.train_step)),
            (model, "compute_loss", self._with_terms(model.compute_loss)),
        ]
        if layer is not None:
            wrapped.append((layer, "call", self._with_maps(layer.call)))
        if not devices.is_alone(model.distribute_strategy):
            # Keras adds up what the workers log, and here each logs the means over all of them.
            wrapped.append((model, "_distribute_reduction_method", "first"))
        with _replaced(wrapped):
            logs = self._with_total(self._step[0](iterator))
        if not self._rows_checked:
            self._check_rows()
        return logs

    def _check_rows(self):
        """Raises ValueError if the first batch's outputs were no probabilities for the loss."""
        self._rows_checked = True
        error = self._row_error.numpy()
        if error > 0.1:  # a softmax in float16 is closer
            raise ValueError(
                f"the loss of the model {self.model.name!r} expects probabilities, but a row "
                f"of its first output has a sum that differs from 1 by {error:.3g}: end the model "
                "with a softmax, or compile it with a loss that has from_logits=True"
            )

    def _with_total(self, logs):
        """The logs of a step of all replicas, with the total as their `loss`."""
        if "loss" not in logs:
            return logs
        terms = {name: logs[name] for name in self._means}
        return {**logs, "loss": self._total(logs["loss"], terms), "cross_entropy": logs["loss"]}

    def _with_logs(self, train_step):
        def logged_step(data):
            self._replica.maps, self._replica.added = None, False
            logs = train_step(data)
            if not self._replica.added:  # by `_with_terms`
                raise ValueError(
                    "the model's own train_step must call compute_loss for the "
                    f"{type(self).__name__}"
                )
            self._replica.maps = None
            return {**logs, **{name: mean.result() for name, mean in self._means.items()}}

        return logged_step

    def _with_terms(self, compute_loss):
        def total_loss(x=None, y=None, y_pred=None, sample_weight=None):
            loss = compute_loss(x, y, y_pred, sample_weight)
            terms = self._terms(tf.nest.flatten(y)[0])
            row_sums = tf.reduce_sum(tf.cast(tf.nest.flatten(y_pred)[0], tf.float32), axis=-1)
            self._row_error.assign(tf.reduce_max(tf.abs(row_sums - 1)))
            self._replica.added = True
            # The replicas' gradients are summed: each takes its share, as of Keras's own losses.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            return self._total(loss, {name: term / replicas for name, term in terms.items()})

        return total_loss

    def _with_maps(self, call):
        def kept_call(*args, **kwargs):
            outputs = call(*args, **kwargs)
            self._replica.maps = outputs
            return outputs

        return kept_call

    def _total(self, loss, terms):
        weighted = [self._weights[name] * self._share * term for name, term in terms.items()]
        return tf.add_n([tf.cast(loss, tf.float32), *weighted])

    def _terms(self, labels):
        """The terms of one replica's batch, which are added to the epoch's means."""
        terms = self._compute(labels)
        for name, term in terms.items():
            self._means[name].update_state(term, sample_weight=tf.shape(labels)[0])
        return terms

    def _features(self, *, pooled: bool) -> tf.Tensor:
        """What `_layer` gave in this step, float32 `[batch, ...]`, `[batch, channels]` if pooled.

        Raises:
            ValueError: if it was not called.
        """
        if self._replica.maps is None:
            raise ValueError(f"the layer {self._layer.name!r} takes no part in the training step")
        maps = tf.cast(self._replica.maps, tf.float32)
        return tf.reduce_mean(maps, axis=(1, 2)) if pooled else maps


def shared_variable(value: Any, *, name: str) -> tf.Variable:
    """A variable of which all replicas hold the same."""
    aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(value, trainable=False, name=name, aggregation=aggregation)


@contextlib.contextmanager
def _replaced(attributes):
    """For a while, sets attributes in the objects' own dictionaries, unseen by Keras's tracking."""
    with contextlib.ExitStack() as stack:
        for owner, name, value in attributes:
            own = vars(owner)
            stack.callback(own.__setitem__ if name in own else own.pop, name, own.get(name))
            own[name] = value
        yield


def _expects_probabilities(model):
    """Whether the loss of a model's first output is a cross-entropy of probabilities."""
    loss = model.loss
    if isinstance(loss, dict):
        loss = loss.get(model.output_names[0])
    elif isinstance(loss, (list, tuple)):
        loss = loss[0]
    losses = tf.keras.losses
    if isinstance(loss, (losses.CategoricalCrossentropy, losses.SparseCategoricalCrossentropy)):
        return not loss.get_config()["from_logits"]
    functions = (losses.categorical_crossentropy, losses.sparse_categorical_crossentropy)
    return (losses.get(loss) if isinstance(loss, str) else loss) in functions
