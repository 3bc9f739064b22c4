"""What the tests of the commands share: small runs, and what is expected of a command."""

import csv
import json
import os
import re
import subprocess
import sys

import forked
import numpy as np
import tensorflow as tf
from forked import ROOT

from cpnas_tf.genotypes import EDGES, Genotype
from cpnas_tf.runs import history

KEPT = ("skip_connect", "max_pool_3x3", "avg_pool_3x3")
SMALL_SEARCH = (
    "--config.split.train_images=64",
    "--config.split.validation_images=32",
    "--config.search.cells=1",
    "--config.search.channels=2",
    "--config.search.batch_size=32",
)
OF_3 = f"--config.search.operations={KEPT}"
SEARCH = ("--config=configs/search_digits.py", *SMALL_SEARCH)
SEARCH_OF_3 = (*SEARCH, OF_3)
SMALL_TRAINING = (
    "--config.network.cells=1",
    "--config.network.channels=2",
    "--config.training.epochs=2",
    "--config.training.batch_size=256",
)
TRAIN = ("--config=configs/train_digits.py", *SMALL_TRAINING)
FOUND = "search/genotype.json"  # in the folder of all commands' results
PROGRESS = "cpnas_tf.training.callback"
TUNER = "cpnas_tf.search.tuner"
# Few layers, so that it is traced fast: a skip, a pooling and convolutions of a node before.
_ON_EDGES = {(0, 2): "skip_connect", (1, 2): "max_pool_3x3", (2, 5): "dil_conv_3x3"}
_CELL = [_ON_EDGES.get(edge, "none") for edge in EDGES]
GENOTYPE = Genotype(normal=_CELL, reduce=_CELL)
# What the tests have set for their own process, and a command has to set itself.
SET_BY_TESTS = {"TF_CPP_MIN_LOG_LEVEL", "TF_USE_LEGACY_KERAS"}


def run_process(name, *arguments, options=()):
    """Runs a command in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key not in SET_BY_TESTS}
    process = subprocess.run(
        [sys.executable, *options, f"bin/{name}.py", *map(str, arguments)],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    return forked.Outcome(process.returncode, process.stdout, process.stderr)


def succeed(outcome):
    """Expects a command to have ended well, with nothing on stderr; returns what it printed."""
    assert outcome.stderr == ""
    assert outcome.code == 0
    return outcome.stdout


def refusal(name, *arguments, before=None):
    """Expects a command to end with one line and an exit code that says so; returns the line."""
    outcome = forked.run(name, *arguments, before=before)
    assert re.fullmatch(r"error: [^\n]+\n", outcome.stderr), outcome.stderr
    assert outcome.code == 1
    return outcome.stderr


def check_refused(tmp_path, name, *arguments, value, before=None):
    """Expects one line that names a value, and nothing written or changed in `tmp_path`."""
    contents = snapshot(tmp_path)
    line = refusal(name, *arguments, before=before)
    assert value in line
    assert snapshot(tmp_path) == contents
    return line


def snapshot(folder):
    """What a folder holds: file or not, content and time of change, by relative path."""
    return {
        str(path.relative_to(folder)): (path.is_file() and path.read_bytes(), path.stat().st_mtime)
        for path in folder.rglob("*")
    }


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def check_equal_searches(*folders):
    """Expects two searches to have found the same in the same way."""
    found, wanted = (
        [(d / "genotype.json").read_text(), *read_csv(d / "search.csv")] for d in folders
    )
    for row in (*found[1:], *wanted[1:]):
        del row["seconds"]
    assert found == wanted


def check_equal_trainings(*folders):
    """Expects two trainings to have made the same of their weights, bit by bit, in the same way."""
    found, wanted = (history.read(folder / "history.csv") for folder in folders)
    for row in (*found, *wanted):
        for name in history.TIMES:
            del row[name]
    assert found == wanted
    found, wanted = map(last_checkpoint, folders)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert np.array(found[name]).tobytes() == np.array(value).tobytes(), name


def last_checkpoint(folder):
    """All tensors of a training's newest checkpoint, but for the record that has its times."""
    path = max((folder / "checkpoints").glob("*.index")).with_suffix("")
    reader = tf.train.load_checkpoint(str(path))
    names = reader.get_variable_to_shape_map().keys() - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    return {name: reader.get_tensor(name) for name in names if not name.startswith("record/")}


def forget_an_image(folder):
    """Has a run's record tell of one image less; returns how that is refused."""
    run = read_json(folder / "config.json")
    assert run["images"]["origin"]["train"] == "1437 images of digits 1.0.0"
    run["images"]["origin"]["train"] = "1436 images of digits 1.0.0"
    (folder / "config.json").write_text(json.dumps(run))
    return "train: 1436 images of digits 1.0.0 there, 1437 images of digits 1.0.0 here"


def check_still(outcome):
    """Expects a training to have ended well, with the one warning that three steps deserve."""
    assert re.fullmatch(r"WARNING: only \S+% of the 1-bit weights changed [^\n]*\n", outcome.stderr)
    assert outcome.code == 0
