import collections
import concurrent.futures
import contextlib
import hashlib
import os
import subprocess
import sys
import threading
import urllib.error
import zlib

import numpy as np
import pytest
import sklearn.datasets
import small_folder
import tensorflow as tf
import tensorflow_datasets as tfds
from one_line import assert_one_line

from cpnas_tf import data
from cpnas_tf.data import datasets

TEST_IMAGES_CRC = 2487337816  # of the fixed split


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A TFDS data directory with digits prepared in it."""
    folder = tmp_path_factory.mktemp("tfds")
    data.load("digits", "test", data_dir=folder)
    return folder


@pytest.fixture
def broken_digits(digits_dir, tmp_path):
    """Copies the prepared digits, truncates one file of the copy and returns the new data_dir."""

    def truncate(pattern, size):
        source = digits_dir / "digits" / "1.0.0"
        copy = tmp_path / "digits" / "1.0.0"
        copy.mkdir(parents=True)
        for path in source.iterdir():
            copy.joinpath(path.name).write_bytes(path.read_bytes())
        (broken,) = copy.glob(pattern)
        os.truncate(broken, size)
        return tmp_path

    return truncate


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network here")

    def download(self):
        pytest.fail("tries to download all the same")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", download)


def numbered_images(count):
    """Images of 2x2 pixels that spell their own number; the label is the number modulo 7."""
    numbers = np.arange(count, dtype=np.uint32)
    return data.Images(
        numbers.view(np.uint8).reshape(count, 2, 2, 1), (numbers % 7).astype(int), "abcdefg"
    )


def numbers_of(images):
    """Reads the numbers back, from uint8 images or from normalized ones."""
    images = np.asarray(images)
    if images.dtype == np.float32:
        images = np.rint((images + 1) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(images).reshape(-1, 4).view(np.uint32)[:, 0]


def random_images(count, height, width, channels):
    generator = np.random.default_rng(0)
    images = generator.integers(256, size=(count, height, width, channels), dtype=np.uint8)
    return data.Images(images, generator.integers(10, size=count), "0123456789")


class TestDigits:
    def test_the_split_is_stratified_exactly(self, digits_dir):
        counts = {
            split: np.bincount(data.load("digits", split, data_dir=digits_dir).labels)
            for split in datasets.SPLITS
        }
        assert (counts["train"].sum(), counts["test"].sum()) == (1437, 360)
        everything = np.bincount(sklearn.datasets.load_digits().target)
        np.testing.assert_array_equal(counts["train"] + counts["test"], everything)
        share = everything * 360 / 1797
        assert np.all((np.floor(share) <= counts["test"]) & (counts["test"] <= np.ceil(share)))

    def test_both_splits_together_are_the_uci_images_each_once(self, digits_dir):
        found = collections.Counter()
        for split in datasets.SPLITS:
            part = data.load("digits", split, data_dir=digits_dir)
            assert part.images.shape[1:] == (8, 8, 1)
            found.update(
                (label, image.tobytes())
                for image, label in zip(part.images, part.labels, strict=True)
            )
        rescaled = [round(255 * value / 16) for value in range(17)]
        digits = sklearn.datasets.load_digits()
        expected = collections.Counter(
            (label, bytes(rescaled[int(value)] for value in image.ravel()))
            for image, label in zip(digits.images, digits.target, strict=True)
        )
        assert found == expected
        assert min(rescaled) == 0
        assert max(rescaled) == 255

    def test_the_split_never_changes(self, digits_dir):
        test = data.load("digits", "test", data_dir=digits_dir)
        assert zlib.crc32(test.images.tobytes()) == TEST_IMAGES_CRC

    def test_tfds_knows_it(self, digits_dir):
        dataset, info = tfds.load("digits", split="test", data_dir=digits_dir, with_info=True)
        assert dataset.cardinality() == 360
        assert info.features["label"].names == list("0123456789")
        assert "Kaynak" in info.citation
        assert info.homepage.startswith("https://archive.ics.uci.edu")

    def test_preparing_prints_nothing(self, tmp_path, capsys):
        data.load("digits", "test", data_dir=tmp_path)
        assert capsys.readouterr() == ("", "")

    def test_preparing_twice_at_once(self, tmp_path, monkeypatch):
        both_are_here = threading.Barrier(2)
        prepare = datasets._prepare

        def prepare_together(builder):
            both_are_here.wait(timeout=60)
            prepare(builder)

        monkeypatch.setattr(datasets, "_prepare", prepare_together)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            loads = [
                pool.submit(data.load, "digits", split, data_dir=tmp_path)
                for split in datasets.SPLITS
            ]
        assert [len(load.result()) for load in loads] == [1437, 360]

    def test_preparing_after_a_process_was_killed_at_it(self, tmp_path):
        left = tmp_path / "digits" / "incomplete.ABC123_1.0.0"
        left.mkdir(parents=True)
        left.joinpath("digits-train.tfrecord-00000-of-00001").write_bytes(b"half a rec")
        tmp_path.joinpath("digits", ".lock").touch()
        assert len(data.load("digits", "test", data_dir=tmp_path)) == 360

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        file = tmp_path / "file"
        file.touch()
        with pytest.raises(ValueError, match="digits is not in .* and cannot be prepared") as error:
            data.load("digits", "train", data_dir=file)
        assert_one_line(error, file, "pass a data_dir that can be written")

    @pytest.mark.parametrize(
        ("pattern", "size"),
        [("*train.tfrecord*", 100_000), ("*train.tfrecord*", 0), ("dataset_info.json", 100)],
        ids=["truncated", "empty", "without information"],
    )
    def test_broken_files(self, broken_digits, pattern, size):
        folder = broken_digits(pattern, size)
        with pytest.raises(ValueError, match="cannot read the data set in") as error:
            data.load("digits", "train", data_dir=folder)
        assert_one_line(error, folder / "digits", "delete that folder to prepare it again")


class TestDescribe:
    @pytest.mark.parametrize("name", datasets.DATASETS)
    def test_it_says_what_tfds_does(self, name, tmp_path):
        features = tfds.builder(name, data_dir=tmp_path).info.features
        shape, classes = data.describe(name, "train")
        for length, expected in zip(shape, features["image"].shape, strict=True):
            assert length == (expected or 224)  # ImageNet's have many sizes
        assert classes == features["label"].num_classes

    @pytest.mark.parametrize(("name", "split"), [("mnist", "train"), ("digits", "validation")])
    def test_unknown_names(self, name, split):
        with pytest.raises(ValueError, match="(name .* 'mnist'|split .* 'validation')$"):
            data.describe(name, split)

    def test_images_of_another_size(self):
        assert data.describe("imagenet2012", "train", image_size=64) == ((64, 64, 3), 1000)


class TestLoad:
    def test_unknown_data_set(self):
        with pytest.raises(ValueError, match="name must be one of .* received: 'mnist'") as error:
            data.load("mnist", "train")
        assert_one_line(error, "digits, fashion_mnist, cifar10, imagenet2012, folder:PATH")

    @pytest.mark.parametrize("data_dir", [None, "elsewhere", "given"])
    def test_own_images(self, tmp_path, monkeypatch, data_dir):
        image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
        for path in ("pets/test/cat", "pets/test/dog"):
            small_folder.write(tmp_path / path / "1.png", image)
        name = f"folder:{tmp_path}/pets" if data_dir == "elsewhere" else "folder:pets"
        if data_dir is None:
            monkeypatch.chdir(tmp_path)
        data_dir = tmp_path if data_dir == "given" else data_dir
        images = data.load(name, "test", data_dir=data_dir, image_size=8)
        np.testing.assert_array_equal(images.images, [image, image])
        assert images.class_names == ("cat", "dog")
        assert data.describe(name, "test", data_dir=data_dir) == ((8, 8, 3), 2)

    @pytest.mark.parametrize("load", [data.load, data.describe])
    @pytest.mark.parametrize(
        ("name", "size", "message"),
        [
            ("digits", 7, "image_size must be a whole number >= 8, or None, received: 7"),
            ("imagenet2012", 7, "image_size must be a whole number >= 8, or None, received: 7"),
            ("folder:pets", 0, "image_size must be a whole number >= 8, or None, received: 0"),
            ("folder:pets", 32.5, "image_size must be a whole number >= 8, .*received: 32.5"),
        ],
    )
    def test_impossible_sizes(self, load, name, size, message):
        with pytest.raises(ValueError, match=message) as error:
            load(name, "train", image_size=size)
        assert_one_line(error)

    def test_resized_images(self, digits_dir):
        whole = data.load("digits", "test", data_dir=digits_dir)
        images = data.load("digits", "test", data_dir=digits_dir, image_size=16)
        np.testing.assert_array_equal(images.labels, whole.labels)
        expected = tf.image.resize(whole.images, [16, 16], antialias=True)
        np.testing.assert_array_equal(images.images, np.rint(expected))
        assert data.describe("digits", "test", image_size=16) == ((16, 16, 1), 10)

    def test_the_first_images(self, digits_dir):
        whole = data.load("digits", "train", data_dir=digits_dir)
        for count in (1, 1000, 1437):
            images = data.load("digits", f"train[:{count}]", data_dir=digits_dir)
            np.testing.assert_array_equal(images.images, whole.images[:count])
            np.testing.assert_array_equal(images.labels, whole.labels[:count])
        assert data.describe("digits", "train[:1000]") == ((8, 8, 1), 10)

    def test_where_the_images_come_from(self, digits_dir):
        for split, count in (("train", 1437), ("test", 360), ("train[:9]", 9)):
            images = data.load("digits", split, data_dir=digits_dir, image_size=16)
            assert images.origin == {split: f"{count} images of digits 1.0.0"}
            assert (images.image_shape, images.classes) == ((16, 16, 1), 10)
        known = datasets.DATASETS["digits"]
        assert (known.train, known.test) == (1437, 360)

    def test_more_images_than_there_are(self, digits_dir):
        with pytest.raises(
            ValueError, match="split must be of the 1437 images in digits's train"
        ) as error:
            data.load("digits", "train[:1438]", data_dir=digits_dir)
        assert_one_line(error, "'train[:1438]'")

    @pytest.mark.parametrize(
        "split", ["validation", "train[:0]", "train[:-1]", "train[10:]", "train[:10]x", ""]
    )
    def test_unknown_split(self, split, digits_dir):
        with pytest.raises(ValueError, match="split must be train or test") as error:
            data.load("digits", split, data_dir=digits_dir)
        assert_one_line(error, repr(split), "or the first images of one")

    @pytest.mark.parametrize("name", ["imagenet2012", "folder:pets"])
    def test_first_images_of_what_is_not_in_memory_or_sorted(self, name, tmp_path):
        with pytest.raises(ValueError, match="split must be train or test for") as error:
            data.load(name, "train[:10]", data_dir=tmp_path)
        assert_one_line(error, name, "received: 'train[:10]'")

    @pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
    def test_not_there_and_no_network(self, name, tmp_path, no_network):
        with pytest.raises(ValueError, match=f"{name} is not in") as error:
            data.load(name, "train", data_dir=tmp_path)
        assert_one_line(
            error,
            "no network here",
            f"tfds build {name} --data_dir={tmp_path}",
            "pass the data_dir that",
        )
        assert not list(tmp_path.iterdir())

    def test_not_there_and_the_download_fails(self, tmp_path, monkeypatch, capsys):
        def fail(builder):
            print("Downloading")
            raise OSError("the server is gone\nand more lines")

        monkeypatch.setattr(
            "urllib.request.urlopen", lambda *args, **kwargs: contextlib.ExitStack()
        )
        monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
        with pytest.raises(
            ValueError, match=r"cifar10 is not in .* \(the server is gone\)"
        ) as error:
            data.load("cifar10", "train", data_dir=tmp_path)
        assert_one_line(error)
        assert capsys.readouterr() == ("", "Downloading\n")

    @pytest.mark.skipif("CPNAS_TEST_DATA" not in os.environ, reason="needs the real CIFAR-10")
    def test_cifar10(self):
        train = data.load("cifar10", "train", data_dir=os.environ["CPNAS_TEST_DATA"])
        assert train.images.shape == (50_000, 32, 32, 3)
        np.testing.assert_array_equal(np.bincount(train.labels), [5000] * 10)
        assert train.class_names[3] == "cat"
        mean = train.images.mean(axis=(0, 1, 2)) / 255
        np.testing.assert_allclose(mean, [0.49140, 0.48216, 0.44653], atol=1e-5)


class TestSplitForSearch:
    @pytest.mark.parametrize(
        ("count", "settings", "sizes"),
        [
            (50_000, {}, (25_000, 2_500)),
            (1437, {}, (718, 71)),
            (100, {"train_fraction": 0.29, "validation_fraction": 0.71}, (29, 71)),
            (100, {"train_images": 10}, (10, 5)),
            (100, {"validation_images": 50}, (50, 50)),
            (100, {"train_images": 1, "validation_images": 99, "train_fraction": 1.0}, (1, 99)),
            (100, {"train_fraction": None, "validation_fraction": 0.15}, (85, 15)),
            (100, {"train_fraction": None, "most_images": 60}, (60, 5)),
            (999, {"train_fraction": None, "validation_images": 500, "most_images": 60}, (60, 15)),
        ],
    )
    def test_sizes_and_disjointness(self, count, settings, sizes):
        images = numbered_images(count)
        parts = data.split_for_search(images, **settings)
        assert tuple(map(len, parts)) == sizes
        numbers = np.concatenate([numbers_of(part.images) for part in parts])
        assert len(set(numbers)) == sum(sizes)
        labels = np.concatenate([part.labels for part in parts])
        np.testing.assert_array_equal(labels, numbers % 7)

    def test_a_data_set_s_own_validation_part_is_taken(self):
        images = numbered_images(40)
        train, own = images.take(slice(30)), images.take(slice(30, 40))
        settings = {"train_fraction": None, "validation_images": 5}
        part, validation = data.split_for_search(train, validation=own, **settings)
        assert sorted(numbers_of(part.images)) == list(range(30))
        assert validation is own
        few = data.split_for_search(train, validation=own, most_images=16, **settings)
        assert list(map(len, few)) == [16, 4]
        assert set(numbers_of(few[1].images)) < set(range(30, 40))
        assert len(data.split_for_search(train, validation=own)[0]) == 15

    def test_a_search_and_a_training_validate_on_the_same(self):
        images, shares = numbered_images(50), {"validation_fraction": 0.3, "seed": 4}
        searched = data.split_for_search(images, train_fraction=None, **shares)
        trained = data.hold_out(images, **shares)
        for one, other in zip(searched, trained, strict=True):
            np.testing.assert_array_equal(one.images, other.images)

    def test_only_the_seed_decides(self):
        images = numbered_images(1000)
        draws = [
            numbers_of(data.split_for_search(images, seed=seed)[0].images) for seed in (0, 0, 1)
        ]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert set(draws[0]) != set(draws[2])
        assert sorted(draws[0]) != list(range(500))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"validation_fraction": 0.6},
                "train_fraction and validation_fraction must be at most the 20 images that there "
                "are, received: 10 and 12 images",
            ),
            (
                {"train_images": 10, "validation_images": 11},
                "train_images and validation_images must be at most the 20 .*: 10 and 11 images",
            ),
            ({"train_images": 21}, "train_images and validation_fraction .*: 21 and 1 images"),
            ({"train_fraction": 0.0}, r"train_fraction must be a number in \(0, 1\], .*: 0.0"),
            ({"train_fraction": -0.5}, "train_fraction must be a number in .* received: -0.5"),
            (
                {"validation_fraction": 0.04},
                "validation_fraction must be at least one of the 20 images, received: 0.04",
            ),
            ({"validation_fraction": None}, "validation_fraction must be at least one .*: None"),
            ({"most_images": 0}, "most_images must be a whole number >= 1, or None, .*: 0"),
            ({"validation_images": 0}, "validation_images must be a whole number >= 1, .*: 0"),
            ({"train_images": -3}, "train_images must be a whole number >= 1, .*: -3"),
        ],
    )
    def test_impossible_parts(self, settings, message):
        with pytest.raises(ValueError, match=message) as error:
            data.split_for_search(numbered_images(20), **settings)
        assert_one_line(error)


def stream(images, **settings):
    """All batches as NumPy arrays."""
    settings = {"batch_size": 8, "seed": 3, **settings}
    return list(data.batches(images, **settings).as_numpy_iterator())


def assert_same_stream(stream, expected):
    assert len(stream) == len(expected)
    for batch, expected_batch in zip(stream, expected, strict=True):
        np.testing.assert_array_equal(batch[0], expected_batch[0])
        np.testing.assert_array_equal(batch[1], expected_batch[1])


class TestBatches:
    def test_an_epoch_has_every_image_once_with_its_label(self):
        batches = stream(numbered_images(40))
        assert len(batches) == 5
        numbers = np.concatenate([numbers_of(images) for images, _ in batches])
        assert sorted(numbers) == list(range(40))
        np.testing.assert_array_equal(
            np.concatenate([labels for _, labels in batches]), numbers % 7
        )

    def test_the_remainder_changes_from_epoch_to_epoch(self):
        batches = stream(numbered_images(15), epochs=20)
        assert len(batches) == 20
        seen = [set(numbers_of(images)) for images, _ in batches]
        assert {len(numbers) for numbers in seen} == {8}
        assert set.union(*seen) == set(range(15))

    def test_epochs_and_seeds_have_their_own_orders(self):
        images = numbered_images(40)
        orders = set()
        for seed in (0, 1, 2**40):
            numbers = [numbers_of(batch) for batch, _ in stream(images, epochs=3, seed=seed)]
            orders |= {tuple(epoch) for epoch in np.reshape(numbers, [3, 40])}
        assert len(orders) == 9

    @pytest.mark.parametrize("first_step", [0, 1, 4, 5, 7, 14, 15])
    def test_a_later_start_is_the_tail_of_the_whole_stream(self, first_step):
        images = random_images(47, 6, 4, 3)
        settings = {"epochs": 3, "augmentation": {"crop_padding": 2, "flip": True, "cutout": 3}}
        whole = stream(images, **settings)
        assert len(whole) == 15
        assert_same_stream(stream(images, first_step=first_step, **settings), whole[first_step:])

    def test_one_epoch_alone(self):
        images = random_images(40, 6, 4, 3)
        steps = data.steps_per_epoch(images, batch_size=8)
        third = stream(images, epochs=3, first_step=2 * steps, augmentation={"flip": True})
        assert_same_stream(third, stream(images, epochs=9, augmentation={"flip": True})[10:15])

    def test_the_augmentation_of_a_step_is_its_own(self):
        image = random_images(1, 8, 8, 1)
        same = image.take(np.zeros(16, int))
        batches = stream(same, epochs=4, augmentation={"crop_padding": 4})
        assert len({images.tobytes() for images, _ in batches}) == len(batches) == 8

    def test_what_keras_needs_to_know(self):
        dataset = data.batches(
            random_images(47, 6, 4, 3), batch_size=8, seed=0, epochs=3, first_step=4
        )
        assert dataset.cardinality() == 11
        assert dataset.element_spec == (
            tf.TensorSpec([8, 6, 4, 3], tf.float32),
            tf.TensorSpec([8], tf.int32),
        )

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"batch_size": 41},
                "batch_size must be at most the 40 images to train on, received: 41",
            ),
            ({"batch_size": 0}, "batch_size must be a whole number >= 1, received: 0"),
            ({"batch_size": -8}, "batch_size must be a whole number >= 1, received: -8"),
            ({"epochs": 0}, "epochs must be at least 1, received: 0"),
            ({"first_step": -1}, "received first_step=-1"),
            (
                {"epochs": 2, "first_step": 11},
                "2 epochs have the steps 0..10, received first_step=11",
            ),
            (
                {"augmentation": {"crop_padding": -1}},
                "augmentation.crop_padding must be a whole number >= 0, received: -1",
            ),
            (
                {"augmentation": {"crop_padding": 3}},
                "augmentation.crop_padding must be at most 2, the images' side, received: 3",
            ),
            (
                {"augmentation": {"cutout": -2}},
                "augmentation.cutout must be a whole number >= 0, .*: -2",
            ),
        ],
    )
    def test_impossible_settings(self, settings, message):
        with pytest.raises(ValueError, match=message) as error:
            stream(numbered_images(40), **settings)
        assert_one_line(error)

    def test_unknown_augmentation(self):
        with pytest.raises(ValueError, match="augmentation must have keys of .*: 'colour'"):
            stream(numbered_images(40), augmentation={"colour": 1})

    def test_steps_per_epoch(self):
        assert data.steps_per_epoch(numbered_images(1000), batch_size=96) == 10
        with pytest.raises(ValueError, match="at most the 10 images .* received: 96"):
            data.steps_per_epoch(numbered_images(10), batch_size=96)

    def test_the_same_under_op_determinism_in_another_process(self):
        augmentation = {"crop_padding": 4, "flip": True, "cutout": 16}
        settings = f"batch_size=8, seed=3, epochs=2, first_step=1, {augmentation=}"
        code = f"""
import hashlib
import numpy as np
from cpnas_tf import data
import tensorflow as tf

tf.keras.utils.set_random_seed(99)
tf.config.experimental.enable_op_determinism()
images = np.arange(47 * 32 * 32 * 3).reshape(47, 32, 32, 3) * 7 % 251
images = data.Images(images.astype(np.uint8), np.arange(47) % 10, "0123456789")
digest = hashlib.sha256()
for batch, labels in data.batches(images, {settings}):
    digest.update(batch.numpy().tobytes() + labels.numpy().tobytes())
print(digest.hexdigest())
"""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
        pixels = np.arange(47 * 32 * 32 * 3).reshape(47, 32, 32, 3) * 7 % 251
        images = data.Images(pixels.astype(np.uint8), np.arange(47) % 10, "0123456789")
        digest = hashlib.sha256()
        for batch, labels in stream(images, epochs=2, first_step=1, augmentation=augmentation):
            digest.update(batch.tobytes() + labels.tobytes())
        assert output.strip() == digest.hexdigest()


class TestEvaluationBatches:
    def test_all_images_in_order(self):
        images = numbered_images(21)
        batches = list(data.evaluation_batches(images, batch_size=8).as_numpy_iterator())
        assert [len(labels) for _, labels in batches] == [8, 8, 5]
        numbers = np.concatenate([numbers_of(images) for images, _ in batches])
        np.testing.assert_array_equal(numbers, np.arange(21))
        np.testing.assert_array_equal(
            np.concatenate([labels for _, labels in batches]), numbers % 7
        )

    def test_a_batch_may_be_larger_than_the_data(self):
        dataset = data.evaluation_batches(numbered_images(3), batch_size=8)
        assert dataset.element_spec == (
            tf.TensorSpec([None, 2, 2, 1], tf.float32),
            tf.TensorSpec([None], tf.int32),
        )
        ((_, labels),) = dataset.as_numpy_iterator()
        np.testing.assert_array_equal(labels, [0, 1, 2])

    @pytest.mark.parametrize("batch_size", [0, -1])
    def test_impossible_batch_size(self, batch_size):
        with pytest.raises(
            ValueError, match=f"batch_size must be a whole number >= 1, .*{batch_size}"
        ):
            data.evaluation_batches(numbered_images(3), batch_size=batch_size)


class TestHoldOut:
    IMAGES = data.Images(
        np.arange(20 * 64).reshape(20, 8, 8, 1).astype(np.uint8), np.arange(20) % 2, ("a", "b")
    )

    def test_none(self):
        assert data.hold_out(self.IMAGES) == (self.IMAGES, None)

    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_part(self, seed):
        train, validation = data.hold_out(self.IMAGES, validation_images=6, seed=seed)
        assert (len(train), len(validation)) == (14, 6)
        pixels = {image.tobytes() for part in (train, validation) for image in part.images}
        assert pixels == {image.tobytes() for image in self.IMAGES.images}

    @pytest.mark.parametrize(
        ("count", "words"), [(0, "a whole"), (-1, "a whole"), (20, "1 to 19"), (21, "1 to 19")]
    )
    def test_more_than_there_is(self, count, words):
        with pytest.raises(ValueError, match=f"validation_images must be {words} .*: {count}"):
            data.hold_out(self.IMAGES, validation_images=count)
