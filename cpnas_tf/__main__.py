"""Searches, trains and ships 1-bit convolutional networks.

cpnas COMMAND --help    what a command does and takes
cpnas --version
"""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
import importlib
import sys

import cpnas_tf
from cpnas_tf.cli import app
from cpnas_tf.commands import COMMANDS


def main() -> None:
    """Runs the command that the first argument names, with the arguments behind it."""
    name, *arguments = sys.argv[1:] or [""]
    if name in COMMANDS:
        command = importlib.import_module(f"cpnas_tf.commands.{name}")
        sys.argv = [f"cpnas {name}", *arguments]
        app.run(command.main, command.define_flags)
    app.open_standard_streams()
    if name in ("-h", "--help"):
        app.output(_help())
    elif name == "--version":
        app.output(f"cpnas {cpnas_tf.__version__}")
    else:
        problem = f"unknown command {name!r}" if name else "a command is needed"
        app.fail(f"error: {problem}: there are {', '.join(COMMANDS)}; see cpnas --help")


def _help():
    """The docstring and the first line of each command's."""
    modules = {name: importlib.import_module(f"cpnas_tf.commands.{name}") for name in COMMANDS}
    lines = (f"  {name:<10}{module.__doc__.splitlines()[0]}" for name, module in modules.items())
    return "\n".join([__doc__, "commands:", *lines])


if __name__ == "__main__":
    main()
