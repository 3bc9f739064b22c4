"""The tabular benchmark: its table, and replays on made-up tables whose best cell is known."""

import collections
import csv
import itertools
import json

import forked
import numpy as np
import pytest
import tabular

from cpnas_tf.genotypes import CHOICES, OPERATIONS
from cpnas_tf.search.oracle import ChildParentOracle

NONE, POOL, CONVOLUTION = tabular.OPERATIONS


def scores(child, parent=None):
    """Scores of one seed without noise, from functions of a cell."""
    functions = {"child": child, "parent": parent or child}
    return {
        precision: np.array([[function(cell)] for cell in tabular.CELLS])
        for precision, function in functions.items()
    }


def likes(*favourites):
    """A score that grows with each edge that has its favourite."""
    return lambda cell: 0.1 + 0.1 * sum(map(str.__eq__, cell, favourites))


def write(path, change=lambda rows: rows, seeds=2):
    """Writes a made-up table and returns its rows."""
    random = np.random.default_rng(0)
    rows = [
        [*cell, precision, str(seed), *map(str, random.uniform(size=3).round(4))]
        for seed in range(seeds)
        for precision in ("parent", "child")
        for cell in tabular.CELLS[::-1]
    ]
    header = [*tabular.CHOICES, "precision", "seed", "validation_1", "validation_2", "test"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write("# What it is.\n")
        csv.writer(file).writerows([header, *change(list(rows))])
    return rows


def test_the_space():
    assert len(tabular.CELLS) == len(set(tabular.CELLS)) == 3**5
    edges = ("0_2", "1_2", "0_3", "1_3", "2_3")
    assert list(tabular.CHOICES) == [f"reduce_{edge}" for edge in edges]
    assert set(tabular.OPERATIONS) < set(OPERATIONS)
    cell = (NONE, POOL, CONVOLUTION, CONVOLUTION, POOL)
    names = dict(zip(CHOICES, tabular.genotype(cell).choices, strict=True))
    assert {name: names.pop(name) for name in tabular.CHOICES} == dict(
        zip(tabular.CHOICES, cell, strict=True)
    )
    assert set(names.values()) == {"none"}


def test_the_table_has_every_training_once():
    with open(tabular.TABLE, newline="", encoding="utf-8") as file:
        lines = list(file)
    rows = list(csv.DictReader(line for line in lines if line[0] != "#"))
    seeds = {row["seed"] for row in rows}
    assert len(seeds) >= 3
    wanted = itertools.product(tabular.CELLS, ("child", "parent"), seeds)
    keys = [
        (tuple(row[name] for name in tabular.CHOICES), row["precision"], row["seed"])
        for row in rows
    ]
    assert collections.Counter(keys) == collections.Counter(wanted)
    table = tabular.read_table(tabular.TABLE)
    for values in (*table.validation.values(), *table.test.values()):
        assert values.shape[:2] == (len(tabular.CELLS), len(seeds))
        assert values.min() >= 0
        assert values.max() <= 1
    images = {"test": 360, **dict.fromkeys(filter(lambda n: n[:3] == "val", rows[0]), 285)}
    for row in rows:
        for name, count in images.items():
            right = float(row[name]) * count
            assert right == pytest.approx(round(right), abs=0.02)


def test_the_oracle_on_the_table_is_better_than_chance_and_best_without_noise():
    table = tabular.read_table(tabular.TABLE)
    rows = {row["method"]: row["regrets"] for row in tabular.compare(table, replays=30)}
    means = {method: regrets.mean() for method, regrets in rows.items()}
    assert means["noiseless"] < means["bnas"] < means["random"]
    assert means["random without none"] < means["random"]


def test_a_table_is_read_as_written(tmp_path):
    rows = write(tmp_path / "table.csv")
    table = tabular.read_table(tmp_path / "table.csv")
    for *cell, precision, seed, first, second, test in rows:
        position = tabular.CELLS.index(tuple(cell)), int(seed)
        assert table.validation[precision][position].tolist() == [float(first), float(second)]
        assert table.test[precision][position] == float(test)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows[1:],
        lambda rows: [*rows, rows[0]],
        lambda rows: [rows[1], *rows[1:]],
        lambda rows: [["conv", *rows[0][1:]], *rows[1:]],
        lambda rows: [[*rows[0][:-1], "x"], *rows[1:]],
        lambda rows: [rows[0][:-1], *rows[1:]],
        lambda rows: [],
    ],
)
def test_a_broken_table_is_refused(tmp_path, change):
    path = tmp_path / "table.csv"
    write(path, change)
    with pytest.raises(ValueError, match=f"^cannot read the table {path}: .") as error:
        tabular.read_table(path)
    assert "\n" not in str(error.value)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="^cannot read the table .*No such file"):
        tabular.read_table(tmp_path / "table.csv")


def test_a_replay_drives_the_oracle_with_the_accuracies_of_the_sampled_cells(monkeypatch):
    oracles = []

    class Oracle(ChildParentOracle):
        def __init__(self, **settings):
            super().__init__(**settings)
            oracles.append(self)

    monkeypatch.setattr(tabular, "ChildParentOracle", Oracle)
    random = np.random.default_rng(0)
    noisy = {name: random.uniform(size=[len(tabular.CELLS), 3]) for name in ("child", "parent")}
    found = tabular.search(noisy, beta=2.0, seed=4, rounds=2)
    (oracle,) = oracles
    assert (oracle.beta, oracle.seed, oracle.rounds) == (2.0, 4, 2)
    assert set(oracle.operations) == set(tabular.OPERATIONS)
    assert len(oracle.results) == oracle.architectures == 2 * (3 + 2)
    seeds = set()
    for result in oracle.results:
        choices = dict(zip(CHOICES, result.choices, strict=True))
        cell = tabular.CELLS.index(tuple(choices[name] for name in tabular.CHOICES))
        (seed,) = np.flatnonzero(noisy["child"][cell] == result.child_accuracy)
        assert result.parent_accuracy == noisy["parent"][cell, seed]
        seeds.add(seed)
    assert seeds == {0, 1, 2}
    names = dict(zip(CHOICES, oracle.genotype().choices, strict=True))
    assert tabular.CELLS[found] == tuple(names[name] for name in tabular.CHOICES)


@pytest.mark.parametrize("edge", range(5))
@pytest.mark.parametrize("favourite", tabular.OPERATIONS)
def test_where_one_edge_matters_a_best_cell_is_found(edge, favourite):
    """Exactly so, whatever is sampled: without noise z ranks that edge's operations."""
    order = [name for name in tabular.OPERATIONS if name != favourite] + [favourite]
    known = scores(lambda cell: order.index(cell[edge]) / 4)
    found = tabular.search(known, beta=2.0, seed=edge, rounds=1)
    assert tabular.CELLS[found][edge] == favourite
    assert known["child"][found] == known["child"].max()


def test_the_known_best_cell_is_found_without_noise():
    """Many rounds average out what the other edges add to an operation's score."""
    best = (POOL, CONVOLUTION, NONE, POOL, CONVOLUTION)
    for beta in (0.0, 2.0):
        found = tabular.search(scores(likes(*best)), beta=beta, seed=0, rounds=25)
        assert tabular.CELLS[found] == best


def test_beta_decides_whose_best_cell_is_found():
    """The child's for 0, and at 2 the parent's: z = 2 A_P - A_C."""
    child, parent = (POOL, NONE, NONE, POOL, NONE), (NONE, POOL, POOL, NONE, POOL)
    two = scores(likes(*child), likes(*parent))
    assert tabular.CELLS[tabular.search(two, beta=0.0, seed=1, rounds=25)] == child
    assert tabular.CELLS[tabular.search(two, beta=2.0, seed=1, rounds=25)] == parent


def test_best_of_n_takes_the_best_of_its_draws():
    child = scores(likes(POOL, POOL, NONE, POOL, POOL))["child"]
    found = [tabular.best_of(child, trainings=1, seed=seed) for seed in range(400)]
    assert len(set(found)) > 100
    assert child[found].mean() == pytest.approx(child.mean(), abs=0.02)
    few = [tabular.best_of(child, trainings=5, seed=seed) for seed in range(400)]
    maxima = np.random.default_rng(0).choice(child[:, 0], size=[4000, 5]).max(axis=1)
    assert child[few].mean() == pytest.approx(maxima.mean(), abs=0.02)
    assert tabular.best_of(child, trainings=5000, seed=0) == child[:, 0].argmax()
    among = np.arange(7)
    worst = tabular.best_of(child, trainings=500, seed=0, among=among)
    assert worst in among
    assert child[worst] == child[among].max()


class TestGuided:
    @pytest.mark.parametrize(("trainings", "expected"), [(30, 30), (10, 10), (100, 24 + 2 * 10)])
    def test_it_costs_what_it_may(self, monkeypatch, trainings, expected):
        seen = []

        class Oracle(tabular.CellOracle):
            def end_trial(self, trial):
                seen.append(trial.hyperparameters.values)
                super().end_trial(trial)

        monkeypatch.setattr(tabular, "CellOracle", Oracle)
        scores = np.random.default_rng(0).uniform(size=[len(tabular.CELLS), 2, 3])
        tabular.guided(scores, trainings=trainings, seed=1)
        assert sum(values[tabular.EPOCHS] for values in seen) == expected
        for values in seen:
            names = {name: values[name] for name in CHOICES}
            cell = tuple(names.pop(name) for name in tabular.CHOICES)
            assert NONE not in cell
            assert set(names.values()) == {NONE}

    def test_it_finds_the_best_cell_that_its_model_can_express(self):
        favourites = (POOL, CONVOLUTION, CONVOLUTION, POOL, CONVOLUTION)
        child = scores(likes(*favourites))["child"][:, :, None]
        for seed in range(4):
            found = tabular.guided(child, trainings=30, seed=seed)
            assert tabular.CELLS[found] == favourites


def test_a_fold_judges_by_the_seed_that_its_search_does_not_see(tmp_path):
    write(tmp_path / "table.csv", seeds=3)
    table = tabular.read_table(tmp_path / "table.csv")
    folds = tabular.folds(table)
    assert len(folds) == 3
    for held, fold in enumerate(folds):
        others = [seed for seed in range(3) if seed != held]
        for name in ("child", "parent"):
            seen, whole = fold.seen.validation[name], table.validation[name]
            assert seen.tolist() == whole[:, others].tolist()
        test = table.test["child"]
        best = np.argmax(test[:, others].sum(axis=1))
        cells = np.arange(len(tabular.CELLS))
        np.testing.assert_allclose(fold.regret(cells), test[best, held] - test[:, held])


def test_luck_of_the_best_cell_is_no_regret():
    """Where all cells are alike, a search loses nothing whatever it finds."""
    random = np.random.default_rng(0)
    test = random.uniform(size=[len(tabular.CELLS), 3])
    values = dict.fromkeys(("child", "parent"), test[:, :, None])
    table = tabular.Table(values, dict.fromkeys(("child", "parent"), test))
    cells = np.arange(len(tabular.CELLS))
    regrets = [fold.regret(cells).mean() for fold in tabular.folds(table)]
    own_luck = test.mean(axis=1).max() - test.mean()
    assert own_luck > 0.3
    assert abs(np.mean(regrets)) < 0.3


def test_tau_is_of_each_seed_with_the_others():
    reached = np.stack([np.arange(5.0)] * 2, axis=1)
    scores = np.stack([np.arange(5.0), [0, 2, 1, 3, 4]], axis=1)  # of 10 pairs 1 is swapped
    assert tabular.kendall_tau(scores, reached) == pytest.approx((1 + 0.8) / 2)
    reached[:, 0] = [0, 2, 1, 3, 4]  # by which the second seed is judged
    assert tabular.kendall_tau(scores, reached) == pytest.approx(1)
    assert tabular.tau_of_seeds(reached) == pytest.approx(0.8)


def test_methods_are_compared_by_what_they_find(tmp_path):
    write(tmp_path / "table.csv")
    table = tabular.read_table(tmp_path / "table.csv")
    rows = {row["method"]: row for row in tabular.compare(table, replays=2, rounds=1)}
    first = {name: values[:, :, 0] for name, values in table.validation.items()}
    folds = tabular.folds(table)
    for method, beta in (("cpnas", 2.0), ("bnas", 0.0), ("beta 5", 5.0)):
        for replay, fold in enumerate(folds):
            seen = {name: values[:, :, 0] for name, values in fold.seen.validation.items()}
            found = tabular.search(seen, beta=beta, seed=replay, rounds=1)
            assert rows[method]["regrets"][replay] == fold.regret(found)
        assert rows[method]["trainings"] == 2 * (3 + 2)
        z = first["child"] + beta * (first["parent"] - first["child"])
        tau = tabular.kendall_tau(z, table.test["child"])
        assert rows[method]["tau"] == pytest.approx(tau, abs=1e-6)
    test = table.test["child"]
    best = [test[:, 1].argmax(), test[:, 0].argmax()]  # judged by the first seed, by the second
    expected = (test[best[0], 0] + test[best[1], 1]) / 2 - test.mean()
    assert rows["random"]["regrets"].mean() == pytest.approx(expected)
    assert rows["random"]["best"] == pytest.approx(1 / len(tabular.CELLS))
    connected = [number for number, cell in enumerate(tabular.CELLS) if NONE not in cell]
    expected += test.mean() - test[connected].mean()
    assert rows["random without none"]["regrets"].mean() == pytest.approx(expected)


def test_the_command_prints_one_json_object_last():
    outcome = forked.run("../benchmarks/tabular", "--replays=2")
    assert outcome.code == 0, outcome.stderr
    result = json.loads(outcome.stdout.splitlines()[-1])
    assert result["cells"] == 243
    assert result["seeds"] >= 3
    assert 0 < result["best_accuracy"] <= 1
    rows = {line[:22].strip(): line[22:].split() for line in outcome.stdout.splitlines()}
    for name in ("cpnas", "bnas", "random", "best of n", "best of n without none"):
        regret = result[f"regret_{name.replace(' ', '_')}"]
        assert -1 < regret < 1
        assert float(rows[name][1]) == pytest.approx(100 * regret, abs=0.01)
