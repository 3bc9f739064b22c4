"""The command that exports a finished training."""

import importlib.util
import json
import sys

import forked
import pytest
from commands import check_refused, read_json, succeed

HAS_LCE = importlib.util.find_spec("larq_compute_engine") is not None


def hide_lce():
    sys.modules["larq_compute_engine"] = None


def test_what_is_written(runs):
    written = {"saved_model", "export.json", "README.md", "genotype.png", "predict.py"}
    written |= {"model_litert.tflite"}
    flatbuffer = {"model.tflite"} if HAS_LCE else set()
    assert {path.name for path in (runs / "export").iterdir()} == written | flatbuffer
    assert (runs / "export" / "saved_model" / "saved_model.pb").is_file()
    summary = read_json(runs / "export" / "export.json")
    assert summary["images_checked"] == 360
    assert summary["changed_predictions"] == 0
    assert summary["largest_difference"] <= 1e-4
    for prefix in ["litert_", *(["tflite_"] * HAS_LCE)]:
        assert summary[f"{prefix}images_checked"] == 360
        assert summary[f"{prefix}changed_predictions"] == 0


def test_a_parent(copy_of, tmp_path):
    workdir = copy_of("train")  # its weights fit both precisions
    run = read_json(workdir / "config.json")
    (workdir / "config.json").write_text(json.dumps({**run, "precision": "parent"}))
    arguments = (f"--workdir={workdir}", f"--output={tmp_path}/export")
    succeed(forked.run("export", *arguments))
    summary = read_json(tmp_path / "export" / "export.json")
    flatbuffer = tmp_path / "export" / "model_litert.tflite"
    assert summary["litert_bytes"] == flatbuffer.stat().st_size
    assert summary["litert_changed_predictions"] == summary["changed_predictions"] == 0
    assert summary["tflite_bytes"] is None


def test_it_says_that_the_flatbuffer_needs_lce(runs, tmp_path):
    arguments = (f"--workdir={runs}/train", f"--output={tmp_path}/export")
    printed = succeed(forked.run("export", *arguments, before=hide_lce)).splitlines()
    assert printed[1].startswith("model_litert.tflite, ")
    assert printed[2].startswith("model.tflite left out: it needs Larq Compute Engine")
    assert len(printed) == 3
    assert read_json(tmp_path / "export" / "export.json")["tflite_bytes"] is None


def test_overwrite(runs, copy_of):
    output = copy_of("export")
    (output / "README.md").write_text("old")
    (output / "notes.txt").write_text("mine")
    arguments = (f"--workdir={runs}/train", f"--output={output}", "--overwrite")
    succeed(forked.run("export", *arguments))
    assert read_json(output / "export.json")["images_checked"] == 360
    assert (output / "README.md").read_text() != "old"
    assert (output / "notes.txt").read_text() == "mine"
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_it_keeps_what_is_not_its_own(runs, tmp_path, more):
    (tmp_path / "file").write_text("mine")
    arguments = (f"--workdir={runs}/train", f"--output={tmp_path}", *more)
    check_refused(tmp_path, "export", *arguments, value=f"{tmp_path} is there and is no export")
