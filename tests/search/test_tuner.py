import contextlib
import csv
import errno
import io
import itertools
import math
import os
import re
import shutil
import types

import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from keras_tuner.errors import FatalError
from small_search import StopError, make_images
from small_training import truncate

from cpnas_tf import data
from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.networks.units import find_unit
from cpnas_tf.runs import search_log
from cpnas_tf.search import cpnas
from cpnas_tf.search.cpnas import ChildParentSearch, search
from cpnas_tf.search.oracle import ChildParentOracle
from cpnas_tf.search.pair import Pair
from cpnas_tf.search.tuner import ChildParentTuner

pytestmark = pytest.mark.usefixtures("deterministic")

SEARCH = {"rounds": 1, "operations": ("none", "avg_pool_3x3", "dil_conv_3x3"), "seed": 3}
ARCHITECTURES = 3 + 2
BATCH, STEPS = 8, 3
LEARNING_RATE = 0.2
TRAINING = {
    "batch_size": BATCH,
    "learning_rate": LEARNING_RATE,
    "final_learning_rate": 0.0,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "augmentation": {"flip": True},
}


TRAIN = make_images(STEPS * BATCH + 2, seed=1)
VALIDATION = make_images(2 * BATCH, seed=2)


def variables(tuner):
    """The variables of both supernets by name."""
    return {
        f"{precision}_{number}": variable
        for precision, supernet in tuner.pair.supernets.items()
        for number, variable in enumerate(supernet.variables)
    }


def values(tuner):
    return {name: variable.numpy() for name, variable in variables(tuner).items()}


def run_search(folder):
    """Calls `search` as a user does, and keeps what it leaves."""
    found = types.SimpleNamespace(folder=folder)

    class Tuner(ChildParentTuner):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            found.tuner, found.initial = self, values(self)

    def run(planned, directory, **settings):
        found.result = run_planned(planned, directory, **settings)
        return found.result

    run_planned = ChildParentSearch.run
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(cpnas, "ChildParentTuner", Tuner)
        patch.setattr(ChildParentSearch, "run", run)
        found.genotype = search(
            TRAIN, VALIDATION, directory=folder, cells=1, channels=2, **SEARCH, **TRAINING
        )
    found.output = out.getvalue()
    found.final = values(found.tuner)
    found.rows = search_log.read(folder / "search.csv")
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole search. Its traced graphs serve the tuners of `new_tuner` too."""
    return run_search(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def new_tuner(whole):
    """Makes a tuner as a new process would, but for the tracing: `new_tuner(folder)`."""
    pair = whole.tuner.pair

    def make(folder, *, verbose="auto", **settings):
        for name, variable in variables(whole.tuner).items():
            variable.assign(whole.initial[name])
        with traced_as(pair):
            return plan(**settings).start(folder, verbose=verbose)

    return make


@contextlib.contextmanager
def traced_as(pair):
    """Has new tuners take a pair's supernets, as they are, and its traced graphs."""

    def supernet(*, precision, **_):
        return pair.supernets[precision]

    def traced(*args, **settings):
        new = Pair(*args, **settings)
        new.train_step, new.count_correct = pair.train_step, pair.count_correct
        return new

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpnas, "Supernet", supernet)
        patch.setattr(cpnas, "Pair", traced)
        yield


def plan(**settings):
    settings = {"cells": 1, "channels": 2, **SEARCH, **TRAINING, **settings}
    return ChildParentSearch(TRAIN, VALIDATION, **settings)


@pytest.fixture(scope="module")
def stop_at(new_tuner):
    """Runs a search up to the beginning of a trial: `stop_at(folder, number)`."""

    def run(folder, number):
        tuner = new_tuner(folder)

        def begin(trial):
            if int(trial.trial_id) == number:
                raise StopError

        tuner.on_trial_begin = begin
        with pytest.raises(StopError):
            tuner.search()
        return tuner

    return run


@pytest.fixture
def assert_goes_on(new_tuner, whole):
    """Goes on with a stopped search and compares all with the one that was never stopped."""

    def check(folder):
        tuner = new_tuner(folder)
        tuner.search()
        assert without_times(folder) == without_times(whole.folder)
        assert tuner.oracle.genotype() == whole.genotype
        found = values(tuner)
        for name, value in whole.final.items():
            assert found[name].tobytes() == value.tobytes(), name

    return check


@pytest.fixture(scope="module")
def stopped_once(stop_at, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    stop_at(folder, 3)
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A copy of the folder of a search that was stopped after three of five architectures."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


def without_times(folder):
    """The text of `search.csv` without its last column."""
    lines = (folder / "search.csv").read_text().splitlines()
    return [line.rpartition(",")[0] for line in lines]


def states(folder):
    """The names of the checkpoints' indices."""
    return sorted(path.name for path in (folder / "checkpoints").glob("*.index"))


def state(number):
    return f"ckpt-{number:05d}-{number * STEPS:09d}.index"


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def one_line(error):
    (line,) = str(error.value).splitlines()
    return line


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def test_without_beta_children_are_searched_alone(tmp_path):
    """With parents beside them they are the same, bit for bit."""
    alone = plan(beta=0.0).start(tmp_path / "alone")
    alone.search()
    both = plan(beta=0.0, parent=True).start(tmp_path / "both")
    both.search()
    assert (list(alone.pair.supernets), len(both.pair.supernets)) == (["child"], 2)
    assert alone.genotype() == both.genotype()
    kept = values(both)
    for name, value in values(alone).items():
        assert value.tobytes() == kept[name].tobytes(), name
    rows, others = (search_log.read(tmp_path / name / "search.csv") for name in ("alone", "both"))
    assert {row["parent_accuracy"] for row in rows} == {None}
    assert all(row["parent_accuracy"] is not None for row in others)
    for row, other in zip(rows, others, strict=True):
        assert row["z"] == row["child_accuracy"] == other["child_accuracy"]


class TestSearch:
    def test_the_table_is_algorithm_1(self, whole):
        with open(whole.folder / "search.csv", newline="") as file:
            header, *rows = csv.reader(file)
        assert header[:3] == ["stage", "round", "sample"]
        assert header[3:31] == list(CHOICES)
        assert header[31:] == ["child_accuracy", "parent_accuracy", "z", "seconds"]
        assert [tuple(map(int, row[:3])) for row in rows] == [
            (0, 0, 0),
            (0, 0, 1),
            (0, 0, 2),
            (1, 0, 0),
            (1, 0, 1),
        ]
        for edge in range(len(CHOICES)):
            operations = [row[3 + edge] for row in rows]
            assert set(operations[:3]) == set(SEARCH["operations"])
            assert len(set(operations[3:])) == 2
            assert set(operations[3:]) < set(operations[:3])
            assert whole.genotype.choices[edge] in operations[3:]
            z = {row[3 + edge]: float(row[33]) for row in rows[:3]}
            (dropped,) = set(operations[:3]) - set(operations[3:])
            assert z[dropped] == min(z.values())

    def test_scores_are_eq_1_of_accuracies_on_all_validation_images(self, whole):
        for row in whole.rows:
            child, parent = row["child_accuracy"], row["parent_accuracy"]
            assert row["z"] == pytest.approx(child + 2.0 * (parent - child))
            assert (child * len(VALIDATION)).is_integer()
            assert (parent * len(VALIDATION)).is_integer()
            assert row["seconds"] > 0
        assert len({row["z"] for row in whole.rows}) > 1

    def test_the_genotype_is_the_oracles(self, whole):
        oracle = ChildParentOracle(beta=2.0, **SEARCH)
        accuracies = [[row["child_accuracy"], row["parent_accuracy"]] for row in whole.rows]
        oracle.set_state({**oracle.get_state(), "results": accuracies})
        assert whole.genotype == oracle.genotype()
        assert [tuple(row[name] for name in CHOICES) for row in whole.rows] == [
            result.choices for result in oracle.results
        ]

    def test_accuracies_are_those_of_the_derived_networks(self, whole):
        last = whole.rows[-1]
        genotype = Genotype.from_choices(last[name] for name in CHOICES)
        batches = np.split(VALIDATION.images.astype(np.float32) / 127.5 - 1, 2)
        for precision in ("child", "parent"):
            supernet = whole.tuner.pair.supernets[precision]
            for number, variable in enumerate(supernet.variables):
                variable.assign(whole.final[f"{precision}_{number}"])
            network = supernet.derive(genotype)
            logits = np.concatenate([network(batch, training=True) for batch in batches])
            accuracy = np.mean(logits.argmax(axis=1) == VALIDATION.labels)
            assert last[f"{precision}_accuracy"] == accuracy

    def test_the_same_seed_gives_the_same_search(self, whole, tmp_path):
        again = run_search(tmp_path)
        assert without_times(tmp_path) == without_times(whole.folder)
        assert again.genotype == whole.genotype
        for name, value in whole.final.items():
            assert again.final[name].tobytes() == value.tobytes(), name

    def test_another_seed_gives_another_search(self, whole, new_tuner, tmp_path, monkeypatch):
        monkeypatch.setitem(SEARCH, "seed", 4)
        tuner = new_tuner(tmp_path)
        tuner.search()
        assert without_times(tmp_path) != without_times(whole.folder)
        assert tuner.oracle.genotype() != whole.genotype

    def test_every_setting_arrives(self, monkeypatch, tmp_path):
        class Everything:
            def __init__(self, *args, **settings):
                made[type(self).__name__].append((args, settings))

            def search(self):
                raise StopError

        made = {name: [] for name in ("Supernet", "Pair", "ChildParentTuner")}
        for name in made:
            monkeypatch.setattr(cpnas, name, type(name, (Everything,), {}))
        large = {
            name: data.Images(np.tile(part.images, [1, 4, 4, 1]), part.labels, part.class_names)
            for name, part in (("train", TRAIN), ("validation", VALIDATION))
        }
        with pytest.raises(StopError):
            search(
                **large,
                directory=tmp_path,
                verbose=2,
                cells=4,
                channels=6,
                stem="imagenet",
                real_inputs=("depthwise",),
                unit="residual",
                activations=32,
                partial=2,
                beta=0.5,
                allow_none=False,
                mixed_precision=True,
                optimizer="adam",
                sampling="step",
                indicator="additive",
                **SEARCH,
                **TRAINING | {"final_learning_rate": 0.005},
            )
        sizes = {"input_shape": (32, 32, 1), "classes": 2, "cells": 4, "channels": 6, "seed": 3}
        sizes |= {"stem": "imagenet", "real_inputs": ("depthwise",), "dtype": "bfloat16"}
        sizes |= {"operations": SEARCH["operations"], "optimizer": "adam"}
        sizes |= {"unit": find_unit("residual"), "activations": 32, "partial": 2}
        (_, child), (_, parent) = made["Supernet"]
        assert child == {**sizes, "precision": "child"}
        assert parent == {**sizes, "precision": "parent"}
        (((supernets,), pair),) = made["Pair"]
        assert list(supernets) == ["child", "parent"]
        names = ("batch_size", "momentum", "weight_decay")
        assert {name: pair[name] for name in names} == {name: TRAINING[name] for name in names}
        assert pair["steps"] == STEPS
        rates = [pair["rate"](epoch) for epoch in (0, ARCHITECTURES)]
        assert rates == pytest.approx([LEARNING_RATE, 0.005])
        stream = {"batch_size": BATCH, "seed": 3, "epochs": ARCHITECTURES}
        stream |= {"augmentation": TRAINING["augmentation"], "first_step": STEPS}
        expected = data.batches(large["train"], **stream)
        for batch, wanted in zip(pair["stream"](first_step=STEPS), expected, strict=True):
            np.testing.assert_array_equal(batch[0], wanted[0])
            np.testing.assert_array_equal(batch[1], wanted[1])
        labels = [labels for _, labels in pair["validation"]]
        np.testing.assert_array_equal(np.concatenate(labels), VALIDATION.labels)
        (((oracle, _), tuner),) = made["ChildParentTuner"]
        settings = {**SEARCH, "operations": list(SEARCH["operations"])}
        assert oracle.get_state() == {
            **settings,
            "beta": 0.5,
            "allow_none": False,
            "sampling": "step",
            "indicator": "additive",
            "results": [],
        }
        assert tuner == {"directory": tmp_path, "verbose": 2}

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"rounds": 0}, "rounds must be .* received: 0"),
            ({"cells": 0}, "cells must be .* received: 0"),
            ({"channels": 0}, "channels must be .* received: 0"),
            ({"stem": "foo"}, "stem must be one of cifar, imagenet, received: 'foo'"),
            ({"real_inputs": ("stem",)}, "real_inputs must be .* received: .*stem.*"),
            ({"operations": ("none", "conv")}, "operations must be .* received: .*conv.*"),
            ({"beta": math.nan}, "beta must be a finite number, received: nan"),
            ({"seed": -1}, "seed must be .* received: -1"),
            ({"optimizer": "foo"}, "optimizer must be one of sgd, adam, bop, received: 'foo'"),
            ({"optimizer": "bop"}, "optimizer must be one of sgd, adam, received: 'bop'"),
            ({"learning_rate": 0}, "learning_rate must be a number > 0, received: 0"),
            ({"learning_rate": -0.1}, "learning_rate must be a number > 0, received: -0.1"),
            ({"learning_rate": math.nan}, "learning_rate must be .* received: nan"),
            ({"learning_rate": math.inf}, "learning_rate must be .* received: inf"),
            ({"final_learning_rate": 9.0}, "final_learning_rate must be at most .* received: 9.0"),
            ({"final_learning_rate": math.nan}, "final_learning_rate must be .* received: nan"),
            ({"momentum": 1.0}, r"momentum must be a number in \[0, 1\), received: 1.0"),
            ({"momentum": -0.1}, "momentum must be .* received: -0.1"),
            ({"weight_decay": -1}, "weight_decay must be a number >= 0, received: -1"),
            ({"weight_decay": math.nan}, "weight_decay must be .* received: nan"),
            ({"batch_size": 0}, "batch_size must be a whole number >= 1, received: 0"),
            ({"batch_size": 27}, "batch_size must be at most the 26 images .* received: 27"),
            (
                {"augmentation": {"cutout": -1}},
                "augmentation.cutout must be a whole number >= 0, .*: -1",
            ),
        ],
    )
    def test_refuses_before_anything_is_built_or_written(
        self, tmp_path, monkeypatch, settings, message
    ):
        for name in ("Supernet", "Pair", "ChildParentTuner"):
            monkeypatch.setattr(cpnas, name, raising(AssertionError("builds")))
        with pytest.raises(ValueError, match=f"^{message}$"):
            plan(**settings)
        settings = {"cells": 1, "channels": 2, **SEARCH, **TRAINING, **settings}
        with pytest.raises(ValueError, match=f"^{message}$"):
            search(TRAIN, VALIDATION, directory=tmp_path, **settings)
        assert os.listdir(tmp_path) == []

    def test_refuses_images_that_cannot_be_halved_twice(self, tmp_path):
        images = data.Images(np.zeros([9, 6, 6, 1], np.uint8), np.zeros(9, int), ("a", "b"))
        with pytest.raises(ValueError, match="^2 reductions cannot halve images of 6x6 pixels: .*"):
            search(images, images, directory=tmp_path, batch_size=4)
        assert os.listdir(tmp_path) == []

    def test_a_plan_touches_no_folder_and_changes_no_search(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        planned = plan()
        lines = planned.plan().splitlines()
        assert [line.split() for line in lines[1:4]] == [
            ["0", "3", "3", "78"],
            ["1", "2", "2", "52"],
            ["total", "5", "130"],
        ]
        assert re.search(r"each further one \d+\.\d{3} s", lines[4])
        assert os.listdir(tmp_path) == []


class TestTuner:
    def test_an_oracle_of_another_kind_is_refused(self, whole, tmp_path):
        oracle = keras_tuner.oracles.RandomSearchOracle(objective="val_loss")
        with pytest.raises(ValueError, match="oracle must be a ChildParentOracle") as error:
            ChildParentTuner(oracle, whole.tuner.pair, directory=tmp_path)
        assert one_line(error).endswith("received: RandomSearchOracle")
        assert not list(tmp_path.iterdir())

    def test_goes_on_from_what_is_in_the_folder_when_it_starts(self, new_tuner, stopped):
        assert len(new_tuner(stopped).oracle.results) == 3
        shutil.rmtree(stopped / "checkpoints")
        assert new_tuner(stopped).oracle.results == ()

    def test_what_was_not_sampled_is_untouched_bit_by_bit(self, stop_at, whole, tmp_path):
        tuner = stop_at(tmp_path, 1)
        choices = tuner.oracle.results[0].choices
        for precision, supernet in tuner.pair.supernets.items():
            now, changed, sampled = values(tuner), set(), set()
            for key, edges in supernet._bank_edges.items():
                for variable in (supernet._banks[key], *supernet._slots[key]):
                    number = [id(v) for v in supernet.variables].index(id(variable))
                    name = f"{precision}_{number}"
                    for row, operation in np.ndindex(now[name].shape[:2]):
                        before, after = (
                            whole.initial[name][row, operation],
                            now[name][row, operation],
                        )
                        if before.tobytes() != after.tobytes():
                            changed.add((edges[row], tuner.oracle.operations[operation]))
                for edge in edges:
                    sampled.add((edge, choices[supernet._edge_choice(*edge)]))
            with_weights = {(edge, operation) for edge, operation in sampled if operation != "none"}
            assert changed == with_weights
            assert 0 < len(with_weights) < len(sampled) <= 14

    @pytest.mark.parametrize("final", [0.0, LEARNING_RATE / 4])
    def test_learning_rate_is_a_cosine_over_the_architectures(self, new_tuner, tmp_path, final):
        tuner, seen = new_tuner(tmp_path, final_learning_rate=final), []
        step = tuner.pair.train_step

        def spy(images, labels, choices, learning_rate):
            seen.append(float(learning_rate))
            return step(images, labels, choices, learning_rate)

        tuner.pair.train_step = spy
        tuner.search()
        cosine = [
            final + (LEARNING_RATE - final) * (1 + math.cos(math.pi * number / ARCHITECTURES)) / 2
            for number in range(ARCHITECTURES)
        ]
        assert seen == pytest.approx([rate for rate in cosine for _ in range(STEPS)])

    def test_the_cosine_may_restart_in_each_stage(self):
        planned = plan(**TRAINING | {"final_learning_rate": LEARNING_RATE / 4})
        restarting = plan(
            **TRAINING | {"final_learning_rate": LEARNING_RATE / 4}, schedule="restarts"
        )
        rates = [restarting._make_pair.keywords["rate"](epoch) for epoch in range(ARCHITECTURES)]
        low, high = LEARNING_RATE / 4, LEARNING_RATE
        third = [low + (high - low) * (1 + cos) / 2 for cos in (1, 0.5, -0.5)]
        assert rates == pytest.approx([*third, high, (low + high) / 2])
        assert planned._make_pair.keywords["rate"](3) < rates[3]

    def test_each_step_may_train_another_architecture(self, new_tuner, tmp_path):
        tuner, seen = new_tuner(tmp_path, sampling="step"), []
        step = tuner.pair.train_step

        def spy(images, labels, choices, learning_rate):
            seen.append(Genotype.from_choices(OPERATIONS[place] for place in choices.numpy()))
            return step(images, labels, choices, learning_rate)

        tuner.pair.train_step = spy
        tuner.search()
        assert len(seen) == ARCHITECTURES * STEPS
        assert len(set(seen[:STEPS])) == STEPS
        assert tuner.oracle.results[0].choices not in [genotype.choices for genotype in seen]
        for edge in zip(*(genotype.choices for genotype in seen[:STEPS]), strict=True):
            assert set(edge) == set(SEARCH["operations"])

    def test_child_and_parent_see_the_training_stream(self, new_tuner, tmp_path):
        tuner, seen = new_tuner(tmp_path), []

        def spy(images, labels, choices, learning_rate):
            seen.append((images.numpy(), labels.numpy()))
            return [tf.constant(1.0)] * 2

        tuner.pair.train_step = spy
        tuner.search()
        expected = data.batches(
            TRAIN,
            batch_size=BATCH,
            seed=SEARCH["seed"],
            epochs=ARCHITECTURES,
            augmentation=TRAINING["augmentation"],
        )
        for (images, labels), batch in zip(seen, expected, strict=True):
            np.testing.assert_array_equal(images, batch[0])
            np.testing.assert_array_equal(labels, batch[1])

    @pytest.mark.parametrize(
        ("count", "batch_size", "replicas", "sizes"),
        [
            (8, 4, 1, [4, 4]),
            (10, 4, 1, [3, 3, 3]),
            (9, 8, 1, [4, 4]),
            (3, 8, 1, [3]),
            (1, 1, 1, [1]),
            (10, 4, 2, [2, 2, 2, 2, 2]),
            (12, 8, 2, [6, 6]),
            (13, 6, 3, [3, 3, 3, 3]),
        ],
    )
    def test_validation_batches_are_of_one_size(self, count, batch_size, replicas, sizes):
        images = make_images(count, seed=0)
        batches = list(cpnas.equal_batches(images, batch_size, replicas=replicas))
        assert [len(labels) for _, labels in batches] == sizes
        seen = np.concatenate([labels for _, labels in batches])
        np.testing.assert_array_equal(seen, images.labels[: sum(sizes)])
        pixels = np.concatenate([batch for batch, _ in batches])
        expected = images.images[: sum(sizes)].astype(np.float32) / 127.5 - 1
        np.testing.assert_allclose(pixels, expected, atol=1e-6)

    def test_too_few_images_to_validate_on_all_devices(self):
        with pytest.raises(ValueError, match="^3 images to validate on are too few for 4 devices$"):
            cpnas.equal_batches(make_images(3, seed=0), 8, replicas=4)

    def test_a_line_an_architecture(self, whole):
        lines = whole.output.splitlines()
        assert len(lines) == ARCHITECTURES
        for number, (line, row) in enumerate(zip(lines, whole.rows, strict=True), start=1):
            position = " ".join(f"{name} {row[name]}" for name in ("stage", "round", "sample"))
            assert line.startswith(f"[  {number}/5] {position}  child ")
            child, parent, speed = re.search(
                r"child +([\d.]+)%  parent +([\d.]+)%  +(\d+) images/s  ETA \d+:\d\d:\d\d$", line
            ).groups()
            assert float(child) == pytest.approx(100 * row["child_accuracy"], abs=0.01)
            assert float(parent) == pytest.approx(100 * row["parent_accuracy"], abs=0.01)
            assert float(speed) == pytest.approx(STEPS * BATCH / row["seconds"], rel=0.1, abs=1)

    def test_verbose(self, new_tuner, stopped, tmp_path, capsys):
        new_tuner(shutil.copytree(stopped, tmp_path / "silent"), verbose=0).search()
        assert capsys.readouterr().out == ""
        new_tuner(stopped, verbose=1).search()
        moves = capsys.readouterr().out.split("\r")
        steps = [f"step {step}/{STEPS}" for step in range(1, STEPS + 1)]
        assert moves[1 : STEPS + 1] == [f"architecture 4: {step}" for step in steps]
        assert moves[STEPS + 1].startswith("[  4/5] stage 1 round 0 sample 0  child")
        with pytest.raises(ValueError, match="^verbose must be .* received: 'yes'$"):
            new_tuner(tmp_path / "refused", verbose="yes")
        assert not (tmp_path / "refused").exists()


class TestStoppedSearch:
    @pytest.mark.parametrize("number", range(ARCHITECTURES))
    def test_goes_on_between_architectures(self, stop_at, assert_goes_on, tmp_path, number):
        stop_at(tmp_path, number)
        if number:
            assert len(search_log.read(tmp_path / "search.csv")) == number
        assert_goes_on(tmp_path)

    def test_goes_on_again_and_again(self, stop_at, assert_goes_on, tmp_path):
        for number in (1, 1, 2, 4):
            stop_at(tmp_path, number)
        assert_goes_on(tmp_path)

    @pytest.mark.parametrize("step", [1, STEPS])
    def test_goes_on_from_within_an_epoch(self, new_tuner, assert_goes_on, stopped, step):
        tuner = new_tuner(stopped)
        train_step, steps = tuner.pair.train_step, itertools.count(1)

        def interrupted(*args):
            losses = train_step(*args)
            if next(steps) == step:
                raise KeyboardInterrupt
            return losses

        tuner.pair.train_step = interrupted
        with pytest.raises(KeyboardInterrupt):
            tuner.search()
        assert_goes_on(stopped)

    # The last architecture of a stage, and of the search.
    @pytest.mark.parametrize("done", [2, pytest.param(4, marks=pytest.mark.soak)])
    def test_goes_on_from_every_write(
        self, stop_at, new_tuner, assert_goes_on, tmp_path, monkeypatch, done
    ):
        """A full disk at each file that a trial writes, and a kill just after it is written."""
        start = tmp_path / "start"
        stop_at(start, done)
        replace, names = os.replace, []

        def run_trial(folder, replacement):
            tuner = new_tuner(folder)
            tuner.on_trial_begin = lambda trial: int(trial.trial_id) == done or raising(StopError)()
            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", replacement)
                tuner.search()

        def record(source, target):
            names.append(os.path.basename(target))
            replace(source, target)

        with contextlib.suppress(StopError):
            run_trial(shutil.copytree(start, tmp_path / "recorded"), record)
        written = names[: names.index(state(done + 1)) + 1]
        assert "search.csv" in written
        for place, when in itertools.product(range(len(written)), ("before", "after")):
            calls = itertools.count()

            def fail(source, target, place=place, when=when, calls=calls):
                broken = next(calls) == place
                if broken and when == "before":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                replace(source, target)
                if broken:
                    raise StopError

            folder = shutil.copytree(start, tmp_path / f"{place}_{when}")
            with pytest.raises(OSError if when == "before" else StopError):
                run_trial(folder, fail)
            assert_goes_on(folder)

    def test_goes_on_with_adam(self, tmp_path):
        whole = plan(optimizer="adam").start(tmp_path / "whole", verbose=0)
        whole.search()
        final = values(whole)
        assert len(final) == 2 * 4 * len(whole.pair.supernets["child"]._banks)

        def start():
            for supernet in whole.pair.supernets.values():
                supernet.reset(SEARCH["seed"])
            return plan(optimizer="adam").start(tmp_path / "stopped", verbose=0)

        def stop(trial):
            if int(trial.trial_id) == 3:
                raise StopError

        with traced_as(whole.pair):
            stopped = start()
            stopped.on_trial_begin = stop
            with pytest.raises(StopError):
                stopped.search()
            start().search()
        assert without_times(tmp_path / "stopped") == without_times(tmp_path / "whole")
        for name, value in values(whole).items():
            assert value.tobytes() == final[name].tobytes(), name

    def test_a_finished_search_trains_nothing(self, whole, new_tuner, tmp_path):
        folder = shutil.copytree(whole.folder, tmp_path / "copy")
        tuner = new_tuner(folder)
        tuner.pair.train_step = raising(AssertionError("trains"))
        before = files(folder)
        tuner.search()
        assert tuner.oracle.genotype() == whole.genotype
        assert files(folder) == before

    def test_a_search_within_an_ablation_asks_no_chief(self, whole, new_tuner, monkeypatch):
        part = {"TUNER_ID": "worker0", "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": "9"}
        for name, value in part.items():
            monkeypatch.setenv(f"KERASTUNER_{name}", value)
        tuner = new_tuner(whole.folder)
        tuner.search()
        assert tuner.oracle.genotype() == whole.genotype
        assert os.environ["KERASTUNER_ORACLE_IP"] == "127.0.0.1"

    def test_what_a_run_returns(self, whole):
        found = whole.result
        seconds = sum(row["seconds"] for row in whole.rows)
        assert found["seconds"] == pytest.approx(seconds, abs=0.001 * len(whole.rows))
        assert found["images"] == 2 * len(whole.rows) * len(TRAIN)
        assert found["genotype"] == whole.genotype
        for edge, scores in zip(CHOICES, found["scores"], strict=True):
            last = {}
            for rows in search_log.by_stage(whole.rows).values():
                mean = np.mean([row["z"] for row in rows])
                last |= {row[edge]: row["z"] - mean for row in rows}
            assert scores == pytest.approx(last)

    def test_other_settings_are_refused(self, new_tuner, stopped):
        before = files(stopped)
        with pytest.raises(ValueError, match="beta = 2.0, this one 0.5") as error:
            new_tuner(stopped, beta=0.5)
        one_line(error)
        assert files(stopped) == before

    def test_the_last_two_states_are_kept(self, stopped):
        assert states(stopped) == [state(2), state(3)]

    @pytest.mark.parametrize("size", [0, 0.5, -1])
    def test_a_truncated_state_is_noticed_and_the_one_before_used(
        self, stopped, assert_goes_on, caplog, size
    ):
        newest = stopped / "checkpoints" / state(3)
        truncate(newest, size)
        assert_goes_on(stopped)
        (line,) = caplog.messages
        assert line.startswith(f"the checkpoint {newest.with_suffix('')} is broken (")
        assert line.endswith("): trying the one before")

    @pytest.mark.parametrize("place", [8, 0.3, -40])
    def test_a_flipped_bit_is_noticed_and_the_one_before_used(
        self, stopped, assert_goes_on, caplog, place
    ):
        newest = (stopped / "checkpoints" / state(3)).with_suffix(".data-00000-of-00001")
        content = bytearray(newest.read_bytes())
        content[place if isinstance(place, int) else int(len(content) * place)] ^= 1
        newest.write_bytes(content)
        assert_goes_on(stopped)
        assert len(caplog.messages) == 1

    def test_without_a_whole_state_it_does_not_start_over(self, new_tuner, stopped, caplog):
        for name in states(stopped):
            truncate(stopped / "checkpoints" / name, -1)
        before = files(stopped)
        with pytest.raises(ValueError, match="^no checkpoint in .* can be read: delete that"):
            new_tuner(stopped)
        assert len(caplog.messages) == 2
        assert files(stopped) == before

    def test_a_search_that_version_0_1_began_is_refused(self, new_tuner, tmp_path):
        (tmp_path / "tuner").mkdir()
        (tmp_path / "tuner" / "state_00003.npz").write_bytes(b"")
        before = files(tmp_path)
        with pytest.raises(ValueError, match="was begun by cpnas_tf 0.1") as error:
            new_tuner(tmp_path)
        assert f"{tmp_path}/tuner this version cannot read: delete" in one_line(error)
        assert files(tmp_path) == before


class TestFailingSearch:
    def poison(self, tuner):
        for supernet in tuner.pair.supernets.values():
            supernet.variables[0].assign(tf.fill(supernet.variables[0].shape, math.nan))

    def test_a_learning_rate_far_too_high_is_one_line(self, new_tuner, tmp_path):
        with pytest.raises(FatalError, match="architecture 0.*try a lower learning_rate") as error:
            new_tuner(tmp_path, learning_rate=1e30).search()
        one_line(error)
        assert states(tmp_path) == []
        assert not (tmp_path / "search.csv").exists()

    def test_a_loss_that_is_no_number(self, new_tuner, assert_goes_on, stopped):
        before = states(stopped), (stopped / "search.csv").read_bytes()
        tuner = new_tuner(stopped)
        self.poison(tuner)
        with pytest.raises(FatalError, match="the child's loss is nan in architecture 3") as error:
            tuner.search()
        assert "try a lower learning_rate than 0.2" in one_line(error)
        assert (states(stopped), (stopped / "search.csv").read_bytes()) == before
        assert_goes_on(stopped)

    def test_weights_that_only_the_last_step_broke(self, new_tuner, assert_goes_on, stopped):
        before = states(stopped), (stopped / "search.csv").read_bytes()
        tuner = new_tuner(stopped)
        step, steps = tuner.pair.train_step, itertools.count(1)

        def last_step_breaks(*args):
            losses = step(*args)
            if next(steps) == STEPS:
                self.poison(tuner)
            return losses

        tuner.pair.train_step = last_step_breaks
        with pytest.raises(FatalError, match="architecture 3 could not be trained") as error:
            tuner.search()
        assert "the child's logits are not finite, try a lower learning_rate" in one_line(error)
        assert (states(stopped), (stopped / "search.csv").read_bytes()) == before
        assert_goes_on(stopped)

    @pytest.mark.parametrize(
        ("function", "failure", "reason"),
        [
            (
                "train_step",
                tf.errors.ResourceExhaustedError(None, None, "memory\n\nlog"),
                "memory",
            ),
            ("train_step", StopIteration(), "StopIteration"),
            ("count_correct", RuntimeError("first line\nsecond"), "first line"),
        ],
    )
    def test_a_failing_step_ends_the_search(
        self, new_tuner, assert_goes_on, stopped, function, failure, reason
    ):
        before = states(stopped), (stopped / "search.csv").read_bytes()
        tuner = new_tuner(stopped)
        setattr(tuner.pair, function, raising(failure))
        with pytest.raises(FatalError) as error:
            tuner.search()
        assert one_line(error) == f"architecture 3 could not be trained: {reason}"
        assert (states(stopped), (stopped / "search.csv").read_bytes()) == before
        assert_goes_on(stopped)
