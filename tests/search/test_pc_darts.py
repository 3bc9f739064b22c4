"""The derivation by hand-written strengths, what a search writes, that a stopped one goes on."""

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
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from small_search import StopError, make_images
from small_training import truncate

from cpnas_tf import data
from cpnas_tf.genotypes import CHOICES, EDGES, Genotype
from cpnas_tf.runs import progress, search_log
from cpnas_tf.search import pc_darts
from cpnas_tf.search.mixed_supernet import MixedSupernet
from cpnas_tf.search.pc_darts import PCDarts, derive_cell
from cpnas_tf.training.optimizers import SGD, Adam

pytestmark = pytest.mark.usefixtures("deterministic")

BATCH, STEPS, EPOCHS, WARMUP = 8, 2, 4, 2
SETTINGS = {
    "cells": 1,
    "channels": 4,
    "partial": 2,
    "operations": ("none", "skip_connect", "dil_conv_3x3"),
    "epochs": EPOCHS,
    "warmup_epochs": WARMUP,
    "batch_size": BATCH,
    "architecture_learning_rate": 0.05,
    "augmentation": {"flip": True},
    "seed": 3,
}


TRAIN = make_images(22, seed=1)
VALIDATION = make_images(13, seed=2)
HALF = (22 + 13) // 2


class TestDerivation:
    NAMES = ("none", "skip_connect", "sep_conv_3x3")

    def derive(self, favoured, inputs=2):
        """The cell where these edges have these strengths, and all others 0.1."""
        strengths = np.full([len(EDGES), len(self.NAMES)], 0.1)
        for (edge, name), strength in favoured.items():
            strengths[EDGES.index(edge), self.NAMES.index(name)] = strength
        cell = derive_cell(strengths, operations=self.NAMES, inputs=inputs)
        return {edge: name for edge, name in zip(EDGES, cell, strict=True) if name != "none"}

    def test_a_node_keeps_its_two_strongest_edges(self):
        favoured = {
            ((0, 2), "skip_connect"): 0.2,
            ((1, 2), "sep_conv_3x3"): 0.3,
            ((0, 3), "sep_conv_3x3"): 0.2,
            ((2, 3), "skip_connect"): 0.15,
            ((1, 4), "sep_conv_3x3"): 0.3,
            ((2, 4), "sep_conv_3x3"): 0.2,
            ((3, 4), "skip_connect"): 0.4,
            ((3, 5), "skip_connect"): 0.2,
            ((4, 5), "sep_conv_3x3"): 0.2,
        }
        kept = {edge: name for edge, name in favoured if edge != (2, 4)}
        assert self.derive(favoured) == kept

    def test_none_neither_wins_an_edge_nor_speaks_for_it(self):
        favoured = {((0, 3), "none"): 0.9, ((0, 3), "sep_conv_3x3"): 0.2, ((1, 3), "none"): 0.9}
        found = self.derive({**favoured, ((2, 3), "skip_connect"): 0.3})
        node_3 = {edge: name for edge, name in found.items() if edge[1] == 3}
        assert node_3 == {(0, 3): "sep_conv_3x3", (2, 3): "skip_connect"}

    def test_of_equals_the_first_is_taken(self):
        expected = {(source, target): "skip_connect" for target in range(2, 6) for source in (0, 1)}
        assert self.derive({}) == expected

    @pytest.mark.parametrize(("inputs", "edges"), [(1, 4), (2, 8), (3, 11), (4, 13), (5, 14)])
    def test_how_many_edges_are_kept(self, inputs, edges):
        assert len(self.derive({}, inputs=inputs)) == edges


def values(search):
    return [variable.numpy() for variable in search.supernet.state()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole search. Its supernet, with the traced graph, serves those of `new_search` too."""
    found = types.SimpleNamespace(folder=tmp_path_factory.mktemp("whole"))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        found.planned = PCDarts(TRAIN, VALIDATION, **SETTINGS)
        start = found.planned.start

        def watched(folder, **settings):
            found.search = start(folder, **settings)
            found.initial = values(found.search)
            return found.search

        found.planned.start = watched
        found.result = found.planned.run(found.folder)
    found.output, found.final = out.getvalue(), values(found.search)
    found.genotype, found.scores = found.result["genotype"], found.result["scores"]
    supernet = found.search.supernet
    found.alpha, found.beta = (variable.numpy() for variable in (supernet.alpha, supernet.beta))
    found.rows = read(found.folder)
    return found


@pytest.fixture
def new_search(whole, monkeypatch):
    """Makes a search as a new process would, but for the tracing: `new_search(folder)`."""
    supernet = whole.search.supernet

    def parameters(of):
        return [*of._weights, of.alpha, of.beta]

    def restart(**settings):
        for variable, value in zip(supernet.state(), whole.initial, strict=True):
            variable.assign(value)
        new = MixedSupernet(**settings)
        for variable, value in zip(parameters(supernet), parameters(new), strict=True):
            variable.assign(value)
        return supernet

    monkeypatch.setattr(pc_darts, "MixedSupernet", restart)
    monkeypatch.setattr(supernet, "compile", lambda *args, **settings: None)

    def make(folder, *, verbose="auto", **settings):
        planned = PCDarts(TRAIN, VALIDATION, **{**SETTINGS, **settings})
        return planned.start(folder, verbose=verbose)

    return make


@pytest.fixture
def stop_after(new_search, monkeypatch):
    """Runs a search up to the end of an epoch: `stop_after(folder, epoch)`."""

    def run(folder, epoch):
        search = new_search(folder)

        def finish(text, **_):
            if len(search.rows) == epoch:
                raise StopError

        with monkeypatch.context() as patch:
            patch.setattr(pc_darts.progress.Progress, "finish", staticmethod(finish))
            with pytest.raises(StopError):
                search.search()

    return run


@pytest.fixture
def assert_goes_on(new_search, whole):
    """Goes on with a stopped search and compares all with the one that was never stopped."""

    def check(folder):
        search = new_search(folder)
        search.search()
        assert without_times(folder) == without_times(whole.folder)
        assert whole.planned.genotype(search.supernet) == whole.genotype
        for value, expected in zip(values(search), whole.final, strict=True):
            assert value.tobytes() == expected.tobytes()

    return check


def read(folder):
    with open(folder / "search.csv", newline="") as file:
        return list(csv.DictReader(file))


def without_times(folder):
    """The text of `search.csv` without its last column."""
    lines = (folder / "search.csv").read_text().splitlines()
    return [line.rpartition(",")[0] for line in lines]


def states(folder):
    """The names of the checkpoints' indices."""
    return sorted(path.name for path in (folder / "checkpoints").glob("*.index"))


def state(number):
    return f"ckpt-{number:05d}-{number * STEPS:09d}.index"


class TestSearch:
    def test_the_table_has_a_row_an_epoch(self, whole):
        measures = ["loss", "accuracy", "architecture_loss", "architecture_accuracy"]
        assert list(whole.rows[0]) == ["epoch", *CHOICES, *measures, "seconds"]
        assert [row["epoch"] for row in whole.rows] == ["1", "2", "3", "4"]
        for row in whole.rows:
            warmup = int(row["epoch"]) <= WARMUP
            for name in measures:
                assert (row[name] == "") == (warmup and name.startswith("architecture"))
            assert (float(row["accuracy"]) * STEPS * BATCH).is_integer()
            assert float(row["loss"]) > 0
            assert float(row["seconds"]) > 0

    def test_the_genotype_is_what_alpha_and_beta_favour(self, whole):
        alpha, beta = whole.alpha, whole.beta
        cells = []
        for kind in range(2):
            operations = np.exp(alpha[kind]) / np.exp(alpha[kind]).sum(axis=1, keepdims=True)
            cells.append(["none"] * 14)
            for node in range(2, 6):
                edges = [number for number, (_, target) in enumerate(EDGES) if target == node]
                edge_shares = np.exp(beta[kind][edges]) / np.exp(beta[kind][edges]).sum()
                best = edge_shares * operations[edges, 1:].max(axis=1)
                for place in np.argsort(-best)[:2]:
                    name = operations[edges[place], 1:].argmax()
                    cells[kind][edges[place]] = ("skip_connect", "dil_conv_3x3")[name]
        assert whole.genotype == Genotype(*cells)
        assert whole.genotype == Genotype.from_choices(whole.rows[-1][name] for name in CHOICES)

    def test_scores_are_shares_of_a_node(self, whole):
        scores = whole.scores
        assert len(scores) == 28
        for kind, node in itertools.product(range(2), range(2, 6)):
            edges = [number for number, (_, target) in enumerate(EDGES) if target == node]
            total = sum(sum(scores[14 * kind + number].values()) for number in edges)
            assert total == pytest.approx(1)
        assert list(scores[0]) == list(SETTINGS["operations"])

    def test_cost(self, whole):
        seconds = sum(float(row["seconds"]) for row in whole.rows)
        assert whole.result["seconds"] == pytest.approx(seconds, abs=0.001 * EPOCHS)
        assert whole.result["images"] == (EPOCHS + EPOCHS - WARMUP) * HALF

    def test_each_part_sees_its_half(self, whole):
        weights, architecture = whole.planned._halves
        images = np.concatenate([weights.images, architecture.images])
        expected = np.concatenate([TRAIN.images, VALIDATION.images])[: 2 * HALF]
        np.testing.assert_array_equal(images, expected)
        assert len(weights) == len(architecture) == HALF
        stream = {"batch_size": BATCH, "seed": 3, "epochs": EPOCHS, "augmentation": {"flip": True}}
        for number, half in enumerate((weights, architecture)):
            for pair, (batch, labels) in zip(
                whole.planned.stream(), data.batches(half, **stream), strict=True
            ):
                np.testing.assert_array_equal(pair[number][0], batch)
                np.testing.assert_array_equal(pair[number][1], labels)

    def test_a_line_an_epoch(self, whole):
        lines = whole.output.splitlines()
        assert len(lines) == EPOCHS
        for number, (line, row) in enumerate(zip(lines, whole.rows, strict=True), start=1):
            weights, architecture = re.fullmatch(
                rf"\[  {number}/4\] weights +([\d.]+)%  architecture +(\S+)  +\d+ images/s"
                r"  ETA \d+:\d\d:\d\d",
                line,
            ).groups()
            assert float(weights) == pytest.approx(100 * float(row["accuracy"]), abs=0.01)
            if number <= WARMUP:
                assert architecture == "warm-up"
            else:
                found = float(architecture.rstrip("%"))
                assert found == pytest.approx(100 * float(row["architecture_accuracy"]), abs=0.01)
        assert progress.summary(search_log.read(whole.folder / "search.csv")).startswith(
            "4 epochs in 0:00:"
        )

    @pytest.mark.parametrize(("name", "kind"), [("sgd", SGD), ("adam", Adam)])
    def test_the_optimizer_of_the_weights(self, monkeypatch, name, kind):
        made = []
        monkeypatch.setattr(pc_darts, "MixedSupernet", lambda **_: mock.Mock(compile=compiled))

        def compiled(optimizer, *, architecture_optimizer, warmup_steps):
            made.append((type(optimizer), type(architecture_optimizer)))

        PCDarts(TRAIN, VALIDATION, **{**SETTINGS, "optimizer": name})._build()
        assert made == [(kind, Adam)]

    def test_the_plan_says_what_it_will_cost(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        lines = PCDarts(TRAIN, VALIDATION, **SETTINGS).plan().splitlines()
        assert os.listdir(tmp_path) == []
        assert lines[0] == "4 epochs on 102 images in all, the first 2 of the weights alone."
        assert re.search(r"first step \d+\.\d s, each further one \d+\.\d{3} s in the", lines[1])
        assert re.search(r"0:\d\d:\d\d for the search, \d+\.\d GiB of memory", lines[2])

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"cells": 0}, "cells must be .* received: 0"),
            ({"channels": 6, "partial": 4}, "channels must be a multiple of partial = 4, .* 6"),
            ({"partial": 0}, "partial must be a whole number >= 1, received: 0"),
            ({"precision": "int8"}, "precision must be one of child, parent, received: 'int8'"),
            (
                {"operations": ("none", "skip_connect")},
                "operations must be two or more beside none, .*",
            ),
            ({"operations": ("skip_connect", "conv")}, "operations must be .* received: .*conv.*"),
            ({"operations": ("skip_connect",) * 2}, "operations must be .* received: .*"),
            ({"inputs": 0}, "inputs must be a whole number >= 1, received: 0"),
            ({"inputs": 6}, "inputs must be .* received: 6"),
            ({"epochs": 0}, "epochs must be a whole number >= 1, received: 0"),
            ({"warmup_epochs": 4}, "warmup_epochs must be less than the 4 epochs, received: 4"),
            ({"batch_size": 18}, "batch_size must be at most the 17 images .* received: 18"),
            ({"optimizer": "lamb"}, "optimizer must be one of .*, received: 'lamb'"),
            ({"optimizer": "bop"}, "optimizer must be one of sgd, adam, received: 'bop'"),
            ({"learning_rate": 0}, "learning_rate must be a number > 0, received: 0"),
            ({"architecture_learning_rate": math.nan}, "architecture_learning_rate must .* nan"),
            ({"architecture_weight_decay": -1}, "architecture_weight_decay must .* received: -1"),
            (
                {"augmentation": {"cutout": -1}},
                "augmentation.cutout must be a whole number >= 0, received: -1",
            ),
        ],
    )
    def test_refuses_before_anything_is_built_or_written(
        self, tmp_path, monkeypatch, settings, message
    ):
        monkeypatch.chdir(tmp_path)
        for name in ("MixedSupernet", "PCDartsRun", "make_optimizer"):
            monkeypatch.setattr(pc_darts, name, lambda *args, **_: pytest.fail("builds"))
        with pytest.raises(ValueError, match=f"^{message}$"):
            PCDarts(TRAIN, VALIDATION, **{**SETTINGS, **settings})
        assert os.listdir(tmp_path) == []

    def test_verbose(self, new_search, stop_after, tmp_path, capsys):
        stop_after(tmp_path / "silent", EPOCHS - 1)
        shutil.copytree(tmp_path / "silent", tmp_path / "told")
        capsys.readouterr()
        new_search(tmp_path / "silent", verbose=0).search()
        assert capsys.readouterr().out == ""
        new_search(tmp_path / "told", verbose=1).search()
        moves = capsys.readouterr().out.split("\r")[1:]
        steps = [f"epoch {EPOCHS}: step {step}/{STEPS}" for step in range(1, STEPS + 1)]
        assert moves[:-1] == steps
        assert moves[-1].startswith(f"[  {EPOCHS}/{EPOCHS}] weights")
        with pytest.raises(ValueError, match="^verbose must be .* received: 'yes'$"):
            new_search(tmp_path / "refused", verbose="yes")
        assert not (tmp_path / "refused").exists()


class TestStoppedSearch:
    @pytest.mark.parametrize("epoch", range(1, EPOCHS))
    def test_goes_on_between_epochs(self, stop_after, assert_goes_on, tmp_path, epoch):
        stop_after(tmp_path, epoch)
        assert len(read(tmp_path)) == epoch
        assert_goes_on(tmp_path)

    def test_goes_on_from_within_an_epoch(
        self, stop_after, new_search, assert_goes_on, tmp_path, monkeypatch
    ):
        stop_after(tmp_path, WARMUP)
        search = new_search(tmp_path)

        def interrupt(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(pc_darts.progress.Progress, "step", interrupt)
            with pytest.raises(KeyboardInterrupt):
                search.search()
        assert_goes_on(tmp_path)

    def test_goes_on_from_every_write(
        self, stop_after, new_search, assert_goes_on, tmp_path, monkeypatch
    ):
        """A full disk at each file that an epoch writes, and a kill just after it is written."""
        start, replace = tmp_path / "start", os.replace
        stop_after(start, WARMUP)
        for place, when in itertools.product(("search.csv", state(3)), ("before", "after")):

            def fail(source, target, place=place, when=when):
                broken = os.path.basename(target) == place
                if broken and when == "before":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                replace(source, target)
                if broken:
                    raise StopError

            folder = shutil.copytree(start, tmp_path / f"{place}_{when}")
            search = new_search(folder)
            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", fail)
                with pytest.raises(OSError if when == "before" else StopError):
                    search.search()
            assert_goes_on(folder)

    def test_a_finished_search_trains_nothing(self, whole, new_search, monkeypatch):
        before = {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
        search = new_search(whole.folder)
        monkeypatch.setattr(search.supernet, "fit", lambda *args, **_: pytest.fail("trains"))
        search.search()
        after = {path: path.read_bytes() for path in whole.folder.rglob("*") if path.is_file()}
        assert after == before

    def test_a_broken_state_is_noticed_and_the_one_before_used(
        self, stop_after, assert_goes_on, tmp_path, caplog
    ):
        stop_after(tmp_path, 3)
        assert states(tmp_path) == [state(2), state(3)]
        truncate(tmp_path / "checkpoints" / state(3), 0.5)
        assert_goes_on(tmp_path)
        (line,) = caplog.messages
        assert f"{state(3).removesuffix('.index')} is broken (" in line

    def test_a_search_that_version_0_1_began_is_refused(self, new_search, tmp_path):
        (tmp_path / "states").mkdir()
        (tmp_path / "states" / "state_00003.npz").write_bytes(b"")
        with pytest.raises(ValueError, match=f"by cpnas_tf 0.1, whose states in {tmp_path}/states"):
            new_search(tmp_path)


def test_the_same_seed_gives_the_same_search_and_another_another(whole, new_search, tmp_path):
    for seed in (3, 4):
        folder = tmp_path / str(seed)
        search = new_search(folder, seed=seed)
        search.search()
        pairs = zip(values(search), whole.final, strict=True)
        same = all(value.tobytes() == expected.tobytes() for value, expected in pairs)
        assert same == (seed == 3)
        assert (without_times(folder) == without_times(whole.folder)) == (seed == 3)


def test_a_learning_rate_far_too_high_is_one_line(new_search, tmp_path):
    search = new_search(tmp_path)
    search.supernet.alpha.assign(tf.fill(search.supernet.alpha.shape, math.nan))
    with pytest.raises(ValueError, match="^the loss is nan in epoch 1: try a lower learning_rate$"):
        search.search()
    assert not (tmp_path / "search.csv").exists()
    assert states(tmp_path) == []


def test_images_that_are_not_in_memory_are_refused():
    stored = object()
    with pytest.raises(ValueError, match="^PC-DARTS needs images in memory: .* with cpnas$"):
        PCDarts(stored, stored)
