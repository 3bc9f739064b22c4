"""What rounding alone changes in a trained 1-bit network, in Keras and in the flatbuffer.

python benchmarks/rounding.py --workdir=DIR [--images=1000]

Compares the logits of Keras in float32, Keras in float64 and the flatbuffer on test images. Where a
number is nearer to 0 than rounding, its sign may come out either way, and with it thousands of
signs behind it: an image's logits then differ by as much as they are large, or else by 1e-5.

Prints a table and, as the last line, one JSON object: `images`, and `undecided`, the images for
which `export` lets rounding decide; a row per pair: `differ`, images whose logits differ by more
than 1e-4, of which `differ_decided` are not among those; `changed` predictions; `largest`
difference.
"""

import itertools
import json
import os

from absl import app, flags

import cpnas_tf  # noqa: F401  (before TensorFlow: Keras 2)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from cpnas_tf import training
from cpnas_tf.data.augmentation import normalize
from cpnas_tf.export import bundle, flatbuffer

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Workdir of a trained child.", required=True)
flags.DEFINE_string("data_dir", None, "TFDS data directory, the training's by default.")
flags.DEFINE_integer("images", 1000, "Test images.")

BATCH = 50


def in_float64(model):
    """The same model, all of it in float64."""
    tf.keras.backend.set_floatx("float64")  # also of what does not name its type
    twin = tf.keras.models.model_from_json(model.to_json().replace('"float32"', '"float64"'))
    tf.keras.backend.set_floatx("float32")
    twin.set_weights(model.get_weights())
    return twin


def logits(model, images):
    """What a Keras model gives for uint8 images, in its own precision."""
    parts = (images[first : first + BATCH] for first in range(0, len(images), BATCH))
    batches = (tf.cast(normalize(tf.constant(part)), model.input.dtype) for part in parts)
    return np.concatenate([model(batch, training=False) for batch in batches])


def main(_):
    """Compares, prints a table, and as the last line one JSON object."""
    model, test, _ = training.load_trained(FLAGS.workdir, data_dir=FLAGS.data_dir)
    images = test.images[: FLAGS.images]
    results = {
        "Keras float32": logits(model, images),
        "Keras float64": logits(in_float64(model), images),
        "flatbuffer": flatbuffer.predict(flatbuffer.convert(model), images),
    }
    decided = bundle.nearest_to_zero(model, images) > bundle.ROUNDING
    rows = {}
    for (one, first), (other, second) in itertools.combinations(results.items(), 2):
        difference = np.abs(first - second).max(axis=1)
        differ = difference > bundle.TOLERANCE
        rows[f"{one}, {other}"] = {
            "differ": int(differ.sum()),
            "differ_decided": int((differ & decided).sum()),
            "changed": int((first.argmax(axis=1) != second.argmax(axis=1)).sum()),
            "largest": float(difference.max()),
        }
    print(f"{len(images)} images, rounding may decide {(~decided).sum()}")
    print(
        f"{'':30}", *(f"{name:>15}" for name in ("differ", "differ_decided", "changed", "largest"))
    )
    for pair, row in rows.items():
        print(f"{pair:30}", *(f"{value:15.7g}" for value in row.values()))
    print(json.dumps({"images": len(images), "undecided": int((~decided).sum()), "pairs": rows}))


if __name__ == "__main__":
    app.run(main)
