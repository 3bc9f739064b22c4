"""An operation is added in one place: searches, networks, exports, drawings and reports follow."""

import csv
import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest
from made_once import made_once
from pages import Page

from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype

NAME = "sep_conv_7x7"
PROGRAM = pathlib.Path(__file__).parents[1] / "helpers" / "new_operation.py"


@pytest.fixture(scope="module")
def folder(shared_folder):
    """What the user's program left; it runs in a process of its own, as it changes the space."""
    return made_once(shared_folder / "new_operation", run_program)


def run_program(folder):
    command = [sys.executable, PROGRAM, folder]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_is_searched_for(folder):
    rows = read_csv(folder / "cpnas" / "search.csv")
    assert len(rows) == 2
    for choice in CHOICES:
        assert {row[choice] for row in rows} == {"skip_connect", NAME}
    genotype = read_json(folder / "cpnas" / "genotype.json")
    assert {*genotype["normal"], *genotype["reduce"]} == {"skip_connect", NAME}
    (row,) = read_csv(folder / "pc_darts" / "search.csv")
    assert {row[choice] for choice in CHOICES} == {"none", "skip_connect", NAME}


def test_its_network_is_counted(folder):
    layers = read_json(folder / "profile.json")["layers"]
    kernels = {layer["name"]: layer for layer in layers if NAME in layer["name"]}
    scopes = [f"cell0_{edge}_{NAME}" for edge in ("0_2", "4_5")]
    parts = ("depthwise", "convolution", "depthwise_2", "convolution_2")
    assert sorted(kernels) == sorted(f"{scope}_{part}" for scope in scopes for part in parts)
    for name, kernel in kernels.items():
        channels = 4
        size = 7 * 7 * channels if "depthwise" in name else channels * channels
        assert (kernel["binary_parameters"], kernel["real_parameters"]) == (size, 0)


def test_its_network_is_trained_and_exported(folder):
    assert [row["epoch"] for row in read_csv(folder / "train" / "history.csv")] == ["1"]
    summary = read_json(folder / "summary.json")
    assert (summary["images_checked"], summary["changed_predictions"]) == (32, 0)
    has_converter = importlib.util.find_spec("larq_compute_engine") is not None
    assert (folder / "export" / "model.tflite").exists() == has_converter


@pytest.mark.parametrize("method", ["cpnas", "pc_darts"])
def test_it_is_drawn_and_reported(folder, method):
    texts = (folder / method / "plots" / "genotype.svg").read_text(encoding="utf-8")
    assert texts.count(f">{NAME}<") == 2
    page = Page((folder / method / "report.html").read_bytes())
    rows = [row for rows in page.tables.values() for row in rows]
    assert NAME in [cell for row in rows for cell in row]


def test_its_place_in_the_search_is_drawn(folder):
    picture = (folder / "cpnas" / "plots" / "search.svg").read_text(encoding="utf-8")
    assert f">{NAME}<" in picture


def test_without_its_row_it_is_refused(folder):
    assert NAME not in OPERATIONS
    for path in (folder / "own.json", folder / "cpnas" / "genotype.json"):
        with pytest.raises(ValueError, match="cannot read the genotype") as error:
            Genotype.load(path)
        assert f"unknown operation '{NAME}' in the " in str(error.value)
        assert "\n" not in str(error.value)
