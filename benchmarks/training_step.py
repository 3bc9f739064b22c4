"""What a training step of a derived network costs, and whether memory grows.

python benchmarks/training_step.py [--channels=56] [--cells=10] [--batch_size=96] [--steps=5]
python benchmarks/training_step.py --only_memory

Three models of one random genotype and of equal weights are trained on 32x32 images:

- ours: `build_network`, compiled as `train` does it, fitted by Keras;
- direct: the same layers written here with Keras and Larq alone;
- loss: ours with the Child-Parent loss.

One step of each is timed in turn, so that what else the machine does meets all; ratios are of
medians over the steps. Then `train` trains ours with the loss for --epochs epochs of --images
images. The last line is one JSON object with

- step_ratio: ours over direct;
- child_parent_ratio: with the Child-Parent loss over without;
- input_ratio: images/s of the input pipeline alone, with the paper's augmentation, over those that
  ours consumes;
- peak_gib: of the training's resident memory;
- memory_growth: resident memory at the end of the last epoch over that of the second, minus 1.
"""

import os
import resource
import statistics
import tempfile
import time

from absl import app, flags

import cpnas_tf  # noqa: F401  (before TensorFlow: Keras 2)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import larq as lq
import numpy as np
import tensorflow as tf
from output import print_figures

from cpnas_tf import data, training
from cpnas_tf.genotypes import EDGES, OPERATIONS, Genotype
from cpnas_tf.networks.cells import build_network, reduction_cells
from cpnas_tf.networks.quantizers import DepthwiseMagnitudeAwareSign
from cpnas_tf.training import callback, loop
from cpnas_tf.training.child_parent import ChildParentLoss
from cpnas_tf.training.optimizers import make_optimizer

FLAGS = flags.FLAGS
flags.DEFINE_integer("channels", 56, "C; the paper's Small has 56.")
flags.DEFINE_integer("cells", 10, "Cells.")
flags.DEFINE_integer("batch_size", 96, "Images a step.")
flags.DEFINE_integer("steps", 5, "Timed steps of each model.")
flags.DEFINE_integer("epochs", 4, "Epochs of the training whose memory is measured.")
flags.DEFINE_integer("images", 192, "Images of its epoch.")
flags.DEFINE_boolean("only_memory", False, "No steps, so that no other model takes memory.")

CLASSES = 10
AUGMENTATION = {"crop_padding": 4, "flip": True, "cutout": 16}


def batch_norm(x):
    """Batch normalization with the paper's framework's constants."""
    return tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def pointwise(x, filters, stride=1):
    """Sign and 1-bit 1x1 convolution."""
    return lq.layers.QuantConv2D(
        filters,
        1,
        strides=stride,
        padding="same",
        use_bias=False,
        input_quantizer="ste_sign",
        kernel_quantizer="magnitude_aware_sign",
        kernel_constraint="weight_clip",
    )(x)


def depthwise(x, size, stride=1, dilation=1):
    """Sign, 1-bit depthwise convolution, BN."""
    x = lq.layers.QuantDepthwiseConv2D(
        size,
        strides=stride,
        dilation_rate=dilation,
        padding="same",
        use_bias=False,
        input_quantizer="ste_sign",
        depthwise_quantizer=DepthwiseMagnitudeAwareSign(),
        depthwise_constraint="weight_clip",
    )(x)
    return batch_norm(x)


def halve(x, filters):
    """Two stride-2 1x1 convolutions, the second a pixel further."""
    halves = [pointwise(part, filters // 2, stride=2) for part in (x, x[:, 1:, 1:])]
    return batch_norm(tf.keras.layers.concatenate(halves))


def operation(name, x, stride):
    """An edge's operation, or None."""
    filters, size = x.shape[-1], int(name[-1]) if name[-1].isdigit() else 0
    if name == "none":
        return None
    if name == "skip_connect":
        return x if stride == 1 else halve(x, filters)
    if name.endswith("pool_3x3"):
        kind = {"max": tf.keras.layers.MaxPooling2D, "avg": tf.keras.layers.AveragePooling2D}
        return batch_norm(kind[name[:3]](3, strides=stride, padding="same")(x))
    if name.startswith("sep"):
        x = batch_norm(pointwise(depthwise(x, size, stride), filters))
        return batch_norm(pointwise(depthwise(x, size), filters))
    if stride == 2:
        return batch_norm(pointwise(depthwise(x[:, ::2, ::2], size), filters))
    return batch_norm(pointwise(depthwise(x, size, dilation=2), filters))


def direct_network(genotype, *, cells, channels):
    """The network of `build_network`, written out."""
    images = tf.keras.Input([32, 32, 3])
    x = tf.keras.layers.Conv2D(3 * channels, 3, padding="same", use_bias=False)(images)
    s0 = s1 = batch_norm(x)
    halved = False
    for cell in range(cells):
        reduction = cell in reduction_cells(cells)
        channels *= 2 if reduction else 1
        first = halve(s0, channels) if halved else batch_norm(pointwise(s0, channels))
        nodes = [first, batch_norm(pointwise(s1, channels))]
        names = genotype.reduce if reduction else genotype.normal
        for target in range(2, 6):
            parts = [
                operation(name, nodes[source], 2 if reduction and source < 2 else 1)
                for name, (source, to) in zip(names, EDGES, strict=True)
                if to == target
            ]
            parts = [part for part in parts if part is not None]
            nodes.append(tf.keras.layers.add(parts) if len(parts) > 1 else parts[0])
        s0, s1, halved = s1, tf.keras.layers.concatenate(nodes[2:]), reduction
    x = tf.keras.layers.GlobalAveragePooling2D()(s1)
    return tf.keras.Model(images, tf.keras.layers.Dense(CLASSES)(x))


def random_genotype(random):
    """Every operation as often, but none, which costs nothing."""
    names = [name for name in OPERATIONS if name != "none"]
    return Genotype.from_choices([str(name) for name in random.permutation(names * 4)])


class Steps(tf.keras.callbacks.Callback):
    """Times the steps of a `fit`."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self._started)


def timed_steps(fits, count):
    """Median seconds of a step of each of some `fit`s, which do one step in turns."""
    for fit in fits:
        fit()  # traces
    times = [[] for _ in fits]
    for _ in range(count):
        for fit, seconds in zip(fits, times, strict=True):
            seconds.append(fit())
    return [statistics.median(seconds) for seconds in times]


def one_step(model, batch, *callbacks):
    """A function that fits one step and returns the seconds that it took."""

    def fit():
        steps = Steps()
        model.fit(batch, steps_per_epoch=1, verbose=0, callbacks=[*callbacks, steps])
        return steps.seconds[0]

    return fit


def compiled(model):
    """The model with the optimizer and the loss of `train`."""
    optimizer = make_optimizer(
        "sgd", learning_rate=0.025, steps=1000, weight_decay=3e-4, gradient_clip=5.0
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    return model


def resident_bytes():
    """The process's resident memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def random_images(random, count):
    """`Images` of noise."""
    pixels = random.integers(0, 256, [count, 32, 32, 3], np.uint8)
    return data.Images(pixels, random.integers(0, CLASSES, count), tuple("abcdefghij"))


def input_images_per_second(random, batch_size, steps=100):
    """Throughput of the training stream alone."""
    stream = iter(
        data.batches(
            random_images(random, 10_000),
            batch_size=batch_size,
            seed=0,
            epochs=10,
            augmentation=AUGMENTATION,
        )
    )
    for _ in range(10):
        next(stream)
    started = time.perf_counter()
    for _ in range(steps):
        next(stream)
    return steps * batch_size / (time.perf_counter() - started)


def memory_of_a_training(model, random):
    """Resident memory after each epoch of `train`."""
    found = []

    class Watched(callback.EpochCallback):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            found.append(resident_bytes())

    loop.EpochCallback = Watched
    with tempfile.TemporaryDirectory() as folder:
        training.train(
            model,
            random_images(random, FLAGS.images),
            validation=random_images(random, FLAGS.batch_size),
            directory=folder,
            epochs=FLAGS.epochs,
            batch_size=FLAGS.batch_size,
            augmentation=AUGMENTATION,
            child_parent=ChildParentLoss(),
        )
    return found


def speed(random, network):
    """The step of each of the three models, and the input pipeline's images/s."""
    ours, with_loss = (compiled(build_network(**network)) for _ in range(2))
    direct = compiled(
        direct_network(network["genotype"], cells=FLAGS.cells, channels=FLAGS.channels)
    )
    for model in (direct, with_loss):
        model.set_weights(ours.get_weights())
    images = random.normal(size=[FLAGS.batch_size, 32, 32, 3]).astype(np.float32)
    labels = random.integers(0, CLASSES, FLAGS.batch_size)
    same = np.abs(ours(images[:8]) - direct(images[:8])).max()
    batch = tf.data.Dataset.from_tensors((images, labels)).repeat()
    ours_step, direct_step, loss_step = timed_steps(
        [
            one_step(ours, batch),
            one_step(direct, batch),
            one_step(with_loss, batch, ChildParentLoss()),
        ],
        FLAGS.steps,
    )
    images_per_second = input_images_per_second(random, FLAGS.batch_size)
    return {
        "step_seconds": ours_step,
        "direct_step_seconds": direct_step,
        "child_parent_step_seconds": loss_step,
        "step_ratio": ours_step / direct_step,
        "child_parent_ratio": loss_step / ours_step,
        "largest_difference": float(same),
        "images_per_second": FLAGS.batch_size / loss_step,
        "input_images_per_second": images_per_second,
        "input_ratio": images_per_second / (FLAGS.batch_size / ours_step),
        "steps": FLAGS.steps,
    }


def main(_):
    """Measures, prints a table, and as the last line one JSON object."""
    random = np.random.default_rng(0)
    network = {"genotype": random_genotype(random), "input_shape": (32, 32, 3), "classes": CLASSES}
    network |= {"cells": FLAGS.cells, "channels": FLAGS.channels}
    result = {} if FLAGS.only_memory else speed(random, network)
    model = compiled(build_network(**network))
    memory = memory_of_a_training(model, random)
    result |= {
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "memory_growth": memory[-1] / memory[1] - 1,
        "parameters": model.count_params(),
        "channels": FLAGS.channels,
        "batch_size": FLAGS.batch_size,
        "threads": os.cpu_count(),
    }
    print_figures({key: round(value, 4) for key, value in result.items()})


if __name__ == "__main__":
    app.run(main)
