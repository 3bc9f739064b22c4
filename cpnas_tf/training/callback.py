"""How far a training is: a Keras callback that ends its epochs, tells of them and saves."""

import math
import os
import time
from typing import Any

import numpy as np
import tensorflow as tf

from cpnas_tf import devices
from cpnas_tf.data import AnyImages
from cpnas_tf.networks.cells import scale_drop_path
from cpnas_tf.networks.quantizers import one_bit_kernels
from cpnas_tf.runs import history
from cpnas_tf.runs.checkpoints import Checkpoints, network_parts
from cpnas_tf.runs.progress import Progress
from cpnas_tf.runs.tensorboard import Summaries
from cpnas_tf.training.flips import SignFlips
from cpnas_tf.training.terms import LossTerms

_SAVE_SECONDS = 600  # an epoch may take hours


class EpochCallback(tf.keras.callbacks.Callback):
    """Validates after each epoch, writes `history.csv`, TensorBoard's logs and a checkpoint.

    Args:
        trained: the compiled model that `fit` trains.
        model: the network in it, without an auxiliary tower.
        judge: the same network, compiled to be evaluated.
        validation: batches to evaluate on.
        epochs: of the whole training.
        steps: of an epoch.
        batch_size: images per step.
        early_stopping: epochs without a better validation accuracy to end after, or None.
        child_parent: the training's `LossTerms`, or None.
    """

    _supports_tf_logs = True  # Keras need not wait for the values of a batch's logs

    def __init__(
        self,
        trained: tf.keras.Model,
        model: tf.keras.Model,
        *,
        judge: tf.keras.Model,
        validation: AnyImages,
        epochs: int,
        steps: int,
        batch_size: int,
        early_stopping: int | None = None,
        child_parent: LossTerms | None = None,
    ) -> None:
        super().__init__()
        self._trained, self._network, self._judge = trained, model, judge
        self._validation, self._child_parent = validation, child_parent
        self._epochs, self._steps, self._batch_size = epochs, steps, batch_size
        self._early_stopping = early_stopping
        self._strategy = model.distribute_strategy
        kernels = [kernel for kernel, _ in one_bit_kernels(model)]
        self._flips = SignFlips(kernels) if kernels else None
        self._means = self._build_means()
        self._running: list[np.ndarray] | None = None
        self._agree = devices.agreement(self._strategy, trained.non_trainable_variables)

    def _build_means(self):
        """The means that Keras reports of an epoch."""
        trained = self._trained
        with self._strategy.scope():
            _build_metrics(trained)
            _build_metrics(self._judge)
            trained.optimizer.build(trained.trainable_variables)
            if self._child_parent is not None:
                self._child_parent.build(trained)
        return [*trained.metrics, *getattr(self._child_parent, "metrics", [])]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The history, a dict per epoch."""
        return self._state.record["rows"]

    @property
    def steps_done(self) -> int:
        """How many steps the weights have seen. One call of Keras's step changes all variables."""
        return int(tf.convert_to_tensor(self._trained.optimizer.iterations))

    @property
    def is_over(self) -> bool:
        """Whether the last epoch is done, or the last one that early stopping allows."""
        done = len(self.rows)
        if done and self._early_stopping:
            waited = done - history.best(self.rows)["epoch"]
            return done == self._epochs or waited >= self._early_stopping
        return done == self._epochs

    def restore(self, directory: str | os.PathLike[str], *, verbose: int | str) -> None:
        """Takes a folder, and goes back to the last checkpoint in it that can be read, if any.

        Args:
            directory: the folder.
            verbose: how much to show of the training, see `Progress`.
        """
        self._csv = os.path.join(directory, "history.csv")
        self._summaries = Summaries(os.path.join(directory, "logs"))
        self._state = Checkpoints(
            directory,
            strategy=self._strategy,
            in_graph=self._network.compute_dtype != "float16",
            **network_parts(self._network),
            trained=self._trained,
            means=self._means,
            **({} if self._flips is None else {"flips": self._flips}),
            **({} if self._child_parent is None else self._child_parent.state),
        )
        # The history; the logs of an epoch that is yet to be validated; its seconds so far.
        self._state.record = {"rows": [], "logs": None, "seconds": 0.0}
        self._clock = self._saved = time.monotonic()
        if self._state.restore() and self.steps_done % self._steps:
            self._running = [variable.numpy() for variable in self._variables()]
        self._progress = Progress(self._epochs, len(self.rows), "epoch", verbose=verbose)
        if self._state.record["logs"]:
            self._finish_epoch()

    def save(self) -> None:
        """Saves where the training stands, if that is a place to go on from.

        It is none between an epoch's last step and its logs, nor if the loss is not finite; and
        several workers do not stand at the same place.
        """
        record = self._state.record
        amid = self.steps_done < (len(self.rows) + 1) * self._steps
        amid = amid and math.isfinite(self._means[0].result())
        if devices.is_alone(self._strategy) and (amid or record["logs"]):
            if amid:
                record["seconds"] = time.monotonic() - self._clock
            self._write_state()

    def _write_state(self):
        self._state.save(epochs=len(self.rows), steps=self.steps_done)
        self._agree()
        self._saved = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Goes on with the means and the time of an epoch that was stopped."""
        scale_drop_path(self._trained, epoch / self._epochs)
        self._clock = time.monotonic() - self._state.record["seconds"]
        if self._running:
            for variable, value in zip(self._variables(), self._running, strict=True):
                variable.assign(value)
            self._running = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Shows where the epoch is, and saves amid a long one."""
        done = self._steps - self.params["steps"] + batch
        self._progress.step(len(self.rows), done, self._steps, loss=logs["loss"])
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Notes what the epoch's steps gave, and finishes it."""
        self._state.record["seconds"] = time.monotonic() - self._clock
        logs = self._renamed(logs)
        logs["learning_rate"] = float(tf.convert_to_tensor(self._trained.optimizer.learning_rate))
        if self._flips:
            logs["flip_ratio"], logs["total_flip_ratio"] = self._flips.count()
        self._state.record["logs"] = logs
        self._finish_epoch()

    def _finish_epoch(self):
        """Validates, then writes the history, the checkpoint that it belongs to, and the logs.

        In this order: a training that is killed before the checkpoint does the last row again, and
        logs that cannot be written cost no epoch.
        """
        record, begun = self._state.record, time.monotonic()
        validated = self._judge.evaluate(self._validation, verbose=0, return_dict=True)
        row = {
            "epoch": len(self.rows) + 1,
            **record["logs"],
            **{f"val_{name}": value for name, value in validated.items()},
            "images_per_second": self._steps * self._batch_size / record["seconds"],
            "seconds": record["seconds"] + time.monotonic() - begun,
        }
        _check_finite(row)
        record.update(rows=[*self.rows, row], logs=None, seconds=0.0)
        self._clock = time.monotonic()
        is_chief = devices.is_chief(self._strategy)
        if is_chief:
            history.write(self._csv, self.rows)
            shown = {"name": self._network.name, "epochs": self._epochs}
            left = self._progress.left(len(self.rows))
            self._progress.line(history.line(self.rows, **shown, left=left))
        self._write_state()
        if is_chief:
            self._summaries.write(row["epoch"], {k: v for k, v in row.items() if k != "epoch"})
        self._trained.stop_training = self.is_over

    def _renamed(self, logs):
        """Keras's logs, without the names of the outputs where there are two."""
        names = self._trained.output_names
        if len(names) == 1:
            return dict(logs)
        logs = {**logs, "accuracy": logs[f"{names[0]}_accuracy"]}
        logs["auxiliary_loss"] = logs[f"{names[1]}_loss"]
        return {name: value for name, value in logs.items() if not name.startswith(tuple(names))}

    def _variables(self):
        return [variable for mean in self._means for variable in mean.variables]


def _build_metrics(model):
    """Makes the means of a compiled model, as Keras would at the first step and then trace anew."""
    outputs = [tf.zeros([1, *output.shape[1:]]) for output in model.outputs]
    model.compiled_loss.build(outputs)
    model.compiled_metrics.build(outputs, [tf.zeros([1, 1])] * len(outputs))


def _check_finite(row):
    """Ends the training with an error if an epoch's mean loss is not finite.

    The validation loss counts too: it alone is of the weights after the last step.
    """
    for name in ("loss", "val_loss"):
        if not math.isfinite(row[name]):
            raise ValueError(
                f"the {name} is {row[name]} in epoch {row['epoch']}: try a lower learning_rate; "
                "the checkpoint of the epoch before is kept"
            )
