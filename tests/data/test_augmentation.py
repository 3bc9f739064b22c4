import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf import data
from cpnas_tf.data import augmentation

FULL_AUGMENTATION = {"crop_padding": 4, "flip": True, "cutout": 16}


def random_images(*shape, lowest=0):
    return np.random.default_rng(0).integers(lowest, 256, size=shape, dtype=np.uint8)


class TestNormalize:
    VALUES = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)

    def test_values(self):
        normalized = augmentation.normalize(self.VALUES).numpy()
        assert (normalized.min(), normalized.max()) == (-1, 1)
        np.testing.assert_allclose(
            normalized, self.VALUES / 127.5 - 1, rtol=0, atol=2 * np.finfo(np.float32).eps
        )

    def test_the_same_numbers_everywhere(self):
        images = data.Images(self.VALUES, [0], ("one",))
        datasets = (
            data.batches(images, batch_size=1, seed=0),
            data.evaluation_batches(images, batch_size=1),
        )
        ways = [next(dataset.as_numpy_iterator())[0] for dataset in datasets]
        ways.append(tf.function(augmentation.normalize)(tf.constant(self.VALUES)))
        ways.append(augmentation.augment(self.VALUES, [0, 0]))
        for batch in ways:
            np.testing.assert_array_equal(batch, augmentation.normalize(self.VALUES))


def crop_one(image, corner, mirrored, padding):
    """One image's crop, pixel by pixel."""
    height, width, _ = image.shape
    result = np.zeros_like(image)
    for row, column in np.ndindex(height, width):
        y, x = row + corner[0] - padding, column + corner[1] - padding
        if 0 <= y < height and 0 <= x < width:
            result[row, width - 1 - column if mirrored else column] = image[y, x]
    return result


def cut_out_one(image, centre, size):
    """One image's cutout, as the authors' code does it."""
    height, width, _ = image.shape
    y, x = centre[0] - size // 2, centre[1] - size // 2
    result = image.copy()
    result[max(y, 0) : min(y + size, height), max(x, 0) : min(x + size, width)] = 0
    return result


class TestAugment:
    @pytest.mark.parametrize("padding", [0, 1, 2, 5])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_crop(self, padding, channels):
        offsets = range(2 * padding + 1)
        draws = list(itertools.product(offsets, offsets, (False, True)))
        images = random_images(len(draws), 5, 4, channels)
        corners, mirrored = np.array([draw[:2] for draw in draws]), np.array(draws)[:, 2] == 1
        expected = [
            crop_one(*arguments, padding)
            for arguments in zip(images, corners, mirrored, strict=True)
        ]
        result = augmentation.crop(
            images, tf.constant(corners, tf.int32), tf.constant(mirrored), padding=padding
        )
        np.testing.assert_array_equal(result, expected)

    @pytest.mark.parametrize("size", [1, 2, 3, 4, 20])
    def test_cut_out(self, size):
        centres = np.array(list(np.ndindex(7, 6)))
        images = np.random.default_rng(0).normal(size=(len(centres), 7, 6, 3)).astype(np.float32)
        expected = [cut_out_one(*pair, size) for pair in zip(images, centres, strict=True)]
        result = augmentation.cut_out(images, tf.constant(centres, tf.int32), size=size)
        np.testing.assert_array_equal(result, expected)

    def test_random_crops_and_flips_reach_every_position_equally_often(self):
        image = random_images(1, 6, 5, 1, lowest=1)
        result = augmentation.augment(
            np.repeat(image, 3600, axis=0), [1, 2], crop_padding=1, flip=True
        )
        found = collections.Counter(crop.tobytes() for crop in result.numpy())
        expected = {
            augmentation.normalize(crop_one(image[0], (row, column), mirrored, 1)).numpy().tobytes()
            for row, column, mirrored in itertools.product(range(3), range(3), (False, True))
        }
        assert len(expected) == 18
        assert set(found) == expected
        assert 140 <= min(found.values()) <= max(found.values()) <= 260

    def test_random_cutouts_reach_every_pixel_equally_often(self):
        image = random_images(1, 6, 5, 2)
        result = augmentation.augment(np.repeat(image, 6000, axis=0), [1, 2], cutout=2)
        found = collections.Counter(cut.tobytes() for cut in result.numpy())
        normalized = augmentation.normalize(image[0]).numpy()
        expected = {cut_out_one(normalized, centre, 2).tobytes() for centre in np.ndindex(6, 5)}
        assert len(expected) == 30
        assert set(found) == expected
        assert 140 <= min(found.values()) <= max(found.values()) <= 260

    def test_flip_alone_moves_nothing_else(self):
        images = random_images(200, 6, 5, 3)
        normalized = augmentation.normalize(images).numpy()
        result = augmentation.augment(images, [5, 5], flip=True).numpy()
        kept = (result == normalized).all(axis=(1, 2, 3))
        np.testing.assert_array_equal(result[~kept], normalized[~kept, :, ::-1])
        assert 70 <= kept.sum() <= 130

    def test_padding_is_black_and_cutout_is_grey(self):
        white = np.full([64, 8, 8, 1], 255, np.uint8)
        assert set(np.unique(augmentation.augment(white, [0, 1], crop_padding=2))) == {-1, 1}
        assert set(np.unique(augmentation.augment(white, [0, 1], cutout=2))) == {0, 1}

    def test_only_the_seed_decides(self):
        images = random_images(8, 32, 32, 3)
        first, again, other = (
            augmentation.augment(images, seed, **FULL_AUGMENTATION).numpy()
            for seed in ((7, 1), (7, 1), (7, 2))
        )
        np.testing.assert_array_equal(first, again)
        assert (first != other).any(axis=(1, 2, 3)).all()
        assert first.dtype == np.float32
        assert np.abs(first).max() <= 1

    def test_a_batch_of_unknown_size(self):
        images = random_images(8, 32, 32, 3)
        signature = [tf.TensorSpec([None, 32, 32, 3], tf.uint8)]
        augment = tf.function(
            lambda batch: augmentation.augment(batch, [7, 1], **FULL_AUGMENTATION), signature
        )
        np.testing.assert_array_equal(
            augment(images), augmentation.augment(images, [7, 1], **FULL_AUGMENTATION)
        )

    @pytest.mark.parametrize("settings", [{"crop_area": 0.3}, {"crop_area": 0.3, "flip": True}])
    def test_random_windows_are_resized(self, settings):
        images = random_images(40, 9, 12, 3)
        found = augmentation.augment(images, [4, 2], **settings).numpy()
        windows = augmentation.draw_windows(
            tf.random.split([4, 2], 4)[0], 40, 9, 12, smallest_area=0.3
        )
        expected = augmentation.normalize(augmentation.resize_windows(images, windows)).numpy()
        mirrored = (found != expected).any(axis=(1, 2, 3))
        assert mirrored.any() == settings.get("flip", False)
        np.testing.assert_array_equal(found[mirrored], expected[mirrored, :, ::-1])

    @pytest.mark.parametrize("area", [-0.1, 1.1])
    def test_impossible_windows(self, area):
        with pytest.raises(
            ValueError, match=rf"crop_area must be a number in \[0, 1\], received: {area}"
        ):
            augmentation.augment(random_images(1, 8, 8, 1), [1, 2], crop_area=area)


class TestWindows:
    def test_their_areas_shapes_and_places(self):
        height, width = 600, 800
        windows = augmentation.draw_windows([1, 2], 4000, height, width, smallest_area=0.1).numpy()
        corners, sizes = windows[:, :2], windows[:, 2:]
        assert (corners >= 0).all()
        assert (corners + sizes <= [height, width]).all()
        area = sizes.prod(axis=1) / (height * width)
        ratio = sizes[:, 1] / sizes[:, 0]
        assert 0.099 <= area.min() < 0.11
        small = (sizes < [height, width]).all(axis=1)  # none of their sides is cut
        logarithms = np.log(ratio[small & (area < 0.4)]) / np.log(4 / 3)
        deciles = np.linspace(0, 1, 11)
        np.testing.assert_allclose(np.quantile(logarithms, deciles), 2 * deciles - 1, atol=0.1)
        np.testing.assert_allclose(
            np.quantile(area[area < 0.4], deciles), 0.1 + 0.3 * deciles, atol=0.02
        )
        for axis, length in enumerate((height, width)):
            free = length - sizes[small, axis]
            place = corners[small, axis][free > 50] / free[free > 50]
            np.testing.assert_allclose(np.quantile(place, deciles), deciles, atol=0.05)

    def test_the_whole_image_fits(self):
        windows = augmentation.draw_windows([3, 4], 500, 8, 8, smallest_area=1.0).numpy()
        assert (windows[:, :2] + windows[:, 2:] <= 8).all()
        assert windows[:, 2:].max(axis=1).min() == 8  # one side is whole, the other may be shorter
        assert windows[:, 2:].min() >= 7

    @pytest.mark.parametrize(
        ("size", "share", "expected"),
        [
            ((10, 20), 1.0, [0, 5, 10, 10]),
            ((21, 9), 1.0, [6, 0, 9, 9]),
            ((256, 320), 0.875, [16, 48, 224, 224]),
        ],
    )
    def test_the_middle(self, size, share, expected):
        assert augmentation.centre_window(*size, share=share).numpy().tolist() == expected

    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            ((100, 100), [25, 0, 50, 100]),
            ((100, 300), [0, 50, 100, 200]),
            ((31, 15), [11, 0, 8, 15]),  # 7.5 rows, rounded to even
            ((1, 1), [0, 0, 1, 1]),
        ],
    )
    def test_the_middle_has_the_proportions_asked_for(self, size, expected):
        found = augmentation.centre_window(*size, proportions=(24, 48))
        assert found.numpy().tolist() == expected

    def test_resizing_is_tensorflows_bilinear_one(self):
        images = random_images(5, 9, 12, 3)
        windows = [[0, 0, 9, 12], [2, 3, 5, 4], [8, 11, 1, 1], [0, 2, 9, 3], [4, 0, 2, 12]]
        expected = [
            tf.image.resize(image[row : row + height, column : column + width], [9, 12])
            for image, (row, column, height, width) in zip(images, windows, strict=True)
        ]
        found = augmentation.resize_windows(images, tf.constant(windows))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
