"""What is made once for all tests, although xdist runs them in several processes."""

import fcntl


def made_once(folder, make):
    """Calls `make(folder)` in the process that comes first; the others wait until it is done.

    Returns:
        The folder, to be left as it is.
    """
    folder.mkdir(exist_ok=True)
    done = folder.with_suffix(".done")
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder
