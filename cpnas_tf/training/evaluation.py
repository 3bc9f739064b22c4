"""Measuring a trained network, and loading it again from its workdir."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cpnas_tf.data import AnyImages, streams
from cpnas_tf.runs.images import check_fits
from cpnas_tf.runs.trained import TrainedRun


def load_trained(
    directory: str | os.PathLike[str], *, data_dir: str | os.PathLike[str] | None = None
) -> tuple[tf.keras.Model, AnyImages, dict[str, Any]]:
    """Rebuilds the network that `cpnas train` trained in `directory`, with its final weights.

    Args:
        directory: the training's workdir.
        data_dir: TFDS data directory, where the training's is not right any more.

    Returns:
        `(model, test, run)`: the Keras model, the test `Images` of its data set, and the contents
        of `config.json`.

    Raises:
        ValueError: if the training did not finish or was one of `train`, which writes no record; or
            its last checkpoint is broken or does not fit, or the data set is not that of the
            training any more.
    """
    run = TrainedRun(directory, data_dir=data_dir)
    test = run.test_images()
    return run.network(), test, run.record


def evaluate(model: tf.keras.Model, images: AnyImages, *, batch_size: int = 256) -> dict[str, Any]:
    """Measures a classifier on all images.

    Args:
        model: a Keras model from images in [-1, 1] to logits.
        images: `Images`.
        batch_size: images per step; it does not change the result.

    Returns:
        A dict of `accuracy` (top-1), `accuracy_top5` (1 of at most five classes), `loss` (mean
        cross-entropy), `examples`, `per_class`, the top-1 accuracy by class name (None for a class
        without images), and `confusion_matrix`, how many images of each class (a row) were taken
        for each class.

    Raises:
        ValueError: if the images are not such as the model is for, or its outputs are not finite.

    Examples:
        >>> import cpnas_tf, numpy as np, tensorflow as tf
        >>> from cpnas_tf.data import Images
        >>> images = Images(np.zeros([8, 4, 4, 1], np.uint8), np.arange(8) % 2, ["cat", "dog"])
        >>> layers = [tf.keras.layers.Flatten(), tf.keras.layers.Dense(2)]
        >>> model = tf.keras.Sequential([tf.keras.Input([4, 4, 1]), *layers])
        >>> cpnas_tf.evaluate(model, images)["accuracy"]  # of two classes, one for all images
        0.5
    """
    logits, labels = classify(model, images, batch_size=batch_size)
    return measure(logits, labels, images.class_names)


def classify(
    model: tf.keras.Model, images: AnyImages, *, batch_size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Runs a classifier on all images.

    Args:
        model, images, batch_size: see `evaluate`.

    Returns:
        `(logits, labels)`, float32 `[n, classes]` and int32 `[n]`.

    Raises:
        ValueError: if the images are not such as the model is for, or its outputs are not finite.
    """
    check_fits(model, images)
    predict = tf.function(functools.partial(model, training=False), autograph=False)
    batches = [
        (predict(batch).numpy(), batch_labels.numpy())
        for batch, batch_labels in streams.evaluation_batches(images, batch_size=batch_size)
    ]
    logits, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    if not np.isfinite(logits).all():
        raise ValueError(
            "the network's outputs are not finite numbers: train it with a lower learning_rate"
        )
    return logits, labels


def measure(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """What `evaluate` returns, of what `classify` does."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits).numpy()
    top5 = tf.math.in_top_k(labels, logits, min(5, logits.shape[1])).numpy()
    confusion = tf.math.confusion_matrix(labels, logits.argmax(axis=1), len(class_names)).numpy()
    return {
        "accuracy": float(confusion.trace() / len(labels)),
        "accuracy_top5": float(top5.mean()),
        "loss": float(losses.mean()),
        "examples": len(labels),
        "per_class": {
            name: float(row[index] / row.sum()) if row.any() else None
            for index, (name, row) in enumerate(zip(class_names, confusion, strict=True))
        },
        "confusion_matrix": confusion.tolist(),
    }
