"""The command that evaluates a finished training."""

import json

import forked
import pytest
from commands import check_refused, read_json, succeed


def test_what_is_written(runs):
    evaluation = read_json(runs / "train" / "evaluation.json")
    metrics = read_json(runs / "train" / "metrics.json")
    assert evaluation["examples"] == 360
    assert evaluation["accuracy"] == pytest.approx(metrics["val_accuracy"])
    assert evaluation["loss"] == pytest.approx(metrics["val_loss"], rel=1e-4)
    assert evaluation["accuracy"] <= evaluation["accuracy_top5"] <= 1
    assert list(evaluation["per_class"]) == list("0123456789")
    matrix = evaluation["confusion_matrix"]
    assert sum(matrix[i][i] for i in range(10)) == round(evaluation["accuracy"] * 360)
    for name in ("confusion_matrix", "examples"):
        assert (runs / "train" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_overwrite(runs, copy_of):
    path = copy_of("train") / "evaluation.json"
    path.write_text("old")
    succeed(forked.run("evaluate", f"--workdir={path.parent}", "--overwrite"))
    assert read_json(path) == read_json(runs / "train" / "evaluation.json")


def test_a_training_whose_data_has_gone(copy_of, tmp_path):
    workdir = copy_of("train")
    run = read_json(workdir / "config.json")
    run["data_dir"] = "/proc/below"
    (workdir / "config.json").write_text(json.dumps(run))
    arguments = (f"--workdir={workdir}", "--overwrite")
    check_refused(tmp_path, "evaluate", *arguments, value="digits is not in /proc/below")
    succeed(forked.run("evaluate", *arguments, f"--data_dir={tmp_path}/new"))
