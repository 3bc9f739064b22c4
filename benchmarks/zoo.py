"""The networks of the zoo: checked on their test images, or a further one added.

python benchmarks/zoo.py [--data_dir=DIR]
python benchmarks/zoo.py --add=NAME --workdir=DIR [--data_dir=DIR]

Prints a line per network: accuracy now and as recorded. A difference ends the run with an error.
With --add it first writes `cpnas_tf/zoo/NAME.npz` of a training that is finished and evaluated.
"""

import sys

import numpy as np
from absl import app, flags

import cpnas_tf  # noqa: F401  (before TensorFlow: Keras 2)
from cpnas_tf import data, zoo
from cpnas_tf.catalogue import DATASETS
from cpnas_tf.runs.trained import TrainedRun
from cpnas_tf.training import evaluate

FLAGS = flags.FLAGS
flags.DEFINE_string("add", None, "Name of a network to add.")
flags.DEFINE_string("workdir", None, "Workdir of its training.")
flags.DEFINE_string("command", None, "The command of the training, for the record.")
flags.DEFINE_string("data_dir", None, "TFDS data directory, TFDS's own by default.")


def add(name, workdir, data_dir):
    """Packs the network of a training."""
    trained = TrainedRun(workdir, data_dir=data_dir)
    name_of_data = trained.config["data"]["name"]
    known = {
        "genotype": {"normal": trained.genotype.normal, "reduce": trained.genotype.reduce},
        "network": {"precision": trained.precision, **trained.config["network"]},
        "image_shape": trained.record["images"]["shape"],
        "classes": trained.record["images"]["classes"],
        "data": name_of_data,
        "accuracy": trained.evaluation["accuracy"],
        "command": FLAGS.command,
        "licence": f"Apache 2.0; trained on {DATASETS[name_of_data].source}",
    }
    np.savez(zoo.FOLDER / f"{name}.npz", **zoo.pack(trained.network(), known))


def main(_):
    """Adds a network if there is one to add; checks all."""
    if FLAGS.add:
        add(FLAGS.add, FLAGS.workdir, FLAGS.data_dir)
    for name in zoo.names():
        known = zoo.record(name)
        test = data.load(known["data"], "test", data_dir=FLAGS.data_dir)
        accuracy = evaluate(zoo.load(name), test)["accuracy"]
        print(f"{name}: {accuracy:.2%}, recorded {known['accuracy']:.2%}")
        if accuracy != known["accuracy"]:
            sys.exit(f"{name} has another accuracy than recorded")


if __name__ == "__main__":
    app.run(main)
