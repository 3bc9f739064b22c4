"""The commands with networks of other kinds: from papers, and for ImageNet."""

import functools
import signal

import forked
import pytest
import small_imagenet
from commands import PROGRESS, check_equal_trainings, check_refused, read_csv, read_json, succeed


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

    def test_a_precision_is_refused(self, tmp_path, data_dir):
        arguments = ("--config=configs/train_digits.py", "--model=wrn22", "--precision=child")
        folders = (f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
        check_refused(tmp_path, "train", *arguments, *folders, value="--precision")


class TestImageNet:
    """A small set in TFDS's layout of ImageNet goes through all commands, and through stops."""

    def test_from_training_to_export(self, tmp_path, genotype):
        data = f"--data_dir={small_imagenet.write(tmp_path / 'data')}"
        arguments = (
            *("--config=configs/train_imagenet.py:star", f"--genotype={genotype}", data),
            *("--config.data.image_size=64", "--config.network.cells=3"),
            *("--config.network.channels=4", "--config.training.epochs=1"),
            "--config.training.batch_size=10",
        )
        whole, workdir = tmp_path / "whole", tmp_path / "stopped"
        succeed(forked.run("train", *arguments, f"--workdir={whole}"))
        command = ("train", *arguments, f"--workdir={workdir}")
        place = {"module": PROGRESS, "owner": "Progress", "method": "on_train_batch_end"}
        for number, call, code in ((signal.SIGTERM, 1, 130), (signal.SIGKILL, 1, -signal.SIGKILL)):
            stop = functools.partial(forked.signal_self, number, call=call, **place)
            assert forked.run(*command, before=stop).code == code
        assert (workdir / "checkpoints" / "ckpt-00000-000000001.index").exists()
        succeed(forked.run(*command))
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
