"""Folders that commands refuse to work in, and results that they keep."""

import fcntl
import json

import pytest
from commands import (
    SEARCH_OF_3,
    TRAIN,
    check_refused,
    forget_an_image,
    refusal,
    snapshot,
)


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


@pytest.mark.parametrize("name", ["export", "plot"])
@pytest.mark.parametrize("output", ["file", "file/below", "/proc/below"])
def test_an_output_that_is_no_folder(runs, tmp_path, name, output):
    workdir = runs / ("train" if name == "export" else "search")
    (tmp_path / "file").write_text("mine")
    path = tmp_path / output
    check_refused(tmp_path, name, f"--workdir={workdir}", f"--output={path}", value=str(path))


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
