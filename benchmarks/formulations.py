"""What `networks.formulations` gains over TensorFlow's plain operations, alone and in a step.

python benchmarks/formulations.py [--repeats=7] [--architectures=3]

One thread; processor seconds, the best of --repeats calls, plain and ours in turns. First single
operations, value and gradients, on the maps of the paper's search network (batch 64); then its
child + parent step (6 cells, C = 16, 32x32 images) for random architectures, traced with the plain
operations and with ours, from the same weights. The last line is one JSON object with

- a ratio ours over plain for each operation, such as "depthwise 5x5, 32x32x16";
- step_ratio: of the whole steps;
- loss_difference: the largest difference of the first architecture's losses, before any update.
"""

import os
import time
from unittest import mock

from absl import app, flags

import cpnas_tf  # noqa: F401  (before TensorFlow: Keras 2)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from output import print_figures

from cpnas_tf.catalogue import PRECISIONS
from cpnas_tf.genotypes import OPERATIONS, Genotype
from cpnas_tf.networks import formulations
from cpnas_tf.networks.units import further
from cpnas_tf.search.banks import BankUnits
from cpnas_tf.search.supernet import Supernet

FLAGS = flags.FLAGS
flags.DEFINE_integer("repeats", 7, "Timed calls of each form.")
flags.DEFINE_integer("architectures", 3, "Random architectures to time the step of.")

BATCH = 64
MAPS = ((32, 16), (16, 32), (8, 64))  # size, channels
SGD = {"learning_rate": 0.025, "momentum": 0.9, "weight_decay": 5e-4}


def best(calls):
    """The least processor seconds of each of some calls, which take turns."""
    for call in calls:
        call()
    times = [[processor_seconds(call) for call in calls] for _ in range(FLAGS.repeats)]
    return [min(column) for column in zip(*times, strict=True)]


def processor_seconds(call):
    """Processor seconds of a call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def plain_depthwise(x, kernel, *, stride=1, dilation=1):
    """`formulations.depthwise` as TensorFlow's operation."""
    strides = [1, stride, stride, 1]
    return tf.nn.depthwise_conv2d(x, kernel, strides, "SAME", dilations=[dilation] * 2)


def plain_pointwise(x, kernel):
    """`formulations.pointwise` as TensorFlow's operation."""
    return tf.nn.conv2d(x, kernel, 1, "SAME")


def plain_every_other(x, *, first=0):
    """`formulations.every_other` as an index."""
    return x[:, first::2, first::2]


def plain_halves(units, x, filters, kind):
    """The halves of a factorized reduction, their sign before the stride."""
    x = units._activated(x, kind)
    shape = [1, 1, x.shape[-1], filters]
    return [
        tf.nn.conv2d(part, units._kernel("convolution", shape, binary=units.child), 2, "SAME")
        for part in (x, further(x))
    ]


def operations():
    """The single operations: name, ours, plain, and the shapes of their arguments."""
    for size, channels in MAPS:
        maps, name = [BATCH, size, size, channels], f"{size}x{size}x{channels}"
        for width, dilation in ((3, 1), (5, 1), (3, 2), (5, 2)):
            yield (
                f"depthwise {width}x{width}{', dilated' if dilation > 1 else ''}, {name}",
                lambda x, k, dilation=dilation: formulations.depthwise(x, k, dilation=dilation),
                lambda x, k, dilation=dilation: plain_depthwise(x, k, dilation=dilation),
                (maps, [width, width, channels, 1]),
            )
        for times in (1, 4):
            yield (
                f"1x1 of {times * channels} channels, {name}",
                formulations.pointwise,
                plain_pointwise,
                ([*maps[:3], times * channels], [1, 1, times * channels, channels]),
            )
        yield f"every other, {name}", formulations.every_other, plain_every_other, (maps,)


def operation_ratio(ours, plain, shapes):
    """Ours over plain, value and gradients together."""
    random = np.random.default_rng(0)
    arguments = [tf.constant(random.normal(size=shape), tf.float32) for shape in shapes]
    dy = tf.constant(random.normal(size=plain(*arguments).shape), tf.float32)

    def call(function):
        @tf.function(autograph=False)
        def compute(*arguments):
            y = function(*arguments)
            return y, tf.gradients(y, arguments, dy)

        return lambda: [compute(*arguments) for _ in range(5)]

    seconds = best([call(ours), call(plain)])
    return seconds[0] / seconds[1]


def make_step(images, labels):
    """The step of child and parent, traced: a function of the choices that gives their losses."""
    network = {"input_shape": (32, 32, 3), "classes": 10, "cells": 6, "channels": 16}
    supernets = [Supernet(precision=precision, **network) for precision in PRECISIONS]

    def train(choices):
        return [net.train_step(images, labels, choices, **SGD) for net in supernets]

    step = formulations.compiled(train)
    first = step(tf.constant([edge % len(OPERATIONS) for edge in range(28)]))
    return (lambda choices: [float(loss) for loss in step(choices)]), [float(x) for x in first]


def step_figures():
    """The figures of the whole step."""
    random = np.random.default_rng(0)
    images = tf.constant(random.normal(size=[BATCH, 32, 32, 3]), tf.float32)
    labels = tf.constant(random.integers(0, 10, BATCH), tf.int32)
    with (
        mock.patch.object(formulations, "depthwise", plain_depthwise),
        mock.patch.object(formulations, "pointwise", plain_pointwise),
        mock.patch.object(formulations, "every_other", plain_every_other),
        mock.patch.object(BankUnits, "_halves", plain_halves),
    ):
        plain, wanted = make_step(images, labels)
    ours, found = make_step(images, labels)
    totals = np.zeros(2)
    for _ in range(FLAGS.architectures):
        genotype = Genotype.from_choices(random.choice(OPERATIONS, 28).tolist())
        choices = tf.constant(genotype.indices)
        totals += best([lambda: ours(choices), lambda: plain(choices)])  # noqa: B023
    return {
        "step_ratio": totals[0] / totals[1],
        "loss_difference": max(abs(a - b) for a, b in zip(found, wanted, strict=True)),
    }


def main(_):
    """Measures, prints a table, and as the last line one JSON object."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    ratios = {name: operation_ratio(*forms) for name, *forms in operations()}
    figures = {**ratios, **step_figures()}
    print_figures({name: round(value, 7) for name, value in figures.items()})


if __name__ == "__main__":
    app.run(main)
