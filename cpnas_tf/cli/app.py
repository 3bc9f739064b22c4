"""What all commands share: flags, the sections of a config, and errors of one line."""

import atexit
import contextlib
import functools
import logging as python_logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from cpnas_tf.catalogue import REFERENCE_NETWORKS
from cpnas_tf.cli import configs
from cpnas_tf.cli.config import ConfigParser
from cpnas_tf.errors import explain, message
from cpnas_tf.files import local_path
from cpnas_tf.runs import progress
from cpnas_tf.settings import SECTIONS

# Before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_HOME"] = os.devnull  # holds no keras.json, of which dtype and layout would be

FLAGS = flags.FLAGS
# What TensorFlow 2.21 logs on import whatever TF_CPP_MIN_LOG_LEVEL says; and that there is no CUDA.
_NOISE = re.compile(r"WARNING: All log messages before absl|[IW]\d{4} |E\d{4} .*cuInit.*\(303\)")


def define_config(
    recipe: str,
    sections: Sequence[str],
    *,
    optional: Sequence[str] = (),
    names: Mapping[str, Sequence[str]] = SECTIONS,
    required: bool = True,
) -> None:
    """Defines --config.

    Args:
        recipe: whose configs have names: "search", "train" or "ablate".
        sections: the sections that a config has.
        optional: sections that it may have as well.
        names: the settings in each section.
        required: whether the command needs it.
    """
    config_flags.DEFINE_config_file(
        "config",
        None,
        f"A config: {', '.join(configs.names(recipe))}, or a file; with :VARIANT behind it where "
        "there are several. --config.SECTION.KEY=VALUE replaces one of its values.",
        lock_config=True,
    )
    FLAGS["config"].parser = ConfigParser(
        "config", recipe=recipe, sections=sections, optional=optional, names=names
    )
    if required:
        _require("config")


def define_data_dir() -> None:
    """Defines --data_dir."""
    define_path("data_dir", "TFDS data directory, TFDS's own by default.", required=False)


def define_path(name: str, description: str, *, required: bool = True) -> None:
    """Defines a flag for a file or a folder."""
    flags.DEFINE(_PathParser(name), name, None, description)
    if required:
        _require(name)


def define_paths(name: str, description: str) -> None:
    """Defines a flag for files or folders, which may be repeated."""
    flags.DEFINE_multi(_PathParser(name), flags.ArgumentSerializer(), name, [], description)


def define_arguments(name: str, description: str) -> None:
    """Defines files or folders that are given without the name of a flag, or with it."""
    flags.DEFINE_flag(
        _Arguments(_PathParser(name), flags.ArgumentSerializer(), name, [], description)
    )


class _Arguments(flags.MultiFlag):
    """A flag for the arguments that are of no flag."""


class _PathParser(flags.ArgumentParser):
    """Reads paths as `files.local_path` does."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def parse(self, argument: str) -> str:
        try:
            return local_path(argument)
        except ValueError as error:
            raise flags.IllegalFlagValueError(f"--{self._name}: {error}") from None


def define_network() -> None:
    """Defines --genotype and --precision, and --model instead of them."""
    define_path(
        "genotype",
        "Genotype file of `cpnas search`, or a published one: darts, pc_darts.",
        required=False,
    )
    flags.DEFINE_enum("precision", "child", ["child", "parent"], "1-bit or full precision.")
    flags.DEFINE_enum(
        "model", None, list(REFERENCE_NETWORKS), "A reference network instead of a genotype's."
    )
    flags.mark_flags_as_mutual_exclusive(["genotype", "model"], required=True)


def precision() -> str:
    """The precision that the flags of `define_network` say.

    Raises:
        ValueError: if they say two.
    """
    if FLAGS.model is None:
        return FLAGS.precision
    if FLAGS["precision"].present:
        raise ValueError("--precision goes with --genotype, not with --model")
    return REFERENCE_NETWORKS[FLAGS.model]


def define_switch(name: str, description: str) -> None:
    """Defines a flag that is on or off, by default off."""
    flags.DEFINE_bool(name, False, description)


def define_overwrite() -> None:
    """Defines --overwrite."""
    define_switch("overwrite", "Replace a finished result, or a different run.")


def _require(name):
    flags.register_validator(name, bool, message=f"--{name} is needed, see --help")


def load_tensorflow() -> None:
    """Imports TensorFlow and has it look for GPUs, and leaves out what it logs of the machine."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile("w+") as log:
        os.dup2(log.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
            # It would warn of the graph that each further training of an ablation saves with.
            tf.get_logger().setLevel("ERROR")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            with contextlib.suppress(OSError):
                sys.stderr.writelines(line for line in log if not _NOISE.match(line))


def output(text: str) -> None:
    """Writes on standard output the result of a command that writes it nowhere else.

    It ends the command if standard output does not take it, a full disk included: if that is read
    no more (`| head`), as a signal would by default.
    """
    try:
        progress.write(text)
    except BrokenPipeError:
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        fail(f"error: cannot write on standard output: {error.strerror}")


def run(main: Callable[[], None], define_flags: Callable[[], None] = lambda: None) -> None:
    """Runs a command; a wrong flag, value or file ends it with one line and exit code 1.

    Args:
        main: the command, without arguments. The docstring of its module is the help.
        define_flags: defines its flags, by the functions above; a script may have done it itself.
    """
    _use_utf8()
    if _is_script():
        # Python puts the script's folder first on the path: its profile.py would hide Python's own.
        folder = os.path.dirname(os.path.realpath(sys.argv[0]))
        sys.path[:] = [path for path in sys.path if path != folder]
    open_standard_streams()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, _stop)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as it is in a shell's background
        signal.signal(signal.SIGINT, _stop)
    try:
        define_flags()
    except flags.Error as error:  # ml_collections reads a --flagfile where it defines --config
        _refuse(error)
    FLAGS.set_gnu_getopt()  # flags may come behind other arguments
    help_text = sys.modules[main.__module__].__doc__ or ""
    try:
        app.run(lambda _: _run(main), flags_parser=functools.partial(_parse, help_text=help_text))
    except KeyboardInterrupt:
        signal.alarm(0)
        fail("stopped: the same command goes on from here", code=130)


def _is_script():
    """Whether the command was called as `python bin/NAME.py`, not as `cpnas NAME`."""
    return sys.argv[0].endswith(".py")


def as_called(text: str) -> str:
    """A text that names commands as `cpnas NAME`, in the way that this command was called."""
    if not _is_script():
        return text
    script = os.path.join(os.path.dirname(sys.argv[0]), r"\1.py")
    text = re.sub(r"\bcpnas (\w+)(?= --)", f"python {script}", text)
    return re.sub(r"\bcpnas (\w+)", script, text)


def _use_utf8():
    """Starts the command anew where the locale has Python name files in another encoding.

    TensorFlow's names, and the files that are written, are UTF-8 in every locale.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1"})


def open_standard_streams() -> None:
    """Opens those that are closed: the next file would take their numbers, and what is logged.

    At the end, what they did not take is dropped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    atexit.register(_abandon_output)


def _abandon_output():
    """Drops what the standard streams did not take: Python would complain of it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _stop(number, frame):
    """Ends the command; tries again where Python drops the exception, such as in a callback.

    It does not where the exception has arrived: a training that is stopped may save for longer.
    """
    signal.alarm(2)
    if number != signal.SIGALRM or not _is_stopping():
        raise KeyboardInterrupt


def _is_stopping():
    """Whether a KeyboardInterrupt is being handled."""
    error = sys.exc_info()[1]
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _run(main):
    try:
        main()
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        fail(f"error: {as_called(_with_flags(line))}")


def _with_flags(line):
    """A line of the library, which says `overwrite=True`, as the user of a command would."""
    return re.sub(
        r"\b(\w+)=True\b", lambda said: f"--{said[1]}" if said[1] in FLAGS else said[0], line
    )


def _parse(argv, *, help_text):
    """Parses the flags; whatever is wrong in them or in the config file, the user can mend."""
    _show_help(argv[1:], help_text)
    config = FLAGS["config"].parser if "config" in FLAGS else None
    try:
        arguments = FLAGS.read_flags_from_files(argv[1:], force_gnu=False)
        if config:
            config.check(arguments)
        command, *rest = FLAGS(argv)
        for name in FLAGS:
            if isinstance(FLAGS[name], _Arguments):
                FLAGS[name].parse(rest)
                rest = []
        if config and FLAGS.config is not None:
            config.check_values()
        if FLAGS["verbosity"].using_default_value:
            logging.set_verbosity(logging.WARNING)  # absl would have TFDS tell all that it does
        logging.get_absl_handler().setFormatter(
            python_logging.Formatter("%(levelname)s: %(message)s")
        )
    except Exception as error:
        _refuse(error)
    if rest:
        fail(f"error: unknown argument {rest[0]!r}, see --help")
    return [command]


def _refuse(error):
    """Ends the process with what is wrong with the flags."""
    fail(f"error: {message(error).removeprefix('ERROR:: ')}")  # of absl's for a --flagfile


def _show_help(arguments, help_text):
    """Shows the help and ends with exit code 0, if it is asked for; absl's own is of `__main__`."""
    names = {argument.lstrip("-") for argument in arguments if argument.startswith("-")}
    if names & {"h", "help", "helpshort", "helpfull"}:
        help_of_flags = FLAGS.main_module_help() or FLAGS.module_help(__name__)
        *_, of_command = help_of_flags.partition(":\n")  # behind the module's name
        of_flags = FLAGS.get_help() if "helpfull" in names else of_command
        output(as_called(f"{help_text}\nflags:\n{of_flags}"))
        sys.exit(0)


def fail(line: str, code: int = 1) -> NoReturn:
    """Ends the process with one line on standard error."""
    with contextlib.suppress(OSError):
        print(" ".join(line.split()), file=sys.stderr)
    sys.exit(code)
