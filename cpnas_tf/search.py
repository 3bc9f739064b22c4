"""The search: a keras-tuner tuner that trains the sampled child and parent on shared weights.

References:
    CP-NAS, section 2.3, Algorithm 1; section 3.1 for the settings.
"""

import datetime
import functools
import glob
import hashlib
import io
import json
import math
import os
import sys
import time

import numpy as np
import tensorflow as tf
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.errors import FatalError, FatalRuntimeError

from cpnas_tf import data, search_log
from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.operations import PRECISIONS
from cpnas_tf.oracle import ChildParentOracle
from cpnas_tf.supernet import Supernet
from cpnas_tf.workdir import first_line, write_atomically

_KEPT_STATES = 2


class ChildParentTuner(BaseTuner):
    """Runs the trials of a `ChildParentOracle`: one epoch of child and parent each.

    After each trial all that the search needs to go on is written as one file, atomically, into the
    project's folder: both supernets with their momentum, and the oracle's state. The last two are
    kept; a new tuner on the same folder goes on from the newest one that can be read.

    Args:
        oracle: a `ChildParentOracle`.
        supernets: two `Supernet`s, `{"child": ..., "parent": ...}`.
        train: `Images` to train on.
        validation: `Images` to validate on.
        directory: folder of the search, where `search.csv` is written.
        batch_size: images a step.
        learning_rate: of the first epoch; follows a cosine to 0 over all the search's epochs.
        momentum: of SGD.
        weight_decay: L2 on all sampled parameters.
        augmentation: keyword arguments of `augmentation.augment`.
        on_start: called when all settings have been found possible, before anything in `directory`
            is read or written.

    Raises:
        ValueError: if a setting is impossible or there are fewer images than a batch.
    """

    def __init__(
        self,
        oracle,
        supernets,
        *,
        train,
        validation,
        directory,
        batch_size=512,
        learning_rate=0.025,
        momentum=0.9,
        weight_decay=5e-4,
        augmentation=None,
        on_start=lambda: None,
    ):
        if not 0 < learning_rate < math.inf:
            raise ValueError(f"learning_rate must be a number > 0, received: {learning_rate}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), received: {momentum}")
        if not 0 <= weight_decay < math.inf:
            raise ValueError(f"weight_decay must be a number >= 0, received: {weight_decay}")
        self._steps = data.steps_per_epoch(train, batch_size=batch_size)
        self._supernets = supernets
        self._learning_rate = learning_rate
        self._sgd = {"momentum": momentum, "weight_decay": weight_decay}
        self._train_step = tf.function(self._train_both, autograph=False)
        self._count_correct = tf.function(self._count_both, autograph=False)
        self._validation = list(_equal_batches(validation, batch_size))
        self._seconds = []
        stream = functools.partial(
            data.batches,
            train,
            batch_size=batch_size,
            seed=oracle.seed,
            epochs=oracle.architectures,
            augmentation=augmentation,
        )
        stream()  # refuses an impossible augmentation
        on_start()
        super().__init__(oracle, directory=directory, project_name="tuner")
        self.reload()
        done = len(self.oracle.results)
        self._batches = iter(stream(first_step=done * self._steps))
        self._progress = _Progress(oracle.architectures, done, self._steps * batch_size)

    def _train_both(self, images, labels, choices, learning_rate):
        return [
            self._supernets[precision].train_step(
                images, labels, choices, learning_rate=learning_rate, **self._sgd
            )
            for precision in PRECISIONS
        ]

    def _count_both(self, images, labels, choices):
        def correct(precision):
            logits = self._supernets[precision].logits(images, choices)
            logits = tf.debugging.check_numerics(
                logits, f"the {precision}'s logits are not finite, try a lower learning_rate"
            )
            return tf.math.count_nonzero(tf.argmax(logits, axis=1, output_type=tf.int32) == labels)

        return [correct(precision) for precision in PRECISIONS]

    def run_trial(self, trial):
        """Trains the trial's child and parent for an epoch and returns both accuracies.

        Raises:
            keras_tuner.errors.FatalError: if a step fails or a loss is not finite. keras-tuner
                would count any other error as one failed trial, and go on with broken weights.
        """
        started = time.monotonic()
        genotype = Genotype.from_choices(trial.hyperparameters.values[name] for name in CHOICES)
        number = len(self.oracle.results)
        try:
            self._train_epoch(genotype, number)
            accuracies = self._validate(genotype)
        except FatalError:
            raise
        except Exception as error:
            raise FatalRuntimeError(
                f"architecture {number} could not be trained: {first_line(error)}"
            ) from error
        self._seconds.append(time.monotonic() - started)
        return {f"{precision}_accuracy": accuracies[precision] for precision in PRECISIONS}

    def _train_epoch(self, genotype, epoch):
        """One epoch of one architecture; the only host synchronization is at its end."""
        cosine = 0.5 * (1 + math.cos(math.pi * epoch / self.oracle.architectures))
        choices = tf.constant(genotype.indices)
        learning_rate = tf.constant(self._learning_rate * cosine, tf.float32)
        totals = [0.0] * len(PRECISIONS)
        for step in range(self._steps):
            images, labels = next(self._batches)
            losses = self._train_step(images, labels, choices, learning_rate)
            totals = [total + loss for total, loss in zip(totals, losses, strict=True)]
            self._progress.step(epoch, step, self._steps)
        for precision, total in zip(PRECISIONS, totals, strict=True):
            if not math.isfinite(total):
                raise FatalRuntimeError(
                    f"the {precision}'s loss is {float(total)} in architecture {epoch}: "
                    f"try a lower learning_rate than {self._learning_rate}"
                )

    def _validate(self, genotype):
        choices = tf.constant(genotype.indices)
        correct, count = np.zeros(len(PRECISIONS)), 0
        for images, labels in self._validation:
            correct += [int(n) for n in self._count_correct(images, labels, choices)]
            count += len(labels)
        return dict(zip(PRECISIONS, (correct / count).tolist(), strict=True))

    def on_trial_end(self, trial):
        """Lets the oracle score the trial, then writes `search.csv` and the state."""
        super().on_trial_end(trial)
        self._progress.finish(self.oracle.results[-1], self._seconds[-1])

    def save(self):
        """Writes `search.csv`, then the state it belongs to, and drops all but the last two.

        In this order: a search that is killed between the two does the last row again.
        """
        log = os.path.join(self.directory, "search.csv")
        search_log.write(log, self.oracle.results, self._seconds)
        record = {"oracle": self.oracle.get_state(), "seconds": self._seconds}
        file = io.BytesIO()
        np.savez(file, record=json.dumps(record), **self._arrays())
        name = f"state_{len(self.oracle.results):05d}.npz"
        content = file.getvalue()
        write_atomically(os.path.join(self.project_dir, name), content + _checksum(content))
        for old in self._states()[_KEPT_STATES:]:
            os.unlink(old)

    def reload(self):
        """Goes on from the newest state in the project's folder that can be read, if there is one.

        Raises:
            ValueError: if states are there and none can be read.
        """
        states = self._states()
        for path in states:
            try:
                arrays = _read_state(path)
            except (OSError, ValueError) as error:
                print(f"the saved state {path} is broken ({error}): trying the one before it")
                continue
            record = json.loads(str(arrays["record"]))
            self.oracle.set_state(record["oracle"])
            self._seconds = record["seconds"]
            for name, variable in self._variables():
                variable.assign(arrays[name])
            return
        if states:
            raise ValueError(
                f"no saved state in {self.project_dir} can be read: start afresh with --overwrite"
            )

    def _states(self):
        return sorted(glob.glob(os.path.join(glob.escape(self.project_dir), "state_*.npz")))[::-1]

    def _variables(self):
        for precision in PRECISIONS:
            for number, variable in enumerate(self._supernets[precision].variables):
                yield f"{precision}_{number}", variable

    def _arrays(self):
        return {name: variable.numpy() for name, variable in self._variables()}


class _Progress:
    """One line an architecture, and on a terminal a moving one within it."""

    def __init__(self, architectures, done, images):
        self._architectures, self._done, self._images = architectures, done, images
        self._started, self._first = time.monotonic(), done

    def step(self, epoch, step, steps):
        if sys.stdout.isatty():
            print(f"\rarchitecture {epoch + 1}: step {step + 1}/{steps}", end="", flush=True)

    def finish(self, result, seconds):
        self._done += 1
        elapsed = time.monotonic() - self._started
        left = elapsed / (self._done - self._first) * (self._architectures - self._done)
        print(
            f"{chr(13) if sys.stdout.isatty() else ''}[{self._done:3d}/{self._architectures}] "
            f"stage {result.stage} round {result.round} sample {result.sample}  "
            f"child {result.child_accuracy:6.2%}  parent {result.parent_accuracy:6.2%}  "
            f"{self._images / seconds:6.0f} images/s  "
            f"ETA {datetime.timedelta(seconds=round(left))}",
            flush=True,
        )


def _checksum(content):
    return hashlib.sha256(content).digest()


def _read_state(path):
    """The arrays of a state file; its checksum tells if a single bit of it is wrong or missing."""
    with open(path, "rb") as file:
        content = file.read()
    size = len(_checksum(b""))
    content, checksum = content[:-size], content[-size:]
    if checksum != _checksum(content):
        raise ValueError("its checksum is wrong")
    with np.load(io.BytesIO(content)) as arrays:
        return dict(arrays)


def _equal_batches(images, batch_size):
    """Normalized batches of one static size, at most `batch_size`.

    BN takes its statistics from the batch, so a small last batch would be judged by other ones. Of
    n images in k batches, n modulo k are left out.
    """
    count = math.ceil(len(images) / batch_size)
    size = len(images) // count
    return data.evaluation_batches(images, batch_size=size).take(count)


def search(
    train,
    validation,
    *,
    directory,
    cells=6,
    channels=16,
    rounds=3,
    beta=2.0,
    batch_size=512,
    learning_rate=0.025,
    momentum=0.9,
    weight_decay=5e-4,
    operations=OPERATIONS,
    allow_none=True,
    augmentation=None,
    seed=0,
    on_start=lambda: None,
):
    """Searches a binary architecture with CP-NAS; the defaults are the paper's for CIFAR-10.

    The search trains with cross-entropy alone (Decision: the Child-Parent loss is for training the
    derived child). It goes on from what is found in `directory`.

    Args:
        train: `Images` to train on.
        validation: `Images` to validate on, disjoint from `train`.
        directory: folder for `search.csv` and the tuner's project.
        cells: cells of the supernets.
        channels: C of the supernets' first cell.
        rounds: T, how often each operation is sampled before a pruning.
        beta: beta_P of Eq. 1.
        batch_size: images a step.
        learning_rate: of SGD at the start; follows a cosine to 0 over the epochs.
        momentum: of SGD.
        weight_decay: L2 on all sampled parameters.
        operations: the K operations that each edge starts with.
        allow_none: whether `none` may be in the final genotype.
        augmentation: keyword arguments of `augmentation.augment`, for the training images.
        seed: of the weights, the sampling and the order of the images.
        on_start: called when all settings have been found possible, before anything in `directory`
            is read or written.

    Returns:
        The `Genotype` that was found.

    Raises:
        ValueError: if a setting is impossible for these images.
        keras_tuner.errors.FatalError: if training fails or a loss is not finite.
    """
    oracle = ChildParentOracle(
        rounds=rounds, beta=beta, seed=seed, operations=tuple(operations), allow_none=allow_none
    )
    supernets = {
        precision: Supernet(
            input_shape=train.images.shape[1:],
            classes=len(train.class_names),
            cells=cells,
            channels=channels,
            precision=precision,
            seed=seed,
        )
        for precision in PRECISIONS
    }
    tuner = ChildParentTuner(
        oracle,
        supernets,
        train=train,
        validation=validation,
        directory=directory,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        augmentation=augmentation,
        on_start=on_start,
    )
    tuner.search()
    return oracle.genotype()
