"""Evaluates a trained network on the test images.

cpnas evaluate --workdir=DIR

Writes evaluation.json and the confusion matrix's picture, confusion_matrix.png, into the workdir.
"""

import os

from absl import flags

from cpnas_tf.cli import app
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command."""
    app.define_path("workdir", "Workdir of a finished `cpnas train`.")
    app.define_data_dir()
    app.define_overwrite()


def main() -> None:
    """Evaluates and prints the accuracy."""
    from cpnas_tf import files
    from cpnas_tf.runs.trained import TrainedRun

    path = os.path.join(FLAGS.workdir, "evaluation.json")
    if os.path.exists(path) and not FLAGS.overwrite:
        raise ValueError(f"{path} exists: replace it with --overwrite")
    trained = TrainedRun(FLAGS.workdir, data_dir=FLAGS.data_dir)
    app.load_tensorflow()
    from cpnas_tf import training
    from cpnas_tf.plots import figures

    test = trained.test_images()
    evaluation = training.evaluate(trained.network(), test)
    figure = figures.plot_confusion_matrix(evaluation["confusion_matrix"], test.class_names)
    picture = os.path.join(FLAGS.workdir, "confusion_matrix.png")
    files.write_atomically(picture, figures.render(figure, "png"))
    files.write_json(path, evaluation)
    top5 = f", top-5 {evaluation['accuracy_top5']:.2%}" if test.classes > 5 else ""
    show(f"accuracy {evaluation['accuracy']:.2%}{top5} on {evaluation['examples']} images: {path}")
