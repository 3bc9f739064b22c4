"""Trains the network of a genotype, or one that the paper compares with.

cpnas train --config=NAME --genotype=FILE --workdir=DIR [--precision=parent]
cpnas train --config=NAME --model=wrn22_1bit --workdir=DIR

--config.network.binarization=pcnn and --config.network.activations=32 say how a network is 1-bit.

--teacher=DIR distills: the network learns from the softmax of a trained one, of any precision and
genotype, such as its parent. --config.split.validation_images=N validates on N training images, so
that a choice never sees the test images.

Writes checkpoints, history.csv, TensorBoard logs, and at the end metrics.json into the workdir. A
training that was stopped goes on with the same command. --config.strategy=mirrored uses all devices
of the machine, multi_worker those of several: see cpnas_tf/devices.py.
"""

import dataclasses
import os

from absl import flags

from cpnas_tf.catalogue import OTHER_LOSSES
from cpnas_tf.cli import app, config, recipes
from cpnas_tf.runs.progress import show
from cpnas_tf.settings import HELD_OUT, SECTIONS

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command."""
    app.define_config(
        "train",
        recipes.TRAINING_SECTIONS,
        optional=OTHER_LOSSES,
        names={**SECTIONS, "split": HELD_OUT},
    )
    app.define_data_dir()
    app.define_path("workdir", "Folder of the training.")
    app.define_network()
    app.define_path(
        "teacher", "Workdir of a finished training to learn from as well.", required=False
    )
    app.define_path(
        "warm_start", "Workdir of a training whose weights to start from.", required=False
    )
    app.define_overwrite()


def main() -> None:
    """Runs the training that the flags describe."""
    from cpnas_tf import devices, files
    from cpnas_tf.genotypes import Genotype
    from cpnas_tf.runs import trained, workdir
    from cpnas_tf.runs.images import record

    worker, workers = devices.check_strategy(FLAGS.config.strategy)
    precision = app.precision()
    genotype = None if FLAGS.model else Genotype.load(FLAGS.genotype)
    run = config.resolved_config(
        command="train",
        precision=precision,
        genotype=genotype and dataclasses.asdict(genotype),
        model=FLAGS.model,
        warm_start=FLAGS.warm_start and os.path.abspath(FLAGS.warm_start),
        teacher=FLAGS.teacher and os.path.abspath(FLAGS.teacher),
        workers=workers,
    )
    claim = workdir.claim(
        FLAGS.workdir,
        run,
        result="metrics.json",
        written=workdir.TRAINING,
        overwrite=FLAGS.overwrite,
    )
    if worker:
        claim = workdir.joined(FLAGS.workdir, run, overwrite=FLAGS.overwrite)
    app.load_tensorflow()
    from cpnas_tf import data
    from cpnas_tf.runs import checkpoints, history

    strategy = recipes.make_strategy()
    recipes.make_deterministic("training")
    images, test = recipes.load_images()
    validation = recipes.load_validation()
    run["images"] = record(images, validation, test)
    for folder in filter(None, (FLAGS.warm_start, FLAGS.teacher)):
        trained.check_classes(folder, images.class_names)
    if validation is None:
        images, validation = config.call(data.hold_out, images, section="split")
    recipes.say_images(train=images, validate=validation, test=test)
    goes_on = checkpoints.has_checkpoint(FLAGS.workdir) and not FLAGS.overwrite
    planned = recipes.plan_training(
        genotype or FLAGS.model,
        images,
        validation or test,
        precision=precision,
        teacher=FLAGS.teacher,
        strategy=strategy,
        warm_start=None if goes_on else FLAGS.warm_start,
    )
    with claim:
        epochs = planned.run(FLAGS.workdir)
        if worker:
            return
        best = history.best(epochs)
        part = "validation" if validation else "test"
        metrics = {
            **epochs[-1],
            "best_val_accuracy": best["val_accuracy"],
            "best_epoch": best["epoch"],
            "validated_on": part,
            "precision": precision,
            "parameters": planned.model.count_params(),
            "seconds": round(sum(row["seconds"] for row in epochs), 1),
        }
        files.write_json(os.path.join(FLAGS.workdir, "metrics.json"), metrics)
    show(f"{precision}: {part} accuracy {metrics['val_accuracy']:.2%} ({FLAGS.workdir})")
