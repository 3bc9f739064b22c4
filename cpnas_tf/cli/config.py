"""The sections of --config: checked, resolved, and given to functions as keyword arguments."""

import ast
import contextlib
import inspect
import itertools
import json
import os
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder
from ml_collections.config_flags.config_flags import ConfigFileFlagParser
from ml_collections.config_flags.tuple_parser import TupleParser

import cpnas_tf
from cpnas_tf import devices
from cpnas_tf.cli import configs
from cpnas_tf.settings import RULES, SECTIONS, Rule, SettingError, check, shown

FLAGS = flags.FLAGS
_REPLACED = re.compile(r"--?(?:no)?config\.([^=]*)(=.*)?", re.DOTALL)  # --config.KEY=VALUE
_SECTION = Rule(Mapping, lambda value: "a section, written as a dict")
# The flags of what a `SettingError` names and no section has.
_FLAGS = {"input_shape": "--config.data.image_size", "data_dir": "--data_dir"}


def _read_section(text):
    if not isinstance(ast.literal_eval(text), dict):
        raise ValueError


_READERS = {
    int: flags.IntegerParser().parse,
    float: flags.FloatParser().parse,
    bool: flags.BooleanParser().parse,
    tuple: TupleParser().parse,
    Mapping: _read_section,
}


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
        section: the section's name. A config without this section has no further arguments.

    Raises:
        ValueError: if the section has a key that the function does not take, or lacks one that it
            needs. An error of a setting, which the function raises, names the flag.
    """
    values = FLAGS.config[section].to_dict() if section in FLAGS.config else {}
    try:
        inspect.signature(function).bind(*args, **given, **values)
    except TypeError as error:
        raise ValueError(f"--config.{section} does not fit: {error}") from None
    with flagged(section):
        return function(*args, **given, **values)


@contextlib.contextmanager
def flagged(section: str) -> Iterator[None]:
    """Has errors that are raised in the block name a setting's flag.

    Args:
        section: of the config, or "" for a setting that is in no section.
    """
    try:
        yield
    except SettingError as error:
        text, setting = str(error), error.setting
        own = f"--config.{section}.{setting}" if section else f"--config.{setting}"
        flag = _FLAGS.get(setting, own)
        line = text.removeprefix(setting)
        raise ValueError(f"{text} ({flag})" if line == text else flag + line) from error


class ConfigParser(ConfigFileFlagParser):
    """Reads a config, and adds the settings that it lacks and the command line sets.

    Args:
        flag: the name of the flag.
        recipe: whose configs have names, see `configs.names`.
        sections: that a config has to have.
        optional: sections that it may have as well.
        names: the settings of each section. A section that is not in it, such as one of a further
            search method, has the keys that the config gives it.
    """

    def __init__(
        self,
        flag: str,
        *,
        recipe: str,
        sections: Sequence[str],
        optional: Sequence[str] = (),
        names: Mapping[str, Sequence[str]] = SECTIONS,
    ) -> None:
        super().__init__(flag)
        self._recipe, self._sections, self._optional = recipe, sections, optional
        self._names = names

    def check(self, arguments: Sequence[str]) -> None:
        """Checks the config and the flags that replace its values, before ml_collections does.

        Its own messages are of many lines, or name no flag.

        Args:
            arguments: of the command line.

        Raises:
            ValueError: in one line for the user.
        """
        path, replaced = None, []
        for argument, following in itertools.pairwise([*arguments, ""]):
            if match := re.fullmatch("--?config(=.*)?", argument, re.DOTALL):
                path = following if match[1] is None else match[1][1:]
            elif match := _REPLACED.fullmatch(argument):
                replaced.append((match[1], match[2] and match[2][1:], following))
        if path is not None:
            config = self._read(path)
            for key, text, following in replaced:
                if key.split(".")[0] in (*self._sections, *self._optional):
                    _make_room(config, key)
                _check_key(config, key, self._names)
                _check_text(key, text, following)

    def _read(self, path):
        file, *variant = configs.find(path, self._recipe).split(":", 1)  # as ml_collections does it
        try:
            config = runpy.run_path(file)["get_config"](*variant)
        except (Exception, SystemExit) as error:  # the file is a program and can raise any
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"cannot get the config of {path}: {reason}") from None
        sections, optional = self._sections, self._optional
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

    def parse(self, path: str) -> ConfigDict:
        config = super().parse(configs.find(path, self._recipe))
        for argument in FLAGS.read_flags_from_files(sys.argv, force_gnu=False):
            if match := _REPLACED.fullmatch(argument):
                _make_room(config, match[1])
        return config

    def check_values(self) -> None:
        """Checks each value of the parsed config by itself.

        Raises:
            ValueError: naming the first that cannot be, and what can.
        """
        for section, values in FLAGS.config.items():
            if section in RULES and section not in SECTIONS:
                with flagged(""):
                    check(**{section: values})
            elif not isinstance(values, ConfigDict):
                raise ValueError(f"--config.{section} must be a section, received: {shown(values)}")
            elif section in self._names:
                for key in values:
                    _check_key(FLAGS.config, f"{section}.{key}", self._names)
                with flagged(section):
                    check(**values.to_dict())


def _make_room(config, path):
    """Has a config take a value for a setting: one of its rule's type, also where it has none."""
    section, rule, (*parents, key) = config, _rule(path), path.split(".")
    if rule is None:
        return
    kind = ConfigDict if rule.kind is Mapping else rule.kind
    with config.unlocked():
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = ConfigDict()
            section = section[parent]
            if not isinstance(section, ConfigDict):
                return
        if key not in section or section.get_type(key) is not kind:
            if key in section:
                del section[key]
            section[key] = ConfigDict() if kind is ConfigDict else placeholder(kind)


def _settings(parents, names=SECTIONS):
    """The settings in a section, or in the augmentation of a section; `parents` lead there."""
    section, *more = parents or [None]
    known = names.get(section, ())
    if more:
        return SECTIONS["augmentation"] if more == ["augmentation"] and more[0] in known else ()
    return known


def _rule(path):
    """The rule of the setting at a path such as "search.augmentation.flip", or None."""
    *parents, name = path.split(".")
    known = _settings(parents) if parents else RULES.keys() - SECTIONS.keys()
    return RULES[name] if name in known else None


def _check_key(config, path, names):
    """Checks that a config has this key, or that it is a setting which the config may lack."""
    there, keys = config, path.split(".")
    for depth, key in enumerate(keys):
        known = _settings(keys[:depth], names) or (there if isinstance(there, ConfigDict) else ())
        if key not in known:
            raise ValueError(
                f"unknown key --config.{path}: instead of {key!r} there is "
                f"{', '.join(known) or 'nothing'}"
            )
        there = there.get(key) if isinstance(there, ConfigDict) else None


def _check_text(path, text, following):
    """Checks that a setting's text can be read as its type; without "=" it is what follows."""
    rule = _SECTION if path in SECTIONS else _rule(path)
    read = rule and _READERS.get(rule.kind)
    if not read or (rule.kind is bool and text is None):
        return
    text = following if text is None else text
    try:
        read(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError(
            f"--config.{path} must be {rule.expected(text)}, received: {shown(text)}"
        ) from None
