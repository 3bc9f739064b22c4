"""The command that trains: what it writes, what it replaces, and what it refuses."""

import os
import re

import forked
import pytest
from commands import TRAIN, check_refused, read_csv, read_json, refusal, succeed


def test_what_is_written(runs):
    metrics = read_json(runs / "train" / "metrics.json")
    assert metrics["epoch"] == 2
    assert metrics["precision"] == "child"
    assert 0 <= metrics["val_accuracy"] <= 1
    assert metrics["parameters"] > 0
    history = read_csv(runs / "train" / "history.csv")
    assert [row["epoch"] for row in history] == ["1", "2"]
    terms = [float(history[1][name]) for name in ("cross_entropy", "filter_mse", "class_centre")]
    weights = (1, 1e-3, 1e-2 / 2)
    total = sum(weight * term for weight, term in zip(weights, terms, strict=True))
    assert float(history[1]["loss"]) == pytest.approx(total, rel=1e-4)
    assert list((runs / "train" / "checkpoints").iterdir())
    assert list((runs / "train" / "logs").glob("events.out.tfevents.*"))
    run = read_json(runs / "train" / "config.json")
    assert run["genotype"] == read_json(runs / "search" / "genotype.json")
    assert run["precision"] == "child"
    assert run["config"]["training"]["epochs"] == 2


def test_a_different_run_is_replaced(runs, copy_of, data_dir):
    workdir = copy_of("train")
    arguments = (
        *TRAIN,
        "--config.training.epochs=1",
        "--precision=parent",
        f"--genotype={runs}/search/genotype.json",
        f"--workdir={workdir}",
        f"--data_dir={data_dir}",
    )
    assert "config.training.epochs: 2 there, 1 here" in refusal("train", *arguments)
    succeed(forked.run("train", *arguments, "--overwrite"))
    (row,) = read_csv(workdir / "history.csv")
    assert "filter_mse" not in row
    assert read_json(workdir / "metrics.json")["precision"] == "parent"
    assert not (workdir / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--config.data.name=mnist", "'mnist'"),
        ("--config.data.split=all", "'all'"),
        ("--config.network.cells=0", "cells must be a whole number >= 1, received: 0"),
        ("--config.network.channels=0", "channels must be a whole number >= 1, received: 0"),
        ("--config.training.epochs=-1", "-1"),
        ("--config.training.batch_size=0", "0"),
        ("--config.training.batch_size=1438", "1437 images"),
        ("--config.training.optimizer=lion", "'lion'"),
        ("--config.training.learning_rate=-0.1", "-0.1"),
        ("--config.training.weight_decay=nan", "nan"),
        ("--config.training.gradient_clip=-1", "-1.0"),
        ("--config.training.seed=4294967296", "4294967296"),
        ("--config.child_parent.filter_weight=-1", "-1.0"),
        ("--config.strategy=tpu", "'tpu'"),
        ("--config.strategy=mirrored", "two devices or more, found /device:CPU:0"),
        ("--config.strategy=multi_worker", "TF_CONFIG"),
        ("--config.mixed_precision=half", "half"),
        ("--config.training.auxiliary_weight=-0.4", "auxiliary_weight must be a number >= 0"),
        ("--config.training.label_smoothing=1", "label_smoothing must be a number in [0, 1)"),
        ("--config.training.early_stopping=0", "early_stopping must be a whole number >= 1"),
        ("--config.training.steps_per_execution=0", "steps_per_execution"),
        ("--config.training.jit_compile=often", "often"),
        ("--config.network.binarization=rbonn", "--config.network.binarization must be one of"),
        ("--config.network.activations=8", "--config.network.activations must be 1 or 32 bits"),
        ("--config.bonn.kernel_weight=-1", "--config.bonn.kernel_weight must be a number >= 0"),
        ("--config.bonn.prior_weight=-1", "--config.bonn.prior_weight must be a number >= 0"),
        ("--config.pcnn.kernel_weight=-1", "--config.pcnn.kernel_weight must be a number >= 0"),
        ("--config.pcnn.weight=1", "unknown key --config.pcnn.weight"),
        ("--warm_start=/missing", "/missing has no checkpoint"),
    ],
)
def test_values_that_are_refused(tmp_path, data_dir, genotype, argument, value):
    valid = (
        *TRAIN,
        f"--genotype={genotype}",
        f"--workdir={tmp_path}/run",
        f"--data_dir={data_dir}",
    )
    check_refused(tmp_path, "train", *valid, argument, value=value)


@pytest.mark.parametrize("network", ["--genotype={genotype}", "--model=wrn22_1bit"])
def test_a_binarization_that_does_not_fit(tmp_path, data_dir, genotype, network):
    settings = ("--config.network.binarization=bonn", "--config.network.activations=32")
    arguments = (*TRAIN, network.format(genotype=genotype), *settings)
    value = "--config.network.activations must be 1 for the binarization bonn, received: 32"
    folders = (f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
    check_refused(tmp_path, "train", *arguments, *folders, value=value)


def test_a_real_network_is_not_binarized(tmp_path, data_dir):
    arguments = (*TRAIN, "--model=wrn22", "--config.network.binarization=pcnn")
    value = "--config.network.binarization is of 1-bit networks, wrn22 is a real one"
    folders = (f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
    check_refused(tmp_path, "train", *arguments, *folders, value=value)


def test_a_training_that_diverges(tmp_path, data_dir, genotype):
    arguments = (*TRAIN, "--config.training.learning_rate=1e30", "--config.training.optimizer=sgd")
    folders = (f"--genotype={genotype}", f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
    line = refusal("train", *arguments, *folders)
    assert re.search("is (nan|inf)|not finite", line)
    assert "learning_rate" in line
    assert not {"genotype.json", "metrics.json"} & set(os.listdir(tmp_path / "run"))
