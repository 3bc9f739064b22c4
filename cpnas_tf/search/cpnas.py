"""CP-NAS: the search by Algorithm 1, planned from its settings and run in a folder.

References:
    CP-NAS, section 2.3, Algorithm 1; section 3.1 for the settings.
"""

import functools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from cpnas_tf import devices
from cpnas_tf.catalogue import PRECISIONS, Unit
from cpnas_tf.data import AnyImages, streams
from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.networks.cells import check_network
from cpnas_tf.networks.units import find_unit
from cpnas_tf.runs import progress
from cpnas_tf.runs.images import check_alike
from cpnas_tf.search.banks import check_partial
from cpnas_tf.search.oracle import ChildParentOracle, sampling_orders
from cpnas_tf.search.pair import Pair
from cpnas_tf.search.row_optimizers import find_row_optimizer
from cpnas_tf.search.supernet import Supernet
from cpnas_tf.search.tuner import ChildParentTuner
from cpnas_tf.settings import SettingError, checked


class ChildParentSearch:
    """A planned search with CP-NAS; the defaults are the paper's for CIFAR-10.

    All settings are checked when it is made; nothing is built, read or written before `plan` or
    `run`. It trains with cross-entropy alone (Decision: the Child-Parent loss is for training the
    derived child), under the `tf.distribute` strategy in whose scope it is made.

    Args:
        train: `Images` to train on.
        validation: `Images` to validate on, disjoint from `train`.
        cells: cells of the supernets.
        channels: C of the supernets' first cell.
        stem, real_inputs, unit, activations: as in `networks.cells.build_network`.
        partial: K: a sampled operation gets 1/K of the channels, as in BNAS (Chen et al., AAAI
            2020); the others go past it.
        rounds: T, how often each operation is sampled before a pruning.
        beta: beta_P of Eq. 1; 0 scores children alone, and no parent is trained.
        parent: whether to train parents all the same where beta is 0.
        sampling: "epoch" trains an architecture for an epoch, "step" another one in each step, see
            `ChildParentOracle.architecture_of_step`.
        indicator: by what operations are dropped, "mean" or "additive", see `ChildParentOracle`.
        batch_size: images per step, of all replicas together.
        optimizer: of the supernets, "sgd" or "adam".
        learning_rate: at the start.
        final_learning_rate: to which it follows a cosine over the epochs. The paper's 0 leaves
            little to learn for the last architectures, by which the last operations are pruned.
        schedule: "cosine" falls once over all epochs, as the paper's; "restarts" begins anew in
            each stage, so that the scores of every stage are of weights that have settled.
        momentum: of SGD; Adam has its own.
        weight_decay: L2 on all sampled parameters.
        operations: the K operations that each edge starts with.
        allow_none: whether `none` may be in the final genotype.
        augmentation: keyword arguments of `data.augmentation.augment`, for the training images.
        mixed_precision: whether convolutions compute in bfloat16: half of the memory, on an H200 as
            fast as float32, on a CPU slower.
        seed: of the weights, the sampling and the order of the images.

    Raises:
        ValueError: if a setting is impossible for these images, or on these devices.
    """

    @checked("search")
    def __init__(
        self,
        train: AnyImages,
        validation: AnyImages,
        *,
        cells: int = 6,
        channels: int = 16,
        stem: str = "cifar",
        real_inputs: Sequence[str] = (),
        unit: str | Unit = "paper",
        activations: int = 1,
        partial: int = 1,
        rounds: int = 3,
        beta: float = 2.0,
        parent: bool = False,
        sampling: str = "epoch",
        indicator: str = "mean",
        batch_size: int = 512,
        optimizer: str = "sgd",
        learning_rate: float = 0.025,
        final_learning_rate: float = 0.0,
        schedule: str = "cosine",
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        operations: Sequence[str] = OPERATIONS,
        allow_none: bool = True,
        augmentation: Mapping[str, Any] | None = None,
        mixed_precision: bool = False,
        seed: int = 0,
    ) -> None:
        check_alike(train, validation)
        self._train_images = len(train)
        self._strategy = tf.distribute.get_strategy()
        self._make_oracle = functools.partial(
            ChildParentOracle,
            rounds=rounds,
            beta=beta,
            seed=seed,
            operations=tuple(operations),
            allow_none=allow_none,
            sampling=sampling,
            indicator=indicator,
        )
        oracle = self._make_oracle()
        self._precisions = PRECISIONS if beta or parent else ("child",)
        network: dict[str, Any] = {
            "input_shape": train.image_shape,
            "classes": train.classes,
            "cells": cells,
            "channels": channels,
            "stem": stem,
        }
        check_network(**network)
        check_partial(channels, partial)
        self._make_supernet = functools.partial(
            Supernet,
            **network,
            real_inputs=real_inputs,
            unit=find_unit(unit),
            activations=activations,
            partial=partial,
            operations=oracle.operations,
            optimizer=optimizer,
            seed=seed,
            dtype="bfloat16" if mixed_precision else "float32",
        )
        if final_learning_rate > learning_rate:
            raise SettingError(
                "final_learning_rate",
                f"final_learning_rate must be at most learning_rate = {learning_rate}, "
                f"received: {final_learning_rate}",
            )
        devices.check_batch_size(self._strategy, batch_size)
        find_row_optimizer(optimizer)  # refuses an impossible one
        stream = functools.partial(
            streams.batches,
            train,
            batch_size=batch_size,
            seed=seed,
            epochs=oracle.architectures,
            augmentation=augmentation,
        )
        stream()  # refuses what is impossible for these images
        self._make_pair = functools.partial(
            Pair,
            stream=stream,
            validation=equal_batches(
                validation, batch_size, replicas=self._strategy.num_replicas_in_sync
            ),
            steps=streams.steps_per_epoch(train, batch_size=batch_size),
            batch_size=batch_size,
            rate=functools.partial(
                _learning_rate, learning_rate, final_learning_rate, schedule, oracle
            ),
            momentum=momentum,
            weight_decay=weight_decay,
        )

    def _build(self):
        """The supernets with fresh weights, as a `Pair`."""
        with self._strategy.scope():
            return self._make_pair(
                {name: self._make_supernet(precision=name) for name in self._precisions}
            )

    def plan(self) -> str:
        """What the search is going to do and to cost, as text; its first steps are measured."""
        oracle = self._make_oracle()
        # Between them the architectures of the first round have every operation on every edge once.
        edges = (oracle.operations,) * len(CHOICES)
        orders = sampling_orders(edges, seed=oracle.seed, stage=0, round_index=0)
        genotypes = [Genotype.from_choices(names) for names in zip(*orders, strict=True)]
        estimate = self._build().estimate(genotypes, architectures=oracle.architectures)
        return progress.plan(
            operations=len(oracle.operations),
            rounds=oracle.rounds,
            images=self._train_images,
            precisions=self._precisions,
            estimate=estimate,
        )

    def start(
        self, directory: str | os.PathLike[str], *, verbose: int | str = "auto"
    ) -> ChildParentTuner:
        """The `ChildParentTuner` of the search in a folder, which goes on from what it finds there.

        Args:
            directory, verbose: see `run`.

        Raises:
            ValueError: if the folder holds another search, or checkpoints and none can be read.
        """
        return ChildParentTuner(
            self._make_oracle(), self._build(), directory=directory, verbose=verbose
        )

    def run(
        self, directory: str | os.PathLike[str], *, verbose: int | str = "auto"
    ) -> dict[str, Any]:
        """Runs the search in a folder, or goes on with it.

        Args:
            directory: for `search.csv`, `checkpoints` and TensorBoard's `logs`.
            verbose: how much to show of it, as in Keras's `fit`; see `runs.progress.Progress`.

        Returns:
            A dict of the `genotype`; `scores`, for each of the 28 edges a dict, operation -> its
            last zbar minus its stage's mean; and the cost: `seconds`, and the `images` of children
            and parents.

        Raises:
            ValueError: if the folder holds another search, or checkpoints and none can be read.
            keras_tuner.errors.FatalError: if training fails or a loss is not finite.
        """
        tuner = self.start(directory, verbose=verbose)
        tuner.search()
        return {
            "genotype": tuner.genotype(),
            "scores": tuner.scores(),
            "seconds": sum(tuner.seconds),
            "images": len(self._precisions) * len(tuner.seconds) * self._train_images,
        }


def search(
    train: AnyImages,
    validation: AnyImages,
    *,
    directory: str | os.PathLike[str],
    verbose: int | str = "auto",
    **settings: Any,
) -> Genotype:
    """Searches a binary architecture, see `ChildParentSearch`.

    Args:
        train: `Images` to train on.
        validation: `Images` to validate on, disjoint from `train`.
        directory: folder of the search, where one that was stopped goes on.
        verbose: see `ChildParentSearch.run`.
        settings: the other arguments of `ChildParentSearch`.

    Returns:
        The `Genotype` that was found.

    Raises:
        ValueError: if a setting is impossible for these images.
        keras_tuner.errors.FatalError: if training fails or a loss is not finite.

    Examples:
        >>> import numpy as np
        >>> from cpnas_tf.data import Images, split_for_search
        >>> from cpnas_tf.search import search
        >>> pixels = np.random.default_rng(0).integers(256, size=[64, 8, 8, 1]).astype("uint8")
        >>> images = Images(pixels, np.arange(64) % 2, ["cat", "dog"])
        >>> part, validation = split_for_search(
        ...     images, train_fraction=0.5, validation_fraction=0.25
        ... )
        >>> genotype = search(
        ...     part,
        ...     validation,
        ...     directory="runs/search",
        ...     cells=3,
        ...     channels=4,
        ...     rounds=1,
        ...     batch_size=16,
        ...     operations=["skip_connect", "max_pool_3x3"],
        ...     verbose=0,
        ... )
        >>> set(genotype.choices) <= {"skip_connect", "max_pool_3x3"}
        True
    """
    planned = ChildParentSearch(train, validation, **settings)
    return planned.run(directory, verbose=verbose)["genotype"]


def _in_stage(oracle, epoch):
    """How many epochs of its stage are over when an epoch begins, and how many the stage has."""
    stage, round_index, sample = oracle.position(epoch)
    kept = len(oracle.operations) - stage
    return round_index * kept + sample, oracle.rounds * kept


# For each of `catalogue.SCHEDULES`, which epoch of a cosine of how many an epoch is.
_SCHEDULES = {
    "cosine": lambda oracle, epoch: (epoch, oracle.architectures),
    "restarts": _in_stage,
}


def _learning_rate(first, final, schedule, oracle, epoch):
    """The learning rate of an epoch, which falls from `first` to `final` by cosines."""
    done, epochs = _SCHEDULES[schedule](oracle, epoch)
    return final + (first - final) * (0.5 * (1 + math.cos(math.pi * done / epochs)))


def equal_batches(images: AnyImages, batch_size: int, *, replicas: int = 1) -> tf.data.Dataset:
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
