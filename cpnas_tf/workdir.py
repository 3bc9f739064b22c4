"""Files a run leaves behind: written atomically, owned by one process, never mixed with another run.

Imports no TensorFlow.
"""

import contextlib
import fcntl
import json
import os
import tempfile


def write_atomically(path, data):
    """Writes text or bytes so that `path` holds the old content or the new, never a part of it.

    Raises:
        OSError: if the folder cannot be written (a full disk included); `path` is then untouched.
    """
    path = os.fspath(path)
    if isinstance(data, str):
        data = data.encode()
    descriptor, partial = tempfile.mkstemp(dir=os.path.dirname(path) or ".", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def write_json(path, value):
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2) + "\n")
