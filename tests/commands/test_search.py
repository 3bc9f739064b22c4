"""The command that searches: what it writes, its methods, its dry run, and what it refuses."""

import functools
import os
import re
import shutil
import signal

import forked
import pytest
from commands import (
    GENOTYPE,
    KEPT,
    SEARCH,
    SEARCH_OF_3,
    check_equal_searches,
    check_refused,
    read_csv,
    read_json,
    refusal,
    succeed,
)
from pages import Page

from cpnas_tf.genotypes import CHOICES, Genotype

PC_DARTS = (
    "--config.method=pc_darts",
    "--config.pc_darts.cells=1",
    "--config.pc_darts.channels=4",
    f"--config.pc_darts.operations={KEPT}",
    "--config.pc_darts.epochs=3",
    "--config.pc_darts.warmup_epochs=1",
    "--config.pc_darts.batch_size=16",
)
GUIDED = (
    *("--config.method=guided", "--config.guided.cells=1", "--config.guided.channels=2"),
    *("--config.guided.batch_size=32", f"--config.guided.operations={KEPT}"),
    *("--config.guided.first=3", "--config.guided.rounds=1", "--config.guided.proposals=2"),
    *("--config.guided.finalists=1", "--config.guided.epochs=1"),
    *("--config.guided.finalist_epochs=2", "--config.guided.inputs=2"),
)


def test_what_is_written(runs, data_dir):
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

    def test_guided_killed_in_two_trainings(self, tmp_path, data_dir):
        command = ("search", *SEARCH, *GUIDED, f"--data_dir={data_dir}")
        printed = succeed(forked.run(*command, f"--workdir={tmp_path}/whole"))
        assert len(re.findall(r"\[ *\d/6\] (?:random|guided 1|final) ", printed)) == 6
        place = {"module": "cpnas_tf.search.trainer", "owner": "Trainer", "method": "train"}
        for call, done in ((2, 1), (4, 4)):
            kill = functools.partial(forked.signal_self, signal.SIGKILL, call=call, **place)
            outcome = forked.run(*command, f"--workdir={tmp_path}/other", before=kill)
            assert outcome.code == -signal.SIGKILL
            assert len(read_csv(tmp_path / "other" / "search.csv")) == done
        succeed(forked.run(*command, f"--workdir={tmp_path}/other"))
        check_equal_searches(tmp_path / "other", tmp_path / "whole")
        rows = read_csv(tmp_path / "whole" / "search.csv")
        genotype = Genotype.load(tmp_path / "whole" / "genotype.json")
        assert genotype.choices == tuple(rows[-1][name] for name in CHOICES)
        assert genotype.choices.count("none") == 2 * (14 - 8)
        plots, report = tmp_path / "plots", tmp_path / "report.html"
        workdir = f"--workdir={tmp_path}/whole"
        drawn = succeed(forked.run("plot", workdir, f"--output={plots}"))
        assert f"{plots}/search.png" in drawn.split()
        succeed(forked.run("report", workdir, f"--output={report}"))
        page = Page(report.read_bytes())
        assert "What the rounds gained" in page.headings
        assert "trainings6 of 6" in page.words

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

    def test_bnas_w1a32_samples_a_part_of_the_channels(self, tmp_path, data_dir):
        arguments = (*SEARCH_OF_3, "--config.method=bnas_w1a32", f"--data_dir={data_dir}")
        value = "--config.search.channels must be a multiple of partial = 4, received: 2"
        check_refused(tmp_path, "search", *arguments, f"--workdir={tmp_path}/run", value=value)
        arguments = (*arguments, "--config.search.channels=4")
        succeed(forked.run("search", *arguments, f"--workdir={tmp_path}/run"))
        succeed(
            forked.run(
                *("search", *arguments, "--config.search.partial=1"), f"--workdir={tmp_path}/whole"
            )
        )
        rows = read_csv(tmp_path / "run" / "search.csv")
        assert all(row["z"] == row["child_accuracy"] for row in rows)
        assert rows != read_csv(tmp_path / "whole" / "search.csv")

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
            (
                "--config.method=guided --config.guided.finalists=9",
                "5 trainings before, received: 9",
            ),
            ("--config.method=guided --config.guided.first=2", "the model needs, received: 2"),
        ],
    )
    def test_what_is_refused(self, tmp_path, data_dir, argument, value):
        methods = (*GUIDED, *PC_DARTS)  # the last --config.method= counts
        arguments = (*SEARCH, *methods, *argument.split(), f"--workdir={tmp_path}/run")
        check_refused(tmp_path, "search", *arguments, f"--data_dir={data_dir}", value=value)


def without_network():
    """No proxy listens there."""
    os.environ.update(dict.fromkeys(["http_proxy", "https_proxy"], "http://127.0.0.1:9"))


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

    def test_guided(self, tmp_path, data_dir):
        arguments = (*SEARCH, *GUIDED, f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
        lines = succeed(forked.run("search", *arguments, "--dry_run")).splitlines()
        assert lines[4].split() == ["total", "6", str((3 + 2 + 2) * 64)]
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


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--config.data.name=imagenet", "'imagenet'"),
        ("--config.data.split=validation", "'validation'"),
        ("--config.split.train_images=1438", "1438"),
        ("--config.split.validation_images=1374", "1374"),
        ("--config.split.validation_images=0", "validation_images must be a whole number >= 1"),
        ("--config.split.train_images=31", "31 images"),
        ("--config.search.batch_size=65", "65"),
        ("--config.search.batch_size=0", "0"),
        ("--config.search.batch_size=-1", "-1"),
        ("--config.search.cells=0", "cells must be a whole number >= 1, received: 0"),
        ("--config.search.channels=-2", "-2"),
        ("--config.search.rounds=0", "rounds must be a whole number >= 1, received: 0"),
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
def test_values_that_are_refused(tmp_path, data_dir, argument, value):
    valid = (*SEARCH, f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
    check_refused(tmp_path, "search", *valid, argument, value=value)


def test_a_search_that_diverges(tmp_path, data_dir):
    arguments = (*SEARCH_OF_3, "--config.search.learning_rate=1e30", f"--workdir={tmp_path}")
    line = refusal("search", *arguments, f"--data_dir={data_dir}")
    assert re.search("is (nan|inf)|not finite", line)
    assert "learning_rate" in line
    assert not (tmp_path / "genotype.json").exists()


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
