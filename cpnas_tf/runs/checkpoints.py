"""The checkpoints that a search or a training goes on from: each is whole, or noticed as broken.

A checkpoint is TensorFlow's, `checkpoints/ckpt-EPOCHS-STEPS`, after so many whole epochs and steps.
It holds all variables that a step changes, and a record of what JSON can hold: of a search both
supernets, slots included, and the oracle's state; of a training the network, the optimizer with
its schedule's step (which is the data's position, too), class centres, the running means of an
epoch that is not over, and the history.
"""

import contextlib
import glob
import json
import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf
from absl import logging

from cpnas_tf import devices
from cpnas_tf.errors import first_line
from cpnas_tf.files import plain_path, remove

_KEPT = 2
# The names of checkpoints' files; all others in the folder are a user's.
_OURS = re.compile(r"ckpt-(\d{5,})-(\d{9,})\.(index|data-[^.]*|partial)")
# How TensorFlow says that a file is broken, and that its variables are others than expected.
_BROKEN = (tf.errors.OpError, IndexError, ValueError)
_OTHERS = (tf.errors.OpError, AssertionError, ValueError)
# Where version 0.1 kept the states of a search.
_OLD_STATES = ("tuner/state_*.npz", "states/state_*.npz")


class Checkpoints:
    """Saves and restores all that a search or a training needs to go on.

    Args:
        directory: folder of the search or the training.
        strategy: the `tf.distribute.Strategy` it runs under; only its chief writes.
        in_graph: whether TensorFlow writes in a graph, since Python takes a second for many
            variables. Keras hides the loss scale of "mixed_float16" from a graph.
        parts: what to save, trackable objects or lists of variables by name.

    Attributes:
        record: what JSON can hold, saved and restored as well.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        strategy: tf.distribute.Strategy,
        in_graph: bool = True,
        **parts: Any,
    ) -> None:
        self._directory = os.fspath(directory)
        self._folder = os.path.join(directory, "checkpoints")
        self._strategy = strategy
        self._is_chief = devices.is_chief(strategy)
        self.record: dict[str, Any] = {}
        self._saved: str | None = None
        self._record = _make_text()
        self._checkpoint = tf.train.Checkpoint(record=self._record, **parts)
        write = self._write_on_the_host
        self._write = tf.function(write, autograph=False) if in_graph else write

    def _write_on_the_host(self, path):
        """Writes one file of data."""
        with tf.device(self._record.device):
            self._checkpoint.write(path)

    def restore(self) -> bool:
        """Goes back to the last checkpoint that can be read; returns whether there is one.

        Raises:
            ValueError: if checkpoints are there and none can be read, or only the states of a
                search that an earlier version began.
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
                logging.warning(
                    "the checkpoint %s is broken (%s): trying the one before", path, reason
                )
                continue
            self.record = json.loads(self._record.numpy())
            self._saved = os.path.basename(path)
            return True
        if paths:
            raise ValueError(
                f"no checkpoint in {self._folder} can be read: delete that folder to start afresh"
            )
        self._refuse_old_states()
        return False

    def _refuse_old_states(self):
        for pattern in _OLD_STATES:
            if glob.glob(os.path.join(glob.escape(self._directory), pattern)):
                folder = os.path.join(self._directory, os.path.dirname(pattern))
                raise ValueError(
                    f"the search in {self._directory} was begun by cpnas_tf 0.1, whose states in "
                    f"{folder} this version cannot read: delete that folder to start afresh"
                )

    def save(self, *, epochs: int, steps: int) -> None:
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


def _make_text():
    """A variable of text on the host, of this process alone.

    In a scope of `tf.distribute`, which holds for its thread, several workers would share it, and
    text cannot be sent between them.
    """

    def make():
        with tf.device("CPU"):
            return tf.Variable("", dtype=tf.string)

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(make).result()


def has_checkpoint(directory: str | os.PathLike[str]) -> bool:
    """Whether a training's folder has something to go on from."""
    return bool(_paths(os.path.join(directory, "checkpoints")))


def network_parts(model: tf.keras.Model) -> dict[str, Any]:
    """The parts of a training's `Checkpoints` that `load_weights` reads.

    Args:
        model: a Keras model of one output `[batch, classes]`.
    """
    with tf.device("CPU"):
        return {"model": _alone(model), "classes": tf.Variable(model.output_shape[-1])}


def load_weights(model: tf.keras.Model, directory: str | os.PathLike[str]) -> None:
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
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = [match for match in map(_OURS.fullmatch, names) if match and match[3] == "index"]
    matches.sort(key=lambda match: (int(match[1]), int(match[2])), reverse=True)
    return [os.path.join(folder, match[0].removesuffix(".index")) for match in matches]


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
        if _OURS.fullmatch(name) and not is_kept:
            remove(os.path.join(folder, name))
