"""Settings on the command line: what a config lacks, and what is wrong against the data."""

import forked
import pytest
from commands import SEARCH, TRAIN, check_refused, read_json, run_process


def test_a_training_with_settings_that_its_config_lacks(tmp_path, data_dir, genotype):
    given = {
        "momentum": 0.8,
        "warmup_epochs": 1,
        "decay_batch_norm": False,
        "decay_binary_kernels": False,
        "teacher_weight": 0.5,
        "temperature": 2.0,
        "augmentation": {"crop_padding": 2, "flip": True},
    }
    flags = [
        *(f"--config.training.{name}={value}" for name, value in given.items() if name[0] != "a"),
        "--config.training.augmentation.crop_padding=2",
        "--config.training.augmentation.flip",
        "--config.training.optimizer=sgd",
        "--config.network.drop_path=0.1",
        "--config.child_parent.centre_rate=1",
    ]
    folders = (f"--genotype={genotype}", f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
    outcome = forked.run("train", *TRAIN, *flags, *folders)  # it may warn of signs that stay
    assert outcome.code == 0, outcome.stderr
    config = read_json(tmp_path / "run" / "config.json")["config"]
    assert given.items() <= config["training"].items()
    assert config["network"]["drop_path"] == 0.1
    assert config["child_parent"]["centre_rate"] == 1.0


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        (
            "search",
            [*SEARCH, "--config.search.batch_size=65"],
            "--config.search.batch_size must be at most the 64 images to train on, received: 65",
        ),
        (
            "search",
            [*SEARCH, "--config.split.train_images=1430"],
            "--config.split.train_images and validation_images must be at most the 1437 images",
        ),
        (
            "search",
            [*SEARCH, "--config.search.augmentation.crop_padding=9"],
            "--config.search.augmentation.crop_padding must be at most 8, the images' side, ",
        ),
        (
            "search",
            [*SEARCH, "--config.search.final_learning_rate=0.2"],
            "--config.search.final_learning_rate must be at most learning_rate = 0.1, ",
        ),
        (
            "search",
            [*SEARCH, "--config.method=pc_darts", "--config.pc_darts.partial=5"],
            "--config.pc_darts.channels must be a multiple of partial = 5, received: 16",
        ),
        (
            "train",
            [*TRAIN, "--config.split.validation_images=1437"],
            "--config.split.validation_images must be 1 to 1436 of the 1437 training images",
        ),
        (
            "train",
            [*TRAIN, "--config.training.warmup_epochs=2"],
            "--config.training.warmup_epochs must be less than the 2 epochs, received: 2",
        ),
        (
            "train",
            [*TRAIN, "--config.data.image_size=9"],
            "cannot halve images of 9x9 pixels: height and width must be multiples of 2 "
            "(--config.data.image_size)",
        ),
        (
            "train",
            [*TRAIN, "--config.data.split=train[:9999]"],
            "--config.data.split must be of the 1437 images in digits's train, received: 'train",
        ),
    ],
)
def test_what_is_wrong_against_the_data_or_another_setting(
    tmp_path, data_dir, genotype, name, arguments, line
):
    more = [f"--genotype={genotype}"] if name == "train" else []
    folders = (f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
    check_refused(tmp_path, name, *arguments, *more, *folders, value=line)


@pytest.mark.parametrize("name", ["search", "train", "ablate"])
def test_a_process_of_its_own_refuses_without_tensorflow(tmp_path, name):
    """What `-X importtime` lists on standard error before the line."""
    section = "pc_darts" if name == "ablate" else name.replace("train", "training")
    arguments = [
        f"--config=configs/{name}_digits.py",
        f"--workdir={tmp_path}/run",
        f"--config.{section}.batch_size=0.5",
        *(["--genotype=darts"] if name == "train" else []),
    ]
    outcome = run_process(name, *arguments, options=("-X", "importtime"))
    *imports, line = outcome.stderr.splitlines()
    expected = f"error: --config.{section}.batch_size must be a whole number >= 1, received: '0.5'"
    assert line == expected
    assert outcome.code == 1
    modules = {entry.rpartition("|")[2].strip().partition(".")[0] for entry in imports}
    assert "ml_collections" in modules
    assert not modules & {"tensorflow", "tf_keras", "keras_tuner", "larq"}
    assert not list(tmp_path.iterdir())
