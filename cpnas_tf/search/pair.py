"""Child and parent of one sampled architecture after another, trained and validated side by side.

Where the search has no use for parents there are only children.

References:
    CP-NAS, section 2.3, Algorithm 1; section 3.1 for the settings.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cpnas_tf import devices
from cpnas_tf.genotypes import Genotype
from cpnas_tf.networks.formulations import compiled
from cpnas_tf.search.supernet import Supernet


class Pair:
    """The supernets, and the steps that train and validate one architecture of them.

    It runs under the `tf.distribute` strategy in whose scope it is made, together with its
    supernets: each replica takes its part of every batch.

    Args:
        supernets: the `Supernet`s, `{"child": ..., "parent": ...}` or the child's alone.
        stream: function of `first_step` that gives the batches to train on from there.
        validation: batches to validate on, all of one size.
        steps: of an epoch.
        batch_size: images per step, of all replicas together.
        rate: function of an epoch, counted from 0, that gives its learning rate.
        momentum, weight_decay: see `Supernet.train_step`.

    Attributes:
        supernets, steps, rate: as given.
        strategy: in whose scope it was made.
        images: that an epoch trains on.
    """

    def __init__(
        self,
        supernets: Mapping[str, Supernet],
        *,
        stream: Callable[..., tf.data.Dataset],
        validation: tf.data.Dataset,
        steps: int,
        batch_size: int,
        rate: Callable[[int], float],
        momentum: float,
        weight_decay: float,
    ) -> None:
        self.supernets, self.images = supernets, steps * batch_size
        self._stream, self._validation, self.steps = stream, validation, steps
        self.rate, self.strategy = rate, tf.distribute.get_strategy()
        self.train_step = make_train_step(supernets, momentum=momentum, weight_decay=weight_decay)
        self.count_correct = compiled(self._count_all)

    def _count_all(self, images, labels, choices):
        """How many images of a batch each supernet gets right."""

        def correct(precision, images, labels):
            logits = self.supernets[precision].logits(images, choices)
            logits = tf.debugging.check_numerics(
                logits, f"the {precision}'s logits are not finite, try a lower learning_rate"
            )
            hits = tf.argmax(logits, axis=1, output_type=tf.int32) == labels
            return tf.math.count_nonzero(hits)

        def replica(images, labels):
            images, labels = share(images), share(labels)
            return [correct(precision, images, labels) for precision in self.supernets]

        counts = self.strategy.run(replica, args=(images, labels))
        return [self.strategy.reduce("sum", count, axis=None) for count in counts]

    def batches(self, *, epoch: int) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """An iterator over the batches to train on, from an epoch to the search's end."""
        return iter(self._stream(first_step=epoch * self.steps))

    def train_epoch(
        self,
        architecture: Callable[[int], Genotype],
        epoch: int,
        batches: Iterator[tuple[tf.Tensor, tf.Tensor]],
        *,
        on_step: Callable[[int, int, int], None],
    ) -> dict[str, float]:
        """Trains for an epoch; the only host synchronization is at its end.

        Args:
            architecture: function of a step, counted from 0, that gives the one it trains.
            epoch: its number, counted from 0.
            batches: the iterator of `batches`, which stands at this epoch.
            on_step: called after each step with the epoch, the step and the number of steps.

        Returns:
            The sum of the steps' losses by precision.
        """
        rate = tf.constant(self.rate(epoch), tf.float32)
        totals = [0.0] * len(self.supernets)
        for step in range(self.steps):
            images, labels = next(batches)
            choices = tf.constant(architecture(step).indices)
            losses = self.train_step(images, labels, choices, rate)
            totals = [total + loss for total, loss in zip(totals, losses, strict=True)]
            on_step(epoch, step, self.steps)
        return dict(zip(self.supernets, map(float, totals), strict=True))

    def validate(self, genotype: Genotype) -> dict[str, float]:
        """The accuracy of an architecture by precision."""
        choices = tf.constant(genotype.indices)
        totals, images_seen = [0] * len(self.supernets), 0
        for images, labels in self._validation:
            counts = self.count_correct(images, labels, choices)
            totals = [total + count for total, count in zip(totals, counts, strict=True)]
            images_seen += len(labels)
        return {
            precision: int(total) / images_seen
            for precision, total in zip(self.supernets, totals, strict=True)
        }

    def estimate(self, genotypes: Sequence[Genotype], *, architectures: int) -> dict[str, Any]:
        """Measures what a search will cost; the supernets are trained a little by it.

        Args:
            genotypes: those to time a step of; together they should have every operation on every
                edge.
            architectures: that the whole search trains.

        Returns:
            A dict of `first_step_seconds` (tracing), `step_seconds`, `validation_seconds` (of an
            architecture), `total_seconds` and `peak_bytes` (see `devices.peak_bytes`).
        """
        rate, batches = tf.constant(self.rate(0), tf.float32), self.batches(epoch=0)

        def step(genotype):
            images, labels = next(batches)
            for loss in self.train_step(images, labels, tf.constant(genotype.indices), rate):
                float(loss)  # waits for it

        first = _seconds(step, genotypes[0]) + _seconds(self.validate, genotypes[0])
        mean_step = float(np.mean([_seconds(step, genotype) for genotype in genotypes]))
        validation = _seconds(self.validate, genotypes[0])
        return {
            "first_step_seconds": first,
            "step_seconds": mean_step,
            "validation_seconds": validation,
            "total_seconds": first + architectures * (self.steps * mean_step + validation),
            "peak_bytes": devices.peak_bytes(),
        }


def make_train_step(supernets: Mapping[str, Supernet], **settings: float) -> Callable[..., Any]:
    """A traced step of each supernet under the strategy in whose scope it is made.

    Args:
        supernets: by precision.
        settings: `momentum` and `weight_decay`, see `Supernet.train_step`.

    Returns:
        A function of a batch's images and labels, the choices and the learning rate, that gives a
        loss for each supernet, the mean over the replicas.
    """
    strategy = tf.distribute.get_strategy()

    def train(images, labels, choices, learning_rate):
        def replica(images, labels):
            images, labels = share(images), share(labels)
            return [
                supernet.train_step(
                    images, labels, choices, learning_rate=learning_rate, **settings
                )
                for supernet in supernets.values()
            ]

        losses = strategy.run(replica, args=(images, labels))
        return [strategy.reduce("mean", loss, axis=None) for loss in losses]

    return compiled(train)


def share(batch: tf.Tensor) -> tf.Tensor:
    """The part of a batch that is this replica's."""
    context = tf.distribute.get_replica_context()
    parts = tf.reshape(batch, [context.num_replicas_in_sync, -1, *batch.shape[1:]])
    return parts[context.replica_id_in_sync_group]


def _seconds(function, *args):
    started = time.monotonic()
    function(*args)
    return time.monotonic() - started
