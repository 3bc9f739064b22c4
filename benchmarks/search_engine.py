"""What the search engine costs.

python benchmarks/search_engine.py [--architectures=8] [--steps=7] [--batch_size=64]

The work is a child + parent training step of the paper's search network (6 cells, C = 16, 32x32
images) for random architectures. The naive way, of `static_networks`, is a functional Keras/Larq
model an architecture with a train function of its own; it is frozen. What is compared is timed in
turns, step by step, so that what else the machine does meets both sides; ratios are medians over
the architectures of ratios of medians over the steps. The last line is one JSON object with

- overhead_ratio: what a new architecture costs beyond a steady step, over the same for the naive
  way; the engine's one trace (one_off_seconds) is spread over the paper's 105 architectures;
- step_ratio: a steady step over the naive one, for the same architectures;
- binary_ratio: the engine's child step over its parent step;
- memory_growth: resident memory after the last of --memory_architectures over that after the
  10th, minus 1;
- full_search_seconds: 105 architectures x (25,000 training + 2,500 validation images),
  extrapolated;
- child_search_seconds: the same without parents, as with beta_P = 0;
- pc_darts_warmup_step_seconds, pc_darts_step_seconds, pc_darts_search_seconds: a step of PC-DARTS's
  weights, one of weights and architecture, and 50 epochs of 25,000 images, 15 of them warm-up;
- input_ratio: images/s of the input pipeline alone over those that the step consumes.
"""

import functools
import os
import statistics
import time

from absl import app, flags

import cpnas_tf  # noqa: F401  (before TensorFlow: Keras 2)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import static_networks
import tensorflow as tf
from output import print_figures

from cpnas_tf import data
from cpnas_tf.catalogue import PRECISIONS
from cpnas_tf.genotypes import OPERATIONS, Genotype
from cpnas_tf.networks.formulations import compiled
from cpnas_tf.search.mixed_supernet import MixedSupernet
from cpnas_tf.search.pc_darts import ADAM_BETAS
from cpnas_tf.search.supernet import Supernet
from cpnas_tf.training.optimizers import Adam, make_optimizer

FLAGS = flags.FLAGS
flags.DEFINE_integer("architectures", 8, "Random architectures to compare on.")
flags.DEFINE_integer("memory_architectures", 60, "Architectures to run through for memory_growth.")
flags.DEFINE_integer("steps", 7, "Timed steps an architecture and way.")
flags.DEFINE_integer("batch_size", 64, "Images a step.")

NETWORK = {"input_shape": (32, 32, 3), "classes": 10, "cells": 6, "channels": 16}
SGD = {"learning_rate": 0.025, "momentum": 0.9, "weight_decay": 5e-4}
SEARCH = {"architectures": 105, "train": 25_000, "validation": 2_500}
PC_DARTS = {**NETWORK, "cells": 8, "partial": 4}
PC_DARTS_EPOCHS = {"warmup": 15, "all": 50, "images": 25_000}


def timed(function):
    """Seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def steady(steps, *functions):
    """Median seconds of a call of each function, called in turns."""
    rounds = [[timed(function) for function in functions] for _ in range(steps)]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


class Engine:
    """The supernets' step, traced once."""

    def __init__(self, images, labels, precisions=PRECISIONS):
        supernets = [Supernet(precision=precision, **NETWORK) for precision in precisions]

        def train(choices):
            return [net.train_step(images, labels, choices, **SGD) for net in supernets]

        def validate(choices):
            return [tf.argmax(net.logits(images, choices), axis=1) for net in supernets]

        self.train, self.validate = compiled(train), compiled(validate)


def naive_step(genotype, images, labels):
    """Builds the two Keras models of an architecture and their train function."""
    models = [
        static_networks.build(genotype.normal, genotype.reduce, precision=precision, **NETWORK)
        for precision in PRECISIONS
    ]
    return static_networks.make_step(models, images, labels, **SGD)


def pc_darts_seconds(images, labels, steps):
    """Seconds of a step of PC-DARTS in its warm-up and after it."""
    supernet = MixedSupernet(**PC_DARTS, precision="child", operations=OPERATIONS, seed=0)
    descents = {"learning_rate": 0.1, "steps": 1000, "momentum": 0.9, "weight_decay": 3e-4}
    supernet.compile(
        make_optimizer("sgd", gradient_clip=5.0, **descents),
        architecture_optimizer=Adam(6e-4, *ADAM_BETAS, epsilon=1e-8, l2=1e-3),
        warmup_steps=1_000_000,
    )
    batch = images, labels
    batches = iter(tf.data.Dataset.from_tensors((batch, batch)).repeat())
    train = supernet.make_train_function()

    def step():
        float(train(batches)["loss"])  # waits for it

    step()
    (warmup,) = steady(steps, step)
    supernet.optimizer.iterations.assign(1_000_000)
    step()
    return warmup, *steady(steps, step)


def resident_bytes():
    """The process's resident memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def input_images_per_second(batch_size, steps=100):
    """Throughput of the training stream alone, with the paper's augmentation, on random images."""
    random = np.random.default_rng(0)
    images = data.Images(
        random.integers(0, 256, [10_000, 32, 32, 3], np.uint8),
        random.integers(0, 10, 10_000),
        tuple("abcdefghij"),
    )
    stream = iter(
        data.batches(
            images,
            batch_size=batch_size,
            seed=0,
            epochs=10,
            augmentation={"crop_padding": 4, "flip": True},
        )
    )
    for _ in range(10):
        next(stream)
    return steps * batch_size / timed(lambda: [next(stream) for _ in range(steps)])


def search_seconds(*, one_off, new, step, validation, batch):
    """Seconds of the paper's search, of what its parts take."""
    training = SEARCH["train"] / batch * step + SEARCH["validation"] / batch * validation
    return one_off + SEARCH["architectures"] * (max(new, 0) + training)


def pc_darts(images, labels, batch):
    """The figures of PC-DARTS."""
    warmup, step = pc_darts_seconds(images, labels, FLAGS.steps)
    epochs = PC_DARTS_EPOCHS
    seconds = epochs["warmup"] * warmup + (epochs["all"] - epochs["warmup"]) * step
    return {
        "pc_darts_warmup_step_seconds": warmup,
        "pc_darts_step_seconds": step,
        "pc_darts_search_seconds": epochs["images"] / batch * seconds,
    }


def main(_):
    """Measures, prints a table, and as the last line one JSON object."""
    random = np.random.default_rng(0)
    batch = FLAGS.batch_size
    images = tf.constant(random.normal(size=[batch, 32, 32, 3]), tf.float32)
    labels = tf.constant(random.integers(0, 10, batch), tf.int32)
    genotypes = [
        Genotype.from_choices(random.choice(OPERATIONS, 28).tolist())
        for _ in range(FLAGS.memory_architectures)
    ]
    choices = [tf.constant(genotype.indices) for genotype in genotypes]

    engines = Engine(images, labels), *(Engine(images, labels, [name]) for name in PRECISIONS)
    one_off, child_one_off, _ = (
        timed(lambda engine=engine: engine.train(choices[0]))
        - timed(lambda engine=engine: engine.train(choices[0]))
        for engine in engines
    )
    rows = []
    for genotype, choice in zip(genotypes, choices[: FLAGS.architectures], strict=False):
        ours, child, parent = (functools.partial(engine.train, choice) for engine in engines)
        first = timed(ours)
        started = time.perf_counter()
        naive = naive_step(genotype, images, labels)
        naive()
        naive_first = time.perf_counter() - started
        step, naive_steady = steady(FLAGS.steps, ours, naive)
        child(), parent()
        one_bit, real = steady(FLAGS.steps, child, parent)
        rows.append((first - step, step, naive_first - naive_steady, naive_steady, one_bit, real))
        print(
            f"architecture {len(rows)}: new {rows[-1][0]:6.2f} s, step {step:.3f} s | naive: "
            f"new {rows[-1][2]:6.2f} s, step {naive_steady:.3f} s, ratio {step / naive_steady:.2f}"
            f" | child {one_bit:.3f} s, parent {real:.3f} s, ratio {one_bit / real:.2f}",
            flush=True,
        )
    new, step, naive_new, *_ = (statistics.median(column) for column in zip(*rows, strict=True))

    engines[0].validate(choices[0]), engines[1].validate(choices[0])
    validation, child_validation = (
        statistics.median(
            steady(3, functools.partial(engine.validate, choice))[0]
            for choice in choices[: FLAGS.architectures]
        )
        for engine in engines[:2]
    )
    for number, choice in enumerate(choices, start=1):
        engines[0].train(choice)
        if number == 10:
            after_10 = resident_bytes()
    images_per_second = input_images_per_second(batch)
    mean_step, child_step = (statistics.mean(row[place] for row in rows) for place in (1, 4))
    whole = functools.partial(search_seconds, new=new, batch=batch)
    result = {
        "overhead_ratio": (one_off / SEARCH["architectures"] + max(new, 0)) / naive_new,
        "one_off_seconds": one_off,
        "new_architecture_seconds": new,
        "naive_new_architecture_seconds": naive_new,
        "step_seconds": step,
        "step_ratio": statistics.median(row[1] / row[3] for row in rows),
        "binary_ratio": statistics.median(row[4] / row[5] for row in rows),
        "memory_growth": resident_bytes() / after_10 - 1,
        "full_search_seconds": whole(one_off=one_off, step=mean_step, validation=validation),
        "child_search_seconds": whole(
            one_off=child_one_off, step=child_step, validation=child_validation
        ),
        "input_ratio": images_per_second / (batch / mean_step),
        "input_images_per_second": images_per_second,
        **pc_darts(images, labels, batch),
        "batch_size": batch,
        "architectures": len(rows),
        "threads": os.cpu_count(),
    }
    result = {key: round(value, 4) for key, value in result.items()}
    print_figures(result)


if __name__ == "__main__":
    app.run(main)
