"""Commands whose standard streams are closed, full, no longer read, or of few characters."""

import json
import os
import subprocess
import sys

import forked
import pytest
from commands import (
    FOUND,
    SEARCH_OF_3,
    TRAIN,
    check_equal_searches,
    check_equal_trainings,
)
from fake_search import run_search, write_log
from forked import ROOT


def shell(redirection, name, *arguments, **environment):
    """Runs a command in a process of its own, with a shell's redirection such as `>&-`."""
    script = f'"$0" "$@" {redirection}'
    command = ["bash", "-o", "pipefail", "-c", script, sys.executable, f"bin/{name}.py"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        timeout=600,
    )


@pytest.mark.parametrize(
    "redirection",
    ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full", "2> /dev/full", "| true", "| head -1"],
)
def test_a_command_that_writes_files_needs_no_standard_streams(tmp_path, redirection):
    write_log(tmp_path / "search.csv", run_search(rounds=1)[0])
    config = {"command": "search", "version": "0.1.0", "config": {}, "data_dir": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    report = tmp_path / "report.html"
    outcome = shell(redirection, "report", f"--workdir={tmp_path}", f"--output={report}")
    assert (outcome.returncode, outcome.stderr) == (0, b"")
    assert report.read_text(encoding="utf-8").rstrip().endswith("</html>")


@pytest.fixture
def quickstart(tmp_path):
    """The files of which `bin/quickstart.py` tells, which writes on standard output alone."""
    for name in ("search", "export", "train", "train_parent"):
        (tmp_path / name).mkdir()
    write_log(tmp_path / "search" / "search.csv", run_search(rounds=1)[0])
    exported = {"largest_difference": 0.0, "images_checked": 1}
    (tmp_path / "export" / "export.json").write_text(json.dumps(exported))
    result = {"accuracy": 0.5, "loss": 1.0, "examples": 2, "epoch": 3, "seconds": 4.0}
    for name in ("train", "train_parent"):
        for file in ("evaluation.json", "metrics.json"):
            (tmp_path / name / file).write_text(json.dumps(result))
    return tmp_path


def test_a_result_that_is_nowhere_else_must_be_written(quickstart):
    for arguments in (("quickstart", f"--folder={quickstart}"), ("train", "--help")):
        outcome = shell("> /dev/full", *arguments)
        assert outcome.returncode == 1
        line = b"error: cannot write on standard output: No space left on device\n"
        assert outcome.stderr == line


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_read_enough_ends_a_command_silently(quickstart, unbuffered):
    arguments = ("quickstart", f"--folder={quickstart}")
    outcome = shell("| true", *arguments, PYTHONUNBUFFERED=unbuffered)
    assert outcome.stderr == b""
    assert outcome.returncode in (0, 141)  # it may have written before its reader ended
    outcome = shell("| head -2", "train", "--help", PYTHONUNBUFFERED=unbuffered)
    assert outcome.stderr == b""
    assert len(outcome.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("redirection", "code"), [("", 1), (">&-", 1), ("2>&-", 1), ("2> /dev/full", 1)]
)
def test_a_refusal_without_standard_streams(tmp_path, redirection, code):
    outcome = shell(redirection, "report", f"--workdir={tmp_path}", f"--output={tmp_path}/report")
    assert outcome.returncode == code
    assert not outcome.stdout
    assert outcome.stderr.startswith(b"error: ") == ("2>" not in redirection)
    assert b"Traceback" not in outcome.stderr


def test_what_standard_output_cannot_encode_is_replaced(quickstart):
    folder = quickstart.rename(quickstart.parent / "caf\u00e9")
    outcome = shell("", "quickstart", f"--folder={folder}", PYTHONIOENCODING="ascii")
    assert (outcome.returncode, outcome.stderr) == (0, b"")
    assert b"caf?/plots" in outcome.stdout


@pytest.mark.parametrize(
    ("environment", "shown"),
    [({"PYTHONIOENCODING": "ascii"}, "caf?"), ({"PYTHONIOENCODING": "utf-8"}, "caf\u00e9")],
)
def test_a_locale_without_utf_8_names_files_alike(tmp_path, environment, shown):
    """Of letters beyond ASCII it would make others, which TensorFlow takes for no path."""
    locale = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    folder = tmp_path / "caf\u00e9"
    arguments = ("plot", "--genotype=darts", f"--output={folder}")
    outcome = shell("", *arguments, **locale, **environment)
    assert (outcome.returncode, outcome.stderr) == (0, b"")
    assert f"{tmp_path}/{shown}/" in outcome.stdout.decode()
    assert folder.is_dir()


def close_output():
    os.close(1)
    sys.stdout = None


def close_both():
    close_output()
    os.close(2)
    sys.stderr = None


def fill_output():
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def leave_output():
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


@pytest.mark.parametrize(
    ("name", "before"),
    [
        ("search", close_both),
        ("search", fill_output),
        ("train", close_output),
        ("train", leave_output),
    ],
)
def test_progress_that_cannot_be_shown_changes_nothing(runs, tmp_path, data_dir, name, before):
    arguments = SEARCH_OF_3 if name == "search" else (*TRAIN, f"--genotype={runs}/{FOUND}")
    folders = (f"--data_dir={data_dir}", f"--workdir={tmp_path}/run")
    outcome = forked.run(name, *arguments, *folders, before=before)
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, "", "")
    check_equal = check_equal_searches if name == "search" else check_equal_trainings
    check_equal(tmp_path / "run", runs / name)
