"""Trainings of one genotype after another from scratch, in one traced graph.

A supernet holds the weights of all genotypes. Given fresh ones before each training, it trains a
genotype as a network of its own would be, and no genotype costs a trace.

References:
    FairNAS (Chu et al., 2021) and single-path one-shot search (Guo et al., 2020) score genotypes by
        shared weights instead. Decision: from scratch; of 1-bit networks a short training of its
        own orders genotypes better than shared weights do, for the same cost.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from cpnas_tf import devices
from cpnas_tf.genotypes import Genotype
from cpnas_tf.networks.formulations import compiled
from cpnas_tf.search.pair import make_train_step, share
from cpnas_tf.search.supernet import Supernet


class Trainer:
    """Trains and validates genotypes, under the strategy in whose scope it is made.

    Args:
        supernets: a `Supernet` for each precision to train, `{"child": ...}`, with or without the
            parent's.
        stream: function of `first_step` that gives the batches of all trainings from there.
        validation: batches to validate on, all of one size.
        steps: of an epoch.
        batch_size: images per step, of all replicas together.
        learning_rate: at the start of a training; it falls to 0 by a cosine.
        momentum, weight_decay: see `Supernet.train_step`.

    Attributes:
        supernets, steps: as given.
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
        learning_rate: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        self.supernets, self.steps, self.images = supernets, steps, steps * batch_size
        self._stream, self._validation = stream, validation
        self._learning_rate = learning_rate
        self.strategy = tf.distribute.get_strategy()
        self.train_step = make_train_step(supernets, momentum=momentum, weight_decay=weight_decay)
        self.measure = compiled(self._measure)
        self._batches: Iterator | None = None
        self._next_step = 0  # of the stream

    def _measure(self, images, labels, choices):
        """The summed loss and the number of hits of each supernet on a batch."""

        def sums(supernet, images, labels):
            logits = supernet.logits(images, choices)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            hits = tf.argmax(logits, axis=1, output_type=tf.int32) == labels
            return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(hits, tf.float32))

        def replica(images, labels):
            images, labels = share(images), share(labels)
            return [sums(supernet, images, labels) for supernet in self.supernets.values()]

        found = self.strategy.run(replica, args=(images, labels))
        return [
            [self.strategy.reduce("sum", value, axis=None) for value in values] for values in found
        ]

    def train(
        self,
        genotype: Genotype,
        *,
        seed: int,
        epochs: int,
        first_epoch: int,
        on_step: Callable[[int, int], None] = lambda step, steps: None,
    ) -> None:
        """Trains a genotype from scratch.

        Args:
            genotype: the architecture.
            seed: of its weights.
            epochs: how long; the learning rate falls to 0 over all of it.
            first_epoch: the stream's epoch, from 0, that its first one is.
            on_step: called after each step with its number, from 0, and the number of steps.

        Raises:
            ValueError: if the loss becomes infinite or no number.
        """
        for supernet in self.supernets.values():
            supernet.reset(seed)
        choices, steps = tf.constant(genotype.indices), epochs * self.steps
        batches = self._batches_from(first_epoch * self.steps)
        totals = [0.0] * len(self.supernets)
        for step in range(steps):
            images, labels = next(batches)
            rate = self._learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
            losses = self.train_step(images, labels, choices, tf.constant(rate, tf.float32))
            totals = [total + loss for total, loss in zip(totals, losses, strict=True)]
            on_step(step, steps)
        self._next_step = (first_epoch + epochs) * self.steps
        for precision, total in zip(self.supernets, totals, strict=True):
            if not math.isfinite(float(total)):
                raise ValueError(
                    f"the {precision}'s loss is {float(total)}: "
                    f"try a lower learning_rate than {self._learning_rate:g}"
                )

    def _batches_from(self, step):
        """The stream's batches from a step on; trainings in order share an iterator."""
        if self._batches is None or self._next_step != step:
            self._batches = iter(self._stream(first_step=step))
        self._next_step = -1  # until the training is over
        return self._batches

    def validate(self, genotype: Genotype) -> dict[str, float]:
        """Loss and accuracy of a genotype with the weights of the last training.

        Returns:
            A dict of `child_loss` and `child_accuracy`, and those of the parent if there is one.
        """
        choices, images_seen = tf.constant(genotype.indices), 0
        totals = [[0.0, 0.0] for _ in self.supernets]
        for images, labels in self._validation:
            sums = self.measure(images, labels, choices)
            totals = [
                [total + value for total, value in zip(*pair, strict=True)]
                for pair in zip(totals, sums, strict=True)
            ]
            images_seen += len(labels)
        return {
            f"{precision}_{name}": float(total) / images_seen
            for precision, values in zip(self.supernets, totals, strict=True)
            for name, total in zip(("loss", "accuracy"), values, strict=True)
        }

    def estimate(self, genotypes: list[Genotype], *, trainings: int, epochs: int) -> dict[str, Any]:
        """Measures what a search will cost; the supernets are trained a little by it.

        Args:
            genotypes: those to time a step of.
            trainings: of the whole search.
            epochs: of all its trainings together.

        Returns:
            A dict of `first_step_seconds` (tracing), `step_seconds`, `validation_seconds` (of a
            genotype), `total_seconds` and `peak_bytes` (see `devices.peak_bytes`).
        """
        rate, batches = tf.constant(self._learning_rate, tf.float32), self._batches_from(0)

        def step(genotype):
            images, labels = next(batches)
            for loss in self.train_step(images, labels, tf.constant(genotype.indices), rate):
                float(loss)  # waits for it

        def seconds(function, genotype):
            started = time.monotonic()
            function(genotype)
            return time.monotonic() - started

        first = seconds(step, genotypes[0]) + seconds(self.validate, genotypes[0])
        steps = [seconds(step, genotype) for genotype in genotypes]
        mean_step, validation = sum(steps) / len(steps), seconds(self.validate, genotypes[0])
        return {
            "first_step_seconds": first,
            "step_seconds": mean_step,
            "validation_seconds": validation,
            "total_seconds": first + epochs * self.steps * mean_step + trainings * validation,
            "peak_bytes": devices.peak_bytes(),
        }
