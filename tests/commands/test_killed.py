"""A search and a training killed at 20 random instants, mid-write included, end the same."""

import fcntl
import functools
import math
import os
import pathlib
import random
import signal
import tempfile
import threading
import time

import forked
import tensorflow as tf
from commands import SEARCH_OF_3, TRAIN, check_equal_searches, check_equal_trainings, succeed

from cpnas_tf.runs.checkpoints import Checkpoints
from cpnas_tf.training import callback


def is_half_written(folder):
    """Whether a killed run has left a part of a file."""
    return any(folder.rglob("*.partial"))


def kill_after(clock, limit, writes):
    """Kills the process after so many seconds on the CPU, or in the middle of a write.

    Time on the CPU, since the clock on the wall depends on what else the machine does.

    Args:
        clock: file in which the process notes its seconds and how many writes it has begun.
        limit: the seconds.
        writes: the number of the write.

    Returns:
        A function to be called in the middle of each write.
    """
    begun = 0

    def watch():
        while time.process_time() < limit:
            note = clock.with_suffix(".new")  # whole, also if the process ends meanwhile
            note.write_text(f"{time.process_time()} {begun}")
            note.replace(clock)
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    def amid_a_write():
        nonlocal begun
        begun += 1
        if begun == writes:
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    return amid_a_write


def kill_at_20_random_instants(run, clock):
    """Runs a command once in peace, and then until it was killed 20 times, 10 of them in writes.

    A run that finished before its time starts again, in a new folder.

    Args:
        run: function of a folder, a `limit` of seconds and a number of `writes`, as of
            `kill_after`, that gives the `forked.Outcome`.
        clock: the file where a run notes both; the folders lie beside it.

    Returns:
        The folders of finished runs, the first one's that was never killed.
    """
    generator = random.Random(0)
    folders = [clock.parent / "whole", clock.parent / "0"]
    succeed(run(folders[0]))
    seconds, writes = map(float, clock.read_text().split())
    kills = 0
    while kills < 20:
        amid_a_write = kills % 2 == 1
        if amid_a_write:
            outcome = run(folders[-1], writes=generator.randint(1, int(writes)))
        else:
            outcome = run(folders[-1], limit=generator.uniform(0.3, 1.1) * seconds)
        if outcome.code == -signal.SIGKILL:
            kills += 1
            assert is_half_written(folders[-1]) or not amid_a_write
        else:
            succeed(outcome)
            folders.append(clock.parent / str(len(folders) - 1))
    succeed(run(folders[-1]))
    assert not any(map(is_half_written, folders))
    return folders


def killed_after(clock, limit, writes):
    """Kills a run after a time, or when half of a file is written, a checkpoint's included."""
    amid_a_write = kill_after(clock, limit, writes)
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
                    amid_a_write()
                    file.write(content[len(content) // 2 :])

    def prepare_to_write_in_halves(self, *args, **parts):
        prepare(self, *args, **parts)
        self._write = functools.partial(write_in_halves, self._write)

    def sync_in_halves(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_WRONLY:
            with open(f"/proc/self/fd/{descriptor}", "rb") as file:
                content = file.read()
            os.truncate(descriptor, len(content) // 2)
            amid_a_write()
            os.pwrite(descriptor, content, 0)
        sync(descriptor)

    Checkpoints.__init__ = prepare_to_write_in_halves
    os.fsync = sync_in_halves


def test_search_killed_at_20_random_instants(tmp_path, data_dir):
    clock = tmp_path / "seconds"

    def search(folder, limit=math.inf, writes=None):
        arguments = (*SEARCH_OF_3, f"--workdir={folder}", f"--data_dir={data_dir}")
        watched = functools.partial(killed_after, clock, limit, writes)
        return forked.run("search", *arguments, before=watched)

    usual = ("search", *SEARCH_OF_3, f"--workdir={tmp_path}/usual", f"--data_dir={data_dir}")
    succeed(forked.run(*usual))
    for folder in kill_at_20_random_instants(search, clock):
        check_equal_searches(folder, tmp_path / "usual")


def test_train_killed_at_20_random_instants(tmp_path, data_dir, genotype):
    clock = tmp_path / "seconds"

    def train(folder, limit=math.inf, writes=None):
        arguments = (
            *(*TRAIN, "--config.training.epochs=4", f"--genotype={genotype}"),
            *(f"--workdir={folder}", f"--data_dir={data_dir}"),
            "--verbosity=-2",  # Keras would warn that to save takes longer than such a step
        )
        watched = functools.partial(killed_after, clock, limit, writes)
        return forked.run("train", *arguments, before=watched)

    whole, *trainings = kill_at_20_random_instants(train, clock)
    for folder in trainings:
        check_equal_trainings(folder, whole)
