"""The commands with networks of other kinds: from papers, and for ImageNet."""

import functools
import importlib
import signal

import forked
import numpy as np
import pytest
import small_folder
import small_imagenet
import tensorflow as tf
from commands import (
    PROGRESS,
    TRAIN,
    check_equal_trainings,
    check_refused,
    check_still,
    read_csv,
    read_json,
    succeed,
)


class TestReferenceNetworks:
    """They are trained, evaluated and exported as a genotype's network is."""

    def test_birealnet(self, tmp_path, data_dir):
        workdir = tmp_path / "train"
        arguments = ("--config=configs/train_digits.py", "--model=birealnet18")
        arguments = (*arguments, "--config.training.epochs=1", f"--data_dir={data_dir}")
        printed = succeed(forked.run("train", *arguments, f"--workdir={workdir}"))
        assert "child: test accuracy" in printed
        (row,) = read_csv(workdir / "history.csv")
        assert float(row["filter_mse"]) > 0
        run = read_json(workdir / "config.json")
        assert (run["model"], run["genotype"], run["precision"]) == ("birealnet18", None, "child")
        succeed(forked.run("evaluate", f"--workdir={workdir}"))
        accuracy = read_json(workdir / "evaluation.json")["accuracy"]
        assert accuracy == pytest.approx(read_json(workdir / "metrics.json")["val_accuracy"])
        succeed(forked.run("export", f"--workdir={workdir}", f"--output={tmp_path}/export"))
        assert read_json(tmp_path / "export" / "export.json")["changed_predictions"] == 0

    @pytest.mark.parametrize(
        ("network", "settings", "term"),
        [
            ("--model=wrn22_1bit", {"binarization": "pcnn", "activations": 32}, "projection_error"),
            ("--genotype={genotype}", {"binarization": "bonn"}, "bonn_kernels"),
            ("--genotype={genotype}", {"binarization": "xnor", "activations": 32}, None),
        ],
    )
    def test_what_other_papers_binarize(
        self, tmp_path, data_dir, genotype, network, settings, term
    ):
        workdir = tmp_path / "train"
        arguments = [*TRAIN, network.format(genotype=genotype), "--config.training.batch_size=32"]
        arguments += [f"--config.network.{name}={value}" for name, value in settings.items()]
        if term:
            arguments.append(f"--config.{settings['binarization']}.kernel_weight=1e-3")
        data = ("--config.data.split=train[:64]", f"--data_dir={data_dir}")
        outcome = forked.run("train", *arguments, *data, f"--workdir={workdir}")
        assert outcome.code == 0, outcome.stderr  # it may warn of signs that stay
        *_, row = read_csv(workdir / "history.csv")
        assert "filter_mse" not in row
        assert ("cross_entropy" in row) == (term is not None)
        assert term is None or float(row[term]) > 0
        succeed(forked.run("evaluate", f"--workdir={workdir}"))
        accuracy = read_json(workdir / "evaluation.json")["accuracy"]
        assert accuracy == pytest.approx(read_json(workdir / "metrics.json")["val_accuracy"])
        succeed(forked.run("export", f"--workdir={workdir}", f"--output={tmp_path}/export"))
        summary = read_json(tmp_path / "export" / "export.json")
        assert summary["changed_predictions"] == 0
        assert summary["litert_int8_kernels"] > summary["litert_float_kernels"]

    def test_a_precision_is_refused(self, tmp_path, data_dir):
        arguments = ("--config=configs/train_digits.py", "--model=wrn22", "--precision=child")
        folders = (f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
        check_refused(tmp_path, "train", *arguments, *folders, value="--precision")


class TestFolder:
    """Own images go through the commands."""

    def arguments(self, tmp_path, genotype, *, test_size):
        random = np.random.default_rng(0)
        for split, size in (("train", 8), ("test", test_size)):
            for name in ("cat", "dog"):
                for number in range(4):
                    image = random.integers(256, size=(size, size, 3), dtype=np.uint8)
                    small_folder.write(tmp_path / "pets" / split / name / f"{number}.png", image)
        return (
            *(*TRAIN, "--config.training.batch_size=4", f"--genotype={genotype}"),
            "--config.training.learning_rate=0.1",  # turns signs in a few steps
            *(f"--config.data.name=folder:{tmp_path}/pets", f"--workdir={tmp_path}/run"),
        )

    def test_from_training_to_evaluation(self, tmp_path, genotype):
        succeed(forked.run("train", *self.arguments(tmp_path, genotype, test_size=8)))
        succeed(forked.run("evaluate", f"--workdir={tmp_path}/run"))
        evaluation = read_json(tmp_path / "run" / "evaluation.json")
        assert evaluation["examples"] == 8
        assert set(evaluation["per_class"]) == {"cat", "dog"}

    def test_a_class_that_was_renamed_is_refused_by_all_commands(self, tmp_path, genotype):
        arguments = self.arguments(tmp_path, genotype, test_size=8)
        succeed(forked.run("train", *arguments))
        workdir = f"--workdir={tmp_path}/run"
        succeed(forked.run("export", workdir, f"--output={tmp_path}/export"))
        card = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
        assert "Trained on `folder:pets`" in card
        assert str(tmp_path) not in card
        for split in ("train", "test"):
            (tmp_path / "pets" / split / "cat").rename(tmp_path / "pets" / split / "zebra")
        other = (*arguments[:-1], f"--workdir={tmp_path}/other", f"--warm_start={tmp_path}/run")
        for command in (
            ("evaluate", workdir),
            ("export", workdir, f"--output={tmp_path}/again"),
            ("train", *other),
        ):
            value = "the class 'cat' there, 'zebra' here"
            check_refused(tmp_path, *command, value=value)

    def test_images_added_while_a_training_is_stopped_are_refused(self, tmp_path, genotype):
        command = ("train", *self.arguments(tmp_path, genotype, test_size=8))
        place = {"module": PROGRESS, "owner": "EpochCallback", "method": "on_train_batch_end"}
        stop = functools.partial(forked.signal_self, signal.SIGTERM, call=3, **place)
        assert forked.run(*command, before=stop).code == 130
        small_folder.write(
            tmp_path / "pets" / "train" / "dog" / "4.png", np.zeros((8, 8, 3), np.uint8)
        )
        line = check_refused(tmp_path, *command, value="(train/dog: 4 images (")
        assert " there, 5 images (" in line
        assert "restore them, or start afresh with --overwrite" in line
        (tmp_path / "pets" / "train" / "dog" / "4.png").unlink()
        succeed(forked.run(*command))

    def test_test_images_of_another_size_are_refused_before_the_training(self, tmp_path, genotype):
        arguments = self.arguments(tmp_path, genotype, test_size=12)
        line = check_refused(tmp_path, "train", *arguments, value="--config.data.image_size")
        assert "training images are 8x8, the test images 12x12" in line


def run_out_of_memory():
    def make_optimizer(*args, **given):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when\nallocating")

    importlib.import_module("cpnas_tf.training.loop").make_optimizer = make_optimizer


def test_out_of_memory_is_one_line(tmp_path, data_dir, genotype):
    arguments = (*TRAIN, f"--genotype={genotype}", f"--workdir={tmp_path}/run")
    arguments = (*arguments, f"--data_dir={data_dir}")
    value = "out of memory: try a smaller batch_size"
    check_refused(tmp_path, "train", *arguments, value=value, before=run_out_of_memory)


class TestImageNet:
    """A small set in TFDS's layout of ImageNet goes through all commands, and through stops."""

    def test_from_training_to_export(self, tmp_path, genotype):
        data = f"--data_dir={small_imagenet.write(tmp_path / 'data')}"
        arguments = (
            *("--config=configs/train_imagenet.py:star", f"--genotype={genotype}", data),
            *("--config.data.image_size=64", "--config.network.cells=2"),
            *("--config.network.channels=4", "--config.training.epochs=1"),
            "--config.training.batch_size=10",
        )
        whole, workdir = tmp_path / "whole", tmp_path / "stopped"
        check_still(forked.run("train", *arguments, f"--workdir={whole}"))
        command = ("train", *arguments, f"--workdir={workdir}")
        place = {"module": PROGRESS, "owner": "EpochCallback", "method": "on_train_batch_end"}
        stop = functools.partial(forked.signal_self, signal.SIGTERM, call=1, **place)
        assert forked.run(*command, before=stop).code == 130
        assert (workdir / "checkpoints" / "ckpt-00000-000000001.index").exists()
        check_still(forked.run(*command))
        check_equal_trainings(workdir, whole)
        (row,) = read_csv(workdir / "history.csv")
        assert float(row["auxiliary_loss"]) > 0
        printed = succeed(forked.run("evaluate", f"--workdir={workdir}"))
        evaluation = read_json(workdir / "evaluation.json")
        assert evaluation["examples"] == 6
        assert f"top-5 {evaluation['accuracy_top5']:.2%}" in printed
        assert evaluation["loss"] == pytest.approx(float(row["val_loss"]), rel=1e-4)
        assert len(evaluation["per_class"]) == 1000
        succeed(forked.run("export", f"--workdir={workdir}", f"--output={tmp_path}/export"))
        assert read_json(tmp_path / "export" / "export.json")["changed_predictions"] == 0
        damaged = next((tmp_path / "data").rglob("*validation.tfrecord*"))
        damaged.write_bytes(damaged.read_bytes()[:-100])
        again = ("evaluate", f"--workdir={workdir}", "--overwrite")
        check_refused(workdir, *again, value="truncated record at")
