"""A process may die between any two changes of the disk: what it leaves is the old or the new."""

import json
import pathlib
import shutil

import cpnas_tf  # noqa: F401, isort: skip
import crashes
import fake_ablation
import pytest
import tensorflow as tf
from exportable import IMAGES, small_model
from fake_epochs import run_epochs

from cpnas_tf import files
from cpnas_tf.ablation import grid, table
from cpnas_tf.export import bundle
from cpnas_tf.genotypes import CHOICES, Genotype
from cpnas_tf.runs import history, search_log, workdir
from cpnas_tf.runs.checkpoints import Checkpoints

EPOCHS = 3
MINE = {"notes.txt": b"mine", "logs/notes.txt": b"mine", "checkpoints/a.partial": b"mine"}


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(pathlib.Path(folder).rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def place_mine(folder):
    for name, content in MINE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def record(command, seed):
    return {"version": "0.2.0", "config": {"seed": seed}, "data_dir": None, "command": command}


def go_on(folder, write_log):
    """The epochs that are left of a run of three, whose state is their sum."""
    total = tf.Variable(0.0)
    checkpoints = Checkpoints(
        folder, strategy=tf.distribute.get_strategy(), in_graph=False, total=total
    )
    checkpoints.record = {"done": 0}
    checkpoints.restore()
    for epoch in range(checkpoints.record["done"] + 1, EPOCHS + 1):
        total.assign_add(epoch)
        write_log(epoch)
        checkpoints.record = {"done": epoch}
        checkpoints.save(epochs=epoch, steps=epoch)
    return total.numpy()


def search(folder, *, seed=0, overwrite=False):
    rows = [{"choices": [row[c] for c in CHOICES], **row} for row in run_epochs(EPOCHS, seed=seed)]
    options = {"result": "genotype.json", "written": workdir.SEARCH, "overwrite": overwrite}
    with workdir.claim(folder, record("search", seed), **options):
        total = go_on(
            folder, lambda epoch: search_log.write_epochs(folder / "search.csv", rows[:epoch])
        )
        assert total == 6
        Genotype.from_choices(rows[-1]["choices"]).save(folder / "genotype.json")


def train(folder, *, seed=0, overwrite=False):
    rows = [{"epoch": epoch, "loss": seed + 1 / epoch} for epoch in range(1, EPOCHS + 1)]
    options = {"result": "metrics.json", "written": workdir.TRAINING, "overwrite": overwrite}
    with workdir.claim(folder, record("train", seed), **options):
        total = go_on(folder, lambda epoch: history.write(folder / "history.csv", rows[:epoch]))
        assert total == 6
        files.write_json(folder / "metrics.json", rows[-1])


def ablate(folder, *, seed=0, overwrite=False):
    options = {"result": None, "written": workdir.ABLATION, "overwrite": overwrite}
    accuracies = {("random", None): [[0.5 + seed / 10]], ("bnas", 0.0): [[0.7 + seed / 10]]}
    with workdir.claim(folder, record("ablate", seed), **options):
        for kind, name, records, written in (
            ("searches", "search.json", fake_ablation.searches_of, workdir.SEARCH_OF_ABLATION),
            ("runs", "run.json", fake_ablation.runs_of, workdir.TRAINING_OF_ABLATION),
        ):
            for made in records(accuracies):
                place = folder / kind / made["method"]
                grid._make_or_read(place, name, lambda _, made=made: made, written)
        table.write(folder)


def check_search(folder):
    if (folder / "search.csv").exists():
        search_log.read(folder / "search.csv")
    if (folder / "genotype.json").exists():
        Genotype.load(folder / "genotype.json")
        assert len(search_log.read(folder / "search.csv")) == EPOCHS


def check_train(folder):
    if (folder / "history.csv").exists():
        history.read(folder / "history.csv")
    if (folder / "metrics.json").exists():
        files.read_json(folder / "metrics.json")
        assert len(history.read(folder / "history.csv")) == EPOCHS


def check_ablate(folder):
    _, runs = table.read(folder)
    if (folder / "table.csv").exists():
        assert len(runs) == 2


RUNS = {
    "search": (search, check_search, "genotype.json"),
    "train": (train, check_train, "metrics.json"),
    "ablate": (ablate, check_ablate, "table.json"),
}


def without_checkpoints(folder):
    """What a run wrote, but for TensorFlow's files, which differ in bytes."""
    return {
        name: content
        for name, content in contents(folder).items()
        if not name.startswith("checkpoints/ckpt-")
    }


@pytest.mark.parametrize("command", RUNS)
def test_a_run_goes_on_to_the_same_end(command, tmp_path, monkeypatch):
    run, check, result = RUNS[command]
    whole = tmp_path / "whole"
    run(whole)
    place_mine(whole)
    count = 0

    def prepare(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        return folder

    for folder in crashes.each_instant(monkeypatch, prepare, run):
        found = workdir.read(folder)
        assert not found or found["config"] == {"seed": 0}
        check(folder)
        if found:
            place_mine(folder)
        if not (folder / result).exists() or command == "ablate":
            run(folder)
        place_mine(folder)
        assert without_checkpoints(folder) == without_checkpoints(whole)
        shutil.rmtree(folder)
        count += 1
    assert count > 20


@pytest.mark.parametrize("command", RUNS)
def test_overwriting_leaves_the_old_run_or_the_new_one(command, tmp_path, monkeypatch):
    run, check, result = RUNS[command]
    folders = {}
    for seed in (0, 1):
        run(tmp_path / f"seed{seed}", seed=seed)
        place_mine(tmp_path / f"seed{seed}")
        folders[seed] = without_checkpoints(tmp_path / f"seed{seed}")

    def prepare(number):
        return pathlib.Path(shutil.copytree(tmp_path / "seed0", tmp_path / str(number)))

    def replace(folder):
        run(folder, seed=1, overwrite=True)

    for folder in crashes.each_instant(monkeypatch, prepare, replace):
        seed = workdir.read(folder)["config"]["seed"]
        check(folder)
        here = without_checkpoints(folder)
        for name in here.keys() & folders[seed].keys() - {"search.csv", "history.csv"}:
            assert here[name] == folders[seed][name], (folder, name)
        if not (seed == 1 and (folder / result).exists()):
            run(folder, seed=1, overwrite=True)
        assert without_checkpoints(folder) == folders[1]
        shutil.rmtree(folder)


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_an_export_is_the_old_one_or_the_new_one(tmp_path, monkeypatch, there, can_exchange):
    model = small_model()
    monkeypatch.setattr(bundle, "layer_costs", lambda model: [])
    monkeypatch.setattr(bundle, "total", lambda costs: {"bits": 1})
    if not can_exchange:
        monkeypatch.setattr(files, "_exchange", lambda *paths: False)

    def export(folder, content):
        def write(path, *args):
            pathlib.Path(path).mkdir()
            files.write_atomically(f"{path}/saved_model.pb", content)
            return {"saved_model_bytes": len(content), "largest_difference": 0.0}

        def write_file(path, *args):
            files.write_atomically(path, content)
            return {}

        monkeypatch.setattr(bundle, "_write_saved_model", write)
        monkeypatch.setattr(bundle, "_write_flatbuffer", write_file)
        card = f"{content}\n"
        monkeypatch.setattr(
            bundle,
            "write_model_card",
            lambda new, *args, **given: write_file(f"{new}/README.md", card),
        )
        bundle.export(model, IMAGES.take(slice(2)), directory=folder / "out", overwrite=True)

    def prepare(number):
        folder = tmp_path / str(number)
        folder.mkdir()
        if there:
            export(folder, "old")
            (folder / "out" / "notes.txt").write_text("mine")
        return folder

    mine = {"notes.txt": b"mine"} if there else {}
    old = contents(prepare("old") / "out")
    new = prepare("new")
    export(new, "newer")
    new = contents(new / "out")
    assert new.items() >= mine.items()
    lost = 0
    for folder in crashes.each_instant(
        monkeypatch, prepare, lambda folder: export(folder, "newer")
    ):
        found = contents(folder / "out")
        if there and not (folder / "out").exists():  # for the one instant between both renames
            lost += 1
            found = contents(folder / "out.partial" / "old")
        assert found in (old, new)
        export(folder, "newer")
        assert contents(folder) == {f"out/{name}": content for name, content in new.items()}
        shutil.rmtree(folder)
    assert lost == (there and not can_exchange)


@pytest.mark.parametrize("name", ["report.html", "evaluation.json"])
def test_a_file_is_the_old_one_or_the_new_one(name, tmp_path, monkeypatch):
    path, seen = tmp_path / name, set()

    def prepare(number):
        path.write_text("old")
        return path

    for path in crashes.each_instant(
        monkeypatch, prepare, lambda path: files.write_atomically(path, "newer")
    ):
        seen.add(path.read_text())
        assert path.read_text() in ("old", "newer")
        files.write_atomically(path, "newer")
        assert json.dumps(path.read_text()) == '"newer"'
    assert "old" in seen
