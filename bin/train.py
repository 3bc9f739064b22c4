"""Trains the network of a genotype.

python bin/train.py --config=configs/FILE.py --genotype=FILE --workdir=DIR [--precision=parent]

Writes checkpoints, history.csv, TensorBoard logs, and at the end metrics.json into the workdir. A
training that was stopped goes on with the same command.
"""

import dataclasses
import os
import time

from absl import flags

from cpnas_tf import cli

FLAGS = flags.FLAGS
cli.define_config()
cli.define_folder("workdir", "Folder of the training.")
cli.define_folder("genotype", "Genotype file, as bin/search.py writes it.")
flags.DEFINE_enum("precision", "child", ["child", "parent"], "1-bit or full precision.")
cli.define_overwrite()
flags.adopt_module_key_flags(cli)


def main():
    """Runs the training that the flags describe."""
    from cpnas_tf import data, training, workdir
    from cpnas_tf.child_parent import ChildParentLoss
    from cpnas_tf.genotypes import Genotype
    from cpnas_tf.networks import build_network

    config = FLAGS.config
    genotype = Genotype.load(FLAGS.genotype)
    cli.make_deterministic(config.training.seed)
    images = data.load(config.data.name, config.data.split, data_dir=FLAGS.data_dir)
    test = data.load(config.data.name, "test", data_dir=FLAGS.data_dir)
    model = build_network(
        genotype,
        input_shape=images.images.shape[1:],
        classes=len(images.class_names),
        precision=FLAGS.precision,
        **config.network,
    )
    loss = ChildParentLoss(**config.child_parent) if FLAGS.precision == "child" else None
    run = cli.resolved_config(
        command="train", precision=FLAGS.precision, genotype=dataclasses.asdict(genotype)
    )
    with workdir.claim(
        FLAGS.workdir,
        run,
        result="metrics.json",
        written=("metrics.json", "history.csv", "checkpoints", "logs", "evaluation.json"),
        overwrite=FLAGS.overwrite,
    ):
        started = time.monotonic()
        history = training.train(
            model,
            images,
            validation=test,
            directory=FLAGS.workdir,
            child_parent=loss,
            **config.training,
        )
        metrics = {
            **history[-1],
            "precision": FLAGS.precision,
            "parameters": model.count_params(),
            "seconds": round(time.monotonic() - started, 1),
        }
        workdir.write_json(os.path.join(FLAGS.workdir, "metrics.json"), metrics)
    print(f"{FLAGS.precision}: test accuracy {metrics['val_accuracy']:.2%} ({FLAGS.workdir})")


if __name__ == "__main__":
    cli.run(main)
