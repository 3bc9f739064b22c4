"""What all commands share: flags, the sections of a config, and errors of one line."""

import functools
import inspect
import itertools
import json
import os
import re
import runpy
import signal
import sys
import tempfile

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

import cpnas_tf

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

FLAGS = flags.FLAGS
# The functions of `reference_networks`, and the precision of their networks.
REFERENCE_NETWORKS = {
    "wrn22": "parent",
    "wrn22_1bit": "child",
    "resnet18": "parent",
    "birealnet18": "child",
}
# What TensorFlow 2.21 logs on import whatever TF_CPP_MIN_LOG_LEVEL says; and that there is no CUDA.
_NOISE = re.compile(r"WARNING: All log messages before absl|[IW]\d{4} |E\d{4} .*cuInit.*\(303\)")
# The part of TensorFlow's DataLossError that says what is wrong with a file of records.
_DAMAGE = re.compile(r"\w+ record at \d+")
_OTHERS_ENDED = "another worker has ended: start all of them again, and they go on from here"
# What to do about other errors of TensorFlow.
_ADVICE = {
    "ResourceExhaustedError": "out of memory: try a smaller batch_size",
    "UnavailableError": _OTHERS_ENDED,
    "AbortedError": _OTHERS_ENDED,
}


def define_config(*, required=True):
    """Defines --config."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "A file in configs/, with :VARIANT behind it where there are several; "
        "--config.SECTION.KEY=VALUE replaces one of its values.",
        lock_config=True,
    )
    if required:
        _require("config")


def define_data_dir():
    """Defines --data_dir."""
    flags.DEFINE_string("data_dir", None, "TFDS data directory, TFDS's own by default.")


def define_path(name, description):
    """Defines a required flag for a file or a folder."""
    flags.DEFINE_string(name, None, description)
    _require(name)


def define_network():
    """Defines --genotype and --precision, and --model instead of them."""
    flags.DEFINE_string(
        "genotype", None, "Genotype file of bin/search.py, or a published one: darts, pc_darts."
    )
    flags.DEFINE_enum("precision", "child", ["child", "parent"], "1-bit or full precision.")
    flags.DEFINE_enum(
        "model", None, list(REFERENCE_NETWORKS), "A reference network instead of a genotype's."
    )
    flags.mark_flags_as_mutual_exclusive(["genotype", "model"], required=True)


def precision():
    """The precision that the flags of `define_network` say.

    Raises:
        ValueError: if they say two.
    """
    if FLAGS.model is None:
        return FLAGS.precision
    if FLAGS["precision"].present:
        raise ValueError("--precision goes with --genotype, not with --model")
    return REFERENCE_NETWORKS[FLAGS.model]


def define_overwrite():
    """Defines --overwrite."""
    flags.DEFINE_bool("overwrite", False, "Replace a finished result, or a different run.")


def _require(name):
    flags.register_validator(name, bool, message=f"--{name} is needed, see --help")


def resolved_config(**more):
    """The run as `config.json` records it: the resolved --config, --data_dir, and `more`."""
    run = {
        "version": cpnas_tf.__version__,
        "config": json.loads(FLAGS.config.to_json_best_effort()),
        "data_dir": FLAGS.data_dir and os.path.abspath(FLAGS.data_dir),
        **more,
    }
    return json.loads(json.dumps(run))  # as it will be read again: tuples become lists


def call(function, *args, section, **given):
    """Calls a function with a section of --config as its further keyword arguments.

    Args:
        function: what to call.
        args, given: the arguments that do not come from the config.
        section: the section's name; an `augmentation` in it is for `augment`.

    Raises:
        ValueError: if the section has a key that the function does not take, lacks one that it
            needs, or has a value of another type than the function's default.
    """
    values = FLAGS.config[section].to_dict()
    _check_arguments(section, function, args, given, values)
    if values.get("augmentation") is not None:
        from cpnas_tf.augmentation import augment

        images_and_seed = (None, None)
        nested = f"{section}.augmentation"
        _check_arguments(nested, augment, images_and_seed, {}, values["augmentation"])
    return function(*args, **given, **values)


def _check_arguments(section, function, args, given, values):
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **given, **values)
    except TypeError as error:
        raise ValueError(f"--config.{section} does not fit: {error}") from None
    for key, value in values.items():
        default = signature.parameters[key].default
        if default not in (None, signature.empty) and not _is_like(value, default):
            raise ValueError(
                f"--config.{section}.{key} must be a value like {default!r}, received: {value!r}"
            )


def _is_like(value, default):
    if isinstance(value, bool) or isinstance(default, bool):
        return type(value) is type(default)
    kinds = {float: (int, float), tuple: (list, tuple)}
    return isinstance(value, kinds.get(type(default), type(default)))


def load_tensorflow():
    """Imports TensorFlow and has it look for GPUs, and leaves out what it logs of the machine."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile("w+") as log:
        os.dup2(log.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            sys.stderr.writelines(line for line in log if not _NOISE.match(line))


def make_deterministic(section):
    """Makes runs repeatable: the same seed on the same machine gives the same result.

    But for rounding where XLA compiles, which does not know how to be deterministic.

    Args:
        section: the section of --config that has the seed; it is 0 where there is none.

    Raises:
        ValueError: if the seed is not in 0..2^32 - 1.
    """
    seed = FLAGS.config[section].get("seed", 0)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"--config.{section}.seed must be in 0..{2**32 - 1}, received: {seed!r}")
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    if not FLAGS.config[section].get("jit_compile"):
        tf.config.experimental.enable_op_determinism()
    # It makes `AddN` of additions, whose order of summation depends on which buffer is free.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


def load_images():
    """The training and the test images of --config.data."""
    from cpnas_tf import data

    images = call(data.load, section="data", data_dir=FLAGS.data_dir)
    test = data.load(**{**FLAGS.config.data, "split": "test"}, data_dir=FLAGS.data_dir)
    shape, other = images.images.shape[1:], test.images.shape[1:]
    if shape != other:
        raise ValueError(
            f"the training images are {shape[0]}x{shape[1]}, the test images "
            f"{other[0]}x{other[1]}: --config.data.image_size makes them the same"
        )
    return images, test


def train(network, images, test, *, precision="child", strategy=None, **given):
    """Builds a network and trains it, by the config's sections.

    Args:
        network: a `Genotype`, or the name of one of `reference_networks`.
        images, test: what to train and to validate on.
        precision: of a genotype's network, "child" or "parent"; a child has the Child-Parent loss.
        strategy: the `tf.distribute.Strategy` to train under; by default one device.
        given: arguments of `training.train` that do not come from the config.

    Returns:
        `(model, history)`.

    Raises:
        ValueError: if a setting is impossible.
    """
    import tensorflow as tf

    from cpnas_tf import devices, networks, reference_networks, training
    from cpnas_tf.child_parent import ChildParentLoss

    shape = {"input_shape": images.images.shape[1:], "classes": len(images.class_names)}
    policy = "mixed_float16" if FLAGS.config.get("mixed_precision") else "float32"
    with devices.scope(strategy or tf.distribute.get_strategy(), policy=policy):
        if isinstance(network, str):
            model = getattr(reference_networks, network)(**shape)
        else:
            shape["precision"] = precision
            model = call(networks.build_network, network, section="network", **shape)
    loss = call(ChildParentLoss, section="child_parent")
    given["child_parent"] = loss if precision == "child" else None
    history = call(training.train, model, images, section="training", validation=test, **given)
    return model, history


def run(main, *, sections=()):
    """Runs a command; a wrong flag, value or file ends it with one line and exit code 1.

    Args:
        main: the command, without arguments.
        sections: the sections that its --config has, if it has one.
    """
    # Python puts the command's folder first on the path: its profile.py would hide Python's own.
    folder = os.path.dirname(os.path.realpath(sys.argv[0]))
    sys.path[:] = [path for path in sys.path if path != folder]
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGALRM, _stop)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as it is in a shell's background
        signal.signal(signal.SIGINT, _stop)
    try:
        app.run(lambda _: _run(main), flags_parser=functools.partial(_parse, sections=sections))
    except KeyboardInterrupt:
        signal.alarm(0)
        _fail("stopped: the same command goes on from here", code=130)


def _stop(number, frame):
    """Ends the command; tries again where Python drops the exception, such as in a callback."""
    signal.alarm(2)
    raise KeyboardInterrupt


def _run(main):
    try:
        main()
    except Exception as error:
        line = _explain(error)
        if line is None:
            raise
        _fail(f"error: {line}")


def _explain(error):
    """What the user can mend, in a line, or None: of a bug a traceback says most."""
    keras_tuner = sys.modules.get("keras_tuner.errors")  # importing it takes seconds
    if isinstance(error, (ValueError, OSError, *([keras_tuner.FatalError] if keras_tuner else []))):
        return _line(error)
    name = type(error).__name__
    if name == "DataLossError" and (damage := _DAMAGE.search(str(error))):
        return f"a file of the data set is damaged ({damage[0]}): prepare it again"
    return _ADVICE.get(name)


def _parse(argv, *, sections):
    """Parses the flags; whatever is wrong in them or in the config file, the user can mend."""
    _show_help(argv[1:])
    try:
        _check_config(argv[1:], sections)
        rest = FLAGS(argv)
        if FLAGS["verbosity"].using_default_value:
            logging.set_verbosity(logging.WARNING)  # absl would have TFDS tell all that it does
    except Exception as error:
        _fail(f"error: {_line(error)}")
    if len(rest) > 1:
        _fail(f"error: unknown argument {rest[1]!r}, see --help")
    return rest


def _show_help(arguments):
    """Shows the help and ends with exit code 0, where absl would with 1."""
    names = {argument.lstrip("-") for argument in arguments}
    if names & {"help", "helpshort", "helpfull"}:
        app.usage(shorthelp="helpfull" not in names, writeto_stdout=True)
        sys.exit(0)


def _check_config(arguments, sections):
    """Checks what ml_collections would not say clearly: the config file and the keys to replace."""
    path, keys = None, []
    for argument, following in itertools.pairwise([*arguments, ""]):
        if match := re.fullmatch("--?config(=.*)?", argument, re.DOTALL):
            path = following if match[1] is None else match[1][1:]
        elif match := re.match(r"--?(no)?config\.([^=]*)", argument):
            keys.append(match[2])
    if path is not None:
        config = _read_config(path, sections)
        for key in keys:
            _check_key(config, key)


def _read_config(path, sections):
    file, *variant = path.split(":", 1)  # as ml_collections does it
    if not os.path.isfile(file):
        raise ValueError(f"config file not found: {file!r}")
    try:
        config = runpy.run_path(file)["get_config"](*variant)
    except Exception as error:  # the file is a program and can raise any
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"cannot get the config of {path}: {reason}") from None
    found = sorted(config) if isinstance(config, ConfigDict) else type(config).__name__
    if found != sorted(sections):
        raise ValueError(
            f"the config of {path} must be a ConfigDict of {', '.join(sections)}, received: {found}"
        )
    return config


def _check_key(config, path):
    section = config
    for key in path.split("."):
        if not isinstance(section, ConfigDict) or key not in section:
            known = ", ".join(section) if isinstance(section, ConfigDict) else "nothing"
            raise ValueError(f"unknown key --config.{path}: instead of {key!r} there is {known}")
        section = section[key]


def _line(error):
    return str(error) or type(error).__name__


def _fail(line, code=1):
    """Ends the process with one line on standard error."""
    print(" ".join(line.split()), file=sys.stderr)
    sys.exit(code)
