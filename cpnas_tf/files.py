"""Files that are whole or absent: atomic writes, folders replaced at once, locks.

Imports no TensorFlow.
"""

import contextlib
import csv
import fcntl
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def write_atomically(path: str | os.PathLike[str], data: str | bytes) -> None:
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
def replaced(folder: str | os.PathLike[str]) -> Iterator[str]:
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
                remove(left)
            os.mkdir(new)
            yield new
            with contextlib.suppress(FileNotFoundError):
                os.rename(folder, old)
            os.rename(new, folder)
        finally:
            for left in (new, old, lock):
                remove(left)
            with contextlib.suppress(OSError):  # holds what is someone else's
                os.rmdir(partial)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")


def write_csv(
    path: str | os.PathLike[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: Sequence[str] | None = None,
) -> None:
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


def read_json(path: str | os.PathLike[str]) -> Any:
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


@contextlib.contextmanager
def exclusive(folder: str | os.PathLike[str], *, wait: bool = False) -> Iterator[None]:
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


def remove(path: str | os.PathLike[str]) -> None:
    """Removes a file, a link or a folder with all that is in it; nothing where nothing is."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


@contextlib.contextmanager
def plain_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """Gives a path of a file that TensorFlow takes for no pattern.

    TensorFlow looks for a checkpoint's files, those of a SavedModel included, with the path as a
    pattern: in a folder `lr=[0.1]` it would find none. For such a path this is one through a link.

    Args:
        path: of the file, or the prefix of the files of a checkpoint; its name has no pattern.
    """
    folder, name = os.path.split(os.path.abspath(path))
    if not set(folder) & set("*?[\\"):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory() as own:
        link = os.path.join(own, "link")
        os.symlink(folder, link)
        yield os.path.join(link, name)
