"""What exported children of the paper's Small size take on disk, beside WRN-22.

python benchmarks/export_sizes.py [--genotype=FILE ...] [--channels=56]

Saves the SavedModel of the 10-cell CIFAR-10 child of each genotype, and that of WRN-22 in full
precision. The networks were trained for two steps on noise: sizes do not depend on what weights
are, but a batch normalization that has seen nothing cannot be folded. A saving is WRN-22's bytes
over the child's, of the weights (1-bit kernels, real stem and classifier) and of the whole folder.
The last line is one JSON object: a row per network, with the sizes of `saved_model.sizes`,
`memory_mbit` by the paper's count, `weight_saving` and `folder_saving`.

benchmarks/results/shipping/genotype_2.9m.json is, of 20,000 random genotypes of many poolings, the
one whose child comes nearest to the paper's 2.9 M binary weights.
"""

import json
import os
import tempfile

from absl import app, flags

import cpnas_tf  # noqa: F401  (before TensorFlow: Keras 2)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from cpnas_tf.export import saved_model
from cpnas_tf.genotypes import Genotype
from cpnas_tf.networks import costs
from cpnas_tf.networks.cells import build_network
from cpnas_tf.networks.reference import wrn22

FLAGS = flags.FLAGS
flags.DEFINE_multi_string(
    "genotype",
    [
        "benchmarks/results/shipping/genotype_2.9m.json",
        "benchmarks/results/search_cifar10_2560/genotype.json",
    ],
    "Genotype files.",
)
flags.DEFINE_integer("channels", 56, "C of the first cell.")

CLASSES = 10


def train(model, steps=2, batch=4):
    """A few steps on noise."""
    random = np.random.default_rng(0)
    optimizer = tf.keras.optimizers.SGD(0.01)
    for _ in range(steps):
        images = tf.constant(random.uniform(-1, 1, [batch, *model.input_shape[1:]]), tf.float32)
        labels = random.integers(0, CLASSES, batch)
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))


def saved_sizes(model):
    """The model's size by the paper's count, and what its SavedModel takes."""
    train(model)
    total = costs.total(costs.layer_costs(model))
    with tempfile.TemporaryDirectory() as folder:
        saved_model.save(model, list("0123456789"), os.path.join(folder, "saved_model"))
        sizes = saved_model.sizes(os.path.join(folder, "saved_model"))
    return {"memory_mbit": total["bits"] / 1e6, **sizes}


def main(_):
    """Saves and measures, prints a table, and as the last line one JSON object."""
    tf.keras.utils.set_random_seed(0)
    reference = saved_sizes(wrn22())
    rows = {"WRN-22": reference}
    for path in FLAGS.genotype:
        model = build_network(
            Genotype.load(path), input_shape=(32, 32, 3), classes=CLASSES, channels=FLAGS.channels
        )
        rows[path] = saved_sizes(model)
    for row in rows.values():
        for saving, key in (("weight", "packed_weight_bytes"), ("folder", "saved_model_bytes")):
            row[f"{saving}_saving"] = round(reference[key] / row[key], 2)
    columns = list(reference)
    print(f"{'':54}", *(f"{name:>20}" for name in columns))
    for name, row in rows.items():
        print(f"{name:54}", *(f"{row[column]:20,}" for column in columns))
    print(json.dumps(rows))


if __name__ == "__main__":
    app.run(main)
