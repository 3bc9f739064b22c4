"""The sections of --config: checked, resolved, and given to functions as keyword arguments."""

import inspect
import itertools
import json
import os
import re
import runpy
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

import cpnas_tf
from cpnas_tf import devices
from cpnas_tf.files import local_path

FLAGS = flags.FLAGS


def resolved_config(**more: Any) -> dict[str, Any]:
    """The run as `config.json` records it: the resolved --config, --data_dir, and `more`."""
    run = {
        "version": cpnas_tf.__version__,
        "config": json.loads(FLAGS.config.to_json_best_effort()),
        "data_dir": FLAGS.data_dir and os.path.abspath(FLAGS.data_dir),
        "cwd": os.getcwd(),  # where a relative folder of images begins
        "threads": devices.threads(),
        **more,
    }
    return json.loads(json.dumps(run))  # as it will be read again: tuples become lists


def call(function: Callable[..., Any], *args: Any, section: str, **given: Any) -> Any:
    """Calls a function with a section of --config as its further keyword arguments.

    Args:
        function: what to call.
        args, given: the arguments that do not come from the config.
        section: the section's name; an `augmentation` in it is for `augment`. One that the config
            does not have is empty.

    Raises:
        ValueError: if the section has a key that the function does not take, lacks one that it
            needs, or has a value of another type than the function's default.
    """
    values = FLAGS.config[section].to_dict() if section in FLAGS.config else {}
    _check_arguments(section, function, args, given, values)
    if values.get("augmentation") is not None:
        from cpnas_tf.data.augmentation import augment

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
    for key in values.keys() & signature.parameters.keys():
        value, default = values[key], signature.parameters[key].default
        if default not in (None, signature.empty) and not _is_like(value, default):
            raise ValueError(
                f"--config.{section}.{key} must be a value like {default!r}, received: {value!r}"
            )


def _is_like(value, default):
    if isinstance(value, bool) or isinstance(default, bool):
        return type(value) is type(default)
    kinds = {float: (int, float), tuple: (list, tuple)}
    return isinstance(value, kinds.get(type(default), type(default)))


def check_config(
    arguments: Sequence[str], sections: Sequence[str], optional: Sequence[str] = ()
) -> None:
    """Checks what ml_collections would not say clearly: the config file and the keys to replace.

    Args:
        arguments: of the command line.
        sections: that the config has to have.
        optional: sections that it may have as well.

    Raises:
        ValueError: in one line for the user.
    """
    path, keys = None, []
    for argument, following in itertools.pairwise([*arguments, ""]):
        if match := re.fullmatch("--?config(=.*)?", argument, re.DOTALL):
            path = following if match[1] is None else match[1][1:]
        elif match := re.match(r"--?(no)?config\.([^=]*)", argument):
            keys.append(match[2])
    if path is not None:
        config = _read_config(path, sections, optional)
        for key in keys:
            _check_key(config, key)


class ConfigParser(ConfigFileFlagParser):
    """Reads a config file."""

    def parse(self, path: str) -> ConfigDict:
        return super().parse(local_path(path))


def _read_config(path, sections, optional):
    path = local_path(path)
    file, *variant = path.split(":", 1)  # as ml_collections does it
    if not os.path.isfile(file):
        raise ValueError(f"config file not found: {file!r}")
    try:
        config = runpy.run_path(file)["get_config"](*variant)
    except Exception as error:  # the file is a program and can raise any
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"cannot get the config of {path}: {reason}") from None
    found = sorted(config) if isinstance(config, ConfigDict) else type(config).__name__
    if not isinstance(config, ConfigDict) or not set(sections) <= {*found} <= {
        *sections,
        *optional,
    }:
        more = f" and perhaps {', '.join(optional)}" if optional else ""
        raise ValueError(
            f"the config of {path} must be a ConfigDict of {', '.join(sections)}{more}, "
            f"received: {found}"
        )
    return config


def _check_key(config, path):
    section = config
    for key in path.split("."):
        if not isinstance(section, ConfigDict) or key not in section:
            known = ", ".join(section) if isinstance(section, ConfigDict) else "nothing"
            raise ValueError(f"unknown key --config.{path}: instead of {key!r} there is {known}")
        section = section[key]
