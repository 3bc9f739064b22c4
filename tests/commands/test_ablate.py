"""The command that compares methods over seeds."""

import functools
import os
import re
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import forked
import pytest
from commands import (
    OF_3,
    PROGRESS,
    SMALL_SEARCH,
    SMALL_TRAINING,
    TUNER,
    check_equal_searches,
    check_refused,
    forget_an_image,
    read_csv,
    read_json,
    succeed,
)
from made_once import made_once
from pages import Page

from cpnas_tf.genotypes import CHOICES, Genotype

ABLATE = (
    *("--config=configs/ablate_digits.py", *SMALL_SEARCH, OF_3, *SMALL_TRAINING),
    "--config.pc_darts.cells=1",
    "--config.pc_darts.epochs=2",
    "--config.pc_darts.warmup_epochs=1",
    "--config.pc_darts.batch_size=16",
    *("--config.guided.cells=1", "--config.guided.channels=2", "--config.guided.batch_size=32"),
    *("--config.guided.first=3", "--config.guided.rounds=1", "--config.guided.proposals=1"),
    *("--config.guided.finalists=1", "--config.guided.epochs=1"),
    *("--config.guided.finalist_epochs=2", OF_3.replace("search", "guided")),
    "--config.grid.methods=('random', 'cpnas')",
    "--config.grid.search_seeds=(0,)",
    "--config.grid.training_seeds=(0,)",
)


def take_part(name, port):
    """Makes a command the chief or a worker of an ablation."""
    values = {"TUNER_ID": name, "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": str(port)}
    os.environ.update({f"KERASTUNER_{key}": value for key, value in values.items()})


@pytest.fixture(scope="session")
def ablation(shared_folder, data_dir):
    """An ablation that is killed in its search and then in the training, and goes on."""
    return made_once(
        shared_folder / "ablation", functools.partial(make_ablation, data_dir=data_dir)
    )


def make_ablation(folder, *, data_dir):
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
        level = sum(float(r["z"]) for r in last_stage) / 2
        assert float(row["search_score"]) == pytest.approx(sum(scores) / len(CHOICES) - level)
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
        succeed(forked.run("ablate", *arguments, "--config.grid.training_seeds=(2,)"))
        rows = read_csv(folder / "runs.csv")
        assert [row["training_seed"] for row in rows] == ["0", "2"] * 2
        assert rows[::2] == read_csv(ablation / "runs.csv")

    def test_methods_with_logs_of_other_kinds_join_it(self, ablation, tmp_path, data_dir):
        folder = shutil.copytree(ablation, tmp_path / "extended")
        arguments = (*ABLATE, f"--workdir={folder}", f"--data_dir={data_dir}")
        grid = "--config.grid.methods=('guided', 'pc_darts')"
        printed = succeed(forked.run("ablate", *arguments, grid))
        rows = {row["method"]: row for row in read_csv(folder / "runs.csv")}
        for name in ("guided", "pc_darts"):
            assert re.search(rf"^ *{name} +- +1 ", printed, re.MULTILINE)

        assert int(rows["pc_darts"]["search_images"]) == (2 + 1) * (64 + 32) // 2
        found = read_json(folder / "searches" / "pc_darts-search0" / "search.json")
        choices = Genotype(**found["genotype"]).choices
        shares = [edge[name] for edge, name in zip(found["scores"], choices, strict=True)]
        score = float(rows["pc_darts"]["search_score"])
        assert score == pytest.approx(sum(shares) / len(CHOICES))
        assert len(read_csv(folder / "searches" / "pc_darts-search0" / "search.csv")) == 2

        assert int(rows["guided"]["search_images"]) == (4 * 1 + 1 * 2) * 64
        found = read_json(folder / "searches" / "guided-search0" / "search.json")
        assert set(found["scores"][0]) == {"skip_connect", "max_pool_3x3", "avg_pool_3x3"}
        log = read_csv(folder / "searches" / "guided-search0" / "search.csv")
        assert [each["phase"] for each in log] == 3 * ["random"] + ["guided", "final"]

    def test_other_images_are_refused(self, ablation, tmp_path, data_dir):
        folder = shutil.copytree(ablation, tmp_path / "other")
        value = forget_an_image(folder)
        arguments = (*ABLATE, f"--workdir={folder}", f"--data_dir={data_dir}")
        check_refused(folder, "ablate", *arguments, value=value)
        part = functools.partial(take_part, "worker0", 8000)
        check_refused(folder, "ablate", *arguments, value=value, before=part)

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
