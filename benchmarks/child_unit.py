"""What makes a 1-bit child train: the parts of its units, the optimizer, and its parent as teacher.

python benchmarks/child_unit.py --workdir=DIR --data_dir=DIR [--seeds=0,1] [--settings=...]

Trains two genotypes, one of 14 convolutions (benchmarks/results/search_cifar10_2560) and one of 22
poolings and 6 convolutions, once per setting and seed: 5 cells of C = 16, the first 10,000 training
images of CIFAR-10 at 16x16 pixels, crop 2 and flip, 5 epochs of batch 64 under a cosine. Judged on
5,000 *other training* images; the test images are not read. A taught child has the parent of the
same genotype, units and seed as its teacher, whose training is done first.

A stopped training goes on with the same command, a finished one is not done again. results.csv in
the workdir has a row per training; the table has mean and standard deviation over the seeds, and
the last line is one JSON object of the same.
"""

import json
import os
import statistics
import time

from absl import app, flags

import cpnas_tf  # noqa: F401  chooses Keras 2
from cpnas_tf import files
from cpnas_tf.catalogue import Unit
from cpnas_tf.genotypes import CHOICES, Genotype

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of the trainings.", required=True)
flags.DEFINE_string("data_dir", None, "TFDS data directory, TFDS's own by default.")
flags.DEFINE_list("seeds", ["0"], "Seeds of the trainings.")
flags.DEFINE_list("settings", [], "Which settings to train, all by default.")
flags.DEFINE_list("genotypes", ["convolutions", "poolings"], "Which genotypes to train.")
flags.DEFINE_integer("epochs", 5, "Epochs of a training.")

RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")
NETWORK = {"cells": 5, "channels": 16}
TRAINING = {"batch_size": 64, "augmentation": {"crop_padding": 2, "flip": True}}
SGD = {"optimizer": "sgd", "learning_rate": 0.025, "weight_decay": 3e-4}
ADAM = {"optimizer": "adam", "learning_rate": 3e-3, "weight_decay": 0.0}
FASTER = {**ADAM, "learning_rate": 1e-2}
# With Adam the factor alpha of the kernels' gradient plays no role: it stays.
MEANS = Unit(mean_nodes=True)
SHORTCUTS = MEANS._replace(shortcuts=True)
RESIDUAL = SHORTCUTS._replace(norm_first=True)
LEARNED = SHORTCUTS._replace(rsign=True, rprelu=True)
# The unit, the recipe, the precision, and the setting of the teacher.
SETTINGS = {
    "paper": (Unit(), SGD, "child", None),
    "unscaled_gradient": (Unit(unscaled_gradient=True), SGD, "child", None),
    "adam": (Unit(), ADAM, "child", None),
    "means": (MEANS, ADAM, "child", None),
    "shortcuts": (SHORTCUTS, ADAM, "child", None),
    "residual": (RESIDUAL, ADAM, "child", None),
    "residual_1e-2": (RESIDUAL, FASTER, "child", None),
    "rsign_rprelu": (LEARNED, ADAM, "child", None),
    "approx_sign": (RESIDUAL._replace(approx_sign=True), ADAM, "child", None),
    "aligned": (RESIDUAL._replace(aligned=True), ADAM, "child", None),
    "taught": (RESIDUAL, ADAM, "child", "parent_residual"),
    "taught_1e-2": (RESIDUAL, FASTER, "child", "parent_residual"),
    "parent_paper": (Unit(), SGD, "parent", None),
    "parent_adam": (Unit(), ADAM, "parent", None),
    "parent_residual": (RESIDUAL, ADAM, "parent", None),
}


def make_genotypes():
    """The two genotypes by name; the second has a convolution on every fifth of the 28 edges."""
    poolings = ("max_pool_3x3", "avg_pool_3x3")
    convolutions = ("sep_conv_3x3", "dil_conv_3x3", "sep_conv_5x5")
    choices = [
        convolutions[place // 5 % 3] if place % 5 == 0 else poolings[place % 2]
        for place in range(len(CHOICES))
    ]
    stored = os.path.join(RESULTS, "search_cifar10_2560", "genotype.json")
    return {
        "convolutions": Genotype.load(stored),
        "poolings": Genotype.from_choices(choices),
    }


def train_once(workdir, name, setting, seed, genotype, parts):
    """Does or goes on with one training and its teacher's, once each; returns its model."""
    import tensorflow as tf

    from cpnas_tf.networks.cells import build_network
    from cpnas_tf.runs.checkpoints import load_weights
    from cpnas_tf.training import Training, evaluate

    train, validation = parts
    folder = os.path.join(workdir, f"{name}-{setting}-seed{seed}")
    result = os.path.join(folder, "result.json")
    unit, recipe, precision, teacher = SETTINGS[setting]
    taught_by = teacher and train_once(workdir, name, teacher, seed, genotype, parts)
    tf.keras.utils.set_random_seed(seed)
    shape = {"input_shape": train.image_shape, "classes": train.classes}
    model = build_network(genotype, **shape, precision=precision, unit=unit, **NETWORK)
    if os.path.exists(result):
        load_weights(model, folder)
        return model
    started = time.process_time()
    planned = Training(
        model,
        train,
        validation=validation,
        epochs=FLAGS.epochs,
        teacher=taught_by,
        seed=seed,
        **TRAINING,
        **recipe,
    )
    history = planned.run(folder)
    files.write_json(
        result,
        {
            "genotype": name,
            "setting": setting,
            "seed": seed,
            "accuracy": evaluate(model, validation)["accuracy"],
            "training_accuracy": history[-1]["accuracy"],
            "total_flip_ratio": history[-1].get("total_flip_ratio"),
            "processor_seconds": round(time.process_time() - started),
        },
    )
    return model


def finished(workdir):
    """The results of all trainings of a workdir."""
    paths = (os.path.join(entry.path, "result.json") for entry in os.scandir(workdir))
    return [files.read_json(path) for path in sorted(paths) if os.path.exists(path)]


def summarize(rows):
    """Mean and standard deviation of the accuracy, and the number of seeds, by genotype."""
    summary = {}
    for row in rows:
        key = f"{row['genotype']} {row['setting']}"
        summary.setdefault(key, []).append(row)
    return {
        key: {
            "mean": statistics.fmean(row["accuracy"] for row in group),
            "std": statistics.stdev(row["accuracy"] for row in group) if len(group) > 1 else None,
            "flipped": group[0]["total_flip_ratio"],
            "n": len(group),
        }
        for key, group in sorted(summary.items())
    }


def main(_):
    """Does the trainings that are not done, and prints the table."""
    unknown = [name for name in FLAGS.settings if name not in SETTINGS]
    if unknown:
        raise app.UsageError(f"unknown settings {unknown}, expected of {', '.join(SETTINGS)}")
    import tensorflow as tf

    from cpnas_tf import data

    train, validation = (
        data.load("cifar10", split, data_dir=FLAGS.data_dir, image_size=16)
        for split in ("train[:10000]", "train[:15000]")
    )
    validation = validation.take(slice(10_000, 15_000))
    genotypes = make_genotypes()
    with files.exclusive(FLAGS.workdir):
        for seed in map(int, FLAGS.seeds):
            for setting in FLAGS.settings or SETTINGS:
                for name in FLAGS.genotypes:
                    tf.keras.backend.clear_session()
                    train_once(
                        FLAGS.workdir, name, setting, seed, genotypes[name], (train, validation)
                    )
                    rows = finished(FLAGS.workdir)
                    files.write_csv(os.path.join(FLAGS.workdir, "results.csv"), rows)
    summary = summarize(finished(FLAGS.workdir))
    for key, found in summary.items():
        std = "" if found["std"] is None else f" ± {found['std']:.2%}"
        flipped = "" if found["flipped"] is None else f", {found['flipped']:.1%} of signs flipped"
        print(f"{key:>32}  {found['mean']:.2%}{std}  ({found['n']} seeds){flipped}")
    print(json.dumps(summary))


if __name__ == "__main__":
    app.run(main)
