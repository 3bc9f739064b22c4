"""Own photos, made for the tests: of several sizes, shapes and kinds of file, quick to learn."""

import itertools

import numpy as np
from PIL import Image

SIZES = ((40, 30), (24, 36), (50, 50), (33, 21))  # width, height
COLOURS = {"blue sky": (60, 90, 220), "grass": (70, 170, 60), "sand": (220, 190, 120)}


def make_photos(folder, *, count=12, sizes=SIZES, kinds=("jpg", "png")):
    """Writes photos into a folder per class: noise around the class's colour.

    Returns:
        The folder.
    """
    random = np.random.default_rng(0)
    shapes, suffixes = itertools.cycle(sizes), itertools.cycle(kinds)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            width, height = next(shapes)
            noise = random.normal(0, 40, [height, width, 3])
            pixels = np.clip(noise + colour, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.{next(suffixes)}")
    return folder
