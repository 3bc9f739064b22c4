"""What the tests of searches share."""

import cpnas_tf  # noqa: F401, isort: skip
import numpy as np

from cpnas_tf import data


class StopError(Exception):
    """Stands for whatever ends a process."""


def make_images(count, *, seed):
    """Images of two classes, one brighter above and one below."""
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=count)
    images = random.integers(0, 200, size=(count, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 55
    return data.Images(images.astype(np.uint8), labels, ("above", "below"))
