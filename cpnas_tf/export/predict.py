"""Says what photos show: python predict.py PHOTO...

Stands beside export.json and model_litert.tflite, which it reads. Needs ai-edge-litert, NumPy and
Pillow, and nothing of what made the network.
"""

import json
import pathlib
import sys
import warnings
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent


def read(path: str, shape: list[int], framing: dict[str, Any]) -> np.ndarray:
    """The middle of a photo, upright, as the network's training saw it: uint8 of this shape."""
    height, width, channels = shape
    with Image.open(path) as file:
        photo = ImageOps.exif_transpose(file)
    if photo.mode.startswith("I"):  # 16 bits per sample: the upper 8
        photo = Image.fromarray((np.asarray(photo) // 256).astype(np.uint8))
    photo = photo.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    fits = photo.size == (width, height)
    pixels = np.asarray(photo) if fits else frame(photo, width, height, **framing)
    return pixels.astype(np.uint8).reshape(shape)


def frame(
    photo: Image.Image, width: int, height: int, *, share: float, antialias: bool
) -> np.ndarray:
    """Resizes the middle of a photo, in float32, so that only the end is rounded."""
    scale = share * min(photo.width / width, photo.height / height)
    columns, rows = (max(round(scale * size), 1) for size in (width, height))
    left, top = (photo.width - columns) // 2, (photo.height - rows) // 2
    window = photo.crop((left, top, left + columns, top + rows))
    bands = [band.convert("F") for band in window.split()]
    if antialias:
        bands = [band.resize((width, height), Image.Resampling.BILINEAR) for band in bands]
    else:
        matrix = (columns / width, 0, 0, 0, rows / height, 0)
        how = Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        bands = [band.transform((width, height), *how) for band in bands]
    return np.rint(np.stack([np.asarray(band) for band in bands], axis=-1))


def main(paths: list[str]) -> None:
    """Prints a line per photo: its path, the class and the class's probability."""
    if not paths:
        sys.exit("usage: python predict.py PHOTO...")
    export = json.loads((HERE / "export.json").read_text(encoding="utf-8"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = Interpreter(str(HERE / "model_litert.tflite")).get_signature_runner()
    for path in paths:
        try:
            image = read(path, export["image_shape"], export["framing"])
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            sys.exit(f"{path} cannot be read: {error}")
        logits = network(images=image[np.newaxis])["logits"][0]
        exponentials = np.exp(logits - logits.max())
        best = int(logits.argmax())
        print(f"{path}: {export['classes'][best]} ({exponentials[best] / exponentials.sum():.1%})")


if __name__ == "__main__":
    main(sys.argv[1:])
