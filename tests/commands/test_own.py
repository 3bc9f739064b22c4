"""Own photos of many sizes, in folders of their classes alone: from search to evaluation."""

import re

import forked
import pytest
from commands import OF_3, check_refused, read_json, succeed
from photos import COLOURS, make_photos

SEARCH = (
    *("--config=own", OF_3, "--config.search.cells=1", "--config.search.channels=2"),
    "--config.search.batch_size=8",
)
TRAIN = (
    *("--config=own", "--config.network.cells=1", "--config.network.channels=2"),
    *("--config.training.batch_size=8", "--config.training.epochs=6"),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("own") / "photos")


@pytest.fixture(scope="module")
def own(photos):
    """The folder of what the commands make of the photos, and what they print."""
    folder, name = photos.parent, f"--config.data.name=folder:{photos}"
    genotype, train = f"--genotype={folder}/search/genotype.json", f"--workdir={folder}/train"
    commands = {
        "search": (*SEARCH, name, f"--workdir={folder}/search"),
        "train": (*TRAIN, name, genotype, train),
        "evaluate": (train,),
    }
    printed = {command: succeed(forked.run(command, *commands[command])) for command in commands}
    return folder, printed


class TestTraining:
    def test_the_size_and_the_parts_are_said(self, own):
        _, printed = own
        # Of the shorter sides 21, 24, 30 and 50 the lower median is 24.
        said = "images of 24x24 pixels: 24 to train, 6 to validate"
        classes = f"3 classes: {', '.join(COLOURS)}\n"
        assert f"{said}; {classes}" in printed["search"]
        assert f"{said}, 6 to test; {classes}" in printed["train"]

    def test_no_choice_sees_the_photos_to_test_with(self, own):
        folder, printed = own
        assert re.search(r"^child: validation accuracy ", printed["train"], re.MULTILINE)
        read = {
            run: read_json(folder / run / "config.json")["images"] for run in ("search", "train")
        }
        parts = {run: {key.split("/")[0] for key in read[run]["origin"]} for run in read}
        assert parts["search"] == {"train", "validation"}
        assert parts["train"] == {"train", "validation", "test"}
        assert read["search"]["shape"] == read["train"]["shape"] == [24, 24, 3]
        assert read_json(folder / "train" / "evaluation.json")["examples"] == 6

    def test_photos_that_have_gone(self, own, photos, tmp_path):
        folder, _ = own
        moved = photos.rename(tmp_path / "moved")
        try:
            arguments = (f"--workdir={folder}/train", "--overwrite")
            check_refused(folder, "evaluate", *arguments, value=f"folder not found: {photos}")
        finally:
            moved.rename(photos)
