"""Own photos of many sizes, in folders of their classes alone: from search to prediction."""

import json
import re
import shutil

import forked
import numpy as np
import pytest
from commands import OF_3, check_refused, read_json, succeed
from photos import COLOURS, make_photos
from PIL import Image

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
        "export": (train, f"--output={folder}/export"),
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
        assert read_json(folder / "train" / "metrics.json")["validated_on"] == "validation"

    def test_photos_that_have_gone(self, own, photos, tmp_path):
        folder, _ = own
        moved = photos.rename(tmp_path / "moved")
        try:
            arguments = (f"--workdir={folder}/train", "--overwrite")
            check_refused(folder, "evaluate", *arguments, value=f"folder not found: {photos}")
        finally:
            moved.rename(photos)


class TestPredict:
    def ask(self, own, *photos):
        """The probabilities of photos, by their path."""
        arguments = (f"--export={own[0]}/export", *photos, "--json")
        answer = json.loads(succeed(forked.run("predict", *arguments)))
        assert answer["classes"] == list(COLOURS)
        return {photo: np.array(values) for photo, values in answer["probabilities"].items()}

    def test_a_folder_is_classified_as_by_evaluate(self, own, photos, tmp_path):
        from cpnas_tf.data import folder as image_folder

        evaluation = read_json(own[0] / "train" / "evaluation.json")
        files = image_folder._files(photos, "test")
        for name in COLOURS:
            (tmp_path / name).mkdir()
            for file in files[name]:
                shutil.copy(file, tmp_path / name)
        found = self.ask(own, tmp_path)
        assert len(found) == evaluation["examples"]
        matrix = np.zeros([3, 3], int)
        for photo, values in found.items():
            row = list(COLOURS).index(photo.split("/")[-2])
            matrix[row, values.argmax()] += 1
            assert values.sum() == pytest.approx(1, abs=1e-5)
        assert matrix.tolist() == evaluation["confusion_matrix"]
        losses = [
            -np.log(values[list(COLOURS).index(photo.split("/")[-2])])
            for photo, values in found.items()
        ]
        assert np.mean(losses) == pytest.approx(evaluation["loss"], rel=1e-3)

    def test_a_line_per_photo_and_a_picture(self, own, photos, tmp_path):
        files = sorted(map(str, (photos / "sand").iterdir()))[:3]
        arguments = (files[0], f"--export={own[0]}/export", *files[1:])  # in any order
        printed = succeed(
            forked.run("predict", *arguments, f"--output={tmp_path}/seen.png")
        ).splitlines()
        for file, values, line in zip(files, self.ask(own, *files).values(), printed, strict=False):
            label, probability = list(COLOURS)[values.argmax()], values.max()
            assert line == f"{file}: {label} {probability:.1%}"
        assert printed[3:] == [f"{tmp_path}/seen.png"]
        with Image.open(tmp_path / "seen.png") as picture:
            assert picture.format == "PNG"
            assert len(picture.convert("RGB").getcolors(10**6)) > 100
        value = f"{tmp_path}/seen.png exists"
        check_refused(tmp_path, "predict", *arguments, f"--output={tmp_path}/seen.png", value=value)

    def test_every_kind_of_file_is_read_as_for_a_training(self, own, tmp_path):
        pixels = np.random.default_rng(1).integers(256, size=[30, 44, 3]).astype(np.uint8)
        image = Image.fromarray(pixels)
        turned = image.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6  # shown after a turn by 270 degrees, which undoes the one above
        image.save(tmp_path / "plain.png")
        image.save(tmp_path / "lossless.webp", lossless=True)
        image.convert("RGBA").save(tmp_path / "transparent.png")
        turned.save(tmp_path / "turned.png", exif=exif)
        image.save(tmp_path / "image.bmp")
        expected, *others = self.ask(own, tmp_path / "plain.png", tmp_path).values()
        assert len(others) == 4
        for values in others:
            np.testing.assert_allclose(values, expected, atol=1e-6)

    def test_the_flatbuffer(self, own, photos):
        saved = self.ask(own, photos / "grass")
        asked = self.ask(own, photos / "grass", "--flatbuffer")
        changed = sum(asked[photo].argmax() != values.argmax() for photo, values in saved.items())
        assert changed <= 1  # that rounding decides

    def test_what_cannot_be_read_is_one_line_behind_the_others(self, own, photos, tmp_path):
        good = photos / "sand" / "0.jpg"
        (tmp_path / "notes.txt").write_text("no photo")
        (tmp_path / "half.jpg").write_bytes(good.read_bytes()[:-300])
        arguments = (
            f"--export={own[0]}/export",
            good,
            tmp_path / "notes.txt",
            tmp_path / "half.jpg",
        )
        ended = forked.run("predict", *arguments)
        assert re.fullmatch(f"{good}: [a-z ]+ [0-9.]+%\n", ended.stdout)
        line = f"error: 2 of 3 photos cannot be used: {tmp_path}/notes.txt is broken [^\n]+\n"
        assert re.fullmatch(line, ended.stderr)
        assert ended.code == 1

    @pytest.mark.parametrize(
        ("arguments", "value"),
        [
            ([], "a photo is needed: python bin/predict.py --export=DIR PHOTO"),
            (["{tmp}/none.jpg"], "{tmp}/none.jpg is not there"),
            (["https://example.org/1.jpg"], "https://example.org/1.jpg is a URL"),
            (["{tmp}/empty"], "no image in {tmp}/empty"),
            (["{tmp}/empty", "--export={tmp}/empty"], "{tmp}/empty holds no export"),
            (["{tmp}/empty", "--export={tmp}/new"], "has format 99"),
            (["{tmp}/empty", "--export={tmp}/old"], "export the network again"),
        ],
    )
    def test_what_is_refused(self, own, tmp_path, arguments, value):
        (tmp_path / "empty").mkdir()
        summary = read_json(own[0] / "export" / "export.json")
        old = {key: summary[key] for key in summary if key != "framing"}
        for name, changed in (("new", {**summary, "format": 99}), ("old", old)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "export.json").write_text(json.dumps(changed))
        arguments = [argument.format(tmp=tmp_path) for argument in arguments]
        export = f"--export={own[0]}/export"
        check_refused(tmp_path, "predict", export, *arguments, value=value.format(tmp=tmp_path))
