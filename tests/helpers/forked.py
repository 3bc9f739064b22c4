"""Runs a command of bin/ in a fork of a process that has imported TensorFlow already.

That takes a tenth of a second, where a process of its own takes many seconds to import it.
"""

import importlib
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import runpy
import signal
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
MODULES = (
    "ablation.report",
    "export",
    "networks.costs",
    "search",
    "training",
)


class Outcome(NamedTuple):
    """How a command ended: its exit code (-n if signal n killed it), and what it printed."""

    code: int
    stdout: str
    stderr: str


def prepare():
    """Starts the process to be forked, and returns while it imports TensorFlow."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([f"cpnas_tf.{module}" for module in MODULES])
    multiprocessing.forkserver.ensure_running()
    return context


def run(name, *arguments, before=None, timeout=300):
    """Runs `bin/{name}.py` with these arguments in the repository and returns its `Outcome`.

    Args:
        name: the command.
        arguments: of the command line.
        before: a function to call in the process first; must be picklable.
        timeout: in seconds.
    """
    context = prepare()
    with tempfile.TemporaryDirectory() as folder:
        outputs = [os.path.join(folder, stream) for stream in ("stdout", "stderr")]
        process = context.Process(
            target=_run, args=(f"bin/{name}.py", list(map(str, arguments)), outputs, before)
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
        texts = [pathlib.Path(output).read_text(encoding="utf-8") for output in outputs]
        return Outcome(process.exitcode, *texts)


def _run(script, arguments, outputs, before):
    importlib.import_module("tensorflow").config.list_physical_devices()  # logs what it finds
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    for descriptor, output in enumerate(outputs, start=1):
        file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
    os.chdir(ROOT)
    if before is not None:
        before()
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def signal_self(number, *, module, owner, method, call):
    """Makes the process send itself a signal at the end of the n-th call of a class's method."""
    owner = getattr(importlib.import_module(module), owner)
    original, calls = getattr(owner, method), []

    def counted(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append(result)
        if len(calls) == call:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, method, counted)
