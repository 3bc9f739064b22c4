"""The rules of settings: wrong values of each are refused by name, in a line."""

import inspect
import math
import pickle
import re
import struct

import numpy as np
import pytest
from one_line import assert_one_line

from cpnas_tf import settings
from cpnas_tf.catalogue import METHODS, SPLITS, Unit
from cpnas_tf.settings import RULES, SECTIONS, SettingError, check


def test_every_rule_is_used():
    used = {name for names in SECTIONS.values() for name in names}
    assert set(RULES) == used | {"strategy", "mixed_precision", "method", "classes"}


INTEGERS = [name for name, rule in RULES.items() if rule.kind is int]
FLOATS = [name for name, rule in RULES.items() if rule.kind is float]
SWITCHES = [name for name, rule in RULES.items() if rule.kind is bool]
TEXTS = [name for name, rule in RULES.items() if rule.kind is str]
LISTS = [name for name, rule in RULES.items() if rule.kind is tuple]
HUGE = (2**63, 2**64, 10**30, 10**400, 10**5000)
NO_NUMBERS = ("", "1", "0.5", "nan", "one", b"1", (), (1,), ((1, 2),), [], [1], {}, {"a": 1})
NO_NUMBERS += (object, np.zeros(2), 1j, True, False, math.nan, math.inf, -math.inf)
WRONG = {
    "integers": (INTEGERS, (*NO_NUMBERS, *HUGE, -1, -(2**63), -(10**400), 1.0, 0.5, 1e300)),
    "floats": (FLOATS, (*NO_NUMBERS, *HUGE[3:], 1e39, 3.5e38, 1e308, -(10**400), -1e39)),
    "switches": (SWITCHES, (*NO_NUMBERS[:13], None, 0, 1, -1, 0.0, 1.0, math.nan, "True", "yes")),
    "texts": (TEXTS, (None, 0, 1, True, 0.5, math.nan, (), ("none",), [], {}, b"cifar", 10**400)),
    "lists": (
        LISTS,
        (
            *(None, 0, 1, True, 0.5, math.nan, "", "none", b"none", {}, {"none": 1}),
            *((None,), ("",), ((),), ((1, 2), 3), ([1],), ({},), ("foo",), (b"none",), (1j,)),
            *((True,), (math.nan,), (math.inf,), (10**400,), ("none", "none"), (2.5, 2.5)),
        ),
    ),
}
TABLE = [(name, value) for names, values in WRONG.values() for name in names for value in values]
OPTIONAL = {"image_size", "train_images", "validation_images", "early_stopping", "features"}


def test_the_table_has_all_settings_and_forty_wrong_values_of_each_kind():
    rest = set(RULES) - {name for name, _ in TABLE}
    assert rest == {"augmentation"}
    for names, values in WRONG.values():
        assert len(names) * len(values) >= 40


@pytest.mark.parametrize("name", sorted({name for name, _ in TABLE}))
def test_wrong_values_are_refused_by_name(name):
    for value in (value for other, value in TABLE if other == name):
        if value is None and name in OPTIONAL:
            check(**{name: value})
            continue
        with pytest.raises(SettingError, match=f"^{name} must be .*, received: ") as error:
            check(**{name: value})
        assert_one_line(error, settings.shown(value))
        assert error.value.setting == name
        assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("name", "fits", "wrong"),
    [
        ("cells", (1, 1000), {0: "a whole number >= 1", 1001: "at most 1000"}),
        ("seed", (0, 2**32 - 1), {-1: "a whole number >= 0", 2**32: "at most 4294967295"}),
        ("inputs", (1, 5), {6: "at most 5"}),
        ("image_size", (None, 8, 4096), {7: "a whole number >= 8, or None"}),
        ("momentum", (0, 0.9, np.float32(0.9)), {1: r"a number in [0, 1)", -0.1: "[0, 1)"}),
        ("binarization", ("bonn", "cpnas"), {"rbonn": "one of cpnas, xnor, bireal, bireal_code"}),
        ("activations", (1, 32), {2: "1 or 32 bits", 0: "1 or 32 bits"}),
        ("prior_weight", (0, 1e-4), {-1e-4: "a number >= 0"}),
        ("teacher_weight", (0, 1.0), {1.1: "a number in [0, 1]"}),
        ("centre_rate", (1, 1e-3), {0: "a number in (0, 1]"}),
        ("learning_rate", (1e-3, 1, 3e38), {0: "a number > 0", -1: "a number > 0"}),
        ("beta", (-1, 0.33, 0), {math.inf: "a finite number"}),
        ("stem", ("cifar",), {"foo": "one of cifar, imagenet"}),
        (
            "unit",
            ("paper", "residual,rprelu", Unit(rsign=True)),
            {"best": "paper, residual, mean_nodes,", "": "joined by commas", "paper,": "by commas"},
        ),
        ("method", (*METHODS,), {"foo": f"one of {', '.join(METHODS)}"}),
        (
            "name",
            ("digits", "folder:pets", "folder:/a:b/ü c"),
            {
                "mnist": "one of digits, fashion_mnist, cifar10, imagenet2012, folder:PATH",
                "folder:": "folder:PATH (the path is missing)",
                "folder:gs://bucket/pets": "folder:PATH (gs://bucket/pets is a URL: ",
            },
        ),
        ("split", (*SPLITS, "train[:10000]"), {"all": "train or test", "train[:0]": "train or"}),
        ("real_inputs", ((), ("depthwise",), ["preprocessing"]), {("stem",): "some of depthwise"}),
        ("operations", (("none", "skip_connect"), ["none"]), {(): "different ones of none,"}),
        ("betas", ((-1, 0.33),), {(2, 2.0): "different finite numbers", (): "different finite"}),
        ("search_seeds", ((0, 2**32 - 1),), {(-1,): "in 0..4294967295", (2**32,): "in 0.."}),
        ("augmentation", (None, {}, {"flip": True}), {"flip": "a section of crop_area"}),
        ("features", (None, "pool"), {3: "a layer's name, or None"}),
    ],
)
def test_what_is_possible(name, fits, wrong):
    for value in fits:
        check(**{name: value})
    for value, words in wrong.items():
        with pytest.raises(SettingError) as error:
            check(**{name: value})
        assert_one_line(error, name, words, f"received: {value!r}")


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 1e-46), ("learning_rate", 1e39), ("momentum", 1 - 1e-12), ("beta", 1e39)],
)
def test_a_number_is_what_float32_holds(name, value):
    with pytest.raises(SettingError, match=re.escape(f"that float32 can hold, received: {value}")):
        check(**{name: value})
    (largest,) = struct.unpack("<f", bytes.fromhex("ffff7f7f"))
    check(beta=largest)


@pytest.mark.parametrize(
    ("augmentation", "setting", "words"),
    [
        ({"flip": 1}, "augmentation.flip", "augmentation.flip must be True or False, received: 1"),
        ({"cutout": -1}, "augmentation.cutout", "augmentation.cutout must be a whole number >= 0"),
        ({"crop": 4}, "augmentation", "keys of crop_area, crop_padding, flip, cutout, received: "),
        ({3: 4}, "augmentation", "received: 3"),
    ],
)
def test_an_augmentation_is_checked_by_its_settings(augmentation, setting, words):
    with pytest.raises(SettingError) as error:
        check(augmentation=augmentation)
    assert_one_line(error, words)
    assert error.value.setting == setting


def test_an_error_survives_another_process():
    error = pickle.loads(pickle.dumps(SettingError("cells", "cells must be more")))
    assert (error.setting, str(error)) == ("cells", "cells must be more")


def test_a_checked_function_stays_what_it_was():
    @settings.checked("training")
    def function(other, *, epochs=3, seed=-1):
        """Text."""
        return other, epochs, seed

    assert function.__doc__ == "Text."
    assert list(inspect.signature(function).parameters) == ["other", "epochs", "seed"]
    assert function(None, epochs=5) == (None, 5, -1)  # no default is checked
    with pytest.raises(SettingError, match="epochs"):
        function(None, epochs=0)
    with pytest.raises(TypeError, match="other"):
        function()
