"""Training and evaluation of derived networks: takes a Keras model and `Images`, keeps checkpoints.

References:
    CP-NAS, section 3.1, for the recipe: SGD, cosine to 0, L2, gradient clipping at 5.
"""

import csv
import functools
import glob
import io
import math
import os
import sys

import numpy as np
import tensorflow as tf

from cpnas_tf import data
from cpnas_tf.genotypes import Genotype
from cpnas_tf.networks import build_network
from cpnas_tf.summaries import SummariesCallback
from cpnas_tf.workdir import first_line, read_json, write_atomically

OPTIMIZERS = ("sgd", "adam")
_KEPT_CHECKPOINTS = 2
# How TensorFlow says it of a checkpoint.
_BROKEN = (tf.errors.OpError, AssertionError, IndexError, ValueError)


class _L2:
    """Adds L2 to the gradients after clipping, as the original framework does.

    Keras's own `weight_decay` is decoupled from the gradient, and a regularizer would be clipped.
    """

    def __init__(self, *args, l2=0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self._l2 = l2

    def update_step(self, gradient, variable):
        super().update_step(gradient + self._l2 * tf.convert_to_tensor(variable), variable)

    def get_config(self):
        return {**super().get_config(), "l2": self._l2}


@tf.keras.utils.register_keras_serializable("cpnas_tf")
class SGD(_L2, tf.keras.optimizers.SGD):
    """Keras's SGD with `l2` times the variable added to each gradient (DARTS: on all variables)."""


@tf.keras.utils.register_keras_serializable("cpnas_tf")
class Adam(_L2, tf.keras.optimizers.Adam):
    """Keras's Adam with `l2` times the variable added to each gradient."""


def make_optimizer(
    name, *, learning_rate, steps, momentum=0.9, weight_decay=0.0, gradient_clip=None
):
    """The optimizer of a training run: SGD or Adam under a cosine schedule, with L2 and clipping.

    Args:
        name: "sgd" or "adam".
        learning_rate: at the first step.
        steps: the number of steps after which the learning rate is 0.
        momentum: of SGD; Adam has its own.
        weight_decay: L2 on all variables.
        gradient_clip: largest global norm of the gradient, or None.

    Raises:
        ValueError: if the name is unknown or a number is out of range.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, received: {name!r}")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate must be a number > 0, received: {learning_rate}")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), received: {momentum}")
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"weight_decay must be a number >= 0, received: {weight_decay}")
    if gradient_clip is not None and not 0 < gradient_clip < math.inf:
        raise ValueError(f"gradient_clip must be a number > 0 or None, received: {gradient_clip}")
    schedule = tf.keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    if name == "adam":
        return Adam(schedule, l2=weight_decay, global_clipnorm=gradient_clip)
    return SGD(schedule, momentum=momentum, l2=weight_decay, global_clipnorm=gradient_clip)


def train(
    model,
    images,
    *,
    validation,
    directory,
    epochs=600,
    batch_size=96,
    optimizer="sgd",
    learning_rate=0.025,
    momentum=0.9,
    weight_decay=3e-4,
    gradient_clip=5.0,
    augmentation=None,
    child_parent=None,
    seed=0,
    on_start=lambda: None,
):
    """Trains a Keras classifier from logits; the defaults are the paper's for CIFAR-10.

    Each epoch ends with a checkpoint and `history.csv` in `directory`, from where a stopped
    training goes on. The last two checkpoints are kept.

    Args:
        model: a Keras model from images in [-1, 1] to logits.
        images: `Images` to train on.
        validation: `Images` to evaluate on after each epoch. Nothing is chosen by it: the
            weights of the last epoch are the result.
        directory: folder for `checkpoints`, `history.csv` and TensorBoard's `logs`.
        epochs: how often to go through `images`.
        batch_size: images a step.
        optimizer, learning_rate, momentum, weight_decay, gradient_clip: see `make_optimizer`.
        augmentation: keyword arguments of `augmentation.augment`.
        child_parent: a `ChildParentLoss`, or None to train with cross-entropy alone.
        seed: of the order and the augmentation of the images.
        on_start: called when all settings have been found possible, before anything in `directory`
            is read or written.

    Returns:
        The rows of `history.csv`, a dict an epoch.

    Raises:
        ValueError: if a setting is impossible, the loss is not finite, or no checkpoint in
            `directory` can be read.
        OSError: if `directory` cannot be written (a full disk included); the checkpoints before are
            untouched.
    """
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, received: {epochs}")
    steps = data.steps_per_epoch(images, batch_size=batch_size)
    model.compile(
        optimizer=make_optimizer(
            optimizer,
            learning_rate=learning_rate,
            steps=epochs * steps,
            momentum=momentum,
            weight_decay=weight_decay,
            gradient_clip=gradient_clip,
        ),
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    stream = functools.partial(
        data.batches,
        images,
        batch_size=batch_size,
        seed=seed,
        epochs=epochs,
        augmentation=augmentation,
    )
    stream()  # refuses an impossible augmentation
    progress = _Checkpoints(model, directory, child_parent)
    on_start()
    done = progress.restore()
    if done == epochs:
        return progress.history
    model.fit(
        stream(first_step=done * steps),
        validation_data=data.evaluation_batches(validation, batch_size=batch_size),
        initial_epoch=done,
        epochs=epochs,
        steps_per_epoch=steps,
        verbose=1 if sys.stdout.isatty() else 2,
        callbacks=[
            *([child_parent] if child_parent else []),
            _StopOnDivergence(),
            progress,
            SummariesCallback(os.path.join(directory, "logs")),
        ],
    )
    return progress.history


def load_trained(directory, *, data_dir=None):
    """Rebuilds the network that `bin/train.py` trained in `directory`, with its final weights.

    Args:
        directory: the training's workdir.
        data_dir: TFDS data directory, where the training's is not right any more.

    Returns:
        `(model, test, run)`: the Keras model, the test `Images` of its data set, and the contents
        of `config.json`.

    Raises:
        ValueError: if the training did not finish, or its last checkpoint is broken.
    """
    if not os.path.exists(os.path.join(directory, "metrics.json")):
        raise ValueError(f"{directory} holds no finished training: run bin/train.py first")
    run = read_json(os.path.join(directory, "config.json"))
    test = data.load(run["config"]["data"]["name"], "test", data_dir=data_dir or run["data_dir"])
    model = build_network(
        Genotype(**run["genotype"]),
        input_shape=test.images.shape[1:],
        classes=len(test.class_names),
        precision=run["precision"],
        **run["config"]["network"],
    )
    checkpoints = _checkpoints(directory)
    if not checkpoints:
        raise ValueError(f"{directory} has no checkpoint: train again with --overwrite")
    try:
        status = _read(tf.train.Checkpoint(model=model), checkpoints[0])
        status.expect_partial().assert_existing_objects_matched()
    except _BROKEN as error:
        raise ValueError(
            f"the checkpoint {checkpoints[0]} is broken: {first_line(error)}"
        ) from error
    return model, test, run


def _checkpoints(directory):
    """The paths of the checkpoints, newest first.

    The files themselves are asked: TensorFlow's `CheckpointManager` takes a broken record of them
    for none, and would begin anew.
    """
    pattern = os.path.join(glob.escape(directory), "checkpoints", "ckpt-*.index")
    return [path.removesuffix(".index") for path in sorted(glob.glob(pattern), reverse=True)]


def _read(checkpoint, path):
    """Restores from a checkpoint, if all of it can be read: TensorFlow reads what it needs."""
    reader = tf.train.load_checkpoint(path)
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
    return checkpoint.read(path)


class _Checkpoints(tf.keras.callbacks.Callback):
    """Saves model, optimizer and class centres, and the history, after each epoch."""

    def __init__(self, model, directory, child_parent):
        super().__init__()
        self._directory = directory
        self._csv = os.path.join(directory, "history.csv")
        self._epochs = tf.Variable(0, dtype=tf.int64)
        saved = {"model": model, "optimizer": model.optimizer, "epochs": self._epochs}
        model.optimizer.build(model.trainable_variables)
        if child_parent is not None:
            child_parent.build(model)
            if child_parent.centres is not None:
                saved["centres"] = child_parent.centres
        self._checkpoint = tf.train.Checkpoint(**saved)
        self.history = []

    def restore(self):
        """Goes back to the last checkpoint that can be read; returns the number of epochs done."""
        paths = _checkpoints(self._directory)
        for path in paths:
            try:
                _read(self._checkpoint, path).assert_consumed()
            except _BROKEN as error:
                print(
                    f"the checkpoint {path} is broken ({first_line(error)}): trying the one before"
                )
                continue
            done = int(self._epochs)
            self.history = read_history(self._csv)[:done]
            return done
        if paths:
            raise ValueError(
                f"no checkpoint in {self._directory}/checkpoints can be read: "
                "start afresh with --overwrite"
            )
        return 0

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}}
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        self.history.append(row)
        file = io.StringIO()
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_atomically(self._csv, file.getvalue())
        self._epochs.assign(epoch + 1)
        path = os.path.join(self._directory, "checkpoints", f"ckpt-{epoch + 1:05d}")
        try:
            self._checkpoint.write(path)
        except tf.errors.OpError as error:
            raise OSError(f"cannot write the checkpoint {path}: {first_line(error)}") from error
        for old in _checkpoints(self._directory)[_KEPT_CHECKPOINTS:]:
            for path in glob.glob(f"{glob.escape(old)}.*"):
                os.unlink(path)


class _StopOnDivergence(tf.keras.callbacks.Callback):
    """Ends the training with an error as soon as an epoch's mean loss is not finite.

    The validation loss counts too: it alone is of the weights after the last step.
    """

    def on_epoch_end(self, epoch, logs=None):
        for name in ("loss", "val_loss"):
            loss = (logs or {}).get(name, 0.0)
            if not math.isfinite(loss):
                raise ValueError(
                    f"the {name} is {loss} in epoch {epoch + 1}: try a lower learning_rate; "
                    "the checkpoint of the epoch before is kept"
                )


def read_history(path):
    """Reads `history.csv`: a dict an epoch, all values numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: int(value) if name == "epoch" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def evaluate(model, images, *, batch_size=256):
    """Measures a classifier on all images.

    Args:
        model: a Keras model from images in [-1, 1] to logits.
        images: `Images`.
        batch_size: images a step; it does not change the result.

    Returns:
        A dict of `accuracy` (top-1), `accuracy_top5`, `loss` (mean cross-entropy), `examples`,
        and `per_class`, the top-1 accuracy by class name (None for a class without images).
    """
    logits = np.concatenate(
        [
            model(batch, training=False).numpy()
            for batch, _ in data.evaluation_batches(images, batch_size=batch_size)
        ]
    )
    labels = images.labels
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()
    correct = logits.argmax(axis=1) == labels
    top5 = tf.math.in_top_k(labels, logits, min(5, logits.shape[1])).numpy()
    return {
        "accuracy": float(correct.mean()),
        "accuracy_top5": float(top5.mean()),
        "loss": float(losses.mean()),
        "examples": len(labels),
        "per_class": {
            name: float(correct[labels == index].mean()) if (labels == index).any() else None
            for index, name in enumerate(images.class_names)
        },
    }
