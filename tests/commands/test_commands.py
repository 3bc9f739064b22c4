"""The commands, as a user runs them: in a row, stopped and started again, and with bad input."""

import fcntl
import functools
import importlib.util
import inspect
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import fake_epochs
import forked
import pytest
from commands import (
    GENOTYPE,
    KEPT,
    OF_3,
    PROGRESS,
    SEARCH,
    SEARCH_OF_3,
    SMALL_SEARCH,
    SMALL_TRAINING,
    TRAIN,
    TUNER,
    check_equal_searches,
    check_equal_trainings,
    check_refused,
    read_csv,
    read_json,
    refusal,
    run_process,
    snapshot,
    succeed,
)
from forked import ROOT
from pages import Page

from cpnas_tf.catalogue import REFERENCE_NETWORKS
from cpnas_tf.genotypes import CHOICES, Genotype
from cpnas_tf.networks import reference

OPTIONS = {
    "search": {"config", "workdir", "data_dir", "dry_run", "overwrite"},
    "train": {
        *("config", "genotype", "workdir", "precision", "model", "data_dir"),
        *("teacher", "warm_start"),
        "overwrite",
    },
    "evaluate": {"workdir", "data_dir", "overwrite"},
    "export": {"workdir", "output", "data_dir", "overwrite"},
    "plot": {"workdir", "genotype", "output", "overwrite"},
    "profile": {"genotype", "config", "precision", "model", "json", "csv", "overwrite"},
    "ablate": {"config", "workdir", "data_dir", "overwrite"},
    "report": {"workdir", "output", "train", "data_dir", "overwrite"},
    "quickstart": {"folder"},
}
REQUIRED = {
    "search": ("config", "workdir"),
    "train": ("config", "genotype", "workdir"),
    "evaluate": ("workdir",),
    "export": ("workdir", "output"),
    "plot": ("workdir", "output"),
    "profile": (),
    "ablate": ("config", "workdir"),
    "report": ("workdir", "output"),
    "quickstart": ("folder",),
}
PC_DARTS = (
    "--config.method=pc_darts",
    "--config.pc_darts.cells=1",
    "--config.pc_darts.channels=4",
    f"--config.pc_darts.operations={KEPT}",
    "--config.pc_darts.epochs=3",
    "--config.pc_darts.warmup_epochs=1",
    "--config.pc_darts.batch_size=16",
)
ABLATE = (
    *("--config=configs/ablate_digits.py", *SMALL_SEARCH, OF_3, *SMALL_TRAINING),
    "--config.pc_darts.cells=1",
    "--config.pc_darts.epochs=2",
    "--config.pc_darts.warmup_epochs=1",
    "--config.pc_darts.batch_size=16",
    "--config.grid.methods=('random', 'cpnas')",
    "--config.grid.search_seeds=(0,)",
    "--config.grid.training_seeds=(0,)",
)
HAS_LCE = importlib.util.find_spec("larq_compute_engine") is not None


def hide_lce():
    sys.modules["larq_compute_engine"] = None


class TestResults:
    def test_search(self, runs, data_dir):
        genotype = Genotype.load(runs / "search" / "genotype.json")
        assert set(genotype.choices) <= set(KEPT)
        rows = read_csv(runs / "search" / "search.csv")
        assert len(rows) == 3 + 2
        columns = ["child_accuracy", "parent_accuracy", "z", "seconds"]
        assert list(rows[0]) == ["stage", "round", "sample", *CHOICES, *columns]
        for row in rows:
            child, parent, z, seconds = (float(row[name]) for name in columns)
            assert z == pytest.approx(child + 2.0 * (parent - child))
            assert seconds > 0
        assert len(list((runs / "search" / "checkpoints").glob("*.index"))) == 2
        assert list((runs / "search" / "logs").glob("events.out.tfevents.*"))
        run = read_json(runs / "search" / "config.json")
        assert run["data_dir"] == str(data_dir)
        assert run["config"]["search"]["cells"] == 1
        assert run["config"]["search"]["momentum"] == 0.9
        assert run["config"]["search"]["operations"] == list(KEPT)

    def test_train(self, runs):
        metrics = read_json(runs / "train" / "metrics.json")
        assert metrics["epoch"] == 2
        assert metrics["precision"] == "child"
        assert 0 <= metrics["val_accuracy"] <= 1
        assert metrics["parameters"] > 0
        history = read_csv(runs / "train" / "history.csv")
        assert [row["epoch"] for row in history] == ["1", "2"]
        terms = [
            float(history[1][name]) for name in ("cross_entropy", "filter_mse", "class_centre")
        ]
        weights = (1, 1e-3, 1e-2 / 2)
        total = sum(weight * term for weight, term in zip(weights, terms, strict=True))
        assert float(history[1]["loss"]) == pytest.approx(total, rel=1e-4)
        assert list((runs / "train" / "checkpoints").iterdir())
        assert list((runs / "train" / "logs").glob("events.out.tfevents.*"))
        run = read_json(runs / "train" / "config.json")
        assert run["genotype"] == read_json(runs / "search" / "genotype.json")
        assert run["precision"] == "child"
        assert run["config"]["training"]["epochs"] == 2

    def test_evaluate(self, runs):
        evaluation = read_json(runs / "train" / "evaluation.json")
        metrics = read_json(runs / "train" / "metrics.json")
        assert evaluation["examples"] == 360
        assert evaluation["accuracy"] == pytest.approx(metrics["val_accuracy"])
        assert evaluation["loss"] == pytest.approx(metrics["val_loss"], rel=1e-4)
        assert evaluation["accuracy"] <= evaluation["accuracy_top5"] <= 1
        assert list(evaluation["per_class"]) == list("0123456789")
        matrix = evaluation["confusion_matrix"]
        assert sum(matrix[i][i] for i in range(10)) == round(evaluation["accuracy"] * 360)
        picture = (runs / "train" / "confusion_matrix.png").read_bytes()
        assert picture.startswith(b"\x89PNG")

    def test_export(self, runs):
        written = {"saved_model", "export.json", "README.md", "genotype.png"}
        flatbuffer = {"model.tflite"} if HAS_LCE else set()
        assert {path.name for path in (runs / "export").iterdir()} == written | flatbuffer
        assert (runs / "export" / "saved_model" / "saved_model.pb").is_file()
        summary = read_json(runs / "export" / "export.json")
        assert summary["images_checked"] == 360
        assert summary["changed_predictions"] == 0
        assert summary["largest_difference"] <= 1e-4
        if HAS_LCE:
            assert summary["tflite_images_checked"] == 360
            assert summary["tflite_changed_predictions"] == 0

    def test_export_of_a_parent(self, copy_of, tmp_path):
        workdir = copy_of("train")  # its weights fit both precisions
        run = read_json(workdir / "config.json")
        (workdir / "config.json").write_text(json.dumps({**run, "precision": "parent"}))
        arguments = (f"--workdir={workdir}", f"--output={tmp_path}/export")
        succeed(forked.run("export", *arguments))
        summary = read_json(tmp_path / "export" / "export.json")
        assert summary["tflite_bytes"] == (tmp_path / "export" / "model.tflite").stat().st_size
        assert summary["tflite_changed_predictions"] == summary["changed_predictions"] == 0

    def test_export_says_that_the_flatbuffer_needs_lce(self, runs, tmp_path):
        arguments = (f"--workdir={runs}/train", f"--output={tmp_path}/export")
        printed = succeed(forked.run("export", *arguments, before=hide_lce)).splitlines()
        assert printed[1].startswith("flatbuffer left out: it needs Larq Compute Engine")
        assert len(printed) == 2
        assert read_json(tmp_path / "export" / "export.json")["tflite_bytes"] is None

    def test_plot(self, runs):
        pictures = {path.name: path.read_bytes() for path in (runs / "plots").iterdir()}
        names = ("normal", "reduce", "genotype", "search")
        assert set(pictures) == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
        for name, content in pictures.items():
            assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")

    def test_plot_of_a_search_by_epochs(self, tmp_path):
        fake_epochs.write(tmp_path / "search.csv", fake_epochs.run_epochs(12))
        arguments = (f"--workdir={tmp_path}", f"--output={tmp_path}/plots")
        printed = succeed(forked.run("plot", *arguments)).split()
        assert printed == [f"{tmp_path}/plots/search.{kind}" for kind in ("png", "svg")]
        assert "architecture" in (tmp_path / "plots/search.svg").read_text()

    def test_plot_of_a_genotype(self, runs, tmp_path):
        genotype = f"--genotype={runs}/search/genotype.json"
        printed = succeed(forked.run("plot", genotype, f"--output={tmp_path}/plots")).split()
        names = ("normal", "reduce", "genotype")
        expected = {f"{tmp_path}/plots/{name}.{kind}" for name in names for kind in ("png", "svg")}
        assert set(printed) == expected
        assert all(map(os.path.isfile, printed))

    def test_report(self, runs, tmp_path):
        output = tmp_path / "report.html"
        arguments = (f"--workdir={runs}/search", f"--output={output}", f"--train={runs}/train")
        assert succeed(forked.run("report", *arguments)) == f"{output}\n"
        page = Page(output.read_bytes())
        accuracy = read_json(runs / "train" / "metrics.json")["val_accuracy"]
        row = page.tables["Test error on CIFAR-10 (Table 1), costs (Table 3)"][1]
        assert row[:2] == ["here: train, child on digits", f"{100 - 100 * accuracy:.2f}"]
        genotype = f"--genotype={runs}/search/genotype.json"
        profile = json.loads(succeed(forked.run("profile", *TRAIN, genotype, "--json")))
        assert row[4] == f"{profile['memory_mbit']:.2f}"

    def test_quickstart(self, runs, tmp_path):
        folder = tmp_path / "quickstart"
        line = refusal("quickstart", f"--folder={folder}")
        assert f"{folder}/search/search.csv" in line
        shutil.copytree(runs, folder)
        shutil.copytree(runs / "train", folder / "train_parent")
        printed = succeed(forked.run("quickstart", f"--folder={folder}"))
        accuracy = read_json(runs / "train" / "evaluation.json")["accuracy"]
        assert re.search(rf"test accuracy +{accuracy:.2%} +{accuracy:.2%}\n", printed)
        for name in ("search/genotype.json", "train", "export/saved_model", "plots"):
            assert f"{folder}/{name}" in printed


def take_part(name, port):
    """Makes a command the chief or a worker of an ablation."""
    values = {"TUNER_ID": name, "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": str(port)}
    os.environ.update({f"KERASTUNER_{key}": value for key, value in values.items()})


@pytest.fixture(scope="module")
def ablation(tmp_path_factory, data_dir):
    """An ablation that is killed in its search and then in the training, and goes on."""
    folder = tmp_path_factory.mktemp("ablation")
    command = ("ablate", *ABLATE, f"--workdir={folder}", f"--data_dir={data_dir}")
    for call, place in (
        (
            2,
            {"module": TUNER, "owner": "ChildParentTuner", "method": "run_trial"},
        ),
        (1, {"module": PROGRESS, "owner": "EpochCallback", "method": "on_epoch_end"}),
    ):
        kill = functools.partial(forked.signal_self, signal.SIGKILL, call=call, **place)
        assert forked.run(*command, before=kill).code == -signal.SIGKILL
        assert not (folder / "table.json").exists()
    printed = succeed(forked.run(*command))
    assert "paired t-test" in printed
    return folder


def forget_an_image(folder):
    """Has a run's record tell of one image less; returns how that is refused."""
    run = read_json(folder / "config.json")
    assert run["images"]["origin"]["train"] == "1437 images of digits 1.0.0"
    run["images"]["origin"]["train"] = "1436 images of digits 1.0.0"
    (folder / "config.json").write_text(json.dumps(run))
    return "train: 1436 images of digits 1.0.0 there, 1437 images of digits 1.0.0 here"


class TestAblate:
    TABLES = ("runs.csv", "table.csv")

    def tables(self, folder):
        """All rows, but for the time that they tell."""
        rows = [row for name in self.TABLES for row in read_csv(folder / name)]
        return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]

    def test_its_runs_are_those_of_the_other_commands(self, ablation, runs):
        row = read_csv(ablation / "runs.csv")[0]
        assert (row["method"], row["beta"], row["training_seed"]) == ("cpnas", "2.0", "0")
        evaluation = read_json(runs / "train" / "evaluation.json")
        assert float(row["test_accuracy"]) == evaluation["accuracy"]
        search = ablation / "searches" / "cpnas-beta2.0-search0"
        check_equal_searches(search, runs / "search")
        kept = zip(CHOICES, Genotype.load(search / "genotype.json").choices, strict=True)
        last_stage = read_csv(search / "search.csv")[-2:]
        scores = [float(r["z"]) for edge, name in kept for r in last_stage if r[edge] == name]
        assert float(row["search_score"]) == pytest.approx(sum(scores) / len(CHOICES))
        assert len(scores) == len(CHOICES)
        assert int(row["search_images"]) == 5 * 2 * 64
        assert int(row["training_images"]) == 2 * 1437

    def test_two_workers_do_the_same_as_one_process_that_was_killed(
        self, ablation, tmp_path, data_dir
    ):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = ("ablate", *ABLATE, f"--workdir={tmp_path}", f"--data_dir={data_dir}")

        def start(name):
            return forked.run(*command, before=functools.partial(take_part, name, port))

        with ThreadPoolExecutor() as pool:
            printed = list(map(succeed, pool.map(start, ("chief", "worker0", "worker1"))))
        assert "paired t-test" in printed[0]
        done = [set(re.findall("(.*): test accuracy", text)) for text in printed]
        assert (len(done[0]), len(done[1] | done[2])) == (0, 2)
        assert self.tables(tmp_path) == self.tables(ablation)

    def test_it_is_drawn_and_reported(self, ablation, tmp_path):
        outputs = [f"--output={tmp_path}/{name}" for name in ("plots", "report.html")]
        printed = succeed(forked.run("plot", f"--workdir={ablation}", outputs[0])).split()
        assert printed == [f"{tmp_path}/plots/methods.{kind}" for kind in ("png", "svg")]
        succeed(forked.run("report", f"--workdir={ablation}", outputs[1]))
        page = Page((tmp_path / "report.html").read_bytes())
        accuracies = {
            row["method"]: row["test_accuracy"] for row in read_csv(ablation / "runs.csv")
        }
        table = page.tables["Test accuracy over n searches, each the mean of its trainings"]
        for method, row in zip(("cpnas", "random"), table[1:], strict=True):
            assert row[3] == f"{100 * float(accuracies[method]):.2f} ± –"

    def test_a_finished_one_is_extended_by_another_grid(self, ablation, tmp_path, data_dir):
        folder = shutil.copytree(ablation, tmp_path / "extended")
        arguments = (*ABLATE, f"--workdir={folder}", f"--data_dir={data_dir}")
        succeed(forked.run("ablate", *arguments, "--config.grid.training_seeds=(1,)"))
        rows = read_csv(folder / "runs.csv")
        assert [row["training_seed"] for row in rows] == ["0", "1"] * 2
        assert rows[::2] == read_csv(ablation / "runs.csv")

    def test_other_images_are_refused(self, ablation, tmp_path, data_dir):
        folder = shutil.copytree(ablation, tmp_path / "other")
        value = forget_an_image(folder)
        arguments = (*ABLATE, f"--workdir={folder}", f"--data_dir={data_dir}")
        check_refused(folder, "ablate", *arguments, value=value)
        part = functools.partial(take_part, "worker0", 8000)
        check_refused(folder, "ablate", *arguments, value=value, before=part)

    def test_pc_darts_joins_it(self, ablation, tmp_path, data_dir):
        folder = shutil.copytree(ablation, tmp_path / "extended")
        arguments = (*ABLATE, f"--workdir={folder}", f"--data_dir={data_dir}")
        printed = succeed(forked.run("ablate", *arguments, "--config.grid.methods=('pc_darts',)"))
        assert re.search(r"^ *pc_darts +- +1 ", printed, re.MULTILINE)
        (row,) = (row for row in read_csv(folder / "runs.csv") if row["method"] == "pc_darts")
        assert int(row["search_images"]) == (2 + 1) * (64 + 32) // 2
        found = read_json(folder / "searches" / "pc_darts-search0" / "search.json")
        choices = Genotype(**found["genotype"]).choices
        shares = [edge[name] for edge, name in zip(found["scores"], choices, strict=True)]
        assert float(row["search_score"]) == pytest.approx(sum(shares) / len(CHOICES))
        assert len(read_csv(folder / "searches" / "pc_darts-search0" / "search.csv")) == 2

    def test_one_with_another_training_is_kept(self, ablation, data_dir):
        arguments = (*ABLATE, "--config.training.epochs=3", f"--workdir={ablation}")
        refused = (*arguments, f"--data_dir={data_dir}")
        check_refused(ablation, "ablate", *refused, value="--overwrite")

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("--config.grid.methods=('random', 'darts')", "'darts'"),
            ("--config.grid.betas=()", "betas"),
            ("--config.grid.search_seeds=(0,)", "(0, 0)"),
            ("--config.grid.foo=1", "foo"),
            ("--config.search.batch_size=65", "65"),
            ("--config.training.epochs=0", "0"),
            ("--config.network.cells=0", "cells"),
        ],
    )
    def test_what_is_refused(self, tmp_path, data_dir, argument, value):
        arguments = (*ABLATE, f"--workdir={tmp_path}/run", f"--data_dir={data_dir}", argument)
        check_refused(tmp_path, "ablate", *arguments, value=value)

    def test_half_a_part_is_refused(self, tmp_path, data_dir):
        arguments = (*ABLATE, f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
        part = functools.partial(take_part, "chief", "")
        check_refused(tmp_path, "ablate", *arguments, value="PORT=", before=part)


class TestMethods:
    def test_pc_darts_killed_in_an_epoch_and_stopped_after_another(self, tmp_path, data_dir):
        command = ("search", *SEARCH, *PC_DARTS, f"--data_dir={data_dir}")
        printed = succeed(forked.run(*command, f"--workdir={tmp_path}/whole"))
        assert len(re.findall(r"\[ *\d/3\] weights ", printed)) == 3
        place = {"module": "cpnas_tf.search.pc_darts", "owner": "_Epochs"}
        kill = {"method": "on_train_batch_end", "call": 5, **place}  # of three steps an epoch
        stop = {"method": "on_epoch_end", "call": 1, **place}
        for number, done, interruption in ((signal.SIGKILL, 1, kill), (signal.SIGTERM, 2, stop)):
            before = functools.partial(forked.signal_self, number, **interruption)
            outcome = forked.run(*command, f"--workdir={tmp_path}/other", before=before)
            assert outcome.code == (-number if number == signal.SIGKILL else 130)
            assert len(read_csv(tmp_path / "other" / "search.csv")) == done
        assert not (tmp_path / "other" / "genotype.json").exists()
        succeed(forked.run(*command, f"--workdir={tmp_path}/other"))
        check_equal_searches(tmp_path / "other", tmp_path / "whole")
        genotype = Genotype.load(tmp_path / "whole" / "genotype.json")
        assert genotype.choices.count("none") == 2 * (14 - 8)
        assert list((tmp_path / "whole" / "logs").glob("events.out.tfevents.*"))

    def test_bnas_is_cpnas_with_beta_0(self, tmp_path, data_dir):
        for name, more in (
            ("bnas", ["--config.method=bnas"]),
            ("cpnas", ["--config.search.beta=0"]),
        ):
            arguments = (*SEARCH_OF_3, *more, f"--workdir={tmp_path}/{name}")
            succeed(forked.run("search", *arguments, f"--data_dir={data_dir}"))
        check_equal_searches(tmp_path / "bnas", tmp_path / "cpnas")
        for row in read_csv(tmp_path / "bnas" / "search.csv"):
            assert row["z"] == row["child_accuracy"]

    def test_random_draws_a_genotype(self, tmp_path):
        drawn = set()
        for seed in (0, 1):
            folder = tmp_path / str(seed)
            arguments = (*SEARCH_OF_3, "--config.method=random", f"--config.search.seed={seed}")
            succeed(forked.run("search", *arguments, f"--workdir={folder}"))
            drawn.add(Genotype.load(folder / "genotype.json"))
            expected = {".lock", "config.json", "genotype.json"}
            assert {path.name for path in folder.iterdir()} == expected
        assert len(drawn) == 2
        assert {name for genotype in drawn for name in genotype.choices} == set(KEPT)

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("--config.method=darts", "'darts'"),
            ("--config.strategy=mirrored", "'mirrored'"),
            ("--config.pc_darts.channels=6", "partial = 4, received: 6"),
            ("--config.pc_darts.epochs=0", "0"),
            ("--config.pc_darts.precision=int8", "'int8'"),
            ("--config.pc_darts.batch_size=64", "48 images"),
            ("--config.pc_darts.seed=-1", "-1"),
            ("--config.pc_darts.architecture_learning_rate=-1", "-1.0"),
        ],
    )
    def test_what_is_refused(self, tmp_path, data_dir, argument, value):
        arguments = (*SEARCH, *PC_DARTS, argument, f"--workdir={tmp_path}/run")
        check_refused(tmp_path, "search", *arguments, f"--data_dir={data_dir}", value=value)


class TestDryRun:
    def test_random(self, tmp_path):
        arguments = (*SEARCH, "--config.method=random", f"--workdir={tmp_path}/run", "--dry_run")
        printed = succeed(forked.run("search", *arguments))
        assert printed == "A genotype is drawn at random; nothing is trained.\n"
        assert not list(tmp_path.iterdir())

    def test_pc_darts(self, tmp_path, data_dir):
        arguments = (*SEARCH, *PC_DARTS, f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
        lines = succeed(forked.run("search", *arguments, "--dry_run")).splitlines()
        assert lines[0] == "3 epochs on 240 images in all, the first 1 of the weights alone."
        assert len(lines) == 3
        assert not list(tmp_path.iterdir())

    def test_it_shows_the_plan_and_writes_nothing(self, tmp_path, data_dir):
        arguments = (*SEARCH_OF_3, f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
        lines = succeed(forked.run("search", *arguments, "--dry_run")).splitlines()
        table = [line.split() for line in lines[1:4]]
        assert table == [["0", "3", "3", "192"], ["1", "2", "2", "128"], ["total", "5", "320"]]
        assert re.search(r"each further one \d+\.\d{3} s", lines[4])
        assert re.search(r"\d:\d\d:\d\d for the search, \d+\.\d GiB of memory", lines[5])
        assert not list(tmp_path.iterdir())

    def test_without_the_data_set(self, tmp_path):
        arguments = (*SEARCH, "--config.data.name=fashion_mnist", "--dry_run")
        folders = (f"--data_dir={tmp_path}/none", f"--workdir={tmp_path}/run")
        value = f"{tmp_path}/none"
        check_refused(tmp_path, "search", *arguments, *folders, value=value, before=without_network)


def without_data():
    """Takes from a command what it could read a data set with."""
    importlib.import_module("tensorflow_datasets").builder = None


class TestProfile:
    PARAMETERS = {
        "wrn22": (4_321_482, 0),
        "wrn22_1bit": (4_321_482, 4_276_224),
        "resnet18": (11_679_912, 0),
        "birealnet18": (11_679_912, 10_985_472),
    }

    @pytest.mark.parametrize("model", PARAMETERS)
    def test_reference_networks(self, model):
        profile = json.loads(succeed(forked.run("profile", f"--model={model}", "--json")))
        counted = profile["parameters"], profile["binary_parameters"]
        assert counted == self.PARAMETERS[model]
        assert profile["memory_saving"] == pytest.approx(138.287424 / profile["memory_mbit"])
        assert profile["speedup"] == pytest.approx(647.694848 / profile["flops_m"])
        for name in ("real_macs_m", "binary_macs_m"):
            assert profile[name] == sum(row[name[:-2]] for row in profile["layers"]) / 1e6

    def test_every_reference_network_can_be_named(self):
        functions = inspect.getmembers(reference, inspect.isfunction)
        names = {name for name, _ in functions if name[0] != "_"}
        assert names - {"build"} == set(self.PARAMETERS)
        assert {
            name: "child" if binary else "parent" for name, (_, binary) in self.PARAMETERS.items()
        } == REFERENCE_NETWORKS

    @pytest.mark.parametrize("precision", ["child", "parent"])
    def test_the_networks_of_a_genotype(self, genotype, precision):
        arguments = (f"--genotype={genotype}", "--config=configs/train_cifar10.py", "--json")
        small = ("--config.network.cells=1", "--config.network.channels=8")
        chosen = () if precision == "child" else (f"--precision={precision}",)
        outcome = forked.run("profile", *arguments, *small, *chosen, before=without_data)
        profile = json.loads(succeed(outcome))
        real = 27 * 24 + (4 * 16 + 1) * 10
        binary = 2 * 24 * 16 + 8 * 16 * 16  # the inputs' convolutions and 8 skips of stride 2
        assert profile["parameters"] == real + binary
        assert profile["binary_parameters"] == (binary if precision == "child" else 0)

    @pytest.mark.parametrize("variant", ["plain", "starstar"])
    def test_the_variants_of_a_config(self, genotype, variant):
        """Only in ** the preprocessing is with real inputs; the genotype has no depthwise ones."""
        config = f"--config=configs/train_imagenet.py:{variant}"
        small = ("--config.network.cells=1", "--config.network.channels=8")
        outcome = forked.run("profile", f"--genotype={genotype}", config, *small, "--json")
        profile = json.loads(succeed(outcome))
        stem = 9 * (3 * 4 * 112**2 + 4 * 8 * 56**2 + 8 * 8 * 28**2)
        real, binary = stem + 4 * 16 * 1000, 8 * 16 * 16 * 14**2
        inputs = 2 * 8 * 16 * 28**2
        macs = (real, binary + inputs) if variant == "plain" else (real + inputs, binary)
        assert (profile["real_macs_m"], profile["binary_macs_m"]) == tuple(n / 1e6 for n in macs)

    def test_in_a_process_of_its_own_only_the_object_is_printed(self):
        profile = json.loads(succeed(run_process("profile", "--model=wrn22", "--json")))
        assert profile["memory_mbit"] == pytest.approx(138.29, abs=0.005)

    def test_table(self):
        printed = succeed(forked.run("profile", "--model=wrn22_1bit"))
        lines = [" ".join(line.split()) for line in printed.splitlines()]
        assert lines[1].startswith("stem convolution 32x32x64 1,728 0 1,769,472 0 ")
        assert any(line.startswith("total 45,258 4,276,224 ") for line in lines)
        assert "this network 5.72 15.99 24.16x 40.50x" in lines
        assert "WRN-22, real, on CIFAR-10 138.29 647.69 1.00x 1.00x" in lines
        assert "paper: WRN-22 (BONN), 1-bit 5.71 17.03 24.19x 28.03x" in lines

    def test_the_paper_is_left_out_where_its_images_are_others(self, genotype):
        arguments = (f"--genotype={genotype}", "--config=configs/train_digits.py")
        printed = succeed(forked.run("profile", *arguments))
        assert "WRN-22" in printed
        assert "paper" not in printed
        (own,) = [line for line in printed.splitlines() if line.startswith("this network")]
        assert re.fullmatch(r"this network +[\d.]+ +[\d.]+ +[\d.]+x +-", own), "no speedup"

    def test_csv(self, tmp_path):
        path = tmp_path / "layers.csv"
        arguments = ("--model=wrn22", f"--csv={path}")
        succeed(forked.run("profile", *arguments))
        assert sum(int(row["bits"]) for row in read_csv(path)) == 32 * 4_321_482
        path.write_text("old")
        check_refused(tmp_path, "profile", *arguments, value="--overwrite")
        succeed(forked.run("profile", *arguments, "--overwrite"))
        assert len(read_csv(path)) == 22

    @pytest.mark.parametrize(
        ("arguments", "value"),
        [
            (["--model=vgg"], "vgg"),
            (["--model=wrn22", "--genotype={genotype}"], "genotype"),
            (["--model=wrn22", "--config=configs/train_digits.py"], "--config"),
            (["--model=wrn22", "--precision=child"], "--precision"),
            (["--model=wrn22", "--csv={genotype}/layers.csv"], "layers.csv"),
            (["--genotype={genotype}", "--config=configs/search_digits.py"], "search_digits.py"),
            (["--genotype=missing.json", "--config=configs/train_digits.py"], "missing.json"),
            (["--genotype=", "--config=configs/train_digits.py"], "genotype file"),
            ([*TRAIN, "--genotype={genotype}", "--config.data.name=mnist"], "'mnist'"),
            ([*TRAIN, "--genotype={genotype}", "--config.network.cells=0"], "cells"),
        ],
    )
    def test_what_is_refused(self, tmp_path, genotype, arguments, value):
        arguments = [argument.format(genotype=genotype) for argument in arguments]
        check_refused(tmp_path, "profile", *arguments, value=value)

    def test_it_does_not_hide_pythons_profile(self, genotype, tmp_path):
        arguments = (f"--genotype={genotype}", f"--output={tmp_path}/plots")
        outcome = run_process("plot", *arguments, "--run_with_profiling")
        assert "function calls" in succeed(outcome)


class TestHelp:
    @pytest.mark.parametrize("name", OPTIONS)
    def test_names_all_flags(self, name):
        outcome = run_process(name, "--help")
        flags = re.findall(r"^  --(?:\[no\])?(\w+): (.*)", succeed(outcome), re.MULTILINE)
        assert {flag for flag, _ in flags} == OPTIONS[name]
        assert all(description for _, description in flags)
        assert f"python bin/{name}.py --" in outcome.stdout

    def test_no_command_is_left_out(self):
        assert {path.stem for path in (ROOT / "bin").glob("*.py")} == set(OPTIONS)

    @pytest.mark.parametrize("name", OPTIONS)
    def test_bad_flags_are_refused_before_tensorflow_is_imported(self, name):
        outcome = run_process(name, "--unknown=1", options=["-X", "importtime"])
        imports = re.findall(r"^import time: .*\| +(\S+)\n", outcome.stderr, re.MULTILINE)
        assert "absl.flags" in imports
        assert not {"tensorflow", "keras", "tf_keras", "larq", "numpy.core"} & set(imports)
        rest = re.sub(r"^import time: .*\n", "", outcome.stderr, flags=re.MULTILINE)
        assert rest == "error: Unknown command line flag 'unknown'\n"
        assert outcome.code == 1


class TestOverwrite:
    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("search", [*SEARCH_OF_3, "--workdir={runs}/search"]),
            ("train", [*TRAIN, "--genotype={runs}/search/genotype.json", "--workdir={runs}/train"]),
            ("evaluate", ["--workdir={runs}/train"]),
            ("export", ["--workdir={runs}/train", "--output={runs}/export"]),
            ("plot", ["--workdir={runs}/search", "--output={runs}/plots"]),
        ],
    )
    def test_a_finished_result_is_kept_without_it(self, runs, name, arguments):
        before = snapshot(runs)
        assert "--overwrite" in refusal(name, *(text.format(runs=runs) for text in arguments))
        assert snapshot(runs) == before

    def test_evaluate(self, runs, copy_of):
        path = copy_of("train") / "evaluation.json"
        path.write_text("old")
        succeed(forked.run("evaluate", f"--workdir={path.parent}", "--overwrite"))
        assert read_json(path) == read_json(runs / "train" / "evaluation.json")

    def test_export(self, runs, copy_of):
        output = copy_of("export")
        (output / "README.md").write_text("old")
        (output / "notes.txt").write_text("mine")
        arguments = (f"--workdir={runs}/train", f"--output={output}", "--overwrite")
        succeed(forked.run("export", *arguments))
        assert read_json(output / "export.json")["images_checked"] == 360
        assert (output / "README.md").read_text() != "old"
        assert (output / "notes.txt").read_text() == "mine"
        assert list(output.parent.iterdir()) == [output]

    def test_plot(self, runs, copy_of):
        output = copy_of("plots")
        (output / "search.svg").write_text("old")
        succeed(forked.run("plot", f"--workdir={runs}/search", f"--output={output}", "--overwrite"))
        assert (output / "search.svg").read_bytes() == (runs / "plots/search.svg").read_bytes()

    def test_report(self, runs, tmp_path):
        arguments = (f"--workdir={runs}/search", f"--output={tmp_path}/report.html")
        succeed(forked.run("report", *arguments))
        report = (tmp_path / "report.html").read_bytes()
        old = report.replace(b"<h1>", b"<h1>An older ")
        (tmp_path / "report.html").write_bytes(old)
        assert "--overwrite" in refusal("report", *arguments)
        assert (tmp_path / "report.html").read_bytes() == old
        succeed(forked.run("report", *arguments, "--overwrite"))
        assert (tmp_path / "report.html").read_bytes() == report

    def test_train_replaces_a_different_run(self, runs, copy_of, data_dir):
        workdir = copy_of("train")
        arguments = (
            *TRAIN,
            "--config.training.epochs=1",
            "--precision=parent",
            f"--genotype={runs}/search/genotype.json",
            f"--workdir={workdir}",
            f"--data_dir={data_dir}",
        )
        assert "config.training.epochs: 2 there, 1 here" in refusal("train", *arguments)
        succeed(forked.run("train", *arguments, "--overwrite"))
        (row,) = read_csv(workdir / "history.csv")
        assert "filter_mse" not in row
        assert read_json(workdir / "metrics.json")["precision"] == "parent"
        assert not (workdir / "evaluation.json").exists()

    @pytest.mark.parametrize(
        ("name", "arguments", "value"),
        [
            ("search", [*SEARCH_OF_3, "--config.search.batch_size=65"], "65"),
            ("search", [*SEARCH_OF_3, "--config.search.learning_rate=nan"], "nan"),
            ("train", [*TRAIN, "--config.training.epochs=0"], "0"),
            ("train", [*TRAIN, "--config.training.optimizer=foo"], "foo"),
        ],
    )
    def test_what_is_refused_replaces_nothing(
        self, copy_of, data_dir, genotype, name, arguments, value
    ):
        workdir = copy_of(name)
        before = snapshot(workdir)
        if name == "train":
            arguments = [*arguments, f"--genotype={genotype}"]
        more = (f"--workdir={workdir}", f"--data_dir={data_dir}", "--overwrite")
        assert value in refusal(name, *arguments, *more)
        assert snapshot(workdir) == before


class TestStopping:
    """A run that is stopped goes on with the same command, to the same end."""

    STOPPED = "stopped: the same command goes on from here\n"

    def test_search(self, runs, tmp_path, data_dir):
        stop = functools.partial(forked.signal_self, module=TUNER, owner="ChildParentTuner")
        arguments = (*SEARCH_OF_3, f"--workdir={tmp_path}", f"--data_dir={data_dir}")
        in_the_second = functools.partial(stop, signal.SIGKILL, method="run_trial", call=2)
        assert forked.run("search", *arguments, before=in_the_second).code == -signal.SIGKILL
        assert len(read_csv(tmp_path / "search.csv")) == 1
        after_two_more = functools.partial(stop, signal.SIGTERM, method="save", call=2)
        outcome = forked.run("search", *arguments, before=after_two_more)
        assert (outcome.code, outcome.stderr) == (130, self.STOPPED)
        assert len(read_csv(tmp_path / "search.csv")) == 3
        assert not (tmp_path / "genotype.json").exists()
        printed = succeed(forked.run("search", *arguments))
        assert re.findall(r"\[ *(\d)/5\]", printed) == ["4", "5"]
        for name in ("genotype.json", "config.json"):
            assert (tmp_path / name).read_bytes() == (runs / "search" / name).read_bytes()
        check_equal_searches(tmp_path, runs / "search")

    @pytest.mark.parametrize("function", ["_write_saved_model", "write_model_card"])
    def test_export(self, runs, copy_of, function):
        output = copy_of("export")
        before = snapshot(output)
        arguments = (f"--workdir={runs}/train", f"--output={output}", "--overwrite")
        in_it = functools.partial(
            forked.signal_self,
            signal.SIGKILL,
            module="cpnas_tf",
            owner="export",
            method=function,
            call=1,
        )
        assert forked.run("export", *arguments, before=in_it).code == -signal.SIGKILL
        assert snapshot(output) == before
        succeed(forked.run("export", *arguments))
        assert snapshot(output) != before
        assert not list(output.parent.glob("*.partial"))

    def test_train(self, runs, tmp_path, data_dir):
        arguments = (
            *TRAIN,
            f"--genotype={runs}/search/genotype.json",
            f"--workdir={tmp_path}",
            f"--data_dir={data_dir}",
        )
        for number, method, call, name in (
            (signal.SIGTERM, "on_train_batch_end", 2, "ckpt-00000-000000002.index"),
            (signal.SIGINT, "on_epoch_end", 1, "ckpt-00001-000000005.index"),
        ):
            stop = functools.partial(forked.signal_self, module=PROGRESS, owner="EpochCallback")
            stop = functools.partial(stop, number, method=method, call=call)
            outcome = forked.run("train", *arguments, before=stop)
            assert (outcome.code, outcome.stderr) == (130, self.STOPPED)
            assert (tmp_path / "checkpoints" / name).exists()
            assert not (tmp_path / "metrics.json").exists()
        assert len(read_csv(tmp_path / "history.csv")) == 1
        succeed(forked.run("train", *arguments))
        check_equal_trainings(tmp_path, runs / "train")

    def test_a_signal_that_comes_where_python_drops_exceptions(self):
        code = """
import os, signal, time
from cpnas_tf.cli import app

class Fragile:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

def main():
    Fragile()
    time.sleep(60)

app.run(main)
"""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert process.returncode == 130
        assert "Exception ignored" in process.stderr
        assert process.stderr.endswith(f"\n{self.STOPPED}")


class TestFlags:
    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("--precision=foo", "foo"),
            ("--overwrite=foo", "foo"),
            ("--worksdir=foo", "worksdir"),
            ("foo", "foo"),
            ("--workdir=", "--workdir"),
            ("--genotype=", "genotype file"),
            ("--model=wrn22", "genotype, model"),
            ("--model=vgg", "vgg"),
            ("--config", "''"),
            ("--config=missing.py", "missing.py"),
            ("--config=configs", "configs"),
            ("--config=configs/train_cifar10.py:huge", "'huge'"),
            ("--config=configs/train_digits.py:small", "configs/train_digits.py:small"),
            ("--config.foo=1", "--config.foo"),
            ("--config.training.foo=1", "--config.training.foo"),
            ("--config.training.epochs.foo=1", "--config.training.epochs.foo"),
            ("--noconfig.training.foo", "--config.training.foo"),
            ("--config.training.epochs=1.5", "1.5"),
            ("--config.training.epochs=many", "many"),
            ("--config.training.learning_rate=small", "small"),
            ("--config.training=foo", "--config.training"),
        ],
    )
    def test_bad_flags(self, tmp_path, genotype, argument, value):
        valid = (*TRAIN, f"--genotype={genotype}", f"--workdir={tmp_path}/run")
        check_refused(tmp_path, "train", *valid, argument, value=value)

    @pytest.mark.parametrize(
        ("name", "missing"), [(name, flag) for name, flags in REQUIRED.items() for flag in flags]
    )
    def test_missing_flags(self, tmp_path, genotype, name, missing):
        given = {
            "config": f"configs/{name}_digits.py",
            "genotype": genotype,
            "output": tmp_path / "output",
            "workdir": tmp_path / "run",
        }
        flags = (flag for flag in REQUIRED[name] if flag != missing)
        arguments = [f"--{flag}={given[flag]}" for flag in flags]
        check_refused(tmp_path, name, *arguments, value=missing)

    def test_plot_takes_a_workdir_or_a_genotype(self, tmp_path, genotype):
        arguments = (f"--workdir={tmp_path}", f"--genotype={genotype}", f"--output={tmp_path}/new")
        check_refused(tmp_path, "plot", *arguments, value="workdir")


class TestConfigFiles:
    VALID = "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict("

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("", "get_config"),
            ("get_config = 5", "not callable"),
            ("{", "never closed"),
            ("\0", "null bytes"),
            ("import missing_package", "missing_package"),
            ("def get_config(): return {}['key']", "KeyError: 'key'"),
            ("def get_config(): return {'search': {}}", "received: dict"),
            ("def get_config(): pass", "received: NoneType"),
            (f"{VALID}{{'data': {{}}, 'split': {{}}}})", "received: ['data', 'split']"),
            (f"{VALID}dict(data={{}}, split={{}}, search={{}}, serach={{}}))", "serach"),
        ],
    )
    def test_no_config(self, tmp_path, text, value):
        path = tmp_path / "config.py"
        path.write_text(text)
        arguments = (f"--config={path}", f"--workdir={tmp_path}/run")
        assert str(path) in check_refused(tmp_path, "search", *arguments, value=value)

    @pytest.mark.parametrize(
        ("name", "section", "values", "expected"),
        [
            ("search", "search", {"betta": 2.0}, "betta"),
            ("search", "search", {"rounds": "3"}, "search.rounds must be a value like 3"),
            ("search", "search", {"beta": True}, "search.beta must be a value like 2.0"),
            ("search", "search", {"directory": "x"}, "directory"),
            ("search", "search", {"seed": "0"}, "'0'"),
            ("search", "search", {"augmentation": {"crop": 4}}, "'crop'"),
            ("search", "search", {"augmentation": {"flip": 1}}, "search.augmentation.flip"),
            ("search", "search", {"augmentation": {"cutout": -1}}, "cutout"),
            ("search", "data", {"data_dir": "x"}, "data_dir"),
            ("search", "split", {"seed": 0.5}, "split.seed must be a value like 0"),
            ("train", "network", {"precision": "child"}, "precision"),
            ("train", "training", {"epochs": 2.5}, "2.5"),
            ("train", "training", {"epochs": None}, "epochs must be a value like 600"),
            ("train", "child_parent", {"lambda": 1}, "lambda"),
        ],
    )
    def test_bad_sections(self, tmp_path, data_dir, genotype, name, section, values, expected):
        original = ROOT / "configs" / f"{name}_digits.py"
        path = tmp_path / "config.py"
        path.write_text(
            f"{original.read_text()}\n\noriginal = get_config\n\n\ndef get_config():\n"
            "    config = original().to_dict()\n"
            f"    config[{section!r}].update({values!r})\n"
            "    return ConfigDict(config)\n"
        )
        arguments = [f"--config={path}", f"--workdir={tmp_path}/run", f"--data_dir={data_dir}"]
        if name == "train":
            arguments.append(f"--genotype={genotype}")
        check_refused(tmp_path, name, *arguments, value=expected)


class TestValues:
    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("--config.data.name=imagenet", "'imagenet'"),
            ("--config.data.split=validation", "'validation'"),
            ("--config.split.train_images=1438", "1438"),
            ("--config.split.validation_images=1374", "1374"),
            ("--config.split.validation_images=0", "validation_images=0"),
            ("--config.split.train_images=31", "31 images"),
            ("--config.search.batch_size=65", "65"),
            ("--config.search.batch_size=0", "0"),
            ("--config.search.batch_size=-1", "-1"),
            ("--config.search.cells=0", "cells must be a whole number >= 1, received: 0"),
            ("--config.search.channels=-2", "-2"),
            ("--config.search.rounds=0", "rounds must be an integer of at least 1, received: 0"),
            ("--config.search.rounds=-1", "-1"),
            ("--config.search.beta=inf", "inf"),
            ("--config.search.seed=-1", "-1"),
            ("--config.strategy=tpu", "'tpu'"),
            ("--config.strategy=mirrored", "two devices or more, found /device:CPU:0"),
            ("--config.strategy=multi_worker", "TF_CONFIG"),
            ("--config.search.learning_rate=0", "0.0"),
            ("--config.search.momentum=1", "1.0"),
            ("--config.search.weight_decay=-1", "-1.0"),
            ("--config.search.operations=('none', 'conv')", "'conv'"),
            ("--config.search.operations=('none', 'none')", "('none', 'none')"),
            ("--config.search.operations=none", "('none',)"),
            ("--config.search.operations=()", "()"),
        ],
    )
    def test_search(self, tmp_path, data_dir, argument, value):
        valid = (*SEARCH, f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
        check_refused(tmp_path, "search", *valid, argument, value=value)

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("--config.data.name=mnist", "'mnist'"),
            ("--config.data.split=all", "'all'"),
            ("--config.network.cells=0", "cells must be a whole number >= 1, received: 0"),
            ("--config.network.channels=0", "channels must be a whole number >= 1, received: 0"),
            ("--config.training.epochs=-1", "-1"),
            ("--config.training.batch_size=0", "0"),
            ("--config.training.batch_size=1438", "1437 images"),
            ("--config.training.optimizer=lion", "'lion'"),
            ("--config.training.learning_rate=-0.1", "-0.1"),
            ("--config.training.weight_decay=nan", "nan"),
            ("--config.training.gradient_clip=-1", "-1.0"),
            ("--config.training.seed=4294967296", "4294967296"),
            ("--config.child_parent.filter_weight=-1", "-1.0"),
            ("--config.strategy=tpu", "'tpu'"),
            ("--config.strategy=mirrored", "two devices or more, found /device:CPU:0"),
            ("--config.strategy=multi_worker", "TF_CONFIG"),
            ("--config.mixed_precision=half", "half"),
            ("--config.training.auxiliary_weight=-0.4", "auxiliary_weight must be a number >= 0"),
            ("--config.training.label_smoothing=1", "label_smoothing must be in [0, 1)"),
            ("--config.training.early_stopping=0", "early_stopping must be at least 1"),
            ("--config.training.steps_per_execution=0", "steps_per_execution"),
            ("--config.training.jit_compile=often", "often"),
            ("--warm_start=/missing", "/missing has no checkpoint"),
        ],
    )
    def test_train(self, tmp_path, data_dir, genotype, argument, value):
        valid = (
            *TRAIN,
            f"--genotype={genotype}",
            f"--workdir={tmp_path}/run",
            f"--data_dir={data_dir}",
        )
        check_refused(tmp_path, "train", *valid, argument, value=value)

    @pytest.mark.parametrize(
        ("name", "arguments"),
        [
            ("search", [*SEARCH_OF_3, "--config.search.learning_rate=1e30"]),
            ("train", [*TRAIN, "--config.training.learning_rate=1e30"]),
        ],
    )
    def test_training_that_diverges(self, tmp_path, data_dir, genotype, name, arguments):
        if name == "train":
            arguments = [*arguments, "--config.training.optimizer=sgd", f"--genotype={genotype}"]
        folders = (f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
        line = refusal(name, *arguments, *folders)
        assert re.search("is (nan|inf)|not finite", line)
        assert "learning_rate" in line
        assert not {"genotype.json", "metrics.json"} & set(os.listdir(tmp_path / "run"))


class TestGenotypes:
    @pytest.mark.parametrize(
        ("content", "value"),
        [
            ("", "not JSON"),
            ("normal: none", "not JSON"),
            (GENOTYPE.to_json()[:-9], "not JSON"),
            (b"\xff\xfe", "utf-8"),
            ("[]", "received: list"),
            ({"normal": GENOTYPE.normal}, "received: ['normal']"),
            ({"normal": GENOTYPE.normal[1:], "reduce": GENOTYPE.reduce}, "received: 13"),
            ({"normal": GENOTYPE.normal, "reduce": ["conv", *GENOTYPE.reduce[1:]]}, "'conv'"),
            ({"normal": GENOTYPE.normal, "reduce": GENOTYPE.reduce, "extra": 1}, "'extra'"),
        ],
    )
    @pytest.mark.parametrize("name", ["train", "plot"])
    def test_broken_files(self, tmp_path, name, content, value):
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        path = tmp_path / "broken.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.check(tmp_path, name, path, value)

    @pytest.mark.parametrize("name", ["train", "plot"])
    def test_no_file(self, tmp_path, name):
        self.check(tmp_path, name, tmp_path / "missing.json", "file not found")
        self.check(tmp_path, name, tmp_path, "directory")

    def check(self, tmp_path, name, path, value):
        given = {
            "train": (*TRAIN, f"--workdir={tmp_path}/run"),
            "plot": (f"--output={tmp_path}/run",),
        }
        line = check_refused(tmp_path, name, f"--genotype={path}", *given[name], value=value)
        assert str(path) in line


class TestWorkdirs:
    @pytest.fixture(params=["search", "train"])
    def command(self, request, genotype, data_dir):
        """A command that starts a run, but for its --workdir."""
        options = {"search": SEARCH_OF_3, "train": (*TRAIN, f"--genotype={genotype}")}
        return (request.param, *options[request.param], f"--data_dir={data_dir}")

    @pytest.fixture
    def folder(self, tmp_path):
        (tmp_path / "run").mkdir()
        return tmp_path / "run"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("file", "is or lies in a file"),
            ("file/below", "is or lies in a file"),
            ("/proc/below", "cannot write in /proc/below"),
        ],
    )
    def test_not_a_folder(self, tmp_path, command, name, value):
        (tmp_path / "file").write_text("mine")
        check_refused(tmp_path, *command, f"--workdir={tmp_path / name}", value=value)

    @pytest.mark.parametrize("more", [[], ["--overwrite"]])
    def test_in_use(self, folder, command, more):
        with open(folder / ".lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            arguments = (*command, f"--workdir={folder}", *more)
            check_refused(folder, *arguments, value=f"{folder} is in use")

    def test_a_different_run(self, folder, command):
        record = {"format": 2, "written": ["search.csv"], "command": "other"}
        (folder / "config.json").write_text(json.dumps(record))
        (folder / "search.csv").write_text("begun")
        value = f"command: 'other' there, '{command[0]}' here"
        check_refused(folder, *command, f"--workdir={folder}", value=value)

    @pytest.mark.parametrize("name", ["search", "train"])
    def test_other_images(self, runs, copy_of, data_dir, name):
        folder = copy_of(name)
        options = {
            "search": SEARCH_OF_3,
            "train": (*TRAIN, f"--genotype={runs}/search/genotype.json"),
        }
        (folder / {"search": "genotype.json", "train": "metrics.json"}[name]).unlink()
        value = forget_an_image(folder)
        arguments = (*options[name], f"--workdir={folder}", f"--data_dir={data_dir}")
        check_refused(folder, name, *arguments, value=value)

    @pytest.mark.parametrize("more", [[], ["--overwrite"]])
    def test_files_of_others(self, folder, command, more):
        (folder / "config.json").write_text('{"name": "of another program"}')
        (folder / "a.partial").write_text("mine")
        value = f"{folder} is not empty and holds no run of cpnas_tf, but a.partial and 1 more"
        check_refused(folder, *command, f"--workdir={folder}", *more, value=value)

    def test_a_record_of_a_newer_version(self, folder, command):
        (folder / "config.json").write_text('{"format": 3, "written": []}')
        value = f"{folder}/config.json has format 3"
        check_refused(folder, *command, f"--workdir={folder}", value=value)

    def test_a_broken_record(self, folder, command):
        (folder / "config.json").write_text("{")
        value = f"cannot read {folder}/config.json"
        check_refused(folder, *command, f"--workdir={folder}", value=value)

    @pytest.mark.parametrize("name", ["evaluate", "export"])
    @pytest.mark.parametrize(
        "workdir", ["missing", "empty", "{runs}/search", "{runs}/plots/search.svg"]
    )
    def test_untrained(self, runs, tmp_path, name, workdir):
        (tmp_path / "empty").mkdir()
        path = tmp_path / workdir.format(runs=runs)
        arguments = [f"--workdir={path}"]
        if name == "export":
            arguments.append(f"--output={tmp_path}/output")
        check_refused(tmp_path, name, *arguments, value=f"{path} holds no finished training")

    @pytest.mark.parametrize("name", ["evaluate", "export"])
    def test_a_record_of_something_else(self, tmp_path, name):
        for file in ("metrics.json", "config.json"):
            (tmp_path / file).write_text("{}")
        output = (f"--output={tmp_path}/output",) if name == "export" else ()
        value = f"{tmp_path}/config.json is not that of a training"
        check_refused(tmp_path, name, f"--workdir={tmp_path}", *output, value=value)

    @pytest.mark.parametrize("workdir", ["missing", "{runs}/train"])
    def test_plot_of_no_search(self, runs, tmp_path, workdir):
        path = tmp_path / workdir.format(runs=runs)
        arguments = (f"--workdir={path}", f"--output={tmp_path}/output")
        check_refused(tmp_path, "plot", *arguments, value=f"not found: {path}/search.csv")

    @pytest.mark.parametrize("workdir", ["missing", "{runs}/train", "{runs}/search/search.csv"])
    def test_report_of_no_search(self, runs, tmp_path, workdir):
        path = tmp_path / workdir.format(runs=runs)
        arguments = (f"--workdir={path}", f"--output={tmp_path}/report.html")
        check_refused(tmp_path, "report", *arguments, value=f"nothing to report in {path}")

    def test_report_of_a_training_beside_no_search(self, runs, tmp_path):
        arguments = (f"--workdir={tmp_path}", f"--output={tmp_path}/report.html")
        value = f"--train goes with a search, and {tmp_path} holds none"
        check_refused(tmp_path, "report", *arguments, f"--train={runs}/train", value=value)

    def test_report_of_no_training(self, runs, tmp_path):
        arguments = (f"--workdir={runs}/search", f"--output={tmp_path}/report.html")
        value = f"{runs}/search holds no finished training"
        check_refused(tmp_path, "report", *arguments, f"--train={runs}/search", value=value)

    def test_plot_of_a_broken_search(self, copy_of, tmp_path):
        workdir = copy_of("search")
        os.truncate(workdir / "search.csv", 1000)
        arguments = (f"--workdir={workdir}", f"--output={tmp_path}/output")
        check_refused(tmp_path, "plot", *arguments, value=f"{workdir}/search.csv, line")


class TestOutputs:
    @pytest.mark.parametrize("name", ["export", "plot"])
    @pytest.mark.parametrize("output", ["file", "file/below", "/proc/below"])
    def test_not_a_folder(self, runs, tmp_path, name, output):
        workdir = runs / ("train" if name == "export" else "search")
        (tmp_path / "file").write_text("mine")
        path = tmp_path / output
        check_refused(tmp_path, name, f"--workdir={workdir}", f"--output={path}", value=str(path))

    @pytest.mark.parametrize("output", ["folder", "missing/file", "/proc/below"])
    def test_not_a_file(self, runs, tmp_path, output):
        (tmp_path / "folder").mkdir()
        arguments = (f"--workdir={runs}/search", f"--output={tmp_path / output}", "--overwrite")
        check_refused(tmp_path, "report", *arguments, value=str(tmp_path / output))

    @pytest.mark.parametrize("more", [[], ["--overwrite"]])
    @pytest.mark.parametrize("name", ["thesis.html", "folder", "link"])
    def test_report_keeps_what_is_not_its_own(self, runs, tmp_path, name, more):
        (tmp_path / "thesis.html").write_text("<html><p>cpnas_tf</p></html>")
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("thesis.html")
        arguments = (f"--workdir={runs}/search", f"--output={tmp_path / name}", *more)
        value = f"{tmp_path / name} is there and is no report"
        check_refused(tmp_path, "report", *arguments, value=value)

    @pytest.mark.parametrize("more", [[], ["--overwrite"]])
    def test_export_keeps_what_is_not_its_own(self, runs, tmp_path, more):
        (tmp_path / "file").write_text("mine")
        arguments = (f"--workdir={runs}/train", f"--output={tmp_path}", *more)
        check_refused(tmp_path, "export", *arguments, value=f"{tmp_path} is there and is no export")


class TestCheckpoints:
    @pytest.fixture
    def workdir(self, copy_of):
        """A finished training whose last checkpoint is cut off."""
        workdir = copy_of("train")
        (workdir / "evaluation.json").unlink()
        self.truncate(workdir, "ckpt-00002-*.data*")
        return workdir

    def truncate(self, workdir, pattern):
        (path,) = (workdir / "checkpoints").glob(pattern)
        os.truncate(path, path.stat().st_size // 2)

    @pytest.mark.parametrize("name", ["evaluate", "export"])
    def test_the_result_is_broken(self, workdir, tmp_path, name):
        arguments = [f"--workdir={workdir}"]
        if name == "export":
            arguments.append(f"--output={tmp_path}/output")
        check_refused(tmp_path, name, *arguments, value="ckpt-00002-000000010 is broken")

    def test_training_goes_on_from_the_one_before(self, runs, workdir, data_dir):
        (workdir / "metrics.json").unlink()
        arguments = (
            *TRAIN,
            f"--genotype={runs}/search/genotype.json",
            f"--workdir={workdir}",
            f"--data_dir={data_dir}",
        )
        self.truncate(workdir, "ckpt-00001-000000005.index")
        refused = forked.run("train", *arguments)
        *broken, line = refused.stderr.splitlines()
        assert (refused.code, len(broken)) == (1, 2)
        assert re.fullmatch("error: no checkpoint in .* can be read: delete that .*", line)
        shutil.copy(runs / "train/checkpoints/ckpt-00001-000000005.index", workdir / "checkpoints")
        outcome = forked.run("train", *arguments)
        assert outcome.code == 0
        (line,) = outcome.stderr.splitlines()
        assert re.fullmatch(
            "WARNING: the checkpoint .*/ckpt-00002-000000010 is broken .*: trying the one before",
            line,
        )
        check_equal_trainings(workdir, runs / "train")


def without_network():
    """No proxy listens there."""
    os.environ.update(dict.fromkeys(["http_proxy", "https_proxy"], "http://127.0.0.1:9"))


class TestDataDir:
    @pytest.mark.parametrize(
        ("folder", "value"),
        [("missing", "{folder}"), ("file", "{folder}"), ("/proc/below", "/proc/below")],
    )
    def test_data_that_is_not_there(self, tmp_path, folder, value):
        (tmp_path / "file").write_text("mine")
        folder = tmp_path / folder
        arguments = (
            *SEARCH,
            "--config.data.name=fashion_mnist",
            f"--data_dir={folder}",
            f"--workdir={tmp_path}/run",
        )
        value = value.format(folder=folder)
        check_refused(tmp_path, "search", *arguments, value=value, before=without_network)

    @pytest.mark.parametrize("pattern", ["digits-train*", "dataset_info.json"])
    def test_truncated_data(self, tmp_path, data_dir, pattern):
        shutil.copytree(data_dir, tmp_path / "data")
        (path,) = (tmp_path / "data").rglob(pattern)
        os.truncate(path, path.stat().st_size // 2)
        arguments = (*SEARCH, f"--data_dir={tmp_path}/data", f"--workdir={tmp_path}/run")
        check_refused(tmp_path, "search", *arguments, value=f"{tmp_path}/data/digits")

    def test_a_training_whose_data_has_gone(self, copy_of, tmp_path):
        workdir = copy_of("train")
        run = read_json(workdir / "config.json")
        run["data_dir"] = "/proc/below"
        (workdir / "config.json").write_text(json.dumps(run))
        arguments = (f"--workdir={workdir}", "--overwrite")
        check_refused(tmp_path, "evaluate", *arguments, value="digits is not in /proc/below")
        succeed(forked.run("evaluate", *arguments, f"--data_dir={tmp_path}/new"))


def test_images_that_two_reductions_cannot_halve(tmp_path):
    """No data set of the commands is such: this comes with one's own, to the library."""
    import numpy as np

    from cpnas_tf.data.images import Images
    from cpnas_tf.networks.cells import build_network
    from cpnas_tf.search import search

    images = Images(np.zeros([8, 30, 32, 3], np.uint8), np.zeros(8, int), "ab")
    line = "2 reductions cannot halve images of 30x32 pixels: .* multiples of 4"
    with pytest.raises(ValueError, match=line):
        search(images, images, directory=tmp_path / "run", batch_size=8)
    with pytest.raises(ValueError, match=line):
        build_network(GENOTYPE, input_shape=(30, 32, 3), classes=2)
    assert not list(tmp_path.iterdir())


def test_a_bug_is_not_taken_for_a_bad_input(tmp_path, genotype):
    """What only a programmer can mend has its traceback."""
    arguments = (f"--genotype={genotype}", f"--output={tmp_path}/plots")
    outcome = forked.run("plot", *arguments, before=break_plotting)
    assert outcome.code == 1
    assert "Traceback" in outcome.stderr
    assert "'NoneType' object is not callable" in outcome.stderr


def break_plotting():
    import cpnas_tf.plots.search

    cpnas_tf.plots.search.plot = None
