"""A tabular benchmark of 1-bit cells: search methods compared in seconds, without any training.

python benchmarks/tabular.py [--replays=100] [--rounds=3] [--epochs=1]

The space: cells of two intermediate nodes, so five edges (the first five of `genotypes.EDGES`),
each with one of three operations: `none`, `max_pool_3x3` or `sep_conv_3x3`. All 3^5 = 243 cells
were trained on digits, as child and as parent, with three seeds each, by `tabular_training.py`,
which says how; benchmarks/tabular.csv holds what they reached. The networks have reduction cells
only, so that a cell is the `reduce` of a `Genotype` with `none` on its other edges.

A replay drives the search's own `ChildParentOracle`. It sees what a search sees, the validation
accuracies of child and parent after --epochs, each time those of a seed drawn at random; the
edges that the space does not have are drawn, too, and change nothing, since the Oracle judges each
edge by itself. (Unlike in a search the networks share no weights: the first epoch is always from
the initial weights.)

A search's regret is how much the child of the cell that it finds stays below that of the best cell
in test accuracy after the whole training. It is measured on one seed that is held out, each in
turn: the search sees the trainings of the others, and the best cell is the best by their mean. On
the same trainings, the luck of the best of 243 cells would count as every method's regret. So a
single regret can be negative.

Compared are

- cpnas, beta_P = 2, bnas, beta_P = 0 (the paper's baseline), and other beta_P;
- bnas additive, whose operations are dropped by a model of the scores, and bnas without none, which
  starts with the other two operations and has more rounds instead;
- best of n: of n cells drawn at random the one whose child is best after one epoch, n the number of
  trainings that a search of child and parent does;
- random: a cell drawn at random, as in the paper; its regret is the mean over all cells;
- the last two without `none`: of the cells that have an operation on every edge;
- guided: a `GuidedOracle` on the 32 cells without `none`, by the child's accuracy. Half of its
  trainings are of the first design; each round takes the best predicted of all other cells; a tenth
  as many finalists are trained twice as long. It trains for as many epochs as Algorithm 1 does for
  child and parent, but never more than 24 cells;
- noiseless: Algorithm 1 that sees the accuracies by which the best cell is the best: its own part
  of the regret.

PC-DARTS trains a mixture of operations, of which no cell's accuracy says anything.

"best %" is how often the best cell is found, tau Kendall's rank correlation between z of one seed,
as a search sees it, and the child's test accuracy, mean over the other seeds; a second table has it
for later epochs. The last line is one JSON object with

- cells, seeds, load_seconds, replay_seconds (of all replays together);
- regret_cpnas, regret_bnas, regret_bnas_additive, regret_beta_..., regret_best_of_n, regret_guided,
  regret_random, regret_noiseless, and three of them with ..._without_none: means over the replays,
  as accuracies in [0, 1];
- tau_cpnas and tau_bnas; tau_seeds of one training's test accuracy with another's of the same cell;
  tau_parent of the parent's test accuracy with the child's;
- best_accuracy, of the best cell; spread, the standard deviation over the cells, and noise, that of
  one training around its cell's mean, of the child's test accuracy.
"""

import csv
import functools
import itertools
import json
import os
import tempfile
import time
from typing import NamedTuple

import cpnas_tf  # noqa: F401  (before keras-tuner and its TensorFlow: Keras 2)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from absl import flags
from keras_tuner.engine.base_tuner import BaseTuner
from scipy import stats

from cpnas_tf import genotypes
from cpnas_tf.cli import app
from cpnas_tf.search.guided_oracle import EPOCHS, GuidedOracle
from cpnas_tf.search.oracle import ChildParentOracle, child_parent_score

FLAGS = flags.FLAGS
flags.DEFINE_integer("replays", 100, "Searches of each method.", lower_bound=2)
flags.DEFINE_integer("rounds", 3, "T of Algorithm 1.", lower_bound=1)
flags.DEFINE_integer("epochs", 1, "Of training, before a score.", lower_bound=1, upper_bound=12)

TABLE = os.path.join(os.path.dirname(os.path.realpath(__file__)), "tabular.csv")
PRECISIONS = ("child", "parent")
OPERATIONS = ("none", "max_pool_3x3", "sep_conv_3x3")
CHOICES = genotypes.CHOICES[len(genotypes.EDGES) :][:5]
CELLS = tuple(itertools.product(OPERATIONS, repeat=len(CHOICES)))
CONNECTED = np.array([number for number, cell in enumerate(CELLS) if "none" not in cell])
BETAS = (2.0, 0.0, -1.0, 0.33, 1.0, 3.0, 5.0)
# Where a search saves itself without waiting for a disk, if the system has such a folder.
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


class Table(NamedTuple):
    """What all cells reached, in the order of `CELLS`.

    Attributes:
        validation: precision -> accuracy after each epoch, `[cells, seeds, epochs]`.
        test: precision -> accuracy after the last epoch, `[cells, seeds]`.
    """

    validation: dict
    test: dict


def genotype(cell):
    """The `Genotype` of a cell: `none` on the edges that it does not have."""
    none = ["none"] * len(genotypes.EDGES)
    return genotypes.Genotype(none, [*cell, *none[len(cell) :]])


def read_table(path):
    """Reads a table.

    Raises:
        ValueError: naming the file, if it cannot be read, or is not one training of each cell,
            precision and seed.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            _, *rows = csv.reader(line for line in file if not line.startswith("#"))
        trainings = {
            (precision, tuple(cell), int(seed)): list(map(float, accuracies))
            for *cell, precision, seed, accuracies in (
                (*row[: len(CHOICES) + 2], row[len(CHOICES) + 2 :]) for row in rows
            )
        }
        seeds = sorted({seed for *_, seed in trainings})
        wanted = len(PRECISIONS) * len(CELLS) * max(len(seeds), 1)
        if not len(trainings) == len(rows) == wanted:
            raise ValueError(
                f"{len(rows)} trainings, of {len(CELLS)} cells with {len(seeds)} seeds"
            )
        accuracies = {
            precision: np.array(
                [[trainings[precision, cell, seed] for seed in seeds] for cell in CELLS]
            )
            for precision in PRECISIONS
        }
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"cannot read the table {path}: {error}") from None
    return Table(
        {precision: values[:, :, :-1] for precision, values in accuracies.items()},
        {precision: values[:, :, -1] for precision, values in accuracies.items()},
    )


class Replay(BaseTuner):
    """A search whose accuracies are looked up.

    Args:
        oracle: a `ChildParentOracle` with the space's operations.
        scores: precision -> accuracy, `[cells, seeds]`.
        seed: of which training's accuracies a trial gets.
    """

    def __init__(self, oracle, scores, *, seed, **project):
        self._scores, self._random = scores, np.random.default_rng(seed)
        super().__init__(oracle, **project)

    def run_trial(self, trial):
        cell = CELLS.index(tuple(trial.hyperparameters.values[name] for name in CHOICES))
        seed = self._random.integers(self._scores["child"].shape[1])
        return {
            f"{precision}_accuracy": float(self._scores[precision][cell, seed])
            for precision in PRECISIONS
        }


class CellOracle(GuidedOracle):
    """A guided search of the cells without `none`, which are few enough to predict all of them."""

    def __init__(self, **settings):
        super().__init__(operations=OPERATIONS, score="accuracy", **settings)
        self._space = self  # whose `draw` is all that a first design needs

    def draw(self, generator):
        return genotype(CELLS[generator.choice(CONNECTED)]).indices

    def _propose(self, round_index):
        results = self._before(round_index)
        trained = {result.genotype.indices for result in results}
        cells = [genotype(CELLS[number]).indices for number in CONNECTED]
        others = [cell for cell in cells if cell not in trained]
        predictions = self._model(results).predict_indices(np.array(others))
        return [
            others[place] for place in np.argsort(-predictions, kind="stable")[: self.proposals]
        ]


class GuidedReplay(Replay):
    """A guided search whose accuracies are looked up.

    Args:
        oracle: a `CellOracle`.
        scores: the child's accuracies after each epoch, `[cells, seeds, epochs]`.
        seed: as of a `Replay`.
    """

    def run_trial(self, trial):
        values = trial.hyperparameters.values
        cell = CELLS.index(tuple(values[name] for name in CHOICES))
        seed = self._random.integers(self._scores.shape[1])
        accuracy = float(self._scores[cell, seed, values[EPOCHS] - 1])
        return {"child_accuracy": accuracy, "child_loss": 1 - accuracy}


def guided(scores, *, trainings, seed, epochs=1):
    """The position of the cell that a guided search finds.

    Args:
        scores: as of a `GuidedReplay`.
        trainings: how many it may do, of `epochs` each.
        seed: of the `CellOracle`.
        epochs: of a training; a finalist has twice as many.
    """
    finalists = max(1, trainings // 10)
    candidates = min(trainings - 2 * finalists, 24)
    proposals = max(1, candidates // 6)
    rounds = candidates // 2 // proposals
    oracle = CellOracle(
        first=candidates - rounds * proposals,
        rounds=rounds,
        proposals=proposals,
        finalists=finalists,
        epochs=epochs,
        finalist_epochs=min(2 * epochs, scores.shape[2]),
        seed=seed,
    )
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        GuidedReplay(oracle, scores, seed=seed, directory=folder, project_name="replay").search()
    return CELLS.index(oracle.genotype().reduce[: len(CHOICES)])


def search(scores, *, beta, seed, rounds=3, **settings):
    """The position in `CELLS` of the cell that Algorithm 1 finds.

    Args:
        scores: precision -> the accuracies that the search sees, `[cells, seeds]`.
        beta, seed, rounds, settings: of the `ChildParentOracle`.
    """
    settings = {"operations": OPERATIONS, **settings}
    oracle = ChildParentOracle(rounds=rounds, beta=beta, seed=seed, **settings)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        Replay(oracle, scores, seed=seed, directory=folder, project_name="replay").search()
    return CELLS.index(oracle.genotype().reduce[: len(CHOICES)])


def best_of(scores, *, trainings, seed, among=None):
    """The position of the cell with the best score among some drawn with replacement.

    Args:
        scores: one precision's accuracies, `[cells, seeds]`.
        trainings: how many to draw.
        seed: of the draw.
        among: the positions to draw from; by default all.
    """
    random = np.random.default_rng(seed)
    among = np.arange(len(scores)) if among is None else among
    cells = among[random.integers(len(among), size=trainings)]
    seeds = random.integers(scores.shape[1], size=trainings)
    return int(cells[np.argmax(scores[cells, seeds])])


def kendall_tau(scores, reached):
    """Kendall's tau-b of each seed's scores with the mean of the other seeds' accuracies.

    Args:
        scores, reached: `[cells, seeds]`.

    Returns:
        Its mean over the seeds.
    """
    taus = [
        stats.kendalltau(scores[:, seed], np.delete(reached, seed, axis=1).mean(axis=1)).statistic
        for seed in range(scores.shape[1])
    ]
    return float(np.mean(taus))


class Fold(NamedTuple):
    """A table without one of its seeds, whose trainings judge what a search finds.

    Attributes:
        seen: the `Table` of the other seeds.
        held_out: the child's test accuracies with the seed that is held out, `[cells]`.
    """

    seen: Table
    held_out: np.ndarray

    @property
    def known(self):
        """The child's mean test accuracies with the other seeds, `[cells]`."""
        return self.seen.test["child"].mean(axis=1)

    def regret(self, found):
        """How much a cell, or each of an array of them, stays below the best one."""
        return self.held_out[self.known.argmax()] - self.held_out[found]


def folds(table):
    """A `Fold` for each seed of a table."""

    def without(values, seed):
        return {name: np.delete(each, seed, axis=1) for name, each in values.items()}

    return [
        Fold(Table(without(table.validation, seed), without(table.test, seed)), held_out)
        for seed, held_out in enumerate(table.test["child"].T)
    ]


def z_of(table, *, beta, epoch=1):
    """The scores of Eq. 1 after some epochs of training, `[cells, seeds]`."""
    accuracies = (table.validation[precision][:, :, epoch - 1] for precision in PRECISIONS)
    return child_parent_score(*accuracies, beta)


def compare(table, *, replays=100, rounds=3, epochs=1):
    """Replays each method.

    Args:
        table: of the space.
        replays: searches of each method.
        rounds: T of Algorithm 1.
        epochs: how long an architecture is trained before it gets a score.

    Returns:
        A dict per method: `method`, `trainings` (that it needs to choose), `tau` of its scores,
        `regrets` of the cells that it found, and how often that is the `best` one.
    """
    parts = folds(table)
    oracle = ChildParentOracle(rounds=rounds, operations=OPERATIONS)
    trainings = len(PRECISIONS) * oracle.architectures

    def row(method, trainings, find, scores=None):
        found = [
            (fold, np.atleast_1d(find(fold, seed)))
            for seed, fold in zip(range(replays), itertools.cycle(parts))
        ]
        return {
            "method": method,
            "trainings": trainings,
            "tau": None if scores is None else kendall_tau(scores, table.test["child"]),
            "regrets": np.concatenate([fold.regret(cells) for fold, cells in found]),
            "best": np.mean([fold.known.argmax() == cells for fold, cells in found]),
        }

    def after(fold):
        return {
            precision: values[:, :, epochs - 1]
            for precision, values in fold.seen.validation.items()
        }

    def algorithm_1(beta, **settings):
        settings = {"rounds": rounds, **settings}
        return lambda fold, seed: search(after(fold), beta=beta, seed=seed, **settings)

    def best_of_n(among):
        return lambda fold, seed: best_of(
            after(fold)["child"], trainings=trainings, seed=seed, among=among
        )

    def by_model(fold, seed):
        scores = fold.seen.validation["child"]
        return guided(scores, trainings=trainings, seed=seed, epochs=epochs)

    def noiseless(fold, seed):
        known = dict.fromkeys(PRECISIONS, fold.known[:, None])
        return search(known, beta=0.0, seed=seed, rounds=rounds)

    # With two operations a round has two architectures: as many rounds as the trainings allow.
    more = trainings // (2 * len(PRECISIONS))
    without_none = algorithm_1(0.0, operations=OPERATIONS[1:], rounds=more)
    names, z = {2.0: "cpnas", 0.0: "bnas"}, functools.partial(z_of, table, epoch=epochs)
    return [
        *(
            row(names.get(beta, f"beta {beta:g}"), trainings, algorithm_1(beta), z(beta=beta))
            for beta in BETAS
        ),
        row("bnas additive", trainings, algorithm_1(0.0, indicator="additive"), z(beta=0.0)),
        row("bnas without none", 2 * len(PRECISIONS) * more, without_none, z(beta=0.0)),
        row("best of n", trainings, best_of_n(np.arange(len(CELLS))), z(beta=0.0)),
        row("best of n without none", trainings, best_of_n(CONNECTED)),
        row("guided", trainings, by_model, z(beta=0.0)),
        row("random", 0, lambda fold, seed: np.arange(len(CELLS))),
        row("random without none", 0, lambda fold, seed: CONNECTED),
        row("noiseless", None, noiseless),
    ]


def tau_of_seeds(reached):
    """Kendall's tau-b between the accuracies of two seeds, its mean over all pairs of seeds."""
    pairs = itertools.combinations(reached.T, 2)
    return float(np.mean([stats.kendalltau(*pair).statistic for pair in pairs]))


def describe(table):
    """How far the cells lie apart, and one cell's trainings, in the child's test accuracy."""
    test, reached = table.test["child"], table.test["child"].mean(axis=1)
    return {
        "best_accuracy": float(reached.max()),
        "spread": float(reached.std()),
        "noise": float(np.sqrt(test.var(axis=1, ddof=1).mean())),
        "tau_seeds": tau_of_seeds(test),
        "tau_parent": kendall_tau(table.test["parent"], test),
    }


def _print_methods(rows):
    width = max(len(row["method"]) for row in rows)
    print(
        f"{'method':>{width}}{'trainings':>11}{'regret %':>10}{'± 95%':>8}{'best %':>8}{'tau':>7}"
    )
    for row in rows:
        regret = 100 * row["regrets"]
        error = 1.96 * regret.std(ddof=1) / len(regret) ** 0.5
        columns = (
            f"{row['method']:>{width}}",
            f"{'' if row['trainings'] is None else row['trainings']:>11}",
            f"{regret.mean():>10.2f}",
            f"{'' if row['method'].startswith('random') else f'{error:.2f}':>8}",
            f"{100 * row['best']:>8.1f}",
            f"{'' if row['tau'] is None else format(row['tau'], '.2f'):>7}",
        )
        print("".join(columns))


def _print_taus(table):
    print("\ntau of z with the child's test accuracy, by epochs of training")
    print(f"{'epochs':>8}" + "".join(f"{f'beta {beta:g}':>10}" for beta in sorted(BETAS)))
    reached = table.test["child"]
    epochs = table.validation["child"].shape[2]
    for epoch in sorted({1, 2, 4, 8, epochs} & set(range(1, epochs + 1))):
        taus = [kendall_tau(z_of(table, beta=beta, epoch=epoch), reached) for beta in sorted(BETAS)]
        print(f"{epoch:>8}" + "".join(f"{tau:>10.2f}" for tau in taus))


def main():
    """Replays all methods, and prints tables and as the last line one JSON object."""
    started = time.perf_counter()
    table = read_table(TABLE)
    loaded = time.perf_counter()
    rows = compare(table, replays=FLAGS.replays, rounds=FLAGS.rounds, epochs=FLAGS.epochs)
    result = {
        "cells": len(CELLS),
        "seeds": table.test["child"].shape[1],
        "load_seconds": loaded - started,
        "replay_seconds": time.perf_counter() - loaded,
        **{f"regret_{row['method'].replace(' ', '_')}": row["regrets"].mean() for row in rows},
        **{f"tau_{row['method']}": row["tau"] for row in rows[:2]},
        **describe(table),
    }
    _print_methods(rows)
    _print_taus(table)
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    app.run(main)
