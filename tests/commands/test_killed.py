"""A search and a training killed in compute and in the middle of writes end the same."""

import fcntl
import functools
import json
import math
import os
import pathlib
import random
import signal
import tempfile
import threading
import time

import forked
import pytest
import tensorflow as tf
from commands import (
    SEARCH_OF_3,
    TRAIN,
    check_equal_searches,
    check_equal_trainings,
    read_json,
    succeed,
)

from cpnas_tf.runs.checkpoints import Checkpoints
from cpnas_tf.training import callback

KINDS = ("compute", "file", "checkpoint")
RESULTS = ("genotype.json", "metrics.json")  # of a search, of a training


def is_half_written(folder):
    """Whether a killed run has left a part of a file."""
    return any(folder.rglob("*.partial"))


def kill_after(clock, kind, limit):
    """Kills the process after so many seconds on the CPU, or in the middle of a write.

    Time on the CPU, since the clock on the wall depends on what else the machine does.

    Args:
        clock: file in which the process notes its seconds and how many writes of each kind it has
            begun.
        kind: "compute", or of which writes: "file" or "checkpoint"; None for none.
        limit: the seconds, or the number of the write.

    Returns:
        A function to be called with the kind in the middle of each write.
    """
    done = dict.fromkeys(KINDS, 0)

    def watch():
        while kind != "compute" or done["compute"] < limit:
            done["compute"] = time.process_time()
            note = clock.with_suffix(".new")  # whole, also if the process ends meanwhile
            note.write_text(json.dumps(done))
            note.replace(clock)
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    def amid_a_write(written):
        done[written] += 1
        if (written, done[written]) == (kind, limit):
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return amid_a_write


def one_of_each(number, _):
    """Where to kill a run first, second and third: in what, and after which share of all of it."""
    return (("compute", 0.6), ("file", 0.2), ("checkpoint", 0.2))[number]


def at_random(number, generator):
    """The same, for any number of kills."""
    kind = KINDS[number % 3]
    return kind, generator.uniform(0.3, 1.1) if kind == "compute" else generator.random()


def kill_again_and_again(run, clock, kills, instant):
    """Runs a command once in peace, and then until it was killed so often.

    A run that finished before its time starts again, in a new folder, and so does one that was
    killed when its result was there.

    Args:
        run: function of a folder and of a `kind` and a `limit`, as of `kill_after`, that gives the
            `forked.Outcome`.
        clock: the file where a run notes what it has done; the folders lie beside it.
        kills: how often.
        instant: function of the number of kills before and of a random generator, that gives the
            kind and the share.

    Returns:
        The folders of finished runs, the first one's that was never killed.
    """
    folders = [clock.parent / "whole", clock.parent / "0"]
    succeed(run(folders[0]))
    done = json.loads(clock.read_text())
    generator = random.Random(0)
    killed = 0
    while killed < kills:
        kind, share = instant(killed, generator)
        limit = share * done[kind]
        outcome = run(folders[-1], kind, limit if kind == "compute" else math.ceil(limit))
        if outcome.code == -signal.SIGKILL:
            killed += 1
            assert is_half_written(folders[-1]) or kind == "compute"
        else:
            succeed(outcome)
        if any((folders[-1] / name).exists() for name in RESULTS):
            folders.append(clock.parent / str(len(folders) - 1))
    succeed(run(folders[-1]))
    assert not any(map(is_half_written, folders))
    return folders


def killed_after(clock, kind, limit):
    """Kills a run after a time, or when half of a file or of one of a checkpoint is written."""
    amid_a_write = kill_after(clock, kind, limit)
    prepare, sync = Checkpoints.__init__, os.fsync
    callback._SAVE_SECONDS = 0.5  # amid the short epochs, too

    def write_in_halves(write, path):
        path = path.numpy().decode()
        with tempfile.TemporaryDirectory() as folder:
            write(tf.constant(os.path.join(folder, os.path.basename(path))))
            for name in sorted(os.listdir(folder)):
                content = pathlib.Path(folder, name).read_bytes()
                with open(os.path.join(os.path.dirname(path), name), "wb", buffering=0) as file:
                    file.write(content[: len(content) // 2])
                    amid_a_write("checkpoint")
                    file.write(content[len(content) // 2 :])

    def prepare_to_write_in_halves(self, *args, **parts):
        prepare(self, *args, **parts)
        self._write = functools.partial(write_in_halves, self._write)

    def sync_in_halves(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_WRONLY:
            with open(f"/proc/self/fd/{descriptor}", "rb") as file:
                content = file.read()
            os.truncate(descriptor, len(content) // 2)
            amid_a_write("file")
            os.pwrite(descriptor, content, 0)
        sync(descriptor)

    Checkpoints.__init__ = prepare_to_write_in_halves
    os.fsync = sync_in_halves


EACH = pytest.mark.parametrize(
    ("kills", "instant"),
    [
        pytest.param(3, one_of_each, id="3"),
        pytest.param(20, at_random, id="20", marks=pytest.mark.soak),
    ],
)


@EACH
def test_search(runs, tmp_path, data_dir, kills, instant):
    clock = tmp_path / "done"

    def search(folder, kind=None, limit=None):
        arguments = (*SEARCH_OF_3, f"--workdir={folder}", f"--data_dir={data_dir}")
        watched = functools.partial(killed_after, clock, kind, limit)
        return forked.run("search", *arguments, before=watched)

    for folder in kill_again_and_again(search, clock, kills, instant):
        check_equal_searches(folder, runs / "search")


@EACH
def test_train(tmp_path, data_dir, genotype, kills, instant):
    """A child of residual units with its parent as teacher, trained by Adam."""
    clock, teacher = tmp_path / "done", tmp_path / "teacher"
    given = (*TRAIN, f"--genotype={genotype}", f"--data_dir={data_dir}")
    succeed(forked.run("train", *given, "--precision=parent", f"--workdir={teacher}"))

    def train(folder, kind=None, limit=None):
        arguments = (
            *(*given, "--config.training.epochs=4", f"--teacher={teacher}"),
            f"--workdir={folder}",
            "--verbosity=-2",  # Keras would warn that to save takes longer than such a step
        )
        watched = functools.partial(killed_after, clock, kind, limit)
        return forked.run("train", *arguments, before=watched)

    whole, *trainings = kill_again_and_again(train, clock, kills, instant)
    config = read_json(whole / "config.json")["config"]
    assert (config["network"]["unit"], config["training"]["optimizer"]) == ("residual", "adam")
    for folder in trainings:
        check_equal_trainings(folder, whole)
