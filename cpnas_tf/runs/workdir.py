"""The files of a run: written atomically, owned by one process, never mixed with another run's.

Imports no TensorFlow.
"""

import contextlib
import errno
import glob
import os

from cpnas_tf.files import exclusive, read_json, remove, write_json
from cpnas_tf.runs import images

# What a run is does not depend on where its data lies, nor on the version that runs it.
PLACES = ("data_dir", "cwd", "version")


def claim(workdir, run, *, result, written, overwrite=False):
    """Takes a folder for one run and records in its `config.json` what the run is.

    The call itself refuses all that can be seen without writing, the returned context manager then
    takes the folder. A folder that holds the same run unfinished is taken as it is, so that the run
    goes on. A run that ends before it has written anything is forgotten.

    Args:
        workdir: the folder; made if it is not there.
        run: what the run is, as JSON. A run with another one is a different run, but for what
            stands under `PLACES`. Its images, under "images" as `images.record` gives them, are
            compared where both have them; they may be added until the folder is taken.
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
                remove(os.path.join(workdir, name))
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
    old = read_json(config) if os.path.exists(config) else run
    difference = _difference(_identity(old), _identity(run))
    other_images = None if difference else images.difference(old.get("images"), run.get("images"))
    if other_images and not overwrite:
        raise ValueError(
            f"{workdir} holds a run on other images ({other_images}): restore them, "
            "or start afresh with --overwrite"
        )
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
    return bool(finished or difference or other_images)


def _identity(run):
    """What makes a run another one if it is changed: all but its images and places."""
    if not isinstance(run, dict):
        return run
    return {name: value for name, value in run.items() if name not in ("images", *PLACES)}


def _difference(old, new, name=""):
    """The first difference of two JSON values in words, or None."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        found = (_difference(old.get(key), new.get(key), f"{name}.{key}") for key in keys)
        return next((difference for difference in found if difference), None)
    return None if old == new else f"{name.lstrip('.')}: {old!r} there, {new!r} here"


def _remove_partials(folder):
    """Removes what a process that was killed while it wrote has left."""
    for partial in glob.glob(os.path.join(glob.escape(folder), "**", "*.partial"), recursive=True):
        remove(partial)
