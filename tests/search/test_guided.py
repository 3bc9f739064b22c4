"""A tiny guided search from its settings to its log, with real trainings."""

import contextlib
import io
import os
import types

import numpy as np
import pytest
import tensorflow as tf
from keras_tuner.errors import FatalError
from small_search import StopError, make_images

from cpnas_tf import data
from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.runs import search_log
from cpnas_tf.search import guided
from cpnas_tf.search.guided import GuidedSearch
from cpnas_tf.search.guided_tuner import training_seed
from cpnas_tf.search.supernet import Supernet

pytestmark = pytest.mark.usefixtures("deterministic")

BATCH, STEPS = 8, 3
TRAIN = make_images(STEPS * BATCH + 2, seed=1)
VALIDATION = make_images(2 * BATCH, seed=2)
NETWORK = {"cells": 1, "channels": 2, "unit": "residual"}
NAMES = ("skip_connect", "avg_pool_3x3", "dil_conv_3x3")
TRAINING = {
    "batch_size": BATCH,
    "optimizer": "adam",
    "learning_rate": 0.02,
    "weight_decay": 0.01,
    "augmentation": {"flip": True},
}
SEARCH = {
    **{"first": 4, "rounds": 1, "proposals": 2, "finalists": 1, "epochs": 1, "finalist_epochs": 2},
    **{"operations": NAMES, "inputs": 2, "seed": 3},
}
TRAININGS = 4 + 2 + 1


def plan(**settings):
    return GuidedSearch(TRAIN, VALIDATION, **{**NETWORK, **TRAINING, **SEARCH, **settings})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole search; its trainer, traced, serves `new_tuner` too."""
    found = types.SimpleNamespace(folder=tmp_path_factory.mktemp("whole"))

    def start(planned, directory, **settings):
        found.tuner = GuidedSearch.start(planned, directory, **settings)
        return found.tuner

    planned = plan()
    planned.start = types.MethodType(start, planned)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        found.result = planned.run(found.folder)
    found.output = out.getvalue()
    found.rows = search_log.read(found.folder / "search.csv")
    return found


@pytest.fixture(scope="module")
def new_tuner(whole):
    """Makes a tuner as a new process would, but for the tracing: `new_tuner(folder)`."""

    def make(folder):
        planned = plan()
        trainer = planned._make_trainer(whole.tuner.trainer.supernets)
        trainer.train_step = whole.tuner.trainer.train_step
        trainer.measure = whole.tuner.trainer.measure
        planned._build = lambda: trainer
        return planned.start(folder, verbose=0)

    return make


def without_times(folder):
    lines = (folder / "search.csv").read_text().splitlines()
    return [line.rpartition(",")[0] for line in lines]


def genotype_of(row):
    return Genotype.from_choices(row[name] for name in CHOICES)


class TestSearch:
    def test_its_log(self, whole):
        rows = whole.rows
        assert [row["training"] for row in rows] == list(range(1, TRAININGS + 1))
        assert [row["phase"] for row in rows] == 4 * ["random"] + 2 * ["guided"] + ["final"]
        assert [row["round"] for row in rows] == [0, 0, 0, 0, 1, 1, 2]
        assert [row["epochs"] for row in rows] == 6 * [1] + [2]
        for row in rows:
            assert (row["child_accuracy"] * len(VALIDATION)).is_integer()
            assert row["score"] == -row["child_loss"]
            assert row["parent_loss"] is row["parent_accuracy"] is None
            assert row["seconds"] > 0
            assert genotype_of(row).choices.count("none") == 12
        assert [row["predicted"] is None for row in rows] == 4 * [True] + 3 * [False]
        assert [row["left_out"] is None for row in rows] == 6 * [False] + [True]
        assert len({genotype_of(row) for row in rows}) == 6

    def test_what_it_found(self, whole):
        result = whole.result
        assert result["genotype"] == genotype_of(whole.rows[-1])
        assert result["images"] == (6 * 1 + 2) * len(TRAIN)
        assert result["seconds"] == pytest.approx(
            sum(row["seconds"] for row in whole.rows), abs=0.1
        )
        assert len(result["scores"]) == len(CHOICES)
        assert all(tuple(edge) == NAMES for edge in result["scores"])
        model = whole.tuner.oracle.model()
        place = OPERATIONS.index("dil_conv_3x3")
        assert [edge["dil_conv_3x3"] for edge in result["scores"]] == list(
            model.estimates[:, place]
        )

    def test_it_leaves_checkpoints_and_logs(self, whole):
        assert len(list((whole.folder / "checkpoints").glob("*.index"))) == 2
        assert list((whole.folder / "logs").glob("events.out.tfevents.*"))
        lines = whole.output.splitlines()
        assert len(lines) == TRAININGS
        assert lines[0].startswith("[  1/7] random")
        assert "guided 1" in lines[4]
        assert "(predicted " in lines[4]

    def test_the_same_seed_gives_the_same_search(self, whole, new_tuner, tmp_path):
        tuner = new_tuner(tmp_path)
        tuner.search()
        assert without_times(tmp_path) == without_times(whole.folder)

    @pytest.mark.parametrize("number", [0, 2, 4, 5, 6])
    def test_a_search_that_was_stopped_goes_on_as_if_it_was_not(
        self, whole, new_tuner, tmp_path, number
    ):
        tuner = new_tuner(tmp_path)
        train = tuner.trainer.train

        def stop(genotype, **settings):
            if len(tuner.oracle.results) == number:
                settings["on_step"] = lambda step, steps: (_ for _ in ()).throw(KeyboardInterrupt)
            train(genotype, **settings)

        tuner.trainer.train = stop
        with pytest.raises(KeyboardInterrupt):
            tuner.search()
        again = new_tuner(tmp_path)
        assert len(again.oracle.results) == number
        again.search()
        assert without_times(tmp_path) == without_times(whole.folder)
        assert again.oracle.genotype() == whole.result["genotype"]

    def test_a_finished_search_does_nothing(self, whole, new_tuner):
        before = (whole.folder / "search.csv").read_bytes()
        new_tuner(whole.folder).search()
        assert (whole.folder / "search.csv").read_bytes() == before


class TestTrainings:
    @pytest.mark.parametrize("number", [1, 6])
    def test_one_is_what_a_fresh_supernet_of_its_seed_gives(self, whole, number):
        row = whole.rows[number]
        genotype = genotype_of(row)
        supernet = Supernet(
            input_shape=(8, 8, 1),
            classes=2,
            **NETWORK,
            operations=("none", *NAMES),
            optimizer="adam",
            seed=training_seed(3, number),
        )
        epochs, before = (1, number) if number < 6 else (2, 6)
        stream = data.batches(
            TRAIN,
            batch_size=BATCH,
            seed=3,
            epochs=8,
            first_step=before * STEPS,
            augmentation=TRAINING["augmentation"],
        ).take(epochs * STEPS)
        choices = tf.constant(genotype.indices)
        step = tf.function(supernet.train_step, autograph=False)
        for place, (images, labels) in enumerate(stream):
            rate = 0.01 * (1 + np.cos(np.pi * place / (epochs * STEPS)))
            step(
                images,
                labels,
                choices,
                learning_rate=tf.constant(rate, tf.float32),
                momentum=0.9,
                weight_decay=0.01,
            )
        pixels = VALIDATION.images.astype(np.float32) / 127.5 - 1
        network = supernet.derive(genotype)
        logits = np.concatenate([network(part, training=True) for part in np.split(pixels, 2)])
        losses = tf.keras.losses.sparse_categorical_crossentropy(
            VALIDATION.labels, logits, from_logits=True
        )
        assert row["child_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
        assert row["child_accuracy"] == np.mean(logits.argmax(axis=1) == VALIDATION.labels)

    def test_with_beta_the_parent_is_trained_as_well(self, tmp_path):
        planned = plan(beta=0.5, proposals=0, first=2, finalists=0, score="accuracy")
        result = planned.run(tmp_path, verbose=0)
        rows = search_log.read(tmp_path / "search.csv")
        for row in rows:
            child, parent = row["child_accuracy"], row["parent_accuracy"]
            assert row["score"] == pytest.approx(child + 0.5 * (parent - child))
        assert result["images"] == 2 * 2 * len(TRAIN)
        assert result["scores"] is None
        best = max(rows, key=lambda row: row["score"])
        assert result["genotype"] == genotype_of(best)

    def test_a_loss_that_is_not_finite_ends_the_search(self, new_tuner, tmp_path):
        tuner = new_tuner(tmp_path)
        tuner.trainer._learning_rate = 1e30
        with pytest.raises(FatalError, match="training 0 could not be done: .*lower learning_rate"):
            tuner.search()
        assert not (tmp_path / "search.csv").exists()


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"finalists": 7}, "finalists must be at most the 6 trainings before, received: 7"),
            ({"first": 2}, "first must be at least the 3 trainings .* received: 2"),
            ({"epochs": 0}, "epochs must be a whole number >= 1, received: 0"),
            ({"finalist_epochs": 0}, "finalist_epochs must be .* received: 0"),
            ({"unit": "foo"}, "unit must be one or more of .* received: 'foo'"),
            ({"channels": 0}, "channels must be .* received: 0"),
            ({"optimizer": "foo"}, "optimizer must be one of sgd, adam, bop, received: 'foo'"),
            ({"optimizer": "bop"}, "optimizer must be one of sgd, adam, received: 'bop'"),
            ({"learning_rate": 0}, "learning_rate must be a number > 0, received: 0"),
            ({"batch_size": 27}, "batch_size must be at most the 26 images .* received: 27"),
            ({"augmentation": {"cutout": -1}}, "augmentation.cutout must be .* received: -1"),
        ],
    )
    def test_impossible_ones_are_refused_before_anything_is_built(
        self, monkeypatch, settings, message
    ):
        def build(*args, **kwargs):
            raise AssertionError("builds")

        for name in ("Supernet", "Trainer", "GuidedTuner"):
            monkeypatch.setattr(guided, name, build)
        with pytest.raises(ValueError, match=f"^{message}$"):
            plan(**settings)

    def test_a_plan_says_what_it_costs_and_writes_nothing(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        lines = plan().plan().splitlines()
        assert [line.split()[-2:] for line in lines[1:5]] == [
            ["4", "104"],
            ["2", "52"],
            ["1", "52"],
            ["7", "208"],
        ]
        assert "Each image is seen by a child." in lines[5]
        assert os.listdir(tmp_path) == []

    def test_every_setting_arrives(self, monkeypatch, tmp_path):
        made = {}

        class Everything:
            def __init__(self, *args, **settings):
                made.setdefault(type(self).__name__, []).append((args, settings))

            def search(self):
                raise StopError

        for name in ("Supernet", "Trainer", "GuidedTuner"):
            monkeypatch.setattr(guided, name, type(name, (Everything,), {}))
        more = {"real_inputs": ("depthwise",), "mixed_precision": True, "beta": 2.0}
        with pytest.raises(StopError):
            plan(**more, momentum=0.5, score="accuracy").run(tmp_path, verbose=2)
        (_, child), (_, parent) = made["Supernet"]
        assert child.pop("precision") == "child"
        assert parent.pop("precision") == "parent"
        assert child == parent
        assert child["operations"] == ("none", *NAMES)
        assert child["dtype"] == "bfloat16"
        assert child["real_inputs"] == ("depthwise",)
        ((_, trainer),) = made["Trainer"]
        expected = {"batch_size": BATCH, "steps": STEPS, "learning_rate": 0.02, "momentum": 0.5}
        expected |= {"weight_decay": 0.01}
        assert {name: trainer[name] for name in expected} == expected
        (((oracle, _), tuner),) = made["GuidedTuner"]
        assert tuner == {"directory": tmp_path, "verbose": 2}
        given = {**SEARCH, "operations": list(NAMES), "beta": 2.0, "score": "accuracy"}
        assert oracle.get_state() == {**given, "results": []}


def test_weights_differ_from_training_to_training():
    seeds = {training_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**32 for seed in seeds)
