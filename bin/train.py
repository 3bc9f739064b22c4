"""Trains the network of a genotype.

python bin/train.py --config=configs/FILE.py --genotype=FILE --workdir=DIR [--precision=parent]

Writes checkpoints, history.csv, TensorBoard logs, and at the end metrics.json into the workdir. A
training that was stopped goes on with the same command.
"""

import contextlib
import dataclasses
import os
import time

from absl import flags

from cpnas_tf import cli

FLAGS = flags.FLAGS
cli.define_config()
cli.define_data_dir()
cli.define_path("workdir", "Folder of the training.")
cli.define_path("genotype", "Genotype file of bin/search.py, or a published one: darts, pc_darts.")
flags.DEFINE_enum("precision", "child", ["child", "parent"], "1-bit or full precision.")
cli.define_overwrite()
flags.adopt_module_key_flags(cli)


def main():
    """Runs the training that the flags describe."""
    from cpnas_tf import workdir
    from cpnas_tf.genotypes import Genotype

    genotype = Genotype.load(FLAGS.genotype)
    claim = workdir.claim(
        FLAGS.workdir,
        cli.resolved_config(
            command="train", precision=FLAGS.precision, genotype=dataclasses.asdict(genotype)
        ),
        result="metrics.json",
        written=("metrics.json", "history.csv", "checkpoints", "logs", "evaluation.json"),
        overwrite=FLAGS.overwrite,
    )
    cli.load_tensorflow()
    from cpnas_tf import data, training
    from cpnas_tf.child_parent import ChildParentLoss
    from cpnas_tf.networks import build_network

    cli.make_deterministic("training")
    images = cli.call(data.load, section="data", data_dir=FLAGS.data_dir)
    test = data.load(FLAGS.config.data.name, "test", data_dir=FLAGS.data_dir)
    model = cli.call(
        build_network,
        genotype,
        section="network",
        input_shape=images.images.shape[1:],
        classes=len(images.class_names),
        precision=FLAGS.precision,
    )
    loss = cli.call(ChildParentLoss, section="child_parent")
    started = time.monotonic()
    with contextlib.ExitStack() as claimed:
        history = cli.call(
            training.train,
            model,
            images,
            section="training",
            validation=test,
            directory=FLAGS.workdir,
            child_parent=loss if FLAGS.precision == "child" else None,
            on_start=lambda: claimed.enter_context(claim),
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
    cli.run(main, sections=("data", "network", "training", "child_parent"))
