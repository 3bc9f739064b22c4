import itertools
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from one_line import assert_one_line
from PIL import Image
from small_folder import write

from cpnas_tf.data import datasets
from cpnas_tf.data import folder as image_folder

RANDOM = np.random.default_rng(0)
# Corners of an image: what a mode keeps of red, green, blue and white.
CORNERS = np.array([[[200, 0, 0], [0, 150, 0]], [[0, 0, 250], [255, 255, 255]]], np.uint8)


def pixels(height=8, width=8):
    return RANDOM.integers(256, size=(height, width, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A folder of two classes with an image each, in both splits."""
    for split in datasets.SPLITS:
        for name in ("cat", "dog"):
            write(tmp_path / split / name / "1.png", pixels())
    return tmp_path


class TestLoad:
    def test_images_labels_and_names_in_order(self, tmp_path):
        names = ["train/dog/1.png", "train/Cat/b.PNG", "train/Cat/a.png", "train/ape/1.png"]
        written = {name: write(tmp_path / name, pixels(9, 12)) for name in names}
        images = image_folder.load(tmp_path, "train")
        assert images.class_names == ("Cat", "ape", "dog")
        np.testing.assert_array_equal(images.labels, [0, 0, 1, 2])
        order = ["train/Cat/a.png", "train/Cat/b.PNG", "train/ape/1.png", "train/dog/1.png"]
        np.testing.assert_array_equal(images.images, [written[name] for name in order])

    def test_other_files_are_left_out(self, folder):
        expected = image_folder.load(folder, "train").images
        for name in (".hidden.png", "Thumbs.db", "notes.txt"):
            folder.joinpath("train", "cat", name).write_bytes(b"no image")
        folder.joinpath("train", ".cache").mkdir()
        folder.joinpath("train", "list.csv").touch()
        np.testing.assert_array_equal(image_folder.load(folder, "train").images, expected)

    @pytest.mark.parametrize("name", ["test", "validation", "val"])
    def test_the_names_of_a_test_folder(self, folder, name):
        folder.joinpath("test").rename(folder / name)
        image = write(folder / name / "cat" / "0.png", pixels())
        images = image_folder.load(folder, "test")
        assert len(images) == 3
        np.testing.assert_array_equal(images.images[0], image)

    @pytest.mark.parametrize(
        ("mode", "suffix", "tolerance"),
        [
            *[("RGB", suffix, 0) for suffix in ("png", "bmp", "gif")],
            *[("RGB", "jpg", 3), ("CMYK", "jpg", 3), ("RGB", "webp", 3)],
            *[("RGBA", "png", 0), ("RGBA", "bmp", 0), ("P", "png", 0)],
        ],
    )
    def test_colours_in_all_modes(self, folder, mode, suffix, tolerance):
        image = Image.fromarray(CORNERS.repeat(32, axis=0).repeat(32, axis=1))
        palette = {"palette": Image.Palette.ADAPTIVE} if mode == "P" else {}
        options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
        options = {"lossless": True} if suffix == "webp" else options
        image.convert(mode, **palette).save(folder / "train" / "cat" / f"0.{suffix}", **options)
        images = image_folder.load(folder, "train", image_size=64)
        assert images.images.shape[1:] == (64, 64, 3)
        found = images.images[0, 16::32, 16::32].astype(int)
        np.testing.assert_allclose(found, CORNERS, rtol=0, atol=tolerance)

    @pytest.mark.parametrize(
        ("mode", "suffix"),
        [("L", "png"), ("LA", "png"), ("1", "png"), ("L", "jpg"), ("I;16", "png")],
    )
    def test_grey_in_all_modes(self, folder, mode, suffix):
        shades = np.array([0, 255]).repeat(8) * np.ones([16, 1], int)
        image = Image.fromarray(shades.astype(np.uint8))
        if mode == "I;16":
            image = Image.fromarray((shades * 257).astype(np.uint16))
        else:
            image = image.convert(mode)
        image.save(folder / "train" / "cat" / f"0.{suffix}")
        found = image_folder.load(folder, "train", image_size=16).images[0]
        np.testing.assert_array_equal(found, shades[..., np.newaxis].repeat(3, axis=2))

    @pytest.mark.parametrize(
        "name",
        ["8.bmp", "1.bmp", "palette.png", "bytes.png", "la.webp", "tif.tif", "progressive.jpg"],
    )
    def test_odd_kinds_are_what_pillow_shows(self, folder, name):
        row, column = np.mgrid[:32, :32]
        image = Image.fromarray(
            np.stack([column * 8, row * 8, 255 - column * 4], -1).astype(np.uint8)
        )
        file = folder / "train" / "cat" / f"0{name[name.index('.') :]}"
        options = {
            "bytes.png": {"transparency": bytes(range(0, 256, 8))},
            "progressive.jpg": {"progressive": True, "quality": 95},
            "la.webp": {"lossless": True},
        }
        mode = {"8.bmp": "P", "1.bmp": "1", "la.webp": "RGBA"}.get(name, "RGB")
        image = image.quantize(32) if name in ("palette.png", "bytes.png") else image.convert(mode)
        image.save(file, **options.get(name, {}))
        found = image_folder.load(folder, "train", image_size=32).images[0]
        np.testing.assert_array_equal(found, Image.open(file).convert("RGBA").convert("RGB"))

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_photos_are_upright(self, folder, orientation):
        upright = pixels(24, 16)
        turned = {
            1: upright,
            2: upright[:, ::-1],
            3: upright[::-1, ::-1],
            4: upright[::-1],
            5: upright.transpose(1, 0, 2),
            6: upright.transpose(1, 0, 2)[::-1],
            7: upright.transpose(1, 0, 2)[::-1, ::-1],
            8: upright.transpose(1, 0, 2)[:, ::-1],
        }[orientation]
        exif = Image.Exif()
        exif[0x0112] = orientation
        for name in ("cat", "dog"):
            folder.joinpath("train", name, "1.png").unlink()
            file = folder / "train" / name / "0.png"
            Image.fromarray(np.ascontiguousarray(turned)).save(file, exif=exif)
        found = image_folder.load(folder, "train").images
        np.testing.assert_array_equal(found[0], upright)

    @pytest.mark.parametrize("shades", [np.arange(256) * 257, np.arange(256) * 16])
    def test_of_16_bits_the_upper_8_count(self, folder, shades):
        image = np.tile(shades.astype(np.uint16), [256, 1])
        Image.fromarray(image).save(folder / "train" / "cat" / "0.png")
        found = image_folder.load(folder, "train", image_size=256).images[0]
        np.testing.assert_array_equal(found, (image // 256)[..., np.newaxis].repeat(3, 2))

    def test_the_content_says_what_a_file_is(self, folder):
        image = pixels(16, 16)
        with open(folder / "train" / "cat" / "0.jpg", "wb") as file:
            Image.fromarray(image).save(file, "PNG")
        found = image_folder.load(folder, "train", image_size=16).images[0]
        np.testing.assert_array_equal(found, image)

    def test_folders_below_a_class_belong_to_it(self, folder):
        image = write(folder / "train" / "cat" / "more" / "0.png", pixels())
        images = image_folder.load(folder, "train")
        np.testing.assert_array_equal(images.labels, [0, 0, 1])
        np.testing.assert_array_equal(images.images[1], image)

    def test_images_that_are_left_out_are_named(self, folder, caplog):
        for name in ("1.HEIC", "2.heic"):
            folder.joinpath("train", "cat", name).write_bytes(b"")
        assert len(image_folder.load(folder, "train")) == 2
        assert "2 images are left out, such as" in caplog.text
        assert "1.HEIC: save them as JPEG or PNG" in caplog.text

    def test_names_in_two_forms_of_unicode_are_one(self, folder):
        folder.joinpath("train", "cat").rename(folder / "train" / "caf\u00e9")
        folder.joinpath("test", "cat").rename(folder / "test" / "cafe\u0301")
        for split in datasets.SPLITS:
            assert image_folder.load(folder, split).class_names == ("caf\u00e9", "dog")

    def test_other_sizes_give_their_middle_resized(self, folder):
        tall, wide = pixels(50, 30), pixels(21, 64)
        for number, image in enumerate((tall, wide, np.full([16, 16, 3], 77, np.uint8)), start=2):
            write(folder / "train" / "cat" / f"{number}.png", image)
        found = image_folder.load(folder, "train", image_size=16).images
        for image, expected in zip(found[1:3], (tall[10:40], wide[:, 21:42]), strict=True):
            resized = Image.fromarray(expected).resize((16, 16), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(image.astype(int), resized, rtol=0, atol=1)
        assert set(found[3].ravel()) == {77}

    def test_the_right_size_is_left_alone(self, folder):
        np.testing.assert_array_equal(
            image_folder.load(folder, "train", image_size=8).images,
            image_folder.load(folder, "train").images,
        )


class TestParts:
    """Which images are to train on, to validate on and to test with."""

    @pytest.fixture
    def whole(self, tmp_path):
        """A folder of two classes, 20 and 7 images, without splits."""
        for name, count in (("cat", 20), ("dog", 7)):
            for number in range(count):
                write(tmp_path / name / f"{number}.png", pixels())
        return tmp_path

    def parts(self, folder):
        """The files of each part, by class."""
        return {split: image_folder._files(folder, split) for split in image_folder.SPLITS}

    def test_a_folder_without_splits_is_divided_class_by_class(self, whole):
        parts = self.parts(whole)
        counts = {split: [len(files) for files in parts[split].values()] for split in parts}
        assert counts == {"train": [14, 5], "validation": [3, 1], "test": [3, 1]}
        for name in ("cat", "dog"):
            files = sum((parts[split][name] for split in parts), [])
            assert sorted(files) == sorted(map(str, (whole / name).iterdir()))
        assert image_folder.has_validation(whole)
        loaded = {split: image_folder.load(whole, split) for split in parts}
        assert {split: len(images) for split, images in loaded.items()} == {
            **{"train": 19, "validation": 4, "test": 4}
        }
        assert loaded["validation"].origin.keys() == {"validation/cat", "validation/dog"}
        assert loaded["test"].class_names == ("cat", "dog")

    def test_the_names_of_the_files_decide(self, whole, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
        before = self.parts(shutil.copytree(whole, elsewhere))
        for number in range(20):
            write(elsewhere / "cat" / f"{number}.png", pixels())
        write(elsewhere / "cow" / "1.png", pixels())
        for number in range(2, 5):
            write(elsewhere / "cow" / f"{number}.png", pixels())
        after = self.parts(elsewhere)
        for split in before:
            assert {name: after[split][name] for name in ("cat", "dog")} == before[split]

    def test_a_further_image_moves_few(self, whole):
        before = self.parts(whole)["test"]["cat"]
        write(whole / "cat" / "new.png", pixels())
        assert len({*before} - {*self.parts(whole)["test"]["cat"]}) <= 1

    def test_a_series_comes_apart(self, whole):
        for number in range(20, 100):
            write(whole / "cat" / f"{number}.png", pixels())
        numbers = {int(os.path.basename(f)[:-4]) for f in self.parts(whole)["test"]["cat"]}
        assert max(numbers) - min(numbers) > 50
        assert sum(number + 1 in numbers for number in numbers) < len(numbers) / 3

    @pytest.mark.parametrize("name", ["validation", "valid", "val"])
    def test_the_names_of_a_validation_folder(self, folder, name):
        assert not image_folder.has_validation(folder)
        image = write(folder / name / "cat" / "0.png", pixels())
        write(folder / name / "dog" / "0.png", pixels())
        assert image_folder.has_validation(folder)
        found = image_folder.load(folder, "validation")
        np.testing.assert_array_equal(found.images[0], image)
        assert [len(image_folder.load(folder, split)) for split in datasets.SPLITS] == [2, 2]

    def test_one_that_is_for_tests_is_not_for_validation(self, folder):
        folder.joinpath("test").rename(folder / "val")
        assert not image_folder.has_validation(folder)
        assert datasets.load_validation(f"folder:{folder}") is None

    def test_of_other_classes(self, folder):
        write(folder / "val" / "cow" / "0.png", pixels())
        write(folder / "val" / "dog" / "0.png", pixels())
        with pytest.raises(ValueError, match="different classes in train and validation"):
            datasets.load_validation(f"folder:{folder}")

    def test_a_class_of_two_images(self, whole):
        for number in range(2):
            write(whole / "cow" / f"{number}.png", pixels())
        with pytest.raises(ValueError, match="/cow needs at least 3 images, .*: 2") as error:
            image_folder.load(whole, "test")
        assert_one_line(error)


class TestChosenSize:
    """The side that images of several sizes get."""

    @pytest.mark.parametrize(
        ("sides", "largest", "chosen"),
        [
            ([(100, 40), (50, 60), (300, 200)], 64, 48),  # the second, as a multiple of 4
            ([(4000, 3000)], 64, 64),
            ([(4000, 3000)], 96, 96),
            ([(28, 28)], 64, 28),
            ([(9, 30)], 64, 8),
        ],
    )
    def test_half_of_the_images_are_not_enlarged(self, tmp_path, sides, largest, chosen):
        for number, size in enumerate(sides):
            for split, name in itertools.product(datasets.SPLITS, ("cat", "dog")):
                path = tmp_path / split / name / f"{number}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", size).save(path)
        assert image_folder.choose_size(tmp_path, largest) == chosen
        for split in datasets.SPLITS:
            images = image_folder.load(tmp_path, split, largest_size=largest)
            assert images.image_shape == (chosen, chosen, 3)
            described = image_folder.describe(tmp_path, split, largest_size=largest)
            assert described == (images.image_shape, 2)
        assert image_folder.load(tmp_path, "test", image_size=12, largest_size=largest).image_shape[
            :2
        ] == (12, 12)

    @pytest.mark.parametrize(("count", "chosen"), [(488, 64), (500, 60), (1954, 32), (9999, 32)])
    def test_it_is_less_of_many(self, monkeypatch, count, chosen):
        files = {"cat": ["a"] * (count - 1), "dog": ["b"]}
        monkeypatch.setattr(image_folder, "_files", lambda path, split: files)
        monkeypatch.setattr(image_folder, "_shorter_side", lambda file: 500)
        assert image_folder.choose_size("photos", 64) == chosen

    def test_broken_images_are_left_to_load(self, folder):
        (folder / "train" / "cat" / "broken.png").write_bytes(b"none")
        assert image_folder.choose_size(folder, 64) == 8
        with pytest.raises(ValueError, match="1 of 3 images cannot .*broken.png is broken"):
            image_folder.load(folder, "train", largest_size=64)

    def test_no_image_at_all(self, folder):
        for path in folder.glob("train/*/*"):
            path.write_bytes(b"none")
        with pytest.raises(ValueError, match="none of the 2 images in .* can be read") as error:
            image_folder.load(folder, "train", largest_size=64)
        assert_one_line(error)


class TestOrigin:
    """What tells the files from others."""

    def origin(self, folder):
        return image_folder.load(folder, "train", image_size=8).origin

    def test_a_text_per_class(self, folder):
        (folder / "train" / "dog" / "1.png").unlink()
        for name in ("1.png", "2.png"):
            write(folder / "train" / "dog" / name, pixels())
        origin = self.origin(folder)
        assert list(origin) == ["train/cat", "train/dog"]
        sizes = [path.stat().st_size for path in (folder / "train" / "dog").iterdir()]
        assert origin["train/dog"].startswith(f"2 images ({sum(sizes)} bytes, checksum ")
        assert image_folder.load(folder, "test").origin.keys() == {"test/cat", "test/dog"}

    def test_it_is_the_same_elsewhere_and_beside_other_files(self, folder, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
        shutil.copytree(folder, elsewhere, copy_function=shutil.copyfile)
        (elsewhere / "train" / "cat" / ".DS_Store").write_bytes(b"none of ours")
        assert self.origin(elsewhere) == self.origin(folder)

    def test_it_is_the_same_in_another_form_of_unicode(self, folder):
        cats = folder / "train" / "cat"
        for composed in ("caf\u00e9.png", "cafz.png"):
            write(cats / composed, pixels())
        before = self.origin(folder)
        (cats / "caf\u00e9.png").rename(cats / "cafe\u0301.png")
        assert self.origin(folder) == before

    @pytest.mark.parametrize("change", ["added", "removed", "renamed", "moved"])
    def test_a_change_is_seen(self, folder, change):
        cats = folder / "train" / "cat"
        write(cats / "2.png", pixels())
        before = self.origin(folder)
        if change == "added":
            write(cats / "3.png", pixels())
        elif change == "removed":
            (cats / "2.png").unlink()
        elif change == "moved":
            (cats / "below").mkdir()
            (cats / "2.png").rename(cats / "below" / "2.png")
        else:
            (cats / "2.png").rename(cats / "3.png")
        after = self.origin(folder)
        assert after["train/cat"] != before["train/cat"]
        assert after["train/dog"] == before["train/dog"]

    def test_another_image_of_the_same_name_and_size_is_seen(self, folder):
        path = folder / "train" / "cat" / "2.bmp"
        Image.fromarray(pixels()).save(path)
        before, size = self.origin(folder), path.stat().st_size
        Image.fromarray(pixels()).save(path)
        assert path.stat().st_size == size
        assert self.origin(folder)["train/cat"] != before["train/cat"]


class TestErrors:
    def test_no_folder(self, tmp_path):
        with pytest.raises(ValueError, match="folder not found: .*/train") as error:
            image_folder.load(tmp_path / "nowhere", "train")
        assert_one_line(error, tmp_path / "nowhere/train/CLASS/1.jpg")

    def test_no_test_folder(self, folder):
        folder.joinpath("test").rename(folder / "later")
        assert len(image_folder.load(folder, "train")) == 2
        with pytest.raises(ValueError, match="folder not found: .*/test"):
            image_folder.load(folder, "test")

    @pytest.mark.parametrize(("left", "received"), [(["cat"], "cat"), ([], "none")])
    def test_fewer_than_two_classes(self, folder, left, received):
        for name in {"cat", "dog"} - set(left):
            folder.joinpath("train", name).rename(folder / name)
        with pytest.raises(ValueError, match=f"at least 2 classes, received: {received}") as error:
            image_folder.load(folder, "train")
        assert_one_line(error, folder / "train")

    def test_a_class_without_images(self, folder):
        folder.joinpath("train", "dog", "1.png").rename(folder / "train" / "dog" / "1.txt")
        with pytest.raises(
            ValueError, match=r"no image in .*/train/dog, expected.*\*.jpg"
        ) as error:
            image_folder.load(folder, "train")
        assert_one_line(error)

    @pytest.mark.parametrize(("extra", "lacks"), [("train", "test"), ("test", "train")])
    @pytest.mark.parametrize("split", datasets.SPLITS)
    def test_other_classes_in_the_other_split(self, folder, split, extra, lacks):
        write(folder / extra / "cow" / "1.png", pixels())
        with pytest.raises(ValueError, match="different classes in train and test") as error:
            image_folder.load(folder, split)
        assert_one_line(error, folder, f"'cow', which is in {extra} and not in {lacks}")

    @pytest.mark.parametrize(
        ("name", "content", "reason"),
        [
            ("empty.jpg", lambda png: b"", "no image that can be read"),
            ("half.png", lambda png: png[: len(png) // 2], "truncated"),
            ("text.gif", lambda png: b"a text, not an image", "no image that can be read"),
        ],
    )
    def test_broken_files(self, folder, name, content, reason):
        png = folder.joinpath("train", "cat", "1.png").read_bytes()
        broken = folder / "train" / "dog" / name
        broken.write_bytes(content(png))
        with pytest.raises(ValueError, match="1 of 3 images cannot be used: .* is broken") as error:
            image_folder.load(folder, "train")
        assert_one_line(error, broken, reason)

    def test_a_broken_jpeg_file_and_how_many_there_are(self, folder):
        content = tf.io.encode_jpeg(pixels(32, 32)).numpy()
        for number in range(2, 5):
            folder.joinpath("train", "dog", f"{number}.jpg").write_bytes(content[:-40])
        with pytest.raises(ValueError, match="3 of 5 images cannot be used") as error:
            image_folder.load(folder, "train", image_size=8)
        assert_one_line(error, folder / "train" / "dog" / "2.jpg")

    def test_tiny_files(self, folder):
        write(folder / "train" / "dog" / "icon.png", pixels(16, 7))
        with pytest.raises(ValueError, match="icon.png has 16x7 pixels, at least 8x8") as error:
            image_folder.load(folder, "train", image_size=32)
        assert_one_line(error, folder / "train" / "dog")

    @pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\u2028b"])
    def test_names_with_control_characters(self, folder, name):
        folder.joinpath("train", "cat").rename(folder / "train" / name)
        with pytest.raises(ValueError, match="control character in its name: rename it") as error:
            image_folder.load(folder, "train")
        assert_one_line(error, "a")

    @pytest.mark.parametrize("part", ["cat", "cat/1.png"])
    def test_names_that_are_no_utf_8(self, folder, part):
        path = folder / "train" / part
        path.rename(os.path.join(os.path.dirname(path), os.fsdecode(b"caf\xe9.png")))
        with pytest.raises(ValueError, match="is not UTF-8: rename it") as error:
            image_folder.load(folder, "train")
        assert_one_line(error, r"caf\xe9")

    def test_one_class_in_two_forms_of_unicode(self, folder):
        write(folder / "train" / "caf\u00e9" / "1.png", pixels())
        write(folder / "train" / "cafe\u0301" / "1.png", pixels())
        with pytest.raises(ValueError, match="same name in two forms of Unicode"):
            image_folder.load(folder, "train")

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_a_pipe_or_a_folder_is_no_image(self, folder, make):
        make(folder / "train" / "cat" / "0.png")
        with pytest.raises(ValueError, match="1 of 3 images cannot be used: .*0.png is no file"):
            image_folder.load(folder, "train", image_size=8)

    def test_several_sizes_and_none_given(self, folder):
        write(folder / "train" / "dog" / "2.png", pixels(8, 10))
        with pytest.raises(ValueError, match="2.png has 8x10 pixels, the first image 8x8") as error:
            image_folder.load(folder, "train")
        assert_one_line(error, "image_size, the side that all images are to get, is needed")
        assert error.value.setting == "image_size"

    def test_more_than_the_memory(self, folder):
        with pytest.raises(ValueError, match="2 images of 99999999x99999999 pixels need") as error:
            image_folder.load(folder, "train", image_size=99_999_999)
        assert_one_line(error, "image_size must be smaller")


class TestDescribe:
    @pytest.mark.parametrize("image_size", [None, 12])
    def test_it_says_what_load_does(self, tmp_path, image_size):
        for name in ("a", "b", "c"):
            write(tmp_path / "train" / name / "1.png", pixels(9, 12))
        images = image_folder.load(tmp_path, "train", image_size=image_size)
        description = image_folder.describe(tmp_path, "train", image_size=image_size)
        assert description == (images.images.shape[1:], 3)
        assert images.class_names == ("a", "b", "c")
