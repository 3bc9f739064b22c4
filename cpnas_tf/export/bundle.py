"""A trained network as a folder to ship: SavedModel, flatbuffers, sizes, model card; checked."""

import os
import shutil
import statistics
import time
from typing import Any

import numpy as np
import tensorflow as tf

from cpnas_tf.data import AnyImages
from cpnas_tf.data.augmentation import MIDDLE, normalize
from cpnas_tf.data.datasets import framing
from cpnas_tf.errors import first_line
from cpnas_tf.export import compute_engine, litert, saved_model
from cpnas_tf.export.model_card import write_model_card
from cpnas_tf.files import (
    find,
    local_path,
    plain_path,
    read_json,
    replaced,
    write_atomically,
    write_json,
)
from cpnas_tf.networks.costs import layer_costs, total
from cpnas_tf.networks.quantizers import SIGNS
from cpnas_tf.runs.images import check_fits
from cpnas_tf.runs.trained import TrainedRun
from cpnas_tf.runs.workdir import FORMAT, check_format

# Each file, what makes it, and what its numbers in export.json begin with.
FLATBUFFERS = (
    ("model_litert.tflite", litert, "litert_"),
    ("model.tflite", compute_engine, "tflite_"),
)
# What an export writes; all else in its folder is someone else's.
WRITTEN = (
    *("export.json", "README.md", "genotype.png", "predict.py"),
    *(name for name, _, _ in FLATBUFFERS),
    *("saved_model/saved_model.pb", "saved_model/fingerprint.pb"),
    *("saved_model/variables/variables.*", "saved_model/assets/labels.txt"),
)
_OURS = {"saved_model_bytes", "largest_difference"}  # keys of each version's export.json

TOLERANCE = 1e-4  # of logits up to 1; of an image's larger ones this share of the largest
# Decision: a flatbuffer equals Keras for all images that rounding does not decide, and predicts
# otherwise for 10% of all at most. It adds up in another order, which may flip the sign of a number
# next to 0, and after it thousands. Rounding may decide where Keras takes the sign of a number that
# is nearer to 0 than 16 roundings of its layer's root mean square. Measured on a CIFAR-10 child of
# 30% accuracy that takes 1.7 million signs an image: 73% of 1,000 images are decided so, all that
# differed had a number nearer than 6 roundings, and of the 1,000 predictions 5 changed; 2 changed
# where Keras itself computed in float64.
ROUNDING = 16 * 2.0**-23
FLATBUFFER_SHARE = 0.1
FLATBUFFER_IMAGES = 1000  # LCE's interpreter is slow where it is no device's
_TIMED = 20
_BATCH = 256
_ENCODED = 16


def export(
    model: tf.keras.Model,
    images: AnyImages,
    *,
    directory: str | os.PathLike[str],
    trained: TrainedRun | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes the export of a network into `directory`, all or nothing.

    `saved_model/` (`saved_model.save`), `model_litert.tflite` for stock LiteRT (`litert.convert`),
    `model.tflite` for Larq Compute Engine (`compute_engine.convert`; of a 1-bit network, if that is
    installed), `predict.py`, which asks about photos with LiteRT alone, `export.json`, and
    `README.md`, the model card. What was written is loaded again and compared with the Keras model
    before it takes its place.

    Args:
        model: a functional or sequential Keras model from images in [-1, 1] to logits.
        images: `Images` to compare on: the SavedModel on all, flatbuffers on the first 1,000.
        directory: folder to make.
        trained: the model's `TrainedRun`, of which the model card tells.
        overwrite: whether to replace `directory` if it is an earlier export; files of others in it
            stay.

    Returns:
        The contents of `export.json`: `image_shape`, `classes`, the names, and `framing`, what is
        taken of a photo of another size (`data.augmentation.Framing`); `packed_weight_bytes` of the
        1-bit kernels and the real stem and classifier, `batchnorm_bytes` of batch normalizations
        and scales, `graph_bytes` of the rest, and `saved_model_bytes`, their sum; `memory_mbit`,
        the paper's count; `largest_difference` of the logits, `changed_predictions`,
        `images_checked`, and `milliseconds`, the median time of an image by itself on this
        machine. The same of the flatbuffers, with the prefixes `litert_` and `tflite_`; with their
        `bytes`, None of one that is left out, and `images_decided`, how many of the images checked
        rounding does not decide. Of LiteRT's, `litert_int8_kernels` and `litert_float_kernels`, how
        many kernels of convolutions it stores in int8 with a scale per filter, and as floats.

    Raises:
        ValueError: if the images are not such as the model is for, `directory` exists and is not
            to be replaced, or what was written differs from Keras.
        OSError: if it cannot be written (a full disk included); `directory` is then untouched.

    Examples:
        >>> import cpnas_tf, numpy as np
        >>> from cpnas_tf.data import Images
        >>> from cpnas_tf.export import export
        >>> pixels = np.random.default_rng(0).integers(256, size=[64, 8, 8, 1]).astype("uint8")
        >>> images = Images(pixels, np.arange(64) % 2, ["cat", "dog"])
        >>> cells = ["skip_connect"] * 14
        >>> parent = cpnas_tf.build_network(
        ...     cpnas_tf.Genotype(normal=cells, reduce=cells),
        ...     input_shape=(8, 8, 1),
        ...     classes=2,
        ...     cells=3,
        ...     channels=4,
        ...     precision="parent",
        ... )
        >>> summary = export(parent, images, directory="runs/export")
        >>> summary["images_checked"], summary["changed_predictions"]
        (64, 0)
    """
    check_fits(model, images)
    directory = local_path(directory)
    check_output(directory, overwrite=overwrite)
    with replaced(directory) as new:
        expected = np.concatenate(
            [model(normalize(batch), training=False) for batch in _batches(images.images)]
        )
        framed = framing(trained.config["data"]["name"]) if trained else MIDDLE
        saved = os.path.join(new, "saved_model")
        summary = {
            "format": FORMAT,
            "memory_mbit": total(layer_costs(model))["bits"] / 1e6,
            "image_shape": list(images.image_shape),
            "classes": list(images.class_names),
            "framing": framed._asdict(),
            **_write_saved_model(saved, model, images, expected, framed),
            **_write_flatbuffers(new, model, images, expected),
        }
        if images.image_shape[2] in saved_model.CHANNELS:
            shutil.copy(os.path.join(os.path.dirname(__file__), "predict.py"), new)
        write_json(os.path.join(new, "export.json"), summary)
        write_model_card(new, summary, images, trained=trained)
        if os.path.isdir(directory):
            _take_along(directory, new)
    return summary


def _take_along(old, new):
    """Copies what is in an earlier export and is none of it."""
    exported = {path for name in WRITTEN for path in find(old, name)}

    def left(folder, names):
        return [name for name in names if os.path.join(folder, name) in exported]

    shutil.copytree(old, new, symlinks=True, ignore=left, dirs_exist_ok=True)


def check_output(directory: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Raises ValueError if `directory` is there, is not empty and is not to be replaced."""
    if not os.path.lexists(directory) or (os.path.isdir(directory) and not os.listdir(directory)):
        return
    path = os.path.join(directory, "export.json")
    summary = read_json(path) if os.path.isfile(path) else None
    if not isinstance(summary, dict) or not summary.keys() >= _OURS:
        raise ValueError(f"{directory} is there and is no export: choose another directory")
    check_format(summary, path)
    if not overwrite:
        raise ValueError(f"{directory} holds an export: replace it with overwrite=True")


def _batches(images):
    return (tf.constant(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH))


def _write_saved_model(path, model, images, expected, framed):
    try:
        saved_model.save(model, images.class_names, path, framing=framed)
    except tf.errors.OpError as error:
        raise OSError(f"cannot write {path}: {first_line(error)}") from error
    with plain_path(path) as plain:
        signatures = tf.saved_model.load(plain).signatures
    answers = [signatures["serving_default"](images=batch) for batch in _batches(images.images)]
    logits, classes, labels = (
        np.concatenate([answer[name] for answer in answers])
        for name in ("logits", "classes", "labels")
    )
    result = _differences(logits, expected)
    names = np.array([name.encode() for name in images.class_names], object)
    changed = (classes != expected.argmax(axis=1)) | (labels != names[classes])
    result["changed_predictions"] = int(changed.sum())
    largest = result["largest_difference"]
    if "serve_bytes" in signatures:
        files = [tf.io.encode_png(image).numpy() for image in images.images[:_ENCODED]]
        answer = signatures["serve_bytes"](image_bytes=tf.constant(files))
        largest = np.maximum(largest, np.abs(answer["logits"] - expected[:_ENCODED]).max())
    if not largest <= TOLERANCE or changed.any():
        raise ValueError(
            f"the SavedModel differs from Keras by {largest:.2g} and in {changed.sum()} of "
            f"{len(images)} predictions, at most {TOLERANCE:g} and none are accepted"
        )
    serve = signatures["serving_default"]
    _, milliseconds = _timed(
        lambda image: serve(images=tf.constant(image))["logits"], images.images[:_TIMED]
    )
    return {**saved_model.sizes(path), **result, "milliseconds": milliseconds}


def _write_flatbuffers(folder, model, images, expected):
    images, expected = images.images[:FLATBUFFER_IMAGES], expected[:FLATBUFFER_IMAGES]
    decided = nearest_to_zero(model, images) > ROUNDING
    result = {}
    for name, module, prefix in FLATBUFFERS:
        path = os.path.join(folder, name)
        result |= _write_flatbuffer(path, module, prefix, model, images, expected, decided)
    return result


def _allowed(expected):
    """The largest difference of each image's logits, which round by their size."""
    return TOLERANCE * np.maximum(1, np.abs(expected).max(axis=1))


def _write_flatbuffer(path, module, prefix, model, images, expected, decided):
    """Writes a flatbuffer if it can be made; returns what `export.json` says of it."""
    try:
        content = module.convert(model)
    except ModuleNotFoundError:
        content = None
    if content is None:
        return {f"{prefix}bytes": None}
    write_atomically(path, content)
    logits, milliseconds = _timed(module.runner(content), images)
    result = _differences(logits, expected)
    if module is litert:
        result |= litert.kernel_counts(content)
    result["images_decided"] = int(decided.sum())
    result["milliseconds"] = milliseconds
    equal = np.abs(logits - expected).max(axis=1) <= _allowed(expected)
    equal &= logits.argmax(axis=1) == expected.argmax(axis=1)
    changed = result["changed_predictions"]
    if not equal[decided].all() or changed > FLATBUFFER_SHARE * len(expected):
        raise ValueError(
            f"{os.path.basename(path)} differs from Keras for {(~equal[decided]).sum()} of "
            f"{decided.sum()} images that rounding does not decide, none are accepted, and in "
            f"{changed} of {len(expected)} predictions, at most {FLATBUFFER_SHARE:.0%} are accepted"
        )
    return {f"{prefix}{name}": value for name, value in {"bytes": len(content), **result}.items()}


def _timed(run, images):
    """Runs image after image; the results, and the median of their times in milliseconds."""
    results, seconds = [], []
    for image in images:
        start = time.perf_counter()
        results.append(run(image[np.newaxis]))
        seconds.append(time.perf_counter() - start)
    return np.concatenate(results), round(1000 * statistics.median(seconds), 3)


def nearest_to_zero(model: tf.keras.Model, images: np.ndarray) -> np.ndarray:
    """How near to 0 the numbers come of which Keras takes the signs, for each image.

    Args:
        model: the Keras model.
        images: uint8 `[n, height, width, channels]`.

    Returns:
        The smallest magnitude over its layer's root mean square, `[n]`; infinity without signs.
    """
    signed = {
        id(layer.input): layer.input
        for layer in model.layers
        if isinstance(getattr(layer, "input_quantizer", None), SIGNS)
    }
    if not signed:
        return np.full(len(images), np.inf)
    inputs = tf.keras.Model(model.input, list(signed.values()))

    @tf.function(input_signature=[tf.TensorSpec([None, *images.shape[1:]], tf.uint8)])
    def nearest(batch):
        sizes = map(tf.abs, tf.nest.flatten(inputs(normalize(batch), training=False)))
        return tf.reduce_min([_smallest(size) for size in sizes], axis=0)

    return np.concatenate([nearest(batch) for batch in _batches(images)])


def _smallest(sizes):
    """The smallest of each image over the root mean square of all; what is all 0 is so exactly."""
    scale = tf.sqrt(tf.reduce_mean(sizes**2))
    smallest = tf.reduce_min(sizes, axis=range(1, len(sizes.shape)))
    return tf.where(scale > 0, smallest / scale, np.inf)


def _differences(logits, expected):
    return {
        "largest_difference": float(np.abs(logits - expected).max()),
        "changed_predictions": int((logits.argmax(axis=1) != expected.argmax(axis=1)).sum()),
        "images_checked": len(expected),
    }
