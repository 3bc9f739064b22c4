"""The values of --config: wrong ones are refused in a line, without TensorFlow."""

import itertools
import re
import sys

import light
import pytest
from light import ROOT

from cpnas_tf.cli.config import ConfigParser, flagged
from cpnas_tf.settings import HELD_OUT, RULES, SECTIONS, SettingError, shown

NUMBERS = ("", "one", "None", "nan", "True", "()", "(1,)", "((1, 2),)", "[1]", "{}", "1,5", "1 2")
WRONG = {
    int: (
        *(*NUMBERS, "inf", "-inf", "0.5", "1.0", "1e3", "1e400", "-1", f"-{2**63}", f"{2**32}"),
        *(f"{2**63}", f"{2**64}", f"{10**30}", "9" * 4000, "9" * 5000),
    ),
    float: (*NUMBERS, "inf", "-inf", "1e39", "-1e39", "1e400", f"{10**39}", "9" * 5000),
    bool: (*(text for text in NUMBERS if text != "True"), "often", "yes", "2", "-1", "1.0", "inf"),
    str: ("", "foo", "None", "True", "1", "()", "('none',)", "Digits", "child ", "x" * 5000),
    tuple: (
        *("", "foo", "foo bar", "True", "None", "nan", "1j", "((1, 2),)", "[[1]]", "{'a': 1}"),
        *("(1,,2)", "(none", "none)", "(none,)", "('none', 'none')", "(None, None)", "none none"),
        *("(True,)", "(False, 1)", "(1, 1)", "(0.5, 0.5)", "(1j,)", "1e999", "(1, -1e999)"),
        *("('foo',)", "['foo']", "('none', 1)", "('none', ('none',))", "((),)", "([],)", "({},)"),
        *("('',)", "(' ',)", "('none ',)", "('None',)", "...", "lambda: 1", "__import__('os')"),
        *("x" * 5000, "9" * 5000, "(" * 500),
    ),
}
COMMANDS = {
    "search": ("data", "split", "search", "pc_darts"),
    "train": ("data", "split", "network", "training", "child_parent"),
    "ablate": (
        *("grid", "data", "split", "search", "pc_darts", "network", "training", "child_parent"),
    ),
    "profile": ("data", "network", "training", "child_parent"),
}
OPTIONAL = ("strategy", "mixed_precision")
LOADS = pytest.mark.filterwarnings(r"ignore:the load_module\(\):DeprecationWarning")
FREE = {"features"}  # any text


def paths_of(command):
    """The settings of a command's config."""
    for section in COMMANDS[command]:
        training = section == "split" and command == "train"
        for name in HELD_OUT if training else SECTIONS[section]:
            if name == "augmentation":
                yield from (f"{section}.{name}.{each}" for each in SECTIONS[name])
            elif name not in FREE:
                yield f"{section}.{name}"


def rows(command):
    """Of each type 40 wrong values or more: every setting and every text of the type is there."""
    by_kind = {}
    for path in paths_of(command):
        by_kind.setdefault(RULES[path.rpartition(".")[2]].kind, []).append(path)
    for kind, paths in by_kind.items():
        texts = WRONG[kind]
        longer = max(len(paths), len(texts))
        pairs = {
            (paths[(number + shift) % len(paths)], texts[number % len(texts)]): None
            for shift in range(len(paths))
            for number in range(longer)
        }
        yield from list(pairs)[: max(40, longer)]


def command_line(command, folder, *more):
    recipe = {"search": "search", "ablate": "ablate"}.get(command, "train")
    given = {
        "config": f"configs/{recipe}_digits.py",
        **({} if command == "profile" else {"workdir": f"{folder}/run"}),
        **({"genotype": "darts"} if recipe == "train" else {}),
    }
    return command, [*(f"--{flag}={value}" for flag, value in given.items()), *more]


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_values_are_refused_in_a_line_without_tensorflow(command, tmp_path):
    table = list(rows(command))
    assert len(set(table)) == len(table)
    kinds = [RULES[path.rpartition(".")[2]].kind for path, _ in table]
    assert min(kinds.count(kind) for kind in WRONG if kind in kinds) >= 40
    assert set(paths_of(command)) == {path for path, _ in table}
    outcomes = light.run_all(
        [command_line(command, tmp_path, f"--config.{path}={text}") for path, text in table]
    )
    for (path, text), (code, line) in zip(table, outcomes, strict=True):
        expected = rf"error: --config\.{re.escape(path)} must be [^\n]+, received: [^\n]+\n"
        assert re.fullmatch(expected, line), (path, text, line)
        assert code == 1
        assert len(line) < 500
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "argument", "line"),
    [
        ("train", "--config.strategy=tpu", "strategy must be one of none, mirrored, multi_worker"),
        (
            "train",
            "--config.mixed_precision=half",
            "mixed_precision must be True or False, .*'half'",
        ),
        (
            "search",
            "--config.method=darts",
            "method must be one of random, bnas, bnas_w1a32",
        ),
        ("train", "--config.training=foo", "training must be a section, .* received: 'foo'"),
        ("train", "--config.training=[1]", r"training must be a section, .* received: '\[1\]'"),
        ("train", "--config.training={'epochs': 0}", "training.epochs must be .* received: 0"),
        ("train", "--config.training.augmentation=3", "training.augmentation must be a section"),
        ("train", "--config.training.augmentation={'flip': 2}", "training.augmentation.flip must"),
        ("search", "--config.search.rounds", "search.rounds must be a whole number >= 1"),
    ],
)
def test_other_values(command, argument, line, tmp_path):
    ((code, error),) = light.run_all([command_line(command, tmp_path, argument)])
    assert re.fullmatch(rf"error: --config\.{line}[^\n]*\n", error), error
    assert code == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "key", "known"),
    [
        ("train", "foo", "split"),
        ("train", "training.foo", "momentum"),
        ("train", "training.epochs.foo", "nothing"),
        ("train", "training.augmentation.foo", "cutout"),
        ("train", "split.train_images", "validation_images"),  # for a search
        ("train", "search.cells", "network"),
        ("train", "data.split.seed", "nothing"),
        ("train", "network.precision", "drop_path"),  # of a flag of its own
        ("search", "search.directory", "rounds"),
    ],
)
def test_unknown_keys(command, key, known, tmp_path):
    ((code, error),) = light.run_all([command_line(command, tmp_path, f"--config.{key}=1")])
    assert re.fullmatch(rf"error: unknown key --config\.{key}: [^\n]*{known}[^\n]*\n", error)
    assert code == 1


@LOADS
@pytest.mark.parametrize("form", ["={}", " {}"])
def test_settings_that_a_config_lacks_can_be_set(form, monkeypatch):
    settings = {
        "training.momentum": ("0.8", float),
        "training.warmup_epochs": ("3", int),
        "training.decay_batch_norm": ("False", bool),
        "training.augmentation.cutout": ("4", int),
        "training.augmentation.flip": ("True", bool),
        "network.real_inputs": ("('depthwise',)", tuple),
        "network.stem": ("imagenet", str),
        "child_parent.centre_rate": ("1", float),
    }
    file = str(ROOT / "configs" / "train_digits.py")
    flags = (f"--config.{path}{form.format(text)}".split() for path, (text, _) in settings.items())
    arguments = [f"--config={file}", *itertools.chain(*flags)]
    parser = ConfigParser("config", recipe="train", sections=COMMANDS["train"], optional=OPTIONAL)
    parser.check(arguments)
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    config = parser.parse(file)
    assert config.is_locked
    for path, (_, kind) in settings.items():
        *sections, name = path.split(".")
        section = config
        for part in sections:
            section = section[part]
        assert section.get_type(name) is kind
    assert config.training.epochs == 40


@LOADS
def test_a_whole_number_in_a_config_does_not_make_a_setting_whole(tmp_path, monkeypatch):
    file = tmp_path / "config.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(): return ConfigDict({'child_parent': {'centre_weight': 0}})\n"
    )
    arguments = [f"--config={file}", "--config.child_parent.centre_weight=0.1"]
    parser = ConfigParser("config", recipe="train", sections=("child_parent",))
    parser.check(arguments)
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    config = parser.parse(str(file))
    assert config.child_parent.get_type("centre_weight") is float


@pytest.mark.parametrize(
    ("setting", "message", "line"),
    [
        ("cells", "cells must be more", "--config.network.cells must be more"),
        (
            "augmentation.flip",
            "augmentation.flip must be",
            "--config.network.augmentation.flip must be",
        ),
        (
            "image_size",
            "2 of 3 images cannot be used",
            "2 of 3 images cannot be used (--config.network.image_size)",
        ),
        ("input_shape", "no halves", "no halves (--config.data.image_size)"),
    ],
)
def test_the_flag_of_a_setting(setting, message, line):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"), flagged("network"):
        raise SettingError(setting, message)


def test_long_values_are_cut():
    assert shown(10**5000) == "a whole number of 16610 bits"
    assert len(shown("x" * 5000)) == 103
