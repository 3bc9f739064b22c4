import functools
import json

import numpy as np
import pytest
import small_imagenet
import tensorflow as tf
import tensorflow_datasets as tfds
from one_line import assert_one_line

from cpnas_tf import data
from cpnas_tf.data import augmentation, imagenet

SIZE = 24
AUGMENTATION = {"crop_area": 0.1, "flip": True, "crop_padding": 2, "cutout": 3}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return small_imagenet.write(tmp_path_factory.mktemp("imagenet"))


@pytest.fixture(scope="module")
def train(data_dir):
    return data.load("imagenet2012", "train", data_dir=data_dir, image_size=SIZE)


@pytest.fixture(scope="module")
def test(data_dir):
    return data.load("imagenet2012", "test", data_dir=data_dir, image_size=SIZE)


def decoded(data_dir, split):
    """The images in full size, and the labels, as TFDS reads them, by the accurate DCT."""
    dataset = tfds.load(
        "imagenet2012",
        split=split,
        data_dir=data_dir,
        decoders={"image": tfds.decode.SkipDecoding()},
        as_supervised=True,
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    files, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    decode = functools.partial(tf.io.decode_jpeg, channels=3, dct_method="INTEGER_ACCURATE")
    return [decode(file).numpy() for file in files], labels


def middle(image):
    """The middle of an image: 7/8 of its shorter side."""
    side = round(0.875 * min(image.shape[:2]))
    row, column = ((length - side) // 2 for length in image.shape[:2])
    return resize(image[row : row + side, column : column + side])


def resize(image):
    return np.rint(tf.image.resize(image, [SIZE, SIZE])).astype(np.uint8)


def stream(images, **settings):
    settings = {"batch_size": 4, "seed": 3, **settings}
    return list(data.batches(images, **settings).as_numpy_iterator())


def numbers_of(batches, images):
    """Which of `images` each image of a stream without augmentation is."""
    pixels = [image.tobytes() for image in augmentation.normalize(images.images[:]).numpy()]
    return [pixels.index(image.tobytes()) for batch, _ in batches for image in batch]


class TestLoad:
    @pytest.mark.parametrize(
        ("split", "name", "count"), [("train", "train", 30), ("test", "validation", 6)]
    )
    def test_images_and_labels_are_those_that_tfds_reads(self, data_dir, split, name, count):
        images, labels = decoded(data_dir, name)
        found = data.load("imagenet2012", split, data_dir=data_dir, image_size=SIZE)
        assert len(found) == len(found.images) == count
        assert found.images.shape == (count, SIZE, SIZE, 3)
        np.testing.assert_array_equal(found.images[:], [middle(image) for image in images])
        np.testing.assert_array_equal(found.labels, labels)
        assert found.labels.dtype == np.int32
        assert len(set(labels)) == 6
        assert len(found.class_names) == 1000
        assert found.class_names[0] == "n01440764"

    def test_an_image_is_grey(self, test):
        channels = test.images[:].astype(int)
        assert (channels == channels[..., :1]).all(axis=(1, 2, 3)).sum() == 1

    def test_the_papers_size_by_default(self, data_dir):
        images = data.load("imagenet2012", "test", data_dir=data_dir)
        assert images.images[2:4].shape == (2, 224, 224, 3)
        expected = images.images.shape[1:], len(images.class_names)
        assert data.describe("imagenet2012", "test") == expected

    @pytest.mark.parametrize(("start", "stop"), [(0, 3), (4, 17), (19, 20), (25, 99)])
    def test_slices(self, train, start, stop):
        np.testing.assert_array_equal(train.images[start:stop], train.images[:][start:stop])
        np.testing.assert_array_equal(train.part(start, stop).labels, train.labels[start:stop])

    def test_other_slices(self, train):
        assert train.images[7:7].shape == (0, SIZE, SIZE, 3)
        with pytest.raises(IndexError, match="received the step 2"):
            train.images[::2]

    def test_not_prepared(self, tmp_path):
        with pytest.raises(ValueError, match="imagenet2012 is not in") as error:
            data.load("imagenet2012", "train", data_dir=tmp_path)
        assert_one_line(
            error,
            "https://image-net.org/download-images",
            f"ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into {tmp_path}/downloads/manual",
            f"tfds build imagenet2012 --data_dir={tmp_path}",
        )
        assert not list(tmp_path.iterdir())

    def test_a_split_that_is_missing(self, tmp_path):
        small_imagenet.write(tmp_path, images=1)
        (info,) = tmp_path.glob("imagenet2012/*/dataset_info.json")
        content = json.loads(info.read_text())
        content["splits"] = [split for split in content["splits"] if split["name"] != "train"]
        info.write_text(json.dumps(content))
        assert len(data.load("imagenet2012", "test", data_dir=tmp_path)) == 6
        with pytest.raises(ValueError, match="has no train images") as error:
            data.load("imagenet2012", "train", data_dir=tmp_path)
        assert_one_line(error, f"ILSVRC2012_img_train.tar into {tmp_path}/downloads/manual")

    def test_a_file_that_is_missing(self, tmp_path):
        small_imagenet.write(tmp_path, images=1)
        first, *_ = sorted(tmp_path.glob("imagenet2012/*/*-train.tfrecord*"))
        first.unlink()
        assert len(data.load("imagenet2012", "test", data_dir=tmp_path)) == 6
        with pytest.raises(ValueError, match="1 files of imagenet2012 are missing") as error:
            data.load("imagenet2012", "train", data_dir=tmp_path)
        assert_one_line(error, first)


class TestTrainingBatches:
    def test_an_epoch_has_every_image_once_with_its_label(self, train):
        batches = stream(train, batch_size=6)
        numbers = numbers_of(batches, train)
        assert sorted(numbers) == list(range(30))
        labels = np.concatenate([labels for _, labels in batches])
        np.testing.assert_array_equal(labels, train.labels[numbers])

    def test_epochs_and_seeds_have_their_own_orders(self, train):
        orders = set()
        for seed in (0, 1, 2**31):
            batches = stream(train, batch_size=7, epochs=3, seed=seed)
            orders |= {tuple(epoch) for epoch in np.reshape(numbers_of(batches, train), [3, 28])}
        assert len(orders) == 9
        assert len(set.union(*map(set, orders))) == 30

    def test_records_of_one_file_are_shuffled_too(self, train):
        one = train.part(0, train.pieces[0][2])
        numbers = numbers_of(stream(one, batch_size=len(one)), one)
        assert numbers != sorted(numbers)

    def test_blocks_of_records_have_their_own_orders(self, train, monkeypatch):
        monkeypatch.setattr(imagenet, "_FILES_AT_ONCE", 1)
        monkeypatch.setattr(imagenet, "_SHUFFLED", 10)
        numbers = np.reshape(numbers_of(stream(train, batch_size=6), train), [3, 10])
        assert sorted(numbers.ravel()) == list(range(30))
        assert len({tuple(order % 10) for order in numbers}) == 3

    @pytest.mark.parametrize("first_step", [7, 9, 21])
    def test_a_later_start_is_the_tail_of_the_whole_stream(self, train, first_step):
        settings = {"epochs": 3, "augmentation": AUGMENTATION}
        whole = stream(train, **settings)
        assert len(whole) == 21
        tf.random.set_seed(first_step)  # nothing may depend on it
        tail = stream(train, first_step=first_step, **settings)
        for found, expected in zip(tail, whole[first_step:], strict=True):
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])

    def test_windows_are_those_of_the_whole_image(self, train, data_dir):
        images, _ = decoded(data_dir, "train")
        numbers = numbers_of(stream(train, first_step=2), train)
        batches = stream(train, first_step=2, augmentation={"crop_area": 0.1})
        crops = np.concatenate([batch for batch, _ in batches])
        for position, (number, crop) in enumerate(zip(numbers, crops, strict=True), start=8):
            image = images[number]
            row, column, height, width = augmentation.draw_windows(
                [3, position], 1, *image.shape[:2], smallest_area=0.1
            )[0]
            expected = resize(image[row : row + height, column : column + width])
            np.testing.assert_array_equal(crop, augmentation.normalize(expected))

    def test_the_rest_of_the_augmentation_is_that_of_images_in_memory(self, train):
        settings = {"flip": True, "crop_padding": 2, "cutout": 3}
        plain, augmented = stream(train), stream(train, augmentation=settings)
        for step, ((before, _), (after, _)) in enumerate(zip(plain, augmented, strict=True)):
            pixels = np.rint((before + 1) * 127.5).astype(np.uint8)
            expected = augmentation.augment(pixels, tf.constant([3, step], tf.int64), **settings)
            np.testing.assert_array_equal(after, expected)

    def test_what_keras_needs_to_know(self, train):
        dataset = data.batches(train, batch_size=4, seed=0, epochs=3, first_step=4)
        assert dataset.cardinality() == 17
        assert dataset.element_spec == (
            tf.TensorSpec([4, SIZE, SIZE, 3], tf.float32),
            tf.TensorSpec([4], tf.int32),
        )

    @pytest.mark.parametrize("area", [-0.1, 1.5])
    def test_impossible_windows(self, train, area):
        with pytest.raises(
            ValueError, match=rf"crop_area must be a number in \[0, 1\], received: {area}"
        ):
            stream(train, augmentation={"crop_area": area})


class TestEvaluationBatches:
    def test_all_images_in_order(self, test):
        batches = list(data.evaluation_batches(test, batch_size=4).as_numpy_iterator())
        assert [len(labels) for _, labels in batches] == [4, 2]
        pixels = np.concatenate([images for images, _ in batches])
        np.testing.assert_array_equal(pixels, augmentation.normalize(test.images[:]))
        labels = np.concatenate([labels for _, labels in batches])
        np.testing.assert_array_equal(labels, test.labels)


class TestDraw:
    def test_parts_for_a_search_are_disjoint_and_only_the_seed_decides(self, train):
        draws = []
        for seed in (0, 0, 1):
            parts = data.split_for_search(train, validation_images=9, seed=seed)
            assert [len(part) for part in parts] == [15, 9]
            pixels = [[image.tobytes() for image in part.images[:]] for part in parts]
            assert len({image for part in pixels for image in part}) == 24
            np.testing.assert_array_equal(
                np.concatenate([part.labels for part in parts]),
                [train.labels[number] for number in numbers_of_parts(parts, train)],
            )
            draws.append(pixels)
        assert draws[0] == draws[1]
        assert draws[0] != draws[2]

    def test_a_part_trains_and_validates(self, train):
        part, validation = data.split_for_search(train, validation_images=9)
        assert sorted(numbers_of(stream(part, batch_size=5), part)) == list(range(15))
        (batch,) = data.evaluation_batches(validation, batch_size=9).as_numpy_iterator()
        np.testing.assert_array_equal(batch[1], validation.labels)


def numbers_of_parts(parts, images):
    return numbers_of(
        [(augmentation.normalize(part.images[:]).numpy(), None) for part in parts], images
    )
