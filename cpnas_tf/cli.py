"""What all commands share: their flags, and errors of one line."""

import json
import os
import signal
import sys

from absl import app, flags
from ml_collections import config_flags

import cpnas_tf

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

FLAGS = flags.FLAGS


def define_config():
    """Defines --config and --data_dir, for the commands that start a run."""
    config_flags.DEFINE_config_file("config", None, "A file in configs/.", lock_config=True)
    define_data_dir()
    flags.mark_flag_as_required("config")


def define_data_dir():
    """Defines --data_dir."""
    flags.DEFINE_string("data_dir", None, "TFDS data directory, TFDS's own by default.")


def define_folder(name, description):
    """Defines a required flag for a folder."""
    flags.DEFINE_string(name, None, description)
    flags.mark_flag_as_required(name)


def define_overwrite():
    """Defines --overwrite."""
    flags.DEFINE_bool("overwrite", False, "Replace a finished result, or a different run.")


def resolved_config(**more):
    """The run as `config.json` records it: the resolved --config, --data_dir, and `more`."""
    config = json.loads(FLAGS.config.to_json_best_effort())
    data_dir = FLAGS.data_dir and os.path.abspath(FLAGS.data_dir)
    return {"version": cpnas_tf.__version__, "config": config, "data_dir": data_dir, **more}


def make_deterministic(seed):
    """Makes runs repeatable: the same seed on the same machine gives the same result."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def run(main):
    """Runs a command; a wrong flag, value or file ends it with one line and exit code 1."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app.run(lambda _: _one_line_errors(main), flags_parser=_parse)


def _parse(argv):
    if any(argument.lstrip("-") in ("help", "helpshort") for argument in argv[1:]):
        app.usage(shorthelp=True)
        sys.exit(0)
    for argument in argv[1:]:
        name, _, path = argument.lstrip("-").partition("=")
        if name == "config" and not os.path.isfile(path):
            _fail(f"config file not found: {path}")
    try:
        rest = FLAGS(argv)
    except (KeyError, AttributeError) as error:
        _fail(f"--config has no key {error.args[0]!s}: its keys are those of the config file")
    except (flags.Error, ValueError, TypeError, OSError, SyntaxError) as error:
        _fail(error)
    if len(rest) > 1:
        _fail(f"unknown argument {rest[1]!r}, see --help")
    return rest


def _one_line_errors(main):
    from keras_tuner.errors import FatalError

    try:
        main()
    except (ValueError, OSError, FatalError) as error:
        _fail(error)
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _fail(error):
    """Ends the process with one line on standard error and exit code 1."""
    sys.exit("error: " + (" ".join(str(error).split()) or type(error).__name__))
