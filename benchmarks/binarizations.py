"""WRN-22 as XNOR-Net, Bi-Real Net, PCNN and BONN binarize it, in a short training.

python benchmarks/binarizations.py --workdir=DIR --data_dir=DIR [--seeds=0,1,2] [--settings=...]

Trains `wrn22_1bit` once per setting and seed with the setting's loss: the first 10,000 training
images of CIFAR-10 at 16x16 pixels, crop 2 and flip, 5 epochs of batch 64, Adam without weight decay
under a cosine. Judged on 5,000 *other training* images; the test images are not read. The real
network and those with real activations are further settings, which are not trained by default.

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
from cpnas_tf.catalogue import BINARIZATIONS

FLAGS = flags.FLAGS
flags.DEFINE_string("workdir", None, "Folder of the trainings.", required=True)
flags.DEFINE_string("data_dir", None, "TFDS data directory, TFDS's own by default.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of the trainings.")
flags.DEFINE_list("settings", ["xnor", "bireal", "pcnn", "bonn"], "Which settings to train.")
flags.DEFINE_integer("epochs", 5, "Epochs of a training.")

TRAINING = {
    "batch_size": 64,
    "augmentation": {"crop_padding": 2, "flip": True},
    "optimizer": "adam",
    "learning_rate": 3e-3,
    "weight_decay": 0.0,
}
# The network, and how it is binarized.
SETTINGS = {
    "wrn22": ("wrn22", {}),
    **{name: ("wrn22_1bit", {"binarization": name}) for name in BINARIZATIONS},
    **{
        f"{name}_w1a32": ("wrn22_1bit", {"binarization": name, "activations": 32})
        for name, found in BINARIZATIONS.items()
        if 32 in found.activations
    },
}


def train_once(workdir, setting, seed, parts):
    """Does or goes on with one training, once."""
    import tensorflow as tf

    from cpnas_tf.networks import reference
    from cpnas_tf.training import LOSSES, Training, evaluate

    train, validation = parts
    folder = os.path.join(workdir, f"{setting}-seed{seed}")
    result = os.path.join(folder, "result.json")
    if os.path.exists(result):
        return
    name, binarized = SETTINGS[setting]
    loss = BINARIZATIONS[binarized["binarization"]].loss if binarized else None
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(seed)
    started = time.process_time()
    model = reference.build(name, input_shape=train.image_shape, classes=train.classes, **binarized)
    planned = Training(
        model,
        train,
        validation=validation,
        epochs=FLAGS.epochs,
        child_parent=LOSSES[loss]() if loss else None,
        seed=seed,
        **TRAINING,
    )
    history = planned.run(folder)
    files.write_json(
        result,
        {
            "setting": setting,
            "seed": seed,
            "accuracy": evaluate(model, validation)["accuracy"],
            "training_accuracy": history[-1]["accuracy"],
            "total_flip_ratio": history[-1].get("total_flip_ratio"),
            "processor_seconds": round(time.process_time() - started),
        },
    )


def finished(workdir):
    """The results of all trainings of a workdir."""
    paths = (os.path.join(entry.path, "result.json") for entry in os.scandir(workdir))
    return [files.read_json(path) for path in sorted(paths) if os.path.exists(path)]


def summarize(rows):
    """Mean and standard deviation of the accuracy, and the number of seeds, by setting."""
    groups = {}
    for row in rows:
        groups.setdefault(row["setting"], []).append(row)
    return {
        setting: {
            "mean": statistics.fmean(row["accuracy"] for row in group),
            "std": statistics.stdev(row["accuracy"] for row in group) if len(group) > 1 else None,
            "flipped": group[0]["total_flip_ratio"],
            "n": len(group),
        }
        for setting, group in sorted(groups.items())
    }


def main(_):
    """Does the trainings that are not done, and prints the table."""
    unknown = [name for name in FLAGS.settings if name not in SETTINGS]
    if unknown:
        raise app.UsageError(f"unknown settings {unknown}, expected of {', '.join(SETTINGS)}")
    from cpnas_tf import data

    train, validation = (
        data.load("cifar10", split, data_dir=FLAGS.data_dir, image_size=16)
        for split in ("train[:10000]", "train[:15000]")
    )
    validation = validation.take(slice(10_000, 15_000))
    with files.exclusive(FLAGS.workdir):
        for seed in map(int, FLAGS.seeds):
            for setting in FLAGS.settings:
                train_once(FLAGS.workdir, setting, seed, (train, validation))
                rows = finished(FLAGS.workdir)
                files.write_csv(os.path.join(FLAGS.workdir, "results.csv"), rows)
    summary = summarize(finished(FLAGS.workdir))
    for setting, found in summary.items():
        std = "" if found["std"] is None else f" ± {found['std']:.2%}"
        flips = found["flipped"]
        flipped = "" if flips is None else f", {flips:.1%} of signs flipped"
        print(f"{setting:>16}  {found['mean']:.2%}{std}  ({found['n']} seeds){flipped}")
    print(json.dumps(summary))


if __name__ == "__main__":
    app.run(main)
