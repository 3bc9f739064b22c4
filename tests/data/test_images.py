import numpy as np
import pytest

from cpnas_tf.data.images import Images


class TestImages:
    def test_own_arrays(self):
        images = Images(np.zeros([3, 4, 4, 1], np.uint8), [0, 1, 1], ["cat", "dog"])
        assert len(images) == 3
        assert images.labels.dtype == np.int32
        assert images.class_names == ("cat", "dog")
        np.testing.assert_array_equal(images.take([2, 0]).labels, [1, 0])

    @pytest.mark.parametrize(
        ("shape", "dtype", "labels", "message"),
        [
            ([3, 4, 4, 1], np.float32, [0, 1, 1], "must be uint8 .*received: float32"),
            (
                [3, 4, 4],
                np.uint8,
                [0, 1, 1],
                r"\[n, height, width, channels\], received: .*3, 4, 4",
            ),
            ([3, 4, 4, 1], np.uint8, [0, 1], "3 images need as many integer labels"),
            ([3, 4, 4, 1], np.uint8, [0.0, 1.0, 1.0], "integer labels, received: float64"),
            ([3, 4, 4, 1], np.uint8, [0, 1, 2], r"labels must be in 0..1, .*received: 0..2"),
            ([3, 4, 4, 1], np.uint8, [-1, 1, 1], r"labels must be in 0..1, .*received: -1..1"),
        ],
    )
    def test_impossible_arrays(self, shape, dtype, labels, message):
        with pytest.raises(ValueError, match=message) as error:
            Images(np.zeros(shape, dtype), labels, ("cat", "dog"))
        assert len(str(error.value).splitlines()) == 1

    @pytest.mark.parametrize("names", [("cat", "cat"), (b"cat", b"dog"), (0, 1)])
    def test_names_that_are_no_different_texts(self, names):
        with pytest.raises(ValueError, match="^class_names must be different texts, received: "):
            Images(np.zeros([1, 4, 4, 1], np.uint8), [0], names)

    def test_parts_are_disjoint_and_only_the_seed_decides(self):
        numbers = np.arange(100, dtype=np.uint8)
        images = Images(numbers.reshape(100, 1, 1, 1), numbers % 7, "abcdefg")
        draws = [images.draw(60, 1, 30, seed=seed) for seed in (0, 0, 1)]
        pixels = [[part.images.ravel().tolist() for part in parts] for parts in draws]
        assert pixels[0] == pixels[1]
        assert pixels[0] != pixels[2]
        for parts in draws:
            assert [len(part) for part in parts] == [60, 1, 30]
            assert len({pixel for part in parts for pixel in part.images.ravel()}) == 91
            for part in parts:
                np.testing.assert_array_equal(part.labels, part.images.ravel() % 7)
