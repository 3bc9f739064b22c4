"""The script that an export carries: LiteRT, NumPy and Pillow alone."""

import importlib.util
import io
import json
import re
import struct
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from exportable import CLASS_NAMES, make_images
from PIL import Image

from cpnas_tf import export
from cpnas_tf.data.augmentation import Framing
from cpnas_tf.data.decoding import decode

RANDOM = np.random.default_rng(0)
HAS_LITERT = importlib.util.find_spec("ai_edge_litert") is not None
# What Python is told to forget before the script starts.
HIDDEN = ("tensorflow", "tf_keras", "keras", "larq", "larq_compute_engine", "cpnas_tf")


def photo(height, width, form, mode="RGB", **settings):
    """A photo with edges and a texture, as the bytes of a file."""
    shape = (7, 5, len(mode)) if len(mode) > 1 else (7, 5)
    coarse = Image.fromarray(RANDOM.integers(256, size=shape).astype(np.uint8))
    fine = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = (fine + RANDOM.integers(-9, 10, fine.shape)).clip(0, 255)
    file = io.BytesIO()
    Image.fromarray(noisy.astype(np.uint8)).save(file, form, **settings)
    return file.getvalue()


def orientation(number):
    return b"Exif\0\0II" + struct.pack("<HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, number, 0, 0)


PHOTOS = {
    "large.jpg": photo(903, 1207, "JPEG"),
    "turned.jpg": photo(90, 140, "JPEG", exif=orientation(6)),
    "small.png": photo(9, 11, "PNG"),
    "grey.png": photo(64, 80, "PNG", mode="L"),
    "transparent.png": photo(64, 80, "PNG", mode="RGBA"),
    "same.png": photo(24, 32, "PNG"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export of a small network of colour images, and photos."""
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Conv2D(4, 5, strides=3, input_shape=(24, 32, 3)),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(len(CLASS_NAMES), kernel_initializer="random_normal"),
        ]
    )
    folder = tmp_path_factory.mktemp("predict") / "export"
    export.export(model, make_images(32, (24, 32, 3)), directory=folder)
    for name, content in PHOTOS.items():
        (folder / name).write_bytes(content)
    (folder / "text.jpg").write_text("no photo")
    return folder


@pytest.fixture(scope="module")
def script(folder):
    """The script as a module; without LiteRT, on the interpreter of TensorFlow's it replaces."""
    spec = importlib.util.spec_from_file_location("script", folder / "predict.py")
    script = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        if not HAS_LITERT:
            fake = types.ModuleType("ai_edge_litert.interpreter")
            fake.Interpreter = tf.lite.Interpreter
            patch.setitem(sys.modules, "ai_edge_litert", types.ModuleType("ai_edge_litert"))
            patch.setitem(sys.modules, fake.__name__, fake)
        spec.loader.exec_module(script)
    return script


@pytest.mark.parametrize("framing", [Framing(), Framing(share=0.875, antialias=False)])
@pytest.mark.parametrize("name", PHOTOS)
def test_it_sees_the_pixels_that_serve_bytes_sees(folder, script, name, framing):
    """But for rounding: one level where a number lies half way between two."""
    shape = [24, 32, 3]
    found = script.read(str(folder / name), shape, framing._asdict()).astype(int)
    expected = decode(tf.constant(PHOTOS[name]), shape, framing).numpy().astype(int)
    different = np.abs(found - expected)
    assert different.max() <= 1
    assert (different > 0).mean() <= 2e-3


def served(folder):
    """What `serve_bytes` says of each photo: label and probability."""
    serve = tf.saved_model.load(str(folder / "saved_model")).signatures["serve_bytes"]
    answer = serve(image_bytes=tf.constant(list(PHOTOS.values())))
    labels = [label.decode() for label in answer["labels"].numpy()]
    probabilities = answer["probabilities"].numpy().max(axis=1)
    return dict(zip(PHOTOS, zip(labels, probabilities, strict=True), strict=True))


def check(printed, folder):
    lines = printed.splitlines()
    for line, (name, (label, probability)) in zip(lines, served(folder).items(), strict=True):
        path, said, percent = re.fullmatch(r"(.*): (\w+) \(([\d.]+)%\)", line).groups()
        assert (path, said) == (str(folder / name), label)
        assert abs(float(percent) / 100 - probability) <= 2e-3


def test_it_says_what_serve_bytes_says(folder, script, capsys):
    script.main([str(folder / name) for name in PHOTOS])
    check(capsys.readouterr().out, folder)


@pytest.mark.skipif(not HAS_LITERT, reason="needs LiteRT")
def test_it_needs_no_tensorflow(folder):
    hide = f"import sys; sys.modules.update(dict.fromkeys({HIDDEN!r}))"
    run = "import runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    paths = [str(folder / name) for name in ("predict.py", *PHOTOS)]
    process = subprocess.run(
        [sys.executable, "-c", f"{hide}; {run}", *paths], capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    check(process.stdout, folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [("text.jpg", "cannot identify image file"), ("missing.jpg", "No such file")],
)
def test_a_file_that_is_no_photo_ends_in_a_line(folder, script, name, message):
    with pytest.raises(SystemExit, match=f"^{folder / name} cannot be read: .*{message}"):
        script.main([str(folder / name)])
    with pytest.raises(SystemExit, match="^usage: "):
        script.main([])


def test_export_json_is_all_that_it_reads(folder):
    known = json.loads((folder / "export.json").read_text())
    assert known["image_shape"] == [24, 32, 3]
    assert known["classes"] == list(CLASS_NAMES)
