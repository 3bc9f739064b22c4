"""A process that dies between two changes of the disk: every such instant, one after another.

A change is a file that is opened to be written, a write, a sync, a rename, a removal, a new folder,
and what TensorFlow's checkpoint writer does. At the n-th of them `Crash` is raised instead, and at
all that follow, as the dead change nothing: `finally` and `except` clean up nothing. A write that
crashes has written the first half.
"""

import builtins
import io
import itertools
import os
import pathlib

import tensorflow as tf

from cpnas_tf import files

_CHANGES = ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir")


class Crash(BaseException):
    """The process is dead."""


class _Dying:
    """Counts the changes, and is dead from the `last` on."""

    def __init__(self, last):
        self._last, self.changes = last, 0

    @property
    def is_dead(self):
        return self.changes >= self._last

    def change(self, half=lambda: None):
        was_dead = self.is_dead
        self.changes += 1
        if self.is_dead:
            if not was_dead:
                half()
            raise Crash


def crash_at(number, monkeypatch):
    """Has the `number`-th change and all after it raise `Crash`, for a `monkeypatch.context()`."""
    dying = _Dying(number)

    class File(io.FileIO):
        def write(self, data):
            dying.change(lambda: super(File, self).write(data[: len(data) // 2]))
            return super().write(data)

    def spied(change):
        def spy(*args, **options):
            dying.change()
            return change(*args, **options)

        return spy

    plain_open, write = builtins.open, tf.train.Checkpoint.write

    def spied_open(path, mode="r", *args, **options):
        if mode == "wb":
            dying.change()
            return File(path, "w")
        if set(mode) & set("wax+"):
            dying.change()
        return plain_open(path, mode, *args, **options)

    def write_a_half(self, path):
        path = path.numpy().decode()
        write(self, path)
        for file in pathlib.Path(path).parent.iterdir():
            content = file.read_bytes()
            file.write_bytes(content[: len(content) // 2])

    def spied_write(self, path):
        dying.change(lambda: write_a_half(self, path))
        return write(self, path)

    for name in _CHANGES:
        monkeypatch.setattr(os, name, spied(getattr(os, name)))
    monkeypatch.setattr(files, "_exchange", spied(files._exchange))
    monkeypatch.setattr(builtins, "open", spied_open)
    monkeypatch.setattr(tf.train.Checkpoint, "write", spied_write)
    return dying


def each_instant(monkeypatch, prepare, act):
    """Does the same in a fresh folder again and again, and dies one change later each time.

    Args:
        prepare: function of a number that makes a folder.
        act: function of that folder.

    Yields:
        The folder of each that died.
    """
    for number in itertools.count(1):
        folder = prepare(number)
        with monkeypatch.context() as patch:
            dying = crash_at(number, patch)
            try:
                act(folder)
            except Crash:
                assert dying.is_dead
        if not dying.is_dead:
            return
        yield folder
