"""The rules of all settings: what a value of each name can be by itself. Imports no TensorFlow.

A setting is an argument of one of the functions that a section of --config is for. The functions
check theirs by `checked`, and the commands the whole config before TensorFlow is imported. What a
value can be beside others, or for some images, the functions check themselves.
"""

import functools
import inspect
import math
import numbers
import struct
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

from cpnas_tf.catalogue import (
    ACTIVATIONS,
    BINARIZATIONS,
    DATASETS,
    FOLDER,
    INDICATORS,
    METHODS,
    OPTIMIZERS,
    PRECISIONS,
    REAL_INPUTS,
    SAMPLINGS,
    SCHEDULES,
    SCORES,
    SMALLEST_SIDE,
    SPLIT,
    STEMS,
    STRATEGIES,
    UNIT_NAMES,
    Unit,
)
from cpnas_tf.files import local_path
from cpnas_tf.genotypes import OPERATIONS

_Function = TypeVar("_Function", bound=Callable[..., Any])
_LONGEST = 100  # characters of a value in a message


class SettingError(ValueError):
    """A value that a setting cannot have.

    Attributes:
        setting: the setting's name; one of an augmentation is "augmentation.NAME".
    """

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.setting, str(self))


class Rule(NamedTuple):
    """What a setting can be.

    Attributes:
        kind: the type that a command reads a text as; a whole number is a float, too.
        expected: function of a value: what it must be, in words, or None if it is that.
    """

    kind: type
    expected: Callable[[Any], str | None]


def whole(least: int, most: int = 2**31 - 1) -> Rule:
    """Whole numbers; without `most` those that TensorFlow has for sizes."""

    def expected(value: Any) -> str | None:
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            return f"a whole number >= {least}"
        return None if value <= most else f"at most {most}"

    return Rule(int, expected)


def number(words: str, fits: Callable[[float], bool]) -> Rule:
    """Finite numbers that `fits` is true of, also once they are float32."""

    def expected(value: Any) -> str | None:
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if not is_number or not -math.inf < value < math.inf or not fits(value):
            return words
        return None if fits(_as_float32(value)) else f"{words} that float32 can hold"

    return Rule(float, expected)


def _as_float32(value: Any) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", float(value)))[0])
    except OverflowError:
        return math.nan  # of which no comparison is true


def one_of(names: Collection[str]) -> Rule:
    """Some names."""

    def expected(value: Any) -> str | None:
        known = isinstance(value, str) and value in names
        return None if known else f"one of {', '.join(names)}"

    return Rule(str, expected)


def several(words: str, rule: Rule, *, least: int = 1) -> Rule:
    """Lists or tuples of different values, of which each has a rule."""

    def expected(value: Any) -> str | None:
        fits = (
            isinstance(value, (list, tuple))
            and not any(map(rule.expected, value))
            and len(set(value)) == len(value) >= least
        )
        return None if fits else words

    return Rule(tuple, expected)


def optional(rule: Rule) -> Rule:
    """A rule's values, or None."""

    def expected(value: Any) -> str | None:
        words = None if value is None else rule.expected(value)
        return words and f"{words}, or None"

    return Rule(rule.kind, expected)


def _is(kind: type, words: str) -> Rule:
    return Rule(kind, lambda value: None if isinstance(value, kind) else words)


def _data_set(value: Any) -> str | None:
    if not isinstance(value, str) or not value.startswith(FOLDER):
        known = isinstance(value, str) and value in DATASETS
        return None if known else f"one of {', '.join(DATASETS)}, {FOLDER}PATH"
    try:
        path = local_path(value.removeprefix(FOLDER))
    except ValueError as error:
        return f"{FOLDER}PATH ({error})"
    return None if path else f"{FOLDER}PATH (the path is missing)"


def _split(value: Any) -> str | None:
    known = isinstance(value, str) and SPLIT.fullmatch(value)
    return None if known else "train or test, or the first images of one, such as train[:10000]"


def _bits(value: Any) -> str | None:
    known = type(value) is int and value in ACTIVATIONS
    return None if known else f"{' or '.join(map(str, ACTIVATIONS))} bits"


def _unit(value: Any) -> str | None:
    names = value.split(",") if isinstance(value, str) else []
    known = names and set(names) <= set(UNIT_NAMES)
    if known or isinstance(value, Unit):
        return None
    return f"one or more of {', '.join(UNIT_NAMES)}, joined by commas"


_SWITCH = _is(bool, "True or False")
_SEED = whole(0, 2**32 - 1)
_POSITIVE = number("a number > 0", lambda value: value > 0)
_AT_LEAST_0 = number("a number >= 0", lambda value: value >= 0)
_SHARE = number("a number in [0, 1]", lambda value: 0 <= value <= 1)
_BELOW_1 = number("a number in [0, 1)", lambda value: 0 <= value < 1)
_ABOVE_0 = number("a number in (0, 1]", lambda value: 0 < value <= 1)
_FINITE = number("a finite number", lambda value: -math.inf < value < math.inf)
_SEEDS = several("one or more different whole numbers in 0..4294967295", _SEED)

RULES = {
    "strategy": one_of(STRATEGIES),
    "mixed_precision": _SWITCH,
    "method": one_of(METHODS),
    # data
    "name": Rule(str, _data_set),
    "split": Rule(str, _split),
    "image_size": optional(whole(SMALLEST_SIDE, 4096)),
    "largest_size": optional(whole(SMALLEST_SIDE, 4096)),
    "train_fraction": optional(_ABOVE_0),
    "validation_fraction": optional(_ABOVE_0),
    "train_images": optional(whole(1)),
    "validation_images": optional(whole(1)),
    "most_images": optional(whole(1)),
    # networks and supernets
    "classes": whole(2),
    "cells": whole(1, 1000),
    "channels": whole(1, 10_000),
    "stem": one_of(STEMS),
    "real_inputs": several(
        f"a tuple of some of {', '.join(REAL_INPUTS)}", one_of(REAL_INPUTS), least=0
    ),
    "unit": Rule(str, _unit),
    "binarization": one_of(BINARIZATIONS),
    "activations": Rule(int, _bits),
    "drop_path": _BELOW_1,
    "precision": one_of(PRECISIONS),
    "partial": whole(1),
    # searches
    "operations": several(
        f"one or more different ones of {', '.join(OPERATIONS)}", one_of(OPERATIONS)
    ),
    "allow_none": _SWITCH,
    "rounds": whole(1),
    "beta": _FINITE,
    "parent": _SWITCH,
    "sampling": one_of(SAMPLINGS),
    "indicator": one_of(INDICATORS),
    "schedule": one_of(SCHEDULES),
    "final_learning_rate": _AT_LEAST_0,
    "inputs": whole(1, 5),
    "first": whole(1, 10_000),
    "proposals": whole(0, 1000),
    "finalists": whole(0),
    "finalist_epochs": whole(1),
    "score": one_of(SCORES),
    "architecture_learning_rate": _POSITIVE,
    "architecture_weight_decay": _AT_LEAST_0,
    # searches and trainings
    "epochs": whole(1),
    "warmup_epochs": whole(0),
    "batch_size": whole(1),
    "learning_rate": _POSITIVE,
    "momentum": _BELOW_1,
    "weight_decay": _AT_LEAST_0,
    "gradient_clip": _AT_LEAST_0,
    "augmentation": optional(_is(Mapping, "a section of crop_area, crop_padding, flip, cutout")),
    "seed": _SEED,
    # trainings
    "optimizer": one_of(OPTIMIZERS),
    "decay_batch_norm": _SWITCH,
    "decay_binary_kernels": _SWITCH,
    "class_weights": _SWITCH,
    "label_smoothing": _BELOW_1,
    "auxiliary_weight": _AT_LEAST_0,
    "early_stopping": optional(whole(1)),
    "jit_compile": _SWITCH,
    "steps_per_execution": whole(1),
    "teacher_weight": _SHARE,
    "temperature": _POSITIVE,
    # augmentation
    "crop_area": _SHARE,
    "crop_padding": whole(0),
    "flip": _SWITCH,
    "cutout": whole(0),
    # the Child-Parent loss
    "filter_weight": _AT_LEAST_0,
    "centre_weight": _AT_LEAST_0,
    "centre_rate": _ABOVE_0,
    "features": optional(_is(str, "a layer's name")),
    "pooled": _SWITCH,
    # the losses of PCNN and BONN
    "kernel_weight": _AT_LEAST_0,
    "prior_weight": _AT_LEAST_0,
    "feature_weight": _AT_LEAST_0,
    # the front of sizes
    "max_mbit": optional(_POSITIVE),
    "max_mflops": optional(_POSITIVE),
    # ablations
    "methods": several(f"one or more different ones of {', '.join(METHODS)}", one_of(METHODS)),
    "betas": several("one or more different finite numbers", _FINITE),
    "search_seeds": _SEEDS,
    "training_seeds": _SEEDS,
}

# The settings in each section of a config, which are arguments of the function it is for.
SECTIONS = {
    "data": ("name", "split", "image_size", "largest_size"),
    "split": (
        *("train_fraction", "validation_fraction", "train_images", "validation_images"),
        *("most_images", "seed"),
    ),
    "network": (
        *("cells", "channels", "stem", "real_inputs", "unit", "binarization", "activations"),
        "drop_path",
    ),
    "search": (
        *("cells", "channels", "stem", "real_inputs", "unit", "activations", "partial"),
        *("operations", "allow_none", "rounds", "beta", "parent"),
        *("sampling", "indicator"),
        *("batch_size", "optimizer", "learning_rate", "final_learning_rate", "schedule"),
        *("momentum", "weight_decay"),
        *("augmentation", "mixed_precision", "seed"),
    ),
    "pc_darts": (
        *("cells", "channels", "precision", "unit", "operations", "partial", "inputs"),
        *("epochs", "warmup_epochs", "batch_size", "optimizer", "learning_rate", "momentum"),
        *("weight_decay", "gradient_clip"),
        *("architecture_learning_rate", "architecture_weight_decay"),
        *("augmentation", "seed"),
    ),
    "guided": (
        *("cells", "channels", "stem", "real_inputs", "unit", "operations", "inputs"),
        *("first", "rounds", "proposals", "finalists", "epochs", "finalist_epochs"),
        *("beta", "score"),
        *("batch_size", "optimizer", "learning_rate", "momentum", "weight_decay"),
        *("augmentation", "mixed_precision", "seed"),
    ),
    "training": (
        *("epochs", "batch_size", "optimizer", "learning_rate", "momentum", "weight_decay"),
        *("warmup_epochs", "decay_batch_norm", "decay_binary_kernels", "gradient_clip"),
        *("class_weights", "label_smoothing", "auxiliary_weight", "early_stopping", "jit_compile"),
        *("steps_per_execution", "augmentation", "teacher_weight", "temperature", "seed"),
    ),
    "child_parent": (
        *("filter_weight", "centre_weight", "centre_rate", "warmup_epochs", "features", "pooled"),
    ),
    "pcnn": ("kernel_weight",),
    "bonn": ("kernel_weight", "prior_weight", "feature_weight", "centre_rate"),
    "front": ("max_mbit", "max_mflops"),
    "grid": ("methods", "betas", "search_seeds", "training_seeds"),
    "augmentation": ("crop_area", "crop_padding", "flip", "cutout"),
}
HELD_OUT = ("validation_fraction", "validation_images", "seed")  # the split of a training


def check(**values: Any) -> None:
    """Checks values of settings, each by itself.

    Raises:
        SettingError: naming a setting, what it must be, and its value.
    """
    for name, value in values.items():
        words = RULES[name].expected(value)
        if words:
            raise SettingError(name, f"{name} must be {words}, received: {shown(value)}")
        if name == "augmentation" and value is not None:
            _check_augmentation(value)


def _check_augmentation(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name not in SECTIONS["augmentation"]:
            known = ", ".join(SECTIONS["augmentation"])
            raise SettingError(
                "augmentation", f"augmentation must have keys of {known}, received: {shown(name)}"
            )
        try:
            check(**{name: value})
        except SettingError as error:
            raise SettingError(f"augmentation.{name}", f"augmentation.{error}") from None


def checked(section: str) -> Callable[[_Function], _Function]:
    """Has a function check the arguments that are settings of a section before it runs."""

    def decorate(function: _Function) -> _Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checking(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            check(**{name: given[name] for name in SECTIONS[section] if name in given})
            return function(*args, **kwargs)

        return checking  # type: ignore[return-value]

    return decorate


def shown(value: Any) -> str:
    """A value as a message shows it."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no whole number of more than 4300 digits
        text = f"a whole number of {value.bit_length()} bits"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
