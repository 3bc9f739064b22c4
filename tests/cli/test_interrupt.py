"""Ctrl-C while a command loads."""

import ast
import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COMMANDS = [*sorted((ROOT / "bin").glob("*.py")), ROOT / "cpnas_tf" / "__main__.py"]


@pytest.mark.parametrize("path", COMMANDS, ids=[path.stem for path in COMMANDS])
def test_each_command_imports_it_first(path):
    docstring, first, *_ = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    assert ast.unparse(first) == "import cpnas_tf.cli.interrupt"


LOADS = "import cpnas_tf.cli.interrupt, os, signal; os.kill(os.getpid(), signal.SIGINT); print(5)"


@pytest.mark.parametrize(
    ("before", "code", "stdout"),
    [
        ("signal.default_int_handler", -signal.SIGINT, ""),
        ("signal.SIG_IGN", 0, "5\n"),  # as in a shell's background
    ],
)
def test_it_ends_the_command_unless_it_is_ignored(before, code, stdout):
    process = subprocess.run(
        [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, {before}); {LOADS}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (process.returncode, process.stdout, process.stderr) == (code, stdout, "")
