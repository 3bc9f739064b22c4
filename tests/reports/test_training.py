"""The report of a training: the result first, and nothing that its files do not say."""

import io
import json

import numpy as np
import pytest
from pages import Page
from PIL import Image

from cpnas_tf.genotypes import EDGES
from cpnas_tf.reports.pages import make_training_report

CELL = ["skip_connect"] * len(EDGES)
RUN = {
    "command": "train",
    "precision": "child",
    "genotype": {"normal": CELL, "reduce": CELL},
    "teacher": "/home/me/runs/parent",
    "config": {"data": {"name": "folder:/home/me/pets"}, "training": {"epochs": 8}},
}
EVALUATION = {
    "accuracy": 0.875,
    "accuracy_top5": 1.0,
    "loss": 0.25,
    "examples": 8,
    "per_class": {"cat": 0.75, "<b>dog</b>": 1.0, "cow": None},
    "confusion_matrix": [[3, 1, 0], [0, 4, 0], [0, 0, 0]],
}
COSTS = {
    "parameters": 12_345,
    "binary_parameters": 10_000,
    "memory_mbit": 1.234,
    "flops_m": 5.678,
}


def history(epochs, *, entropy="cross_entropy"):
    columns = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    columns += [entropy] if entropy != "loss" else []
    rows = [
        {"epoch": e, "loss": 1 / e, "accuracy": 1 - 0.5 / e, "val_loss": 2 / e, "seconds": 30.0}
        | {"val_accuracy": 1 - 0.6 / e, "cross_entropy": 0.9 / e}
        for e in range(1, epochs + 1)
    ]
    lines = [",".join(columns), *(",".join(str(row[name]) for name in columns) for row in rows)]
    return "\n".join(lines) + "\n"


def png():
    content = io.BytesIO()
    Image.fromarray(np.zeros([4, 4, 3], np.uint8)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def workdir(tmp_path):
    """The folder of a finished and evaluated training."""
    (tmp_path / "history.csv").write_text(history(8))
    (tmp_path / "config.json").write_text(json.dumps(RUN))
    (tmp_path / "evaluation.json").write_text(json.dumps(EVALUATION))
    for name in ("confusion_matrix", "examples"):
        (tmp_path / f"{name}.png").write_bytes(png())
    return tmp_path


def test_the_first_number_is_the_result(workdir):
    page = Page(make_training_report(workdir, costs=COSTS))
    assert page.headings[0] == "87.50% test accuracy: child on folder:pets"
    sections = ["Training", "Classes", "Confusion matrix", "Examples", "Size", "Cells"]
    assert page.headings[1:] == [*sections, "Configuration"]
    assert "Unfinished" not in page.words
    for fact in ("test accuracy87.50%", "test images8", "validation accuracy92.50%", "epochs8"):
        assert fact in page.words
    assert page.tables["Test accuracy by class"][1:] == [
        ["cat", "4", "75.00%"],
        ["<b>dog</b>", "4", "100.00%"],
        ["cow", "0", "–"],
    ]
    sizes = dict(page.tables["The network's size and cost, counted as the paper does"])
    assert sizes["of them 1-bit"] == "10,000"
    assert sizes["W/A bits"] == "1/1"
    assert len(page.pictures) == 5


def test_one_that_is_not_finished_or_not_evaluated_says_so(workdir):
    for name in ("evaluation.json", "history.csv"):
        (workdir / name).unlink()
    (workdir / "history.csv").write_text(history(3, entropy="loss"))
    page = Page(make_training_report(workdir))
    assert page.headings[0] == "child on folder:pets"
    assert page.headings[1:] == ["Training", "Cells", "Configuration"]
    assert "Unfinished: 3 of 8 epochs are done." in page.words
    assert "`cpnas evaluate` adds" in page.words
    assert "validation accuracy80.00%" in page.words


def test_the_folders_of_the_user_are_private(workdir):
    assert b"/home/me" not in make_training_report(workdir, costs=COSTS)


def test_one_of_the_library_has_no_record(workdir):
    (workdir / "config.json").unlink()
    assert Page(make_training_report(workdir)).headings[0] == "87.50% test accuracy: network"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("history.csv", None, "nothing to report in .* nor an epoch of a training"),
        ("history.csv", "epoch,loss\n", "history.csv has no epoch yet"),
        ("history.csv", "epoch,loss\n1,two\n", "cannot read .*history.csv: .*two"),
        ("history.csv", "epoch,loss\n1\n", "cannot read .*history.csv"),
        ("evaluation.json", "{", "cannot read .*evaluation.json"),
    ],
)
def test_a_broken_file_is_named(workdir, name, content, message):
    (workdir / name).unlink()
    if content is not None:
        (workdir / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        make_training_report(workdir)
