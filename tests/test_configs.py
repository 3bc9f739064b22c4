"""Every config fits the functions its sections go to, and the paper's have the paper's numbers."""

import inspect
import re
import runpy

import pytest
from forked import ROOT
from ml_collections import ConfigDict

from cpnas_tf import data, training
from cpnas_tf.ablation.grid import make_grid
from cpnas_tf.catalogue import METHODS, OTHER_LOSSES, STRATEGIES
from cpnas_tf.data.augmentation import augment
from cpnas_tf.genotypes import OPERATIONS
from cpnas_tf.networks.cells import build_network
from cpnas_tf.search import ChildParentSearch, GuidedSearch, PCDarts
from cpnas_tf.search.front import find_front
from cpnas_tf.settings import HELD_OUT, check
from cpnas_tf.settings import SECTIONS as SETTINGS

CONFIGS = sorted((ROOT / "configs").glob("*.py"))
# Those that the files of several have, the default first.
VARIANTS = {
    "train_cifar10": ("small", "medium", "large"),
    "train_imagenet": ("plain", "star", "starstar"),
}
FUNCTIONS = {
    "data": data.load,
    "split": data.split_for_search,
    "search": ChildParentSearch,
    "pc_darts": PCDarts,
    "guided": GuidedSearch,
    "front": find_front,
    "grid": make_grid,
    "network": build_network,
    "training": training.Training,
    **training.LOSSES,
    "augmentation": augment,
}
SECTIONS = {
    "search": {"method", "strategy", "data", "split", "search", "pc_darts"},
    "train": {
        *("strategy", "mixed_precision", "data", "split"),
        *("network", "training", "child_parent"),
    },
    "ablate": {
        *("grid", "data", "split", "search", "pc_darts"),
        *("network", "training", "child_parent"),
    },
}
# A config may lack it: its defaults are for small images.
OPTIONAL = {"guided"}
# What the commands give, from the flags or the data: a config must not.
GIVEN = {
    *("data_dir", "images", "train", "validation", "genotype"),
    *("model", "input_shape", "classes", "precision", "child_parent", "warm_start"),
    *("teacher", "estimate", "costs"),
}


@pytest.mark.parametrize("section", SETTINGS)
def test_every_argument_is_a_setting_whose_default_fits(section):
    found = inspect.signature(FUNCTIONS[section]).parameters
    # The seed of an augmentation is a tensor.
    given = GIVEN - {*SETTINGS[section]} | ({"seed"} if section == "augmentation" else set())
    assert set(found) - given == set(SETTINGS[section])
    for name in SETTINGS[section]:
        default = found[name].default
        if default is not inspect.Parameter.empty:
            check(**{name: default})


def test_the_split_of_a_training_and_the_draw_have_no_others():
    assert set(inspect.signature(data.hold_out).parameters) - {"images"} == set(HELD_OUT)
    drawn = set(inspect.signature(METHODS["random"].load()).parameters)
    assert drawn - {"train", "validation", "others"} <= set(SETTINGS["search"])


def get_config(name, *variant):
    return runpy.run_path(ROOT / "configs" / f"{name}.py")["get_config"](*variant)


def functions_of(command):
    """The function that each section of a command's config is for."""
    return {**FUNCTIONS, "split": data.hold_out} if command == "train" else FUNCTIONS


def check_sections(config, functions=FUNCTIONS):
    """Expects each key to be a parameter of the function that the section's name stands for."""
    for name, section in config.items():
        if name == "strategy":
            assert section in STRATEGIES
            continue
        if name == "mixed_precision":
            assert type(section) is bool
            continue
        if name == "method":
            assert section in METHODS
            continue
        assert name in functions, f"unknown section {name!r}"
        parameters = inspect.signature(functions[name]).parameters
        given = GIVEN - {"precision"} if name == "pc_darts" else GIVEN
        assert set(section) <= set(parameters) - given, f"unknown keys in {name!r}"
        for key, parameter in parameters.items():
            assert parameter.default is not parameter.empty or key in {*section, *given, "seed"}
        nested = {key: value for key, value in section.items() if isinstance(value, ConfigDict)}
        assert set(nested) <= {"augmentation"}
        check_sections(nested)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config(path):
    command, name = path.stem.split("_", 1)
    variants = VARIANTS.get(path.stem, ())
    for variant in [(), *((variant,) for variant in variants)]:
        config = get_config(path.stem, *variant)
        assert type(config) is ConfigDict
        assert set(config) - OPTIONAL == SECTIONS[command]
        check_sections(config, functions_of(command))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 50
    docstring = inspect.cleandoc(runpy.run_path(path)["__doc__"])
    assert re.search(rf"cpnas {command} --config={name}(:\w+)? ", docstring)
    assert all(f"\n| {variant}" in docstring for variant in variants)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name):
    default, *others = [get_config(name, variant) for variant in VARIANTS[name]]
    assert get_config(name) == default
    for config in others:
        assert {key for key in default if config[key] != default[key]} == {"network"}
    with pytest.raises(ValueError, match=", ".join(VARIANTS[name]) + ", received: 'huge'"):
        get_config(name, "huge")


def test_every_section_is_used_by_a_config():
    used = set().union(*(get_config(path.stem) for path in CONFIGS))
    known = {*FUNCTIONS, "strategy", "mixed_precision", "method"}
    assert used == known - {"augmentation", "front", *OTHER_LOSSES}


@pytest.mark.parametrize(
    "config",
    [
        {"serach": {}},
        {"search": {"betta": 2.0}},
        {"search": {"directory": "x"}},
        {"training": {"augmentation": {"crop": 4}}},
        {"training": {"child_parent": {}}},
        {"data": {"name": "digits"}},
    ],
)
def test_the_check_sees_what_does_not_fit(config):
    with pytest.raises(AssertionError):
        check_sections(ConfigDict(config))


def test_search_cifar10_is_the_papers():
    """CP-NAS, section 3.1: 105 architectures of 6 cells on half of the training set."""
    assert get_config("search_cifar10").to_dict() == {
        "method": "cpnas",
        "strategy": "none",
        "data": {"name": "cifar10", "split": "train", "image_size": None},
        "split": {
            "train_fraction": 0.5,
            "validation_fraction": 0.05,
            "train_images": None,
            "validation_images": None,
            "seed": 0,
        },
        "search": {
            "cells": 6,
            "channels": 16,
            "rounds": 3,
            "beta": 2.0,
            "batch_size": 512,
            "learning_rate": 0.025,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "operations": OPERATIONS,
            "allow_none": True,
            "augmentation": {"crop_padding": 4, "flip": True, "cutout": 0},
            "mixed_precision": False,
            "seed": 0,
        },
        "pc_darts": {"cells": 6, "epochs": 50, "precision": "child", "seed": 0},
    }


def test_train_cifar10_is_the_papers():
    """CP-NAS, section 3.1, the small network: 10 cells, C = 56, 600 epochs."""
    assert get_config("train_cifar10").to_dict() == {
        "strategy": "none",
        "mixed_precision": False,
        "data": {"name": "cifar10", "split": "train", "image_size": None},
        "split": {"validation_images": None, "seed": 0},
        "network": {"cells": 10, "channels": 56, "drop_path": 0.0},
        "training": {
            "epochs": 600,
            "batch_size": 96,
            "optimizer": "sgd",
            "learning_rate": 0.025,
            "momentum": 0.9,
            "weight_decay": 3e-4,
            "decay_batch_norm": True,
            "gradient_clip": 5.0,
            "label_smoothing": 0.0,
            "auxiliary_weight": 0.0,
            "early_stopping": None,
            "jit_compile": False,
            "steps_per_execution": 1,
            "augmentation": {"crop_padding": 4, "flip": True, "cutout": 16},
            "seed": 0,
        },
        "child_parent": {
            **{"filter_weight": 1e-3, "centre_weight": 1e-1},
            **{"warmup_epochs": 0, "pooled": False},
        },
    }
    sizes = [
        get_config("train_cifar10", size).network.channels for size in VARIANTS["train_cifar10"]
    ]
    assert sizes == [56, 72, 112]


def test_search_imagenet_is_the_papers():
    """CP-NAS, section 3.1: as on CIFAR-10, but for the learning rate and beta_P."""
    search, cifar = (get_config(f"search_{name}").search for name in ("imagenet", "cifar10"))
    assert (search.learning_rate, search.beta, search.stem) == (0.05, 0.33, "imagenet")
    own = {"learning_rate", "beta", "augmentation", "stem", "real_inputs"}
    assert {key: search[key] for key in set(search) - own} == {
        key: cifar[key] for key in set(cifar) - own
    }
    assert get_config("search_imagenet").split == get_config("search_cifar10").split


def test_train_imagenet_is_the_papers():
    """CP-NAS, section 3.1: 10 cells, C = 102, 250 epochs; DARTS' weight of the auxiliary loss."""
    config = get_config("train_imagenet", "starstar")
    assert config.network.to_dict() == {
        "cells": 10,
        "channels": 102,
        "stem": "imagenet",
        "drop_path": 0.0,
        "real_inputs": ("depthwise", "preprocessing"),
    }
    assert config.training.to_dict() == {
        "epochs": 250,
        "batch_size": 256,
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 3e-5,
        "decay_batch_norm": True,
        "gradient_clip": 5.0,
        "label_smoothing": 0.1,
        "auxiliary_weight": 0.4,
        "early_stopping": None,
        "jit_compile": False,
        "steps_per_execution": 1,
        "augmentation": {"crop_area": 0.08, "flip": True},
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("name", "function", "section"),
    [
        ("search_cifar10", ChildParentSearch, "search"),
        ("train_cifar10", training.Training, "training"),
    ],
)
def test_the_librarys_defaults_are_the_papers_too(name, function, section):
    parameters = inspect.signature(function).parameters
    for key, value in get_config(name)[section].items():
        if key != "augmentation":
            assert parameters[key].default == value


def test_ablate_digits_is_the_quickstarts():
    """Its search and training, but for the seeds and beta_P, which are the grid's."""
    ablation = get_config("ablate_digits")
    own = {"search": {"beta", "seed"}, "pc_darts": {"seed"}, "training": {"seed"}}
    for name in ("search_digits", "train_digits"):
        config = get_config(name)
        for section in (set(config) & set(ablation)) - ({"split"} if "train" in name else set()):
            function, expected = FUNCTIONS[section], config[section].to_dict()
            for key in own.get(section, ()):
                assert key not in ablation[section]
                del expected[key]
            given = {"images": None, "genotype": None, "train": None, "validation": None}
            assert with_defaults(function, ablation[section], given) == with_defaults(
                function, expected, given
            )


def test_the_methods_see_as_many_images_on_digits():
    """CP-NAS trains two models an architecture; PC-DARTS a supernet, on halves of the images.

    The guided search trains the child alone.
    """
    config = get_config("search_digits")
    split, settings = config["split"], config["pc_darts"]
    architectures = config["search"]["rounds"] * sum(range(2, len(OPERATIONS) + 1))
    half = (split["train_images"] + split["validation_images"]) // 2
    cpnas = 2 * architectures * split["train_images"]
    pc_darts = (2 * settings["epochs"] - settings["warmup_epochs"]) * half
    assert (cpnas, pc_darts) == (80_640, 80_256)
    assert settings["warmup_epochs"] / settings["epochs"] == pytest.approx(15 / 50, abs=0.005)
    guided = config["guided"]
    epochs = (guided["first"] + guided["rounds"] * guided["proposals"]) * guided["epochs"]
    epochs += guided["finalists"] * guided["finalist_epochs"]
    assert epochs * split["train_images"] == 78_336


def with_defaults(function, section, given):
    parameters = inspect.signature(function).parameters
    defaults = {key: parameter.default for key, parameter in parameters.items()}
    return {**defaults, **given, **section}
