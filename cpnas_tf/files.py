"""Paths as users write them; files that are whole or absent: atomic writes, locks.

Imports no TensorFlow.
"""

import contextlib
import csv
import ctypes
import errno
import fcntl
import fnmatch
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

_HERE, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def local_path(path: str | os.PathLike[str]) -> str:
    """The path that a user means: `~` is the home folder.

    Raises:
        ValueError: if no file can have this path: a URL, a name that is too long or not UTF-8, or
            `~` where no home folder is known.
    """
    path = os.path.expanduser(os.fsdecode(path))
    check_utf8(path)
    if _URL.match(path):
        raise ValueError(f"{path} is a URL: a path in this machine's file system is needed")
    if path == "~" or path.startswith("~/"):
        raise ValueError(f"there is no home folder for {path}: set HOME, or write the path in full")
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            raise ValueError(f"{error.strerror}: {path[:40]!r}...") from None
    return path


def check_utf8(path: str) -> None:
    """Refuses a path that TensorFlow and JSON cannot hold.

    Raises:
        ValueError: if it is not UTF-8.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name of {os.fsencode(path)!r} is not UTF-8: rename it") from None


def write_atomically(path: str | os.PathLike[str], data: str | bytes) -> None:
    """Writes text or bytes so that `path` holds the old content or the new, never a part of it.

    Raises:
        OSError: if the folder cannot be written (a full disk included), or `path` is a folder, a
            device or a pipe; `path` is then untouched.
    """
    path = os.fspath(path)
    if os.path.exists(path) and not os.path.isfile(path):  # not /dev/null, say
        raise OSError(errno.EEXIST, "this is no regular file", path)
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
    old folder or the new one, and a folder with the suffix `.partial` beside it, which the next
    call clears. Where the file system cannot exchange two folders, `folder` is missing for an
    instant; the old one, which a process that is killed then leaves in `.partial/old`, is put back
    by the next call.

    Args:
        folder: the folder; of a link its target.

    Raises:
        ValueError: if the folder cannot be written, another process replaces it, or the folder
            beside it holds what is someone else's in the place of ours.
    """
    folder = os.path.realpath(folder)
    partial = f"{folder}.partial"
    new, old, lock = (os.path.join(partial, name) for name in ("new", "old", ".lock"))
    if not os.path.lexists(lock) and any(map(os.path.lexists, (new, old))):
        raise ValueError(f"{partial} is in the way, which no export left: move it")
    with exclusive(partial):
        try:
            _settle(folder, new=new, old=old)
            os.mkdir(new)
            yield new
            _sync(new)
            if not os.path.lexists(folder):
                os.rename(new, folder)
            elif not _exchange(new, folder):
                os.rename(folder, old)
                os.rename(new, folder)
        finally:
            _settle(folder, new=new, old=old)
            remove(lock)
            with contextlib.suppress(OSError):  # holds what is someone else's
                os.rmdir(partial)


def _settle(folder, *, new, old):
    """Removes what is left of replacing a folder; puts the old one back if nothing replaced it."""
    remove(new)
    if os.path.lexists(old):
        os.rename(old, new if os.path.lexists(folder) else folder)
        remove(new)


def _sync(folder):
    """Has all that is in a folder on the disk, before the folder takes another one's place."""
    for below, _, names in os.walk(folder):
        for path in (os.path.join(below, name) for name in names):
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    os.fsync(file.fileno())


def _exchange(one, other):
    """Exchanges two paths at once; returns whether the system can do that."""
    try:
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # not Linux
        return False
    paths = os.fsencode(one), os.fsencode(other)
    return exchange(_HERE, paths[0], _HERE, paths[1], _RENAME_EXCHANGE) == 0


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes `value` as indented JSON, atomically.

    Raises:
        ValueError: if a number in it is not finite, for which JSON has no name.
        OSError: see `write_atomically`.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"cannot write {os.fspath(path)} as JSON: {error}") from error
    write_atomically(path, text + "\n")


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


def read_text(path: str | os.PathLike[str]) -> str:
    """Reads a text file.

    Raises:
        ValueError: if it is not UTF-8, or no regular file: a pipe might never end, nor begin.
        OSError: if it cannot be read.
    """
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise ValueError("this is no regular file")
    with open(path, encoding="utf-8") as file:
        return file.read()


def read_json(path: str | os.PathLike[str]) -> Any:
    """Reads a JSON file that a command wrote.

    Raises:
        ValueError: naming the file, if it is missing or broken.
    """
    try:
        return json.loads(read_text(path))
    except FileNotFoundError:
        raise ValueError(f"file not found: {path}") from None
    except (OSError, ValueError, RecursionError) as error:
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


def find(
    folder: str | os.PathLike[str],
    name: str,
    *,
    links: bool = False,
    enter: Callable[[str], bool] = lambda below: True,
) -> Iterator[str]:
    """Finds what is in a folder under a name; never looks behind a link.

    Args:
        folder: where to look; a name in it is never a pattern.
        name: a path below the folder, each part a pattern of `fnmatch`.
        links: whether to give a link that has the place of a folder in `name`.
        enter: function of a folder below; whether to look there.

    Yields:
        The paths, in order.
    """
    first, _, rest = name.partition("/")
    try:
        with os.scandir(folder) as entries:
            fitting = [entry for entry in entries if fnmatch.fnmatchcase(entry.name, first)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in sorted(fitting, key=lambda entry: entry.name):
        if not rest or (links and entry.is_symlink()):
            yield entry.path
        elif entry.is_dir(follow_symlinks=False) and enter(entry.path):
            yield from find(entry.path, rest, links=links, enter=enter)


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
