"""Commands that are stopped or killed, and started again."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys

import forked
import pytest
from commands import (
    PROGRESS,
    SEARCH_OF_3,
    TRAIN,
    TUNER,
    check_equal_searches,
    check_equal_trainings,
    check_refused,
    read_csv,
    snapshot,
    succeed,
)
from forked import ROOT


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
            module="cpnas_tf.export",
            owner="bundle",
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


class TestCheckpoints:
    """Checkpoints that are broken."""

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
