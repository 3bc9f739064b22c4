"""PC-DARTS, a gradient-based search, on a supernet of 1-bit operations: what CP-NAS compares with.

The search data are halved. In each step the architecture's parameters, alpha and beta, move down
the gradient of the loss on one half, then the weights down that on the other; in the first epochs,
the warm-up, only the weights do. The genotype is what alpha and beta favour at the end. For the
supernet see `mixed_supernet`.

Decision: precision is an argument, and 1 bit the default: the paper compares methods by the 1-bit
networks that they find, and does not say in which precision PC-DARTS searched.
Decision: the data are what CP-NAS trains and validates on together, halved as in the original, so
that both see the same images.

References:
    PC-DARTS (Xu et al., ICLR 2020), sections 3 and 4.2; CP-NAS, section 3.2 and Fig. 6.
"""

import functools
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cpnas_tf.catalogue import Unit
from cpnas_tf.data import AnyImages, images, streams
from cpnas_tf.devices import peak_bytes
from cpnas_tf.files import local_path
from cpnas_tf.genotypes import CELL_TYPES, EDGES, INPUT_NODES, NODES, OPERATIONS, Genotype
from cpnas_tf.networks.cells import check_network
from cpnas_tf.networks.units import find_unit
from cpnas_tf.runs import progress, search_log
from cpnas_tf.runs.checkpoints import Checkpoints
from cpnas_tf.runs.images import check_alike
from cpnas_tf.runs.tensorboard import Summaries
from cpnas_tf.search.banks import check_partial
from cpnas_tf.search.mixed_supernet import MixedSupernet, shares
from cpnas_tf.search.row_optimizers import find_row_optimizer
from cpnas_tf.settings import SettingError, checked
from cpnas_tf.training.optimizers import Adam, check_warmup, make_optimizer

ADAM_BETAS = (0.5, 0.999)


def derive_cell(strengths: np.ndarray, *, operations: Sequence[str], inputs: int) -> list[str]:
    """The operations of a cell's 14 edges, from how much alpha and beta favour each of them.

    Every edge takes its strongest operation but `none`, and every node keeps the `inputs` edges
    whose operations are strongest. Of equals the first is taken.

    Decision: two inputs per node, as in the original, and `none` on the others, which is how a
    genotype of one operation per edge says that. The shares by which edges are compared sum to 1
    over a node, so they were learned as a choice among them; with all edges kept that choice is
    lost. `inputs=5` keeps all.

    Args:
        strengths: share of the edge (beta) times share of the operation on it (alpha),
            `[14, operations]`.
        operations: their names.
        inputs: how many edges a node keeps, or all that it has if they are fewer.

    Returns:
        A list of 14 names.
    """
    strengths = np.where([name == "none" for name in operations], -np.inf, strengths)
    best, chosen = strengths.max(axis=1), strengths.argmax(axis=1)
    cell = ["none"] * len(EDGES)
    for node in range(INPUT_NODES, NODES):
        edges = [number for number, (_, target) in enumerate(EDGES) if target == node]
        for number in sorted(edges, key=lambda number: -best[number])[:inputs]:
            cell[number] = operations[chosen[number]]
    return cell


class PCDarts:
    """A planned search with PC-DARTS; the defaults are the original's for CIFAR-10.

    All settings are checked when it is made; nothing is built, read or written before `plan` or
    `run`.

    Args:
        train: `Images`.
        validation: more `Images`; both together are halved, the first half for the weights.
        cells: cells of the supernet.
        channels: C of its first cell, a multiple of `partial`.
        precision: of its operations, "child" (1-bit) or "parent" (full precision).
        unit: how they are built, as in `networks.cells.build_network`.
        operations: those that each edge mixes.
        partial: K: 1/K of the channels go through the operations; 1 for all.
        inputs: how many edges a node keeps in the genotype, see `derive_cell`.
        epochs: how often to go through the two halves.
        warmup_epochs: how many of them train the weights alone.
        batch_size: images per step, of each half.
        optimizer: of the weights, "sgd" or "adam", see `make_optimizer`.
        learning_rate: of the same; follows a cosine to 0.
        momentum, weight_decay, gradient_clip: of the same.
        architecture_learning_rate: of Adam on alpha and beta.
        architecture_weight_decay: L2 on alpha and beta.
        augmentation: keyword arguments of `data.augmentation.augment`, for both halves.
        seed: of the weights, of alpha and beta, and of the order of the images.

    Raises:
        ValueError: if a setting is impossible for these images.
    """

    @checked("pc_darts")
    def __init__(
        self,
        train: AnyImages,
        validation: AnyImages,
        *,
        cells: int = 8,
        channels: int = 16,
        precision: str = "child",
        unit: str | Unit = "paper",
        operations: Sequence[str] = OPERATIONS,
        partial: int = 4,
        inputs: int = 2,
        epochs: int = 50,
        warmup_epochs: int = 15,
        batch_size: int = 256,
        optimizer: str = "sgd",
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 3e-4,
        gradient_clip: float = 5.0,
        architecture_learning_rate: float = 6e-4,
        architecture_weight_decay: float = 1e-3,
        augmentation: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(train, images.Images):
            raise ValueError("PC-DARTS needs images in memory: search on imagenet2012 with cpnas")
        check_alike(train, validation)
        network: dict[str, Any] = {
            "input_shape": train.image_shape,
            "classes": train.classes,
            "cells": cells,
            "channels": channels,
        }
        check_network(**network)
        _check_operations(operations)
        check_partial(channels, partial)
        check_warmup(warmup_epochs, epochs=epochs)
        find_row_optimizer(optimizer)  # refuses those of trainings alone
        descent: dict[str, Any] = {
            "learning_rate": learning_rate,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "gradient_clip": gradient_clip,
        }
        self.epochs, self.warmup_epochs = epochs, warmup_epochs
        self._halves = _halve(train, validation)
        self.steps = streams.steps_per_epoch(self._halves[0], batch_size=batch_size)
        self.stream = functools.partial(
            _pairs,
            self._halves,
            batch_size=batch_size,
            seed=seed,
            epochs=epochs,
            augmentation=augmentation,
        )
        self.stream()  # refuses an augmentation that is impossible for these images
        self._operations = tuple(name for name in OPERATIONS if name in operations)
        self._inputs = inputs
        self._make_supernet = functools.partial(
            MixedSupernet,
            **network,
            precision=precision,
            unit=find_unit(unit),
            operations=self._operations,
            partial=partial,
            seed=seed,
        )
        self._make_optimizer = functools.partial(
            make_optimizer, optimizer, steps=epochs * self.steps, **descent
        )
        self._make_architecture_optimizer = functools.partial(
            Adam,
            architecture_learning_rate,
            *ADAM_BETAS,
            epsilon=1e-8,
            l2=architecture_weight_decay,
        )

    def _build(self):
        """The supernet with fresh weights, compiled."""
        supernet = self._make_supernet()
        supernet.compile(
            self._make_optimizer(),
            architecture_optimizer=self._make_architecture_optimizer(),
            warmup_steps=self.warmup_epochs * self.steps,
        )
        return supernet

    def images(self, epochs: int) -> int:
        """How many images the first `epochs` epochs train on, those of both halves."""
        architecture_epochs = max(0, epochs - self.warmup_epochs)
        return epochs * len(self._halves[0]) + architecture_epochs * len(self._halves[1])

    def strengths(self, supernet: MixedSupernet) -> np.ndarray:
        """How much each operation on each edge is favoured: share of the edge times its own.

        Returns:
            A float array `[cell types, edges, operations]`, which sums to 1 over the operations on
            all edges into a node.
        """
        operation_shares, edge_shares = shares(supernet.alpha, supernet.beta)
        return operation_shares.numpy() * edge_shares.numpy()[..., np.newaxis]

    def genotype(self, supernet: MixedSupernet) -> Genotype:
        """The `Genotype` that a supernet's alpha and beta favour, see `derive_cell`."""
        return Genotype(
            *(
                derive_cell(cell, operations=self._operations, inputs=self._inputs)
                for cell in self.strengths(supernet)
            )
        )

    def scores(self, supernet: MixedSupernet) -> list[dict[str, float]]:
        """For each of the 28 edges a dict, operation -> strength."""
        rows = self.strengths(supernet).reshape(len(CELL_TYPES) * len(EDGES), -1).tolist()
        return [dict(zip(self._operations, row, strict=True)) for row in rows]

    def plan(self) -> str:
        """What the search is going to do and to cost, as text; its first steps are measured."""
        return progress.plan_epochs(
            epochs=self.epochs,
            warmup_epochs=self.warmup_epochs,
            images=self.images(self.epochs),
            estimate=self._estimate(self._build()),
        )

    def _estimate(self, supernet):
        """Measures what the search will cost; the supernet is trained a little by it.

        Returns:
            A dict of `first_step_seconds` (tracing), `warmup_step_seconds`, `step_seconds` (after
            the warm-up), `total_seconds` and `peak_bytes` (see `devices.peak_bytes`).
        """
        train, batches = supernet.make_train_function(), iter(self.stream().repeat())

        def seconds():
            started = time.monotonic()
            float(train(batches)["loss"])  # waits for it
            return time.monotonic() - started

        first = seconds()
        supernet.optimizer.iterations.assign(0)
        warmup = float(np.mean([seconds() for _ in range(3)]))
        supernet.optimizer.iterations.assign(self.warmup_epochs * self.steps)
        step = float(np.mean([seconds() for _ in range(3)]))
        steps = self.warmup_epochs * warmup + (self.epochs - self.warmup_epochs) * step
        return {
            "first_step_seconds": first,
            "warmup_step_seconds": warmup,
            "step_seconds": step,
            "total_seconds": first + self.steps * steps,
            "peak_bytes": peak_bytes(),
        }

    def start(
        self, directory: str | os.PathLike[str], *, verbose: int | str = "auto"
    ) -> "PCDartsRun":
        """The search in a folder, which goes on from what it finds there.

        Args:
            directory, verbose: see `run`.

        Raises:
            ValueError: if checkpoints are there and none can be read.
        """
        return PCDartsRun(self, self._build(), directory=directory, verbose=verbose)

    def run(
        self, directory: str | os.PathLike[str], *, verbose: int | str = "auto"
    ) -> dict[str, Any]:
        """Runs the search in a folder, or goes on with it.

        Args:
            directory: for `search.csv`, `checkpoints` and TensorBoard's `logs`.
            verbose: how much to show of it, as in Keras's `fit`; see `runs.progress.Progress`.

        Returns:
            A dict of the `genotype`; `scores`, for each of the 28 edges a dict, operation -> its
            strength; and the cost: `seconds` and `images` (see `images`).

        Raises:
            ValueError: if checkpoints are there and none can be read, or a loss is not finite.
            OSError: if the folder cannot be written (a full disk included); the checkpoints before
                are untouched.
        """
        running = self.start(directory, verbose=verbose)
        running.search()
        return {
            "genotype": self.genotype(running.supernet),
            "scores": self.scores(running.supernet),
            "seconds": sum(row["seconds"] for row in running.rows),
            "images": self.images(len(running.rows)),
        }


class PCDartsRun:
    """A search with PC-DARTS in its folder.

    After each epoch all that the search needs to go on is saved in `checkpoints/`. The last two are
    kept; a new run in the same folder goes on from the newest that can be read.

    Args:
        planned: the `PCDarts`.
        supernet: its compiled `MixedSupernet`.
        directory: folder for `search.csv`, `checkpoints` and TensorBoard's `logs`.
        verbose: how much to show, see `runs.progress.Progress`.

    Attributes:
        supernet: as given.
        rows: of `search.csv`, see `search_log.write_epochs`.
    """

    def __init__(
        self,
        planned: PCDarts,
        supernet: MixedSupernet,
        *,
        directory: str | os.PathLike[str],
        verbose: int | str = "auto",
    ) -> None:
        self._verbose = progress.check_verbose(verbose)
        self._planned, self.supernet = planned, supernet
        self._folder = local_path(directory)
        self._checkpoints = Checkpoints(
            self._folder, strategy=tf.distribute.get_strategy(), supernet=supernet.state()
        )
        self._checkpoints.record = {"rows": []}
        self._checkpoints.restore()
        self._summaries = Summaries(os.path.join(self._folder, "logs"))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The search so far, a dict per epoch."""
        return self._checkpoints.record["rows"]

    def search(self) -> None:
        """Runs the epochs that are left."""
        planned, done = self._planned, len(self.rows)
        if done == planned.epochs:
            return
        os.makedirs(self._folder, exist_ok=True)
        shown = progress.Progress(planned.epochs, done, "epoch", verbose=self._verbose)
        self.supernet.fit(
            planned.stream(first_step=done * planned.steps),
            initial_epoch=done,
            epochs=planned.epochs,
            steps_per_epoch=planned.steps,
            verbose=0,
            callbacks=[_Epochs(self, shown)],
        )

    def finish_epoch(self, logs: Mapping[str, Any], seconds: float) -> int:
        """Notes an epoch's logs, then writes `search.csv` and the checkpoint it belongs to.

        Returns:
            How many images the epoch trained on.
        """
        epoch, planned = len(self.rows), self._planned
        self.rows.append(
            {
                "epoch": epoch + 1,
                "choices": planned.genotype(self.supernet).choices,
                **{name: self._known(epoch, name, logs[name]) for name in search_log.MEASURES},
                "seconds": seconds,
            }
        )
        search_log.write_epochs(os.path.join(self._folder, "search.csv"), self.rows)
        self._checkpoints.save(epochs=epoch + 1, steps=(epoch + 1) * planned.steps)
        measures = {name: self.rows[-1][name] for name in search_log.MEASURES}
        known = {name: value for name, value in measures.items() if value is not None}
        self._summaries.write(epoch + 1, known)
        return planned.images(epoch + 1) - planned.images(epoch)

    def _known(self, epoch, name, value):
        """A measure, None for those of the architecture's steps in the warm-up."""
        unknown = name.startswith("architecture") and epoch < self._planned.warmup_epochs
        return None if unknown else float(value)


class _Epochs(tf.keras.callbacks.Callback):
    """Ends each epoch of a search: checks it, has it saved, and shows it."""

    def __init__(self, search: PCDartsRun, progress: progress.Progress) -> None:
        super().__init__()
        self._search, self._progress = search, progress

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch, self._started = epoch, time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._progress.step(self._epoch, batch, self.params["steps"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for name, value in logs.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"the {name} is {value} in epoch {epoch + 1}: try a lower learning_rate"
                )
        seconds = time.monotonic() - self._started
        images = self._search.finish_epoch(logs, seconds)
        text = progress.epoch_text(self._search.rows[-1])
        self._progress.finish(text, images=images, seconds=seconds)


def _halve(train, validation):
    """The first and the second half of all images; of an odd number the last is left out."""
    whole = images.Images(
        np.concatenate([train.images, validation.images]),
        np.concatenate([train.labels, validation.labels]),
        train.class_names,
    )
    size = len(whole) // 2
    return whole.take(slice(size)), whole.take(slice(size, 2 * size))


def _pairs(halves, *, first_step=0, **settings):
    """The stream of pairs of batches, one of each half; see `data.batches`."""
    return tf.data.Dataset.zip(
        tuple(streams.batches(half, first_step=first_step, **settings) for half in halves)
    )


def _check_operations(operations):
    if len({*operations} - {"none"}) < 2:
        raise SettingError(
            "operations", f"operations must be two or more beside none, received: {operations!r}"
        )
