"""What the Child-Parent loss is worth on CIFAR-10, and which weights its terms need.

python benchmarks/child_parent_loss.py --workdir=DIR --data_dir=DIR [--seeds=0,1,2] [--settings=...]

Trains the genotype of benchmarks/results/search_cifar10_2560 with less than the paper's recipe
(section 3.1): 6 cells of C = 16, the first 10,000 training images, reduced to 16x16 pixels (crop
padding and cutout halved with them), 5 epochs of Adam, because after 200 steps of the paper's SGD
a child of 10 cells was still at chance. Once a setting and seed: the parent, the child with
cross-entropy alone, and the child with the terms of Equation 3 at several weights (the paper prints
no lambda). Compared on the 10,000 test images, of which the first 1,000 are looked at on the way.

A stopped training goes on with the same command, a finished one is not done again. results.csv in
the workdir has a row per training; the table has the mean and standard deviation of the final
accuracy over the seeds, and the last line is one JSON object of the same.
"""

import glob
import json
import os
import statistics
import time

from absl import app, flags

import cpnas_tf  # noqa: F401  chooses Keras 2
from cpnas_tf.files import exclusive, read_json, write_csv, write_json

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of the trainings.", required=True)
flags.DEFINE_string("data_dir", None, "TFDS data directory, TFDS's own by default.")
flags.DEFINE_list("seeds", ["0"], "Seeds of the trainings.")
flags.DEFINE_list("settings", [], "Which settings to train, all by default.")

RESULTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "results")
TRAINING_IMAGES = 10_000
IMAGE_SIZE = 16
WATCHED_IMAGES = 1_000
NETWORK = {"cells": 6, "channels": 16}
TRAINING = {
    "epochs": 5,
    "batch_size": 48,
    "optimizer": "adam",
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "gradient_clip": 5.0,
    "augmentation": {"crop_padding": 2, "flip": True, "cutout": 8},
}
# The weights of the filters' and of the class centres' term; None for the parent.
SETTINGS = {
    "parent": None,
    "cross_entropy": (0.0, 0.0),
    "filters": (1.0, 0.0),
    "weak_filters": (1e-3, 0.0),
    "centres_1e-2": (1e-3, 1e-2),
    "centres_1e-1": (1e-3, 1e-1),
}


def train_once(folder, setting, seed, images, test):
    """Does or goes on with one training, whose result is the folder's result.json."""
    import tensorflow as tf

    from cpnas_tf.genotypes import Genotype
    from cpnas_tf.networks.cells import build_network
    from cpnas_tf.training.child_parent import ChildParentLoss
    from cpnas_tf.training.evaluation import evaluate
    from cpnas_tf.training.loop import train

    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    weights = SETTINGS[setting]
    model = build_network(
        Genotype.load(os.path.join(RESULTS, "search_cifar10_2560", "genotype.json")),
        input_shape=images.image_shape,
        classes=images.classes,
        precision="parent" if weights is None else "child",
        **NETWORK,
    )
    loss = (
        ChildParentLoss(filter_weight=weights[0], centre_weight=weights[1])
        if weights and any(weights)
        else None
    )
    started = time.monotonic()
    history = train(
        model,
        images,
        validation=test.take(slice(WATCHED_IMAGES)),
        directory=folder,
        child_parent=loss,
        seed=seed,
        **TRAINING,
    )
    result = {
        "setting": setting,
        "seed": seed,
        "accuracy": evaluate(model, test)["accuracy"],
        "training_accuracy": history[-1]["accuracy"],
        "seconds": round(time.monotonic() - started),
    }
    write_json(os.path.join(folder, "result.json"), result)


def finished(workdir):
    """The results of all trainings of a workdir."""
    paths = glob.glob(os.path.join(glob.escape(workdir), "*", "result.json"))
    return [read_json(path) for path in sorted(paths)]


def summarize(rows):
    """Mean and standard deviation of the test accuracy of each setting, and the number of seeds."""
    summary = {}
    for setting in SETTINGS:
        reached = [row["accuracy"] for row in rows if row["setting"] == setting]
        if reached:
            std = statistics.stdev(reached) if len(reached) > 1 else None
            summary[setting] = {"mean": statistics.fmean(reached), "std": std, "n": len(reached)}
    return summary


def main(_):
    """Does the trainings that are not done, and prints the table."""
    unknown = [name for name in FLAGS.settings if name not in SETTINGS]
    if unknown:
        raise app.UsageError(f"unknown settings {unknown}, expected of {', '.join(SETTINGS)}")
    from cpnas_tf import data

    images, test = (
        data.load("cifar10", split, data_dir=FLAGS.data_dir, image_size=IMAGE_SIZE)
        for split in (f"train[:{TRAINING_IMAGES}]", "test")
    )
    with exclusive(FLAGS.workdir):
        for seed in map(int, FLAGS.seeds):
            for setting in FLAGS.settings or SETTINGS:
                folder = os.path.join(FLAGS.workdir, f"{setting}-seed{seed}")
                if not os.path.exists(os.path.join(folder, "result.json")):
                    train_once(folder, setting, seed, images, test)
                write_csv(os.path.join(FLAGS.workdir, "results.csv"), finished(FLAGS.workdir))
    summary = summarize(finished(FLAGS.workdir))
    for setting, found in summary.items():
        std = "" if found["std"] is None else f" ± {found['std']:.2%}"
        print(f"{setting:>16}  {found['mean']:.2%}{std}  ({found['n']} seeds)")
    print(json.dumps(summary))


if __name__ == "__main__":
    app.run(main)
