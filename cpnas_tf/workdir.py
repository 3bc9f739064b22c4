"""The files of a run: written atomically, owned by one process, never mixed with another run's.

Imports no TensorFlow.
"""

import contextlib
import csv
import errno
import fcntl
import glob
import io
import json
import os
import re
import shutil

# What TensorFlow puts before and around an error's message.
_TENSORFLOW = re.compile(
    r"^Graph execution error:|^Detected at node.*|^ +File .*|^<stack traces unavailable>"
    r"|^\d+ root error.*|\[\[\{\{.*?\}\}\]\]|\{\{.*?\}\}|\[Op:.*",
    re.MULTILINE,
)


def first_line(error):
    """What an error says, in one line, without the graph nodes that TensorFlow names."""
    lines = _TENSORFLOW.sub("", str(error)).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def write_atomically(path, data):
    """Writes text or bytes so that `path` holds the old content or the new, never a part of it.

    Raises:
        OSError: if the folder cannot be written (a full disk included); `path` is then untouched.
    """
    path = os.fspath(path)
    if isinstance(data, str):
        data = data.encode()
    partial = f"{path}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:  # names the partial file, which nobody asked for
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(partial)


@contextlib.contextmanager
def replaced(folder):
    """Gives an empty folder that takes the place of `folder` at the end of the block.

    If the block ends with an error, `folder` stays as it is. A process that is killed leaves the
    old folder, the new one or none, and a folder with the suffix `.partial` beside it, which the
    next call clears.

    Raises:
        ValueError: if the folder cannot be written or another process replaces it.
    """
    partial = f"{folder}.partial"
    new, old, lock = (os.path.join(partial, name) for name in ("new", "old", ".lock"))
    with exclusive(partial):
        try:
            for left in (new, old):
                _remove(left)
            os.mkdir(new)
            yield new
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder, old)
            os.rename(new, folder)
        finally:
            for left in (new, old, lock):
                _remove(left)
            with contextlib.suppress(OSError):  # holds what is someone else's
                os.rmdir(partial)


def write_json(path, value):
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def write_csv(path, rows, *, columns=None):
    """Writes dicts as CSV, atomically.

    Args:
        path: the file.
        rows: dicts with the same keys.
        columns: the keys in order, by default those of the first row.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, file.getvalue())


def read_json(path):
    """Reads a JSON file that a command wrote.

    Raises:
        ValueError: naming the file, if it is missing or broken.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        raise ValueError(f"file not found: {path}") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def claim(workdir, run, *, result, written, overwrite=False):
    """Takes a folder for one run and records in its `config.json` what the run is.

    The call itself refuses all that can be seen without writing, the returned context manager then
    takes the folder. A folder that holds the same run unfinished is taken as it is, so that the run
    goes on. A run that ends before it has written anything is forgotten.

    Args:
        workdir: the folder; made if it is not there.
        run: what the run is, as JSON. A run with another one is a different run, but for what
            stands under the keys "data_dir" and "version".
        result: the name of the file that a finished run has; None if a finished run may go on.
        written: the names of all that the run writes beside `config.json`.
        overwrite: whether to remove a finished or a different run first.

    Raises:
        ValueError: if the folder is a file, cannot be written, is in use by another process, or,
            without `overwrite`, holds a finished or a different run.
    """
    _check_folder(workdir)
    _holds_another(workdir, run, result, overwrite)
    return _claimed(workdir, run, result, written, overwrite)


@contextlib.contextmanager
def _claimed(workdir, run, result, written, overwrite):
    with exclusive(workdir):
        config = os.path.join(workdir, "config.json")
        if _holds_another(workdir, run, result, overwrite):
            for name in (*written, "config.json"):
                _remove(os.path.join(workdir, name))
        _remove_partials(workdir)
        write_json(config, run)
        try:
            yield
        finally:
            if not any(os.path.exists(os.path.join(workdir, name)) for name in written):
                os.unlink(config)


def _check_folder(folder):
    """Refuses a folder that cannot be made or written, as far as its permissions tell."""
    existing = os.path.abspath(folder)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise ValueError(f"{folder} is or lies in a file, a folder is needed")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write in {folder}: {os.strerror(errno.EACCES)}")


def _holds_another(workdir, run, result, overwrite):
    """Whether a folder holds a finished or a different run, which `overwrite` allows to remove."""
    config = os.path.join(workdir, "config.json")
    finished = result and os.path.exists(os.path.join(workdir, result))
    difference = _difference(read_json(config), run) if os.path.exists(config) else None
    if difference and not overwrite:
        raise ValueError(
            f"{workdir} holds a different run ({difference}): "
            "choose another --workdir, or start afresh in this one with --overwrite"
        )
    if finished and not overwrite:
        raise ValueError(
            f"{workdir} holds a finished run ({result}): "
            "choose another --workdir, or replace it with --overwrite"
        )
    return bool(finished or difference)


@contextlib.contextmanager
def exclusive(folder, *, wait=False):
    """Makes a folder, and keeps other processes out of it until the end of the block.

    Args:
        folder: the folder.
        wait: whether to wait for a process that uses it, instead of raising an error.

    Raises:
        ValueError: if the folder is a file, cannot be written or is in use.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        lock = open(os.path.join(folder, ".lock"), "a")  # noqa: SIM115
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{folder} is or lies in a file, a folder is needed") from None
    except OSError as error:
        raise ValueError(f"cannot write in {folder}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(f"{folder} is in use by another process") from None
        yield


def _difference(old, new, name=""):
    """The first difference of two JSON values in words, or None; where data lies does not count."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new} - {"data_dir", "version"})
        found = (_difference(old.get(key), new.get(key), f"{name}.{key}") for key in keys)
        return next((difference for difference in found if difference), None)
    return None if old == new else f"{name.lstrip('.')}: {old!r} there, {new!r} here"


def _remove_partials(folder):
    """Removes what a process that was killed while it wrote has left."""
    for partial in glob.glob(os.path.join(glob.escape(folder), "**", "*.partial"), recursive=True):
        _remove(partial)


def _remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
