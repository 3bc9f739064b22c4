"""Trains every cell of the tabular benchmark, as child and as parent.

python benchmarks/tabular_training.py --workdir=DIR

It writes DIR/tabular.csv, which is kept as benchmarks/tabular.csv for `tabular.py` to replay. A run
that was stopped, however hard, goes on with the same command, and ends with the same table.

Trained are all cells of the space that `tabular.py` describes, each as the networks that
`build_network` makes of it: two cells, both reductions, C = 4, on 8x8 digits, 1,152 images of the
training set to train and the 285 others to validate. A training is 12 epochs of Adam in batches of
32 with cross-entropy alone, the learning rate a cosine from 0.02 to 0. After each epoch the network
is validated, after the last also tested on the 360 test images; batch normalization then uses its
moving averages. The first epoch's validation is what a search sees. A seed decides the initial
weights and the order of the images; child and parent of one seed start from the same weights.

To be affordable the networks are trained side by side, as one Keras model of many networks that
have nothing in common but their batch: a stack (`build_stack`) is all cells with one operation on
their first edge. The kernels, losses and Adam's averages of one network see nothing of another's,
so that each trains as it would alone (tests/benchmarks/test_tabular_training.py compares them). The
last line is one JSON object: cells, trainings, and the seconds of the trainings that this run did.
"""

import csv
import io
import itertools
import json
import math
import os
import time
from statistics import fmean

import cpnas_tf  # noqa: F401  (before TensorFlow: Keras 2)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import larq as lq
import tabular
import tensorflow as tf
from absl import flags

from cpnas_tf import data, files
from cpnas_tf.catalogue import PRECISIONS
from cpnas_tf.cli import app
from cpnas_tf.data import datasets
from cpnas_tf.networks.cells import edge_scope, walk
from cpnas_tf.networks.quantizers import DepthwiseMagnitudeAwareSign
from cpnas_tf.networks.units import LarqUnits
from cpnas_tf.operations import OPERATION_FUNCTIONS
from cpnas_tf.runs import workdir
from cpnas_tf.training.optimizers import make_optimizer

FLAGS = flags.FLAGS
app.define_path("workdir", "Folder of the trainings.")
flags.DEFINE_integer("seeds", 3, "Trainings of each cell and precision.", lower_bound=1)
app.define_overwrite()
flags.adopt_module_key_flags(app)

NETWORK = {"cells": 2, "channels": 4}
PARTS = {"train_images": 1152, "validation_images": 285, "seed": 0}
TRAINING = {"epochs": 12, "batch_size": 32, "learning_rate": 0.02}
HEADER = """\
# A tabular benchmark of 1-bit cells: accuracies on 8x8 digits of all cells of a small space, each
# as child (1 bit) and parent (full precision) with several seeds. A row is a training: what the
# cell's edges carry, the precision, the seed, the validation accuracy (285 images) after each epoch
# and the test accuracy (360 images) at the end. Made by benchmarks/tabular_training.py, which says
# how; replayed by benchmarks/tabular.py.
"""


class StackUnits(LarqUnits):
    """The units of many networks side by side: x is `[batch, height, width, networks, channels]`.

    Depthwise convolutions, pooling and BN, which keep channels apart, take the networks for more
    channels. Initial weights are drawn as Keras's layers would for one network.

    Args:
        precision: "child" or "parent".
        networks: how many.
    """

    def __init__(self, precision, networks):
        super().__init__(precision)
        self._networks = networks

    def stem(self, x, filters):
        x = tf.keras.layers.Conv2D(
            self._networks * filters,
            3,
            padding="same",
            use_bias=False,
            kernel_initializer=_glorot_uniform(9 * x.shape[-1], 9 * filters),
            name=self.name("convolution"),
        )(x)
        return self._batch_norm(tf.reshape(x, [-1, *x.shape[1:3], self._networks, filters]))

    def _pointwise(self, x, filters, kind, *, stride=1):
        name = self.name("convolution")
        return StackPointwise(filters, stride=stride, child=self.child, name=name)(x)

    def _batch_norm(self, x):
        return _as_channels(super()._batch_norm, x)

    def depthwise(self, x, size, *, stride=1, dilation=1):
        quantizers = self._quantizers(
            "depthwise",
            depthwise_quantizer=DepthwiseMagnitudeAwareSign(),
            depthwise_constraint="weight_clip",
        )
        layer = lq.layers.QuantDepthwiseConv2D(
            size,
            strides=stride,
            dilation_rate=dilation,
            padding="same",
            use_bias=False,
            depthwise_initializer=_glorot_uniform(size**2 * x.shape[-1], size**2),
            name=self.name("depthwise"),
            **quantizers,
        )
        return self._batch_norm(_as_channels(layer, x))

    def pool(self, x, kind, *, stride):
        layers = {"max": tf.keras.layers.MaxPooling2D, "avg": tf.keras.layers.AveragePooling2D}
        layer = layers[kind](3, stride, "same", name=self.name(f"{kind}_pool"))
        return self._batch_norm(_as_channels(layer, x))

    def classifier(self, x, classes):
        x = tf.reduce_mean(x, axis=[1, 2])
        return tf.keras.layers.EinsumDense(
            "bnc,nck->bnk",
            [x.shape[1], classes],
            bias_axes="nk",
            kernel_initializer=_glorot_uniform(x.shape[2], classes),
            name=self.name("logits"),
        )(x)


class StackPointwise(tf.keras.layers.Layer):
    """The activation and 1x1 convolution of each network's own channels.

    Its kernel is `[channels, networks * filters]`, so that Larq's quantizer, which averages over
    all axes but the last, finds one scale a network and filter.
    """

    def __init__(self, filters, *, stride, child, name):
        super().__init__(name=name)
        self._filters, self._stride = filters, stride
        self._activation = lq.quantizers.SteSign() if child else tf.nn.relu
        self._quantizer = lq.quantizers.MagnitudeAwareSign() if child else tf.identity
        self._constraint = "weight_clip" if child else None

    def build(self, input_shape):
        *_, networks, channels = input_shape
        self.kernel = self.add_weight(
            "kernel",
            [channels, networks * self._filters],
            initializer=_glorot_uniform(channels, self._filters),
            constraint=self._constraint,
        )

    def call(self, x):
        x = self._activation(x[:, :: self._stride, :: self._stride])
        *size, networks, channels = x.shape[1:]
        kernel = tf.reshape(self._quantizer(self.kernel), [channels, networks, self._filters])
        x = tf.transpose(tf.reshape(x, [-1, networks, channels]), [1, 0, 2])
        y = tf.transpose(tf.matmul(x, tf.transpose(kernel, [1, 0, 2])), [1, 0, 2])
        return tf.reshape(y, [-1, *size, networks, self._filters])


def _glorot_uniform(fan_in, fan_out):
    limit = math.sqrt(6 / (fan_in + fan_out))
    return tf.keras.initializers.RandomUniform(-limit, limit)


def _as_channels(layer, x):
    """Applies a layer of `[batch, height, width, channels]` with the networks as channels."""
    *size, networks, channels = x.shape[1:]
    y = layer(tf.reshape(x, [-1, *size, networks * channels]))
    return tf.reshape(y, [-1, *y.shape[1:3], networks, y.shape[3] // networks])


def build_stack(options, *, input_shape, classes, cells, channels, precision):
    """The networks of all cells that some options allow, as one Keras model.

    Args:
        options: for each edge of the space, in order, the operations it may have. The networks are
            those of `itertools.product(*options)`, in that order.
        input_shape, classes, cells, channels, precision: as for `build_network`.

    Returns:
        A `tf.keras.Model` from images `[batch, height, width, channels]` to logits
        `[batch, networks, classes]`.
    """
    counts = [len(names) for names in options]
    units = StackUnits(precision, math.prod(counts))

    def edge(cell, number, x, stride):
        if number >= len(options):
            return None
        before, after = math.prod(counts[:number]), math.prod(counts[number + 1 :])
        *size, _, channels = x.shape[1:]
        parts = tf.reshape(x, [-1, *size, before, counts[number], after, channels])
        results = []
        for name, part in zip(options[number], tf.unstack(parts, axis=4), strict=True):
            units.scope = edge_scope(cell, number, name)
            part = tf.reshape(part, [-1, *size, before * after, channels])
            y = OPERATION_FUNCTIONS[name](units, part, stride)
            results.append(tf.reshape(y, [-1, *y.shape[1:3], before, after, channels]))
        y = tf.stack(results, axis=4)
        return tf.reshape(y, [-1, *y.shape[1:3], math.prod(counts), channels])

    images = tf.keras.Input(input_shape, name="images")
    logits = walk(units, images, cells=cells, channels=channels, classes=classes, edge=edge)
    return tf.keras.Model(images, logits, name=precision)


def cross_entropy(labels, logits):
    """The loss of a stack: an image's cross-entropies, summed over the networks."""
    labels = tf.tile(tf.reshape(labels, [-1, 1]), [1, logits.shape[1]])
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tf.reduce_sum(losses, axis=1)


def measure(model, images):
    """The accuracy of each network of a stack, `[networks]`."""
    batches = data.evaluation_batches(images, batch_size=len(images))
    logits = model.predict(batches, verbose=0)
    return (logits.argmax(axis=2) == images.labels[:, None]).mean(axis=0)


class _Validation(tf.keras.callbacks.Callback):
    """Validates a stack after each epoch."""

    def __init__(self, images):
        super().__init__()
        self._images = images
        self.accuracies = []

    def on_epoch_end(self, epoch, logs=None):
        self.accuracies.append(measure(self.model, self._images))


def train_stack(model, parts, test, *, epochs, batch_size, learning_rate, seed):
    """Trains the networks of a stack.

    Args:
        model: what `build_stack` gives.
        parts: the `Images` to train and to validate on.
        test: the `Images` to test on.
        epochs, batch_size, learning_rate: of the training.
        seed: of the order of the images.

    Returns:
        For each network a list of accuracies: the validation's after each epoch, and the test's.
    """
    train, validation = parts[0], _Validation(parts[1])
    steps = epochs * data.steps_per_epoch(train, batch_size=batch_size)
    model.compile(make_optimizer("adam", learning_rate=learning_rate, steps=steps), cross_entropy)
    stream = data.batches(train, batch_size=batch_size, seed=seed, epochs=epochs)
    model.fit(
        stream, epochs=epochs, steps_per_epoch=steps // epochs, verbose=0, callbacks=[validation]
    )
    accuracies = [*validation.accuracies, measure(model, test)]
    return [[round(float(value), 4) for value in row] for row in zip(*accuracies, strict=True)]


def train_share(images, test, *, precision, seed, first):
    """Trains all cells with operation `first` on their first edge, with one seed.

    Returns:
        A row of the table for each cell.
    """
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    options = [(first,), *[tabular.OPERATIONS] * (len(tabular.CHOICES) - 1)]
    model = build_stack(
        options,
        input_shape=images.image_shape,
        classes=images.classes,
        precision=precision,
        **NETWORK,
    )
    parts = data.split_for_search(images, **PARTS)
    accuracies = train_stack(model, parts, test, seed=seed, **TRAINING)
    cells = itertools.product(*options)
    return [[*cell, precision, seed, *row] for cell, row in zip(cells, accuracies, strict=True)]


def train_table(directory, *, seeds):
    """Trains what has not been trained yet in `directory`, and writes `tabular.csv` there.

    Returns:
        How many trainings it did.
    """
    images, test = (
        data.load("digits", split, data_dir=os.path.join(directory, "data"))
        for split in datasets.SPLITS
    )
    os.makedirs(os.path.join(directory, "shares"), exist_ok=True)
    rows, trained = [], 0
    for seed, precision, first in itertools.product(range(seeds), PRECISIONS, tabular.OPERATIONS):
        path = os.path.join(directory, "shares", f"{seed}_{precision}_{first}.json")
        if not os.path.exists(path):
            started = time.monotonic()
            share = train_share(images, test, precision=precision, seed=seed, first=first)
            files.write_json(path, share)
            trained += len(share)
            mean, seconds = fmean(row[-1] for row in share), time.monotonic() - started
            print(f"{seed:>5}  {precision:8}{first:14}{mean:>8.4f}{seconds:>9.0f}", flush=True)
        rows += files.read_json(path)
    files.write_atomically(os.path.join(directory, "tabular.csv"), _text(rows))
    return trained


def main():
    """Trains the table, prints a line a share and as the last line one JSON object."""
    claim = workdir.claim(
        FLAGS.workdir,
        {"network": NETWORK, "parts": PARTS, "training": TRAINING, "seeds": FLAGS.seeds},
        result="tabular.csv",
        written=("tabular.csv", "shares/*.json"),
        overwrite=FLAGS.overwrite,
    )
    _settle_tensorflow()
    started = time.monotonic()
    print(f"{'seed':>5}  {'':8}{'first edge':14}{'test':>8}{'seconds':>9}")
    with claim:
        trained = train_table(FLAGS.workdir, seeds=FLAGS.seeds)
    seconds = round(time.monotonic() - started, 1)
    print(json.dumps({"cells": len(tabular.CELLS), "trainings": trained, "seconds": seconds}))


def _settle_tensorflow():
    """One thread, and the same results each time."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


def _text(rows):
    """The table as CSV, under a comment that says what it is."""
    file = io.StringIO()
    file.write(HEADER)
    epochs = [f"validation_{epoch + 1}" for epoch in range(TRAINING["epochs"])]
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([[*tabular.CHOICES, "precision", "seed", *epochs, "test"], *rows])
    return file.getvalue()


if __name__ == "__main__":
    app.run(main)
