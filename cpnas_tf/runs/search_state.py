"""The saved states of a search: numbered files, each whole or noticed as broken. No TensorFlow."""

import glob
import hashlib
import io
import json
import os

import numpy as np

from cpnas_tf.files import write_atomically

_KEPT = 2
_CHECKSUM_BYTES = hashlib.sha256().digest_size


def write(folder, number, *, record, arrays):
    """Writes state `number` atomically, then removes all but the last two.

    Args:
        folder: where the states are.
        number: of the state, higher than those before.
        record: what JSON can hold.
        arrays: numpy arrays by name.

    Raises:
        OSError: if the folder cannot be written (a full disk included); the states before are
            untouched.
    """
    file = io.BytesIO()
    np.savez(file, record=json.dumps(record), **arrays)
    content = file.getvalue()
    write_atomically(
        os.path.join(folder, f"state_{number:05d}.npz"), content + hashlib.sha256(content).digest()
    )
    for old in _paths(folder)[_KEPT:]:
        os.unlink(old)


def read_newest(folder):
    """Reads the newest state that is whole; says in one line of each newer one that it is not.

    Returns:
        `(record, arrays)` as they were written, or None if there is no state.

    Raises:
        ValueError: if states are there and none is whole.
    """
    paths = _paths(folder)
    for path in paths:
        try:
            arrays = _read(path)
        except (OSError, ValueError) as error:
            print(f"the saved state {path} is broken ({error}): trying the one before it")
            continue
        return json.loads(str(arrays.pop("record"))), arrays
    if paths:
        raise ValueError(f"no saved state in {folder} can be read: start afresh with --overwrite")
    return None


def _paths(folder):
    return sorted(glob.glob(os.path.join(glob.escape(folder), "state_*.npz")))[::-1]


def _read(path):
    """The arrays of a state; its checksum tells if a single bit of it is wrong or missing."""
    with open(path, "rb") as file:
        content = file.read()
    content, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if checksum != hashlib.sha256(content).digest():
        raise ValueError("its checksum is wrong")
    with np.load(io.BytesIO(content)) as arrays:
        return dict(arrays)
