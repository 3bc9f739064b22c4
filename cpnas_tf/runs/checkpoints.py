"""The checkpoints that a training goes on from: each is whole, or noticed as broken.

A checkpoint is TensorFlow's, `checkpoints/ckpt-EPOCHS-STEPS`, after so many whole epochs and steps.
It holds the network, the optimizer with its schedule's step (which is the data's position, too),
class centres, the running means of an epoch that is not over, and the history.
"""

import contextlib
import glob
import json
import os
import re
import shutil
import tempfile

import tensorflow as tf

from cpnas_tf import devices
from cpnas_tf.errors import first_line
from cpnas_tf.files import plain_path, remove

_KEPT = 2
_OURS = re.compile(r"ckpt-\d{5}-\d{9}\.(index|data-|partial)")  # the rest in the folder is a user's
# How TensorFlow says that a file is broken, and that its variables are others than expected.
_BROKEN = (tf.errors.OpError, IndexError, ValueError)
_OTHERS = (tf.errors.OpError, AssertionError, ValueError)


class TrainingState:
    """Saves and restores all that a training needs to go on.

    Args:
        directory: the training's folder.
        model: the network, a functional or sequential Keras model of one output `[batch, classes]`.
        strategy: the `tf.distribute.Strategy` of the training; only its chief writes.
        parts: what else to save, trackable objects by name.

    Attributes:
        record: what JSON can hold, saved and restored as well.
    """

    def __init__(self, directory, model, *, strategy, **parts):
        self._folder = os.path.join(directory, "checkpoints")
        self._strategy = strategy
        self._is_chief = devices.is_chief(strategy)
        self.record = {}
        self._saved = None
        with tf.device("CPU"):
            self._record = tf.Variable("", dtype=tf.string)
            classes = tf.Variable(model.output_shape[-1])
        self._checkpoint = tf.train.Checkpoint(
            model=_alone(model), record=self._record, classes=classes, **parts
        )
        self._write = self._write_on_the_host
        if model.compute_dtype != "float16":  # Keras hides the scale of its losses from a graph
            self._write = tf.function(self._write, autograph=False)

    def _write_on_the_host(self, path):
        """Writes one file of data. In a graph, since Python takes a second for many variables."""
        with tf.device(self._record.device):
            self._checkpoint.write(path)

    def restore(self):
        """Goes back to the last checkpoint that can be read; returns whether there is one.

        Raises:
            ValueError: if checkpoints are there and none can be read.
        """
        devices.wait_for_all(self._strategy)
        paths = _paths(self._folder)
        for path in paths:
            try:
                _check(path)
                with plain_path(path) as plain:
                    self._checkpoint.read(plain).assert_consumed()
            except (*_BROKEN, *_OTHERS) as error:
                reason = first_line(error)
                print(f"the checkpoint {path} is broken ({reason}): trying the one before")
                continue
            self.record = json.loads(self._record.numpy())
            self._saved = os.path.basename(path)
            return True
        if paths:
            raise ValueError(
                f"no checkpoint in {self._folder} can be read: start afresh with --overwrite"
            )
        return False

    def save(self, *, epochs, steps):
        """Writes a checkpoint unless it is there, then removes all but the last two.

        All workers of several have to call it: they hold the variables together.

        Args:
            epochs: whole epochs done.
            steps: steps done.

        Raises:
            OSError: if the folder cannot be written (a full disk included); the checkpoints before
                are untouched.
        """
        name = f"ckpt-{epochs:05d}-{steps:09d}"
        if name == self._saved:
            return
        self._record.assign(json.dumps(self.record))
        with contextlib.ExitStack() as stack:
            partial = os.path.join(self._folder, f"{name}.partial")
            if not self._is_chief:
                partial = stack.enter_context(tempfile.TemporaryDirectory())
            try:
                os.makedirs(partial, exist_ok=True)
                self._write(tf.constant(os.path.join(partial, name)))
                for file in os.listdir(partial):
                    with open(os.path.join(partial, file), "rb") as written:
                        os.fsync(written.fileno())
            except (OSError, tf.errors.OpError) as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise OSError(
                    f"cannot write the checkpoint {self._folder}/{name}: {first_line(error)}"
                ) from error
        if self._is_chief:
            for file in sorted(os.listdir(partial)):  # its data, then its index
                os.replace(os.path.join(partial, file), os.path.join(self._folder, file))
            _remove_others(self._folder, _paths(self._folder)[:_KEPT])
        self._saved = name


def has_checkpoint(directory):
    """Whether a training's folder has something to go on from."""
    return bool(_paths(os.path.join(directory, "checkpoints")))


def load_weights(model, directory):
    """Gives a network the weights of the newest checkpoint of a training.

    Args:
        model: a Keras model of one output `[batch, classes]`.
        directory: the training's folder.

    Raises:
        ValueError: if there is no checkpoint, it is broken, or of a network with other layers or
            another number of classes.
    """
    paths = _paths(os.path.join(directory, "checkpoints"))
    if not paths:
        raise ValueError(f"{directory} has no checkpoint of a training")
    try:
        trained = int(_check(paths[0]).get_tensor("classes/.ATTRIBUTES/VARIABLE_VALUE"))
    except _BROKEN as error:
        raise ValueError(f"the checkpoint {paths[0]} is broken: {first_line(error)}") from error
    classes = model.output_shape[-1]
    if trained != classes:
        raise ValueError(
            f"the checkpoint {paths[0]} has {trained} classes, the data set has {classes}"
        )
    try:
        with plain_path(paths[0]) as plain:
            status = tf.train.Checkpoint(model=_alone(model)).read(plain)
            status.expect_partial().assert_existing_objects_matched()
    except _OTHERS as error:
        raise ValueError(
            f"the checkpoint {paths[0]} is of another network: {first_line(error)}"
        ) from error


def _alone(model):
    """The network without the optimizer and the metrics of its training."""
    return tf.keras.Model(model.inputs, model.outputs)


def _paths(folder):
    """The paths of the checkpoints, newest first.

    The files themselves are asked: TensorFlow's `CheckpointManager` takes a broken record of them
    for none, and would begin anew.
    """
    pattern = os.path.join(glob.escape(folder), "ckpt-*.index")
    return [path.removesuffix(".index") for path in sorted(glob.glob(pattern), reverse=True)]


def _check(path):
    """Reads all of a checkpoint, where TensorFlow reads what it needs; returns its reader."""
    with plain_path(path) as plain:
        reader = tf.train.load_checkpoint(plain)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    return reader


def _remove_others(folder, kept):
    """Removes all but some checkpoints; what a writer that was killed has left as well."""
    prefixes = tuple(f"{os.path.basename(path)}." for path in kept)
    for name in os.listdir(folder):
        is_kept = name.startswith(prefixes) and not name.endswith(".partial")
        if _OURS.match(name) and not is_kept:
            remove(os.path.join(folder, name))
