"""The guided search, planned from its settings and run in a folder.

Few genotypes are trained from scratch for a short time each, and a model of their scores proposes
the next ones: see `guided_oracle.GuidedOracle` for what it does, `trainer.Trainer` for how it
trains.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import tensorflow as tf

from cpnas_tf import devices
from cpnas_tf.catalogue import Unit
from cpnas_tf.data import AnyImages, streams
from cpnas_tf.genotypes import OPERATIONS, Genotype
from cpnas_tf.networks.cells import check_network
from cpnas_tf.networks.units import find_unit
from cpnas_tf.runs import progress
from cpnas_tf.runs.images import check_alike
from cpnas_tf.search.cpnas import equal_batches
from cpnas_tf.search.guided_oracle import GuidedOracle
from cpnas_tf.search.guided_tuner import GuidedTuner
from cpnas_tf.search.proposals import Space, first_design
from cpnas_tf.search.row_optimizers import find_row_optimizer
from cpnas_tf.search.supernet import Supernet
from cpnas_tf.search.trainer import Trainer
from cpnas_tf.settings import checked

_TIMED = 4  # genotypes of which a plan times a step


class GuidedSearch:
    """A planned guided search.

    All settings are checked when it is made; nothing is built, read or written before `plan` or
    `run`. It trains with cross-entropy alone, under the `tf.distribute` strategy in whose scope it
    is made.

    Args:
        train: `Images` to train on.
        validation: `Images` to validate on, disjoint from `train`.
        cells: cells of the networks.
        channels: C of their first cell.
        stem, real_inputs, unit: as in `networks.cells.build_network`.
        operations, inputs: see `GuidedOracle`.
        first, rounds, proposals, finalists: see `GuidedOracle`.
        epochs: of a training. Decision: 2; a quarter of a training orders genotypes nearly as well
            as the whole.
        finalist_epochs: of a finalist's.
        beta: beta_P of Eq. 1; with 0 no parent is trained.
        score: "loss" or "accuracy", see `GuidedOracle`.
        batch_size: images per step, of all replicas together.
        optimizer: "sgd" or "adam".
        learning_rate: at the start of each training; it falls to 0 by a cosine.
        momentum: of SGD; Adam has its own.
        weight_decay: L2 on all parameters.
        augmentation: keyword arguments of `data.augmentation.augment`, for the training images.
        mixed_precision: as in `ChildParentSearch`.
        seed: of the weights, the genotypes and the order of the images.

    Raises:
        ValueError: if a setting is impossible for these images, or on these devices.
    """

    oracle: ClassVar[type[GuidedOracle]] = GuidedOracle

    @checked("guided")
    def __init__(
        self,
        train: AnyImages,
        validation: AnyImages,
        *,
        cells: int = 3,
        channels: int = 16,
        stem: str = "cifar",
        real_inputs: Sequence[str] = (),
        unit: str | Unit = "residual",
        operations: Sequence[str] = OPERATIONS,
        inputs: int = 5,
        first: int = 24,
        rounds: int = 3,
        proposals: int = 4,
        finalists: int = 2,
        epochs: int = 2,
        finalist_epochs: int = 4,
        beta: float = 0.0,
        score: str = "loss",
        batch_size: int = 64,
        optimizer: str = "adam",
        learning_rate: float = 3e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        augmentation: Mapping[str, Any] | None = None,
        mixed_precision: bool = False,
        seed: int = 0,
    ) -> None:
        check_alike(train, validation)
        self._train_images = len(train)
        self._strategy = tf.distribute.get_strategy()
        self._make_oracle = functools.partial(
            self.oracle,
            first=first,
            rounds=rounds,
            proposals=proposals,
            finalists=finalists,
            epochs=epochs,
            finalist_epochs=finalist_epochs,
            beta=beta,
            score=score,
            operations=tuple(operations),
            inputs=inputs,
            seed=seed,
        )
        oracle = self._make_oracle()
        network: dict[str, Any] = {
            "input_shape": train.image_shape,
            "classes": train.classes,
            "cells": cells,
            "channels": channels,
            "stem": stem,
        }
        check_network(**network)
        # The edges that a node does not keep have `none`.
        without = ("none",) if inputs < 5 else ()
        self._make_supernet = functools.partial(
            Supernet,
            **network,
            real_inputs=real_inputs,
            unit=find_unit(unit),
            operations=(*without, *oracle.operations),
            optimizer=optimizer,
            seed=seed,
            dtype="bfloat16" if mixed_precision else "float32",
        )
        devices.check_batch_size(self._strategy, batch_size)
        find_row_optimizer(optimizer)  # refuses an impossible one
        self._epochs = oracle.epochs_before(oracle.trainings)
        stream = functools.partial(
            streams.batches,
            train,
            batch_size=batch_size,
            seed=seed,
            epochs=self._epochs,
            augmentation=augmentation,
        )
        stream()  # refuses what is impossible for these images
        self._make_trainer = functools.partial(
            Trainer,
            stream=stream,
            validation=equal_batches(
                validation, batch_size, replicas=self._strategy.num_replicas_in_sync
            ),
            steps=streams.steps_per_epoch(train, batch_size=batch_size),
            batch_size=batch_size,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
        )

    def _build(self):
        """The supernets of the precisions that are trained, in a `Trainer`."""
        with self._strategy.scope():
            return self._make_trainer(
                {
                    precision: self._make_supernet(precision=precision)
                    for precision in self._make_oracle().precisions
                }
            )

    def plan(self) -> str:
        """What the search is going to do and to cost, as text; its first steps are measured."""
        oracle = self._make_oracle()
        drawn = first_design(
            Space(oracle.operations, oracle.inputs), count=_TIMED, seed=oracle.seed
        )
        genotypes = [
            Genotype.from_choices(OPERATIONS[index] for index in choices) for choices in drawn
        ]
        estimate = self._build().estimate(
            genotypes, trainings=oracle.trainings, epochs=self._epochs
        )
        phases = [("random", oracle.first, oracle.epochs)]
        phases += [
            (f"guided, round {number + 1}", oracle.proposals, oracle.epochs)
            for number in range(oracle.rounds if oracle.proposals else 0)
        ]
        phases += [("final", oracle.finalists, oracle.finalist_epochs)]
        return progress.plan_trainings(
            phases, images=self._train_images, precisions=oracle.precisions, estimate=estimate
        )

    def start(
        self, directory: str | os.PathLike[str], *, verbose: int | str = "auto"
    ) -> GuidedTuner:
        """The `GuidedTuner` of the search in a folder, which goes on from what it finds there.

        Args:
            directory, verbose: see `run`.

        Raises:
            ValueError: if the folder holds another search, or checkpoints and none can be read.
        """
        return GuidedTuner(self._make_oracle(), self._build(), directory=directory, verbose=verbose)

    def run(
        self, directory: str | os.PathLike[str], *, verbose: int | str = "auto"
    ) -> dict[str, Any]:
        """Runs the search in a folder, or goes on with it.

        Args:
            directory: for `search.csv`, `checkpoints` and TensorBoard's `logs`.
            verbose: how much to show of it, as in Keras's `fit`; see `runs.progress.Progress`.

        Returns:
            A dict of the `genotype`; `scores`, for each of the 28 edges a dict, operation -> what
            the model says that it adds to the score there, or None if there were too few trainings
            for a model; and the cost: `seconds`, and the `images` of all networks.

        Raises:
            ValueError: if the folder holds another search, or checkpoints and none can be read.
            keras_tuner.errors.FatalError: if training fails or a loss is not finite.
        """
        tuner = self.start(directory, verbose=verbose)
        tuner.search()
        oracle = tuner.oracle
        return {
            "genotype": oracle.genotype(),
            "scores": _scores(oracle),
            "seconds": sum(tuner.seconds.values()),
            "images": len(oracle.precisions) * self._epochs * self._train_images,
        }


def _scores(oracle):
    """For each edge a dict, operation -> the model's estimate of what it adds to the score."""
    model = oracle.model()
    if model is None:
        return None
    columns = [OPERATIONS.index(name) for name in oracle.operations]
    rows = model.estimates[:, columns].tolist()
    return [dict(zip(oracle.operations, row, strict=True)) for row in rows]
