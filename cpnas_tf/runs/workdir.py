"""The folder of a run: one process at a time uses it, and it never mixes with other runs or files.

The record of a run, `config.json`, says what the run is and which names it writes. It is written
first. Nothing but these names is ever removed, and nothing behind a link.

Imports no TensorFlow.
"""

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cpnas_tf.files import exclusive, find, read_json, remove, write_json
from cpnas_tf.runs import images
from cpnas_tf.runs.progress import show

FORMAT = 2  # of a record; version 0.1 wrote none

_LOGS = "logs/*.cpnas_tf"
_NUMBERS = f"{'[0-9]' * 5}-{'[0-9]' * 9}"
_CHECKPOINTS = tuple(f"checkpoints/ckpt-{_NUMBERS}.{end}" for end in ("index", "data-*", "partial"))
# The names that a run of each command writes beside `config.json`, each part of a path a pattern.
# The first is the result, by which a run is known to be finished: it has to be removed first.
SEARCH = (
    *("genotype.json", "search.csv", _LOGS, *_CHECKPOINTS),
    *("tuner/oracle.json", "tuner/trial_*/trial.json"),
    *("tuner/state_*.npz", "states/state_*.npz"),  # of version 0.1
)
FRONT = ("front.csv", "genotype.json", "genotype_[0-9][0-9].json", "front.png", "front.svg")
TRAINING = (
    *("metrics.json", "evaluation.json", "confusion_matrix.png", "examples.png"),
    *("history.csv", _LOGS, *_CHECKPOINTS),
)
# What a search and a training of an ablation write, in a folder and under a lock of their own.
SEARCH_OF_ABLATION = ("search.json", *SEARCH, ".lock")
TRAINING_OF_ABLATION = ("run.json", *TRAINING, ".lock")
ABLATION = (
    *("table.json", "table.csv", "runs.csv"),
    *(f"runs/*/{name}" for name in TRAINING_OF_ABLATION),
    *(f"searches/*/{name}" for name in SEARCH_OF_ABLATION),
)
_BY_COMMAND = {"search": SEARCH, "train": TRAINING, "ablate": ABLATION}
# What an operating system puts into any folder, apart from hidden files.
_OF_THE_SYSTEM = ("Thumbs.db", "desktop.ini", "lost+found")
# What may differ in a run that is resumed: where its data lies, and what runs it.
PLACES = ("data_dir", "cwd", "version", "threads")


def claim(
    workdir: str | os.PathLike[str],
    run: dict[str, Any],
    *,
    result: str | None,
    written: Sequence[str],
    overwrite: bool = False,
) -> contextlib.AbstractContextManager[None]:
    """Takes a folder for one run and records in its `config.json` what the run is.

    The call refuses what can be refused without writing. The context manager that it returns takes
    the folder. A folder that holds the same run unfinished is taken as it is, so that the run
    continues. If a run ends before it has written anything, its record is removed.

    Files of others beside a run stay as they are. A new run refuses a folder that holds other
    files, hidden ones excepted.

    Args:
        workdir: the folder; made if it is not there.
        run: what the run is, as JSON. If it differs from the record that is there, in more than
            `PLACES`, the folder holds a different run. Its images, under "images" as
            `images.record` gives them, are compared where both have them; they may be added until
            the folder is taken.
        result: the name of the file that a finished run has; None if a finished run may be
            continued.
        written: the names of all that the run writes beside `config.json`, such as `SEARCH`: paths
            of files in the folder, each part a pattern of `fnmatch`.
        overwrite: whether to remove a finished or a different run first.

    Raises:
        ValueError: if the folder is a file, cannot be written, is in use by another process, holds
            files and no run, or, without `overwrite`, a finished or a different run.
    """
    _check_folder(workdir)
    _holds_another(workdir, run, result, written, overwrite)
    return _claimed(workdir, run, result, written, overwrite)


@contextlib.contextmanager
def _claimed(workdir, run, result, written, overwrite):
    with exclusive(workdir):
        if _holds_another(workdir, run, result, written, overwrite):
            _remove_run(workdir, read(workdir)["written"])
        elif _first_of(workdir, written):
            _tell_threads(read(workdir), run)
        clean(workdir, written)
        config = os.path.join(workdir, "config.json")
        write_json(config, {"format": FORMAT, **run, "written": written})
        try:
            yield
        finally:
            if not _first_of(workdir, written) and not _others(workdir):
                os.unlink(config)


def _tell_threads(old, new):
    """Says if a run continues with another number of threads: they sum in another order."""
    before, now = (run.get("threads") for run in (old, new))
    if before and now and before != now:
        show(f"threads: {before} before, {now} now: results may differ by rounding from here on")


@contextlib.contextmanager
def joined(
    workdir: str | os.PathLike[str], run: Mapping[str, Any], *, overwrite: bool = False
) -> Iterator[None]:
    """Takes part, as a worker, in a run whose chief claims the folder.

    Args:
        workdir, run: see `claim`.
        overwrite: whether the chief may replace the record that is there now.

    Raises:
        ValueError: if the run's images are others than the worker's.
    """
    old = None if overwrite else read(workdir)
    other_images = old and images.difference(old.get("images"), run.get("images"))
    if other_images:
        raise ValueError(
            f"{workdir} holds a run on other images ({other_images}): "
            "a worker must read the same images as its chief"
        )
    yield


def read(workdir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The record of a folder's run; None if the folder holds none.

    Returns:
        The contents of `config.json`, with "written" in a record of version 0.1, too.

    Raises:
        ValueError: if `config.json` cannot be read, or is of a newer format.
    """
    path = os.path.join(workdir, "config.json")
    record = read_json(path) if os.path.isfile(path) else None
    if not isinstance(record, dict):
        return None
    if "format" in record and _are_names(record.get("written")):
        check_format(record, path)
        return record
    command = {"version", "config", "data_dir"} <= record.keys() and record.get("command")
    return {**record, "written": _BY_COMMAND[command]} if command in _BY_COMMAND else None


def _are_names(value):
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def check_format(record: Any, path: str | os.PathLike[str]) -> None:
    """Refuses a record of a newer version.

    Args:
        record: a dict as it was read; without a format it is version 0.1's.
        path: its file.

    Raises:
        ValueError: naming the file.
    """
    number = record.get("format", 1)
    if number not in range(1, FORMAT + 1):
        raise ValueError(
            f"{path} has format {number!r}, this version of cpnas_tf reads formats 1 to {FORMAT}: "
            "upgrade cpnas_tf"
        )


def clean(folder: str | os.PathLike[str], written: Sequence[str]) -> None:
    """Removes what a process left that was killed while it wrote.

    The caller holds the folder's lock. A folder below that has a lock of its own may be in use by
    another process: it is left to the next one that holds that lock.

    Args:
        folder: of a run.
        written: the names that the run writes.
    """
    for name in ("config.json", *written):
        for path in list(_partials(folder, name)):
            remove(path)


def _partials(folder, name):
    """What is left of writing a name: the partial files of `write_atomically`, and own ones."""
    if name.endswith(".partial"):
        yield from find(folder, name, enter=_has_no_lock)
    for path in find(folder, f"{name}.*.partial", enter=_has_no_lock):
        if path.split(".")[-2].isdigit():
            yield path


def _has_no_lock(folder):
    return not os.path.exists(os.path.join(folder, ".lock"))


def _remove_run(workdir, written):
    """Removes what a run has written and the folders that are then empty, in the names' order.

    The record stays until the next one takes its place: a process that is killed meanwhile leaves
    the old run, unfinished.
    """
    with contextlib.ExitStack() as stack:
        for lock in _all_of(workdir, [name for name in written if name.endswith("/.lock")]):
            stack.enter_context(exclusive(os.path.dirname(lock)))
        for path in list(_all_of(workdir, written)):
            remove(path)
            with contextlib.suppress(OSError):  # holds more
                while not os.path.samefile(path := os.path.dirname(path), workdir):
                    os.rmdir(path)


def _all_of(workdir, written):
    """The paths that a run has written, and links that are in the place of its folders."""
    return itertools.chain.from_iterable(find(workdir, name, links=True) for name in written)


def _first_of(workdir, written):
    return next(_all_of(workdir, written), None)


def _others(workdir):
    """The names in a folder that keep it from being taken for a new run, in order."""
    partials = {os.path.basename(path) for path in _partials(workdir, "config.json")}
    own = {"config.json"} if read(workdir) else set()
    names = set(os.listdir(workdir)) if os.path.isdir(workdir) else set()
    names -= {*_OF_THE_SYSTEM, *partials, *own}
    return sorted(name for name in names if not name.startswith("."))


def _check_folder(folder):
    """Refuses a folder that cannot be made or written, as far as its permissions tell."""
    existing = os.path.abspath(folder)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing):
        raise ValueError(f"{folder} is or lies in a file, a folder is needed")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write in {folder}: {os.strerror(errno.EACCES)}")


def _holds_another(workdir, run, result, written, overwrite):
    """Whether a folder holds a finished or a different run. Without `overwrite` that is refused."""
    old = read(workdir)
    if old is None:
        _refuse_others(workdir, run.get("data_dir") or workdir)
        return False
    begun = _first_of(workdir, old["written"])
    finished = result and os.path.exists(os.path.join(workdir, result))
    difference = _difference(_identity(old), _identity(run)) if begun else None
    other_images = images.difference(old.get("images"), run.get("images")) if begun else None
    if other_images and not difference and not overwrite:
        raise ValueError(
            f"{workdir} holds a run on other images ({other_images}): restore them, "
            "or start afresh with overwrite=True"
        )
    if difference and not overwrite:
        raise ValueError(
            f"{workdir} holds a different run ({difference}): "
            "choose another workdir, or start afresh in this one with overwrite=True"
        )
    new = [name for name in written if name not in old["written"]]
    if occupied := _first_of(workdir, new):
        raise ValueError(
            f"{occupied} is not of the run in {workdir}, and would be written over: "
            "move it, or choose another workdir"
        )
    if finished and not overwrite:
        raise ValueError(
            f"{workdir} holds a finished run ({result}): "
            "choose another workdir, or replace it with overwrite=True"
        )
    return bool(finished or difference or other_images)


def _identity(run):
    """What two runs have to have in common to be the same: all but `PLACES` and the images."""
    about = ("format", "written", "images", *PLACES)
    return {name: value for name, value in run.items() if name not in about}


def _refuse_others(workdir, data_dir):
    """Refuses a folder without a run that holds more than the run's data."""
    data = os.path.relpath(data_dir, workdir).split(os.sep)[0]
    if names := [name for name in _others(workdir) if name != data]:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise ValueError(
            f"{workdir} is not empty and holds no run of cpnas_tf, but {names[0]}{more}: "
            "choose a new folder as workdir"
        )


def _difference(old, new, name=""):
    """The first difference of two JSON values in words, or None."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        found = (_difference(old.get(key), new.get(key), f"{name}.{key}") for key in keys)
        return next((difference for difference in found if difference), None)
    return None if old == new else f"{name.lstrip('.')}: {old!r} there, {new!r} here"
