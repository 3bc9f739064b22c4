"""The search: a keras-tuner tuner that trains the sampled child and parent on shared weights.

References:
    CP-NAS, section 2.3, Algorithm 1; section 3.1 for the settings.
"""

import contextlib
import functools
import math
import os
import tempfile
import time

import numpy as np
import tensorflow as tf
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.errors import FatalError, FatalRuntimeError

from cpnas_tf import devices
from cpnas_tf.data import streams
from cpnas_tf.errors import first_line
from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.networks.operations import PRECISIONS
from cpnas_tf.runs import progress, search_log
from cpnas_tf.runs.checkpoints import Checkpoints
from cpnas_tf.runs.tensorboard import Summaries
from cpnas_tf.search.oracle import ACCURACIES, ChildParentOracle, sampling_orders
from cpnas_tf.search.supernet import Supernet
from cpnas_tf.training.optimizers import check_sgd


class ChildParentTuner(BaseTuner):
    """Runs the trials of a `ChildParentOracle`: one epoch of child and parent each.

    After each trial all that the search needs to go on is saved in `checkpoints/`: both supernets
    with their momentum, and the oracle's state. The last two are kept; a new tuner on the same
    folder goes on from the newest one that can be read.

    It runs under the `tf.distribute` strategy in whose scope it is made, together with its
    supernets: each replica takes its part of every batch. All workers of several run the same
    search, and only the chief writes.

    Args:
        oracle: a `ChildParentOracle`.
        supernets: two `Supernet`s, `{"child": ..., "parent": ...}`.
        train: `Images` to train on.
        validation: `Images` to validate on.
        directory: folder of the search, where `search.csv` is written.
        batch_size: images a step, of all replicas together.
        learning_rate: of the first epoch.
        final_learning_rate: to which it follows a cosine over all the search's epochs.
        momentum: of SGD.
        weight_decay: L2 on all sampled parameters.
        augmentation: keyword arguments of `data.augmentation.augment`.
        on_start: called when all settings have been found possible, before anything in `directory`
            is read or written.

    Raises:
        ValueError: if a setting is impossible, there are fewer images than a batch, or a batch
            cannot be divided between the replicas.
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
        final_learning_rate=0.0,
        momentum=0.9,
        weight_decay=5e-4,
        augmentation=None,
        on_start=lambda: None,
    ):
        self._sgd = {"momentum": momentum, "weight_decay": weight_decay}
        check_sgd(learning_rate=learning_rate, **self._sgd)
        if not 0 <= final_learning_rate <= learning_rate:
            raise ValueError(
                f"final_learning_rate must be 0 to learning_rate, received: {final_learning_rate}"
            )
        self._strategy = tf.distribute.get_strategy()
        replicas = self._strategy.num_replicas_in_sync
        devices.check_batch_size(self._strategy, batch_size)
        self._steps = streams.steps_per_epoch(train, batch_size=batch_size)
        self._train_images = len(train)
        self._supernets = supernets
        self._learning_rate, self._final_learning_rate = learning_rate, final_learning_rate
        self._train_step = tf.function(self._train_both, autograph=False)
        self._count_correct = tf.function(self._count_both, autograph=False)
        self._validation = _equal_batches(validation, batch_size, replicas=replicas)
        self._seconds = []
        self._folder, self._is_chief = os.fspath(directory), devices.is_chief(self._strategy)
        stream = functools.partial(
            streams.batches,
            train,
            batch_size=batch_size,
            seed=oracle.seed,
            epochs=oracle.architectures,
            augmentation=augmentation,
        )
        stream()  # refuses an impossible augmentation
        on_start()
        devices.wait_for_all(self._strategy)
        self._checkpoints = Checkpoints(
            self._folder,
            strategy=self._strategy,
            **{name: list(supernet.variables) for name, supernet in supernets.items()},
        )
        # Other workers have keras-tuner write its files where nobody reads them.
        own = self._folder if self._is_chief else tempfile.mkdtemp()
        with _own_oracle():
            super().__init__(oracle, directory=own, project_name="tuner")
        self.reload()
        done = len(self.oracle.results)
        self._batches = iter(stream(first_step=done * self._steps))
        self._epoch_images = self._steps * batch_size
        self._progress = progress.Progress(oracle.architectures, done)
        self._summaries = Summaries(os.path.join(self._folder, "logs"))

    def _train_both(self, images, labels, choices, learning_rate):
        """A step of child and parent; their losses, each the mean over the replicas."""

        def replica(images, labels):
            images, labels = _share(images), _share(labels)
            return [
                self._supernets[precision].train_step(
                    images, labels, choices, learning_rate=learning_rate, **self._sgd
                )
                for precision in PRECISIONS
            ]

        losses = self._strategy.run(replica, args=(images, labels))
        return [self._strategy.reduce("mean", loss, axis=None) for loss in losses]

    def _count_both(self, images, labels, choices):
        """How many images of a batch child and parent get right."""

        def correct(precision, images, labels):
            logits = self._supernets[precision].logits(images, choices)
            logits = tf.debugging.check_numerics(
                logits, f"the {precision}'s logits are not finite, try a lower learning_rate"
            )
            hits = tf.argmax(logits, axis=1, output_type=tf.int32) == labels
            return tf.math.count_nonzero(hits)

        def replica(images, labels):
            images, labels = _share(images), _share(labels)
            return [correct(precision, images, labels) for precision in PRECISIONS]

        counts = self._strategy.run(replica, args=(images, labels))
        return [self._strategy.reduce("sum", count, axis=None) for count in counts]

    def search(self):
        """Runs all trials that are left."""
        with _own_oracle():
            super().search()

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
        final = self._final_learning_rate
        rate = tf.constant(final + (self._learning_rate - final) * cosine, tf.float32)
        totals = [0.0] * len(PRECISIONS)
        for step in range(self._steps):
            images, labels = next(self._batches)
            losses = self._train_step(images, labels, choices, rate)
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
        totals, images_seen = [0] * len(PRECISIONS), 0
        for images, labels in self._validation:
            counts = self._count_correct(images, labels, choices)
            totals = [total + count for total, count in zip(totals, counts, strict=True)]
            images_seen += len(labels)
        return {
            precision: int(total) / images_seen
            for precision, total in zip(PRECISIONS, totals, strict=True)
        }

    def on_trial_end(self, trial):
        """Lets the oracle score the trial, then writes `search.csv` and the state."""
        super().on_trial_end(trial)
        if self._is_chief:
            text = progress.result_text(self.oracle.results[-1])
            self._progress.finish(text, images=self._epoch_images, seconds=self._seconds[-1])
            self._summarize()

    def _summarize(self):
        """Logs the last trial for TensorBoard, and after a stage what its edges made of it."""
        number, result = len(self.oracle.results), self.oracle.results[-1]
        scalars = {name: getattr(result, name) for name in (*ACCURACIES, "z")}
        scalars["seconds"] = self._seconds[-1]
        pictures = {}
        if len(self.oracle.history) > result.stage:
            from cpnas_tf.plots import figures
            from cpnas_tf.plots import search as search_plots

            figure = search_plots.plot_indicators(self.oracle.history[result.stage])
            pictures["indicator"] = figures.render(figure, "png")
        self._summaries.write(number, scalars, pictures=pictures)

    def save(self):
        """Writes `search.csv`, then the checkpoint it belongs to.

        In this order: a search that is killed between the two does the last row again.
        """
        results = self.oracle.results
        if self._is_chief:
            search_log.write(os.path.join(self._folder, "search.csv"), results, self._seconds)
        self._checkpoints.record = {"oracle": self.oracle.get_state(), "seconds": self._seconds}
        self._checkpoints.save(epochs=len(results), steps=len(results) * self._steps)

    def reload(self):
        """Goes on from the newest checkpoint that can be read, if there is one.

        Raises:
            ValueError: if checkpoints are there and none can be read.
        """
        if self._checkpoints.restore():
            self.oracle.set_state(self._checkpoints.record["oracle"])
            self._seconds = self._checkpoints.record["seconds"]

    def genotype(self):
        """The `Genotype` that was found, at the search's end."""
        return self.oracle.genotype()

    def scores(self):
        """For each of the 28 edges a dict, operation -> its last zbar."""
        scores = [{} for _ in CHOICES]
        for stage in self.oracle.history:
            for edge, indicators in zip(scores, stage, strict=True):
                edge.update({name: zbar for name, (zbar, _) in indicators.items()})
        return scores

    def plan(self):
        """What the search is going to do and to cost, as text; see `estimate`."""
        return progress.plan(
            operations=len(self.oracle.operations),
            rounds=self.oracle.rounds,
            images=self._train_images,
            estimate=self.estimate(),
        )

    def summary(self):
        """What the search did, as text."""
        return progress.summary(search_log.read(os.path.join(self._folder, "search.csv")))

    def cost(self):
        """What the search has cost so far: `seconds`, and the `images` of child and parent."""
        images = len(PRECISIONS) * len(self._seconds) * self._train_images
        return {"seconds": sum(self._seconds), "images": images}

    def estimate(self):
        """Measures what the search will cost; the supernets are trained a little by it.

        One step of each architecture of the first round is timed: between them they have every
        operation on every edge once.

        Returns:
            A dict of `first_step_seconds` (tracing), `step_seconds`, `validation_seconds` (of an
            architecture), `total_seconds` and `peak_bytes` (see `devices.peak_bytes`).
        """
        rate = tf.constant(self._learning_rate, tf.float32)
        edges = (self.oracle.operations,) * len(CHOICES)
        orders = sampling_orders(edges, seed=self.oracle.seed, stage=0, round_index=0)
        genotypes = [Genotype.from_choices(names) for names in zip(*orders, strict=True)]

        def step(genotype):
            started = time.monotonic()
            images, labels = next(self._batches)
            for loss in self._train_step(images, labels, tf.constant(genotype.indices), rate):
                float(loss)  # waits for it
            return time.monotonic() - started

        first = step(genotypes[0]) + _seconds(self._validate, genotypes[0])
        steps = [step(genotype) for genotype in genotypes]
        validation = _seconds(self._validate, genotypes[0])
        epoch = self._steps * float(np.mean(steps)) + validation
        return {
            "first_step_seconds": first,
            "step_seconds": float(np.mean(steps)),
            "validation_seconds": validation,
            "total_seconds": first + self.oracle.architectures * epoch,
            "peak_bytes": devices.peak_bytes(),
        }


@contextlib.contextmanager
def _own_oracle():
    """Keeps keras-tuner from asking a chief for trials: these share weights, and so a process.

    Where the search is itself a trial, as in an ablation, the environment names that one's chief.
    """
    chief = os.environ.pop("KERASTUNER_ORACLE_IP", None)
    try:
        yield
    finally:
        if chief is not None:
            os.environ["KERASTUNER_ORACLE_IP"] = chief


def _share(batch):
    """The part of a batch that is this replica's."""
    context = tf.distribute.get_replica_context()
    parts = tf.reshape(batch, [context.num_replicas_in_sync, -1, *batch.shape[1:]])
    return parts[context.replica_id_in_sync_group]


def _seconds(function, *args):
    started = time.monotonic()
    function(*args)
    return time.monotonic() - started


def _equal_batches(images, batch_size, *, replicas=1):
    """Normalized batches of one static size, at most `batch_size` and a multiple of `replicas`.

    BN takes its statistics from the batch, so a small last batch would be judged by other ones: it
    is left out.

    Raises:
        ValueError: if there are fewer images than replicas.
    """
    size = len(images) // math.ceil(len(images) / batch_size) // replicas * replicas
    if not size:
        raise ValueError(f"{len(images)} images to validate on are too few for {replicas} devices")
    return streams.evaluation_batches(images, batch_size=size).take(len(images) // size)


def plan_search(
    train,
    validation,
    *,
    directory,
    cells=6,
    channels=16,
    stem="cifar",
    real_inputs=(),
    rounds=3,
    beta=2.0,
    batch_size=512,
    learning_rate=0.025,
    final_learning_rate=0.0,
    momentum=0.9,
    weight_decay=5e-4,
    operations=OPERATIONS,
    allow_none=True,
    augmentation=None,
    mixed_precision=False,
    seed=0,
    on_start=lambda: None,
):
    """Makes the tuner of a search with CP-NAS; the defaults are the paper's for CIFAR-10.

    Its `search()` runs the search, its `estimate()` measures what that will cost. It trains with
    cross-entropy alone (Decision: the Child-Parent loss is for training the derived child), and
    goes on from what is found in `directory`.

    Args:
        train: `Images` to train on.
        validation: `Images` to validate on, disjoint from `train`.
        directory: folder for `search.csv` and the tuner's project.
        cells: cells of the supernets.
        channels: C of the supernets' first cell.
        stem, real_inputs: as in `networks.cells.build_network`.
        rounds: T, how often each operation is sampled before a pruning.
        beta: beta_P of Eq. 1.
        batch_size: images a step.
        learning_rate: of SGD at the start.
        final_learning_rate: to which it follows a cosine over the epochs. The paper's 0 leaves
            little to learn for the last architectures, by which the last operations are pruned.
        momentum: of SGD.
        weight_decay: L2 on all sampled parameters.
        operations: the K operations that each edge starts with.
        allow_none: whether `none` may be in the final genotype.
        augmentation: keyword arguments of `data.augmentation.augment`, for the training images.
        mixed_precision: whether convolutions compute in bfloat16: half of the memory, on an H200 as
            fast as float32, on a CPU slower.
        seed: of the weights, the sampling and the order of the images.
        on_start: called when all settings have been found possible, before anything in `directory`
            is read or written.

    Returns:
        A `ChildParentTuner`.

    Raises:
        ValueError: if a setting is impossible for these images.
    """
    oracle = ChildParentOracle(
        rounds=rounds, beta=beta, seed=seed, operations=tuple(operations), allow_none=allow_none
    )
    supernets = {
        precision: Supernet(
            input_shape=train.image_shape,
            classes=train.classes,
            cells=cells,
            channels=channels,
            precision=precision,
            stem=stem,
            real_inputs=real_inputs,
            operations=oracle.operations,
            seed=seed,
            dtype="bfloat16" if mixed_precision else "float32",
        )
        for precision in PRECISIONS
    }
    return ChildParentTuner(
        oracle,
        supernets,
        train=train,
        validation=validation,
        directory=directory,
        batch_size=batch_size,
        learning_rate=learning_rate,
        final_learning_rate=final_learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        augmentation=augmentation,
        on_start=on_start,
    )


def search(train, validation, *, directory, **settings):
    """Searches a binary architecture; takes the arguments of `plan_search`.

    Returns:
        The `Genotype` that was found.

    Raises:
        ValueError: if a setting is impossible for these images.
        keras_tuner.errors.FatalError: if training fails or a loss is not finite.
    """
    tuner = plan_search(train, validation, directory=directory, **settings)
    tuner.search()
    return tuner.genotype()
