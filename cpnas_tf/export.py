"""A trained network as a SavedModel that needs nothing but TensorFlow to run."""

import contextlib
import os
import shutil

import numpy as np
import tensorflow as tf

from cpnas_tf.augmentation import normalize
from cpnas_tf.workdir import first_line, write_json

TOLERANCE = 1e-4


class _Serving(tf.Module):
    """Images in bytes to logits, probabilities and classes. Holds variables, no Keras layers."""

    def __init__(self, model):
        super().__init__()
        self.weights = [getattr(v, "latent_variable", v) for v in model.variables]
        shape = [None, *model.input_shape[1:]]

        @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8, name="images")])
        def serve(images):
            images = tf.ensure_shape(images, shape)  # else a wrong one may end the server's process
            logits = model(normalize(images), training=False)
            return {
                "logits": logits,
                "probabilities": tf.nn.softmax(logits),
                "classes": tf.argmax(logits, axis=-1),
            }

        self.serve = serve


def export(model, images, *, directory, overwrite=False):
    """Writes `saved_model/` and `export.json` into `directory`, all or nothing.

    The signature `serving_default` takes `images`, uint8 `[batch, height, width, channels]`, and
    gives `logits` and `probabilities`, float `[batch, classes]`, and `classes`, int64 `[batch]`.
    What was written is loaded again and compared with the Keras model before it takes its place.

    Args:
        model: a Keras model from images in [-1, 1] to logits.
        images: `Images` to compare on.
        directory: folder to make.
        overwrite: whether to replace `directory` if it is an earlier export.

    Returns:
        The contents of `export.json`: `saved_model_bytes`, `largest_difference` of the logits,
        `changed_predictions` and `images_checked`.

    Raises:
        ValueError: if `directory` exists and is not to be replaced, or the SavedModel's logits
            differ by more than 1e-4 or in their arg-max.
        OSError: if it cannot be written (a full disk included); `directory` is then untouched.
    """
    directory = os.fspath(directory).rstrip("/")
    check_output(directory, overwrite=overwrite)
    partial = f"{directory}.{os.getpid()}.partial"
    try:
        os.makedirs(partial)
        saved_model = os.path.join(partial, "saved_model")
        serving = _Serving(model)
        try:
            tf.saved_model.save(serving, saved_model, signatures=serving.serve)
        except tf.errors.OpError as error:
            raise OSError(f"cannot write {saved_model}: {first_line(error)}") from error
        summary = {"saved_model_bytes": _bytes(saved_model), **_compare(model, saved_model, images)}
        write_json(os.path.join(partial, "export.json"), summary)
        _replace(directory, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


def check_output(directory, *, overwrite=False):
    """Raises ValueError if `directory` is there and is not to be replaced."""
    if not os.path.lexists(directory):
        return
    if not os.path.exists(os.path.join(directory, "export.json")):
        raise ValueError(f"{directory} is there and is no export: choose another --output")
    if not overwrite:
        raise ValueError(f"{directory} holds an export: replace it with --overwrite")


def _replace(directory, partial):
    old = f"{directory}.{os.getpid()}.old"
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory, old)
    os.rename(partial, directory)
    shutil.rmtree(old, ignore_errors=True)


def _bytes(folder):
    return sum(
        os.path.getsize(os.path.join(path, name))
        for path, _, names in os.walk(folder)
        for name in names
    )


def _compare(model, saved_model, images, batch_size=256):
    serve = tf.saved_model.load(saved_model).signatures["serving_default"]
    largest, changed = 0.0, 0
    for start in range(0, len(images), batch_size):
        batch = tf.constant(images.images[start : start + batch_size])
        served = serve(images=batch)
        expected = model(normalize(batch), training=False).numpy()
        difference = np.abs(served["logits"].numpy() - expected).max()
        largest = float(np.maximum(largest, difference))  # not a number, if one of them is not
        changed += int((served["classes"].numpy() != expected.argmax(axis=-1)).sum())
    if not largest <= TOLERANCE or changed:
        raise ValueError(
            f"the SavedModel differs from Keras by {largest:.2g} and in {changed} of "
            f"{len(images)} predictions, at most {TOLERANCE:g} and none are accepted"
        )
    return {
        "largest_difference": largest,
        "changed_predictions": changed,
        "images_checked": len(images),
    }
