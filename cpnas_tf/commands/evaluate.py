"""Evaluates a trained network on the test images.

cpnas evaluate --workdir=DIR

Writes evaluation.json and two pictures into the workdir: confusion_matrix.png, and examples.png, of
the images that the network is surest of and right, and of those with the largest loss.
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
    from cpnas_tf.data import Images
    from cpnas_tf.plots import figures
    from cpnas_tf.plots.training import plot_examples
    from cpnas_tf.training.evaluation import classify, measure

    test = trained.test_images()
    logits, labels = classify(trained.network(), test)
    evaluation = measure(logits, labels, test.class_names)
    matrix = evaluation["confusion_matrix"]
    drawn = {"confusion_matrix": figures.plot_confusion_matrix(matrix, test.class_names)}
    if isinstance(test, Images):
        drawn["examples"] = plot_examples(test.images, logits, labels, test.class_names)
    for name, figure in drawn.items():
        picture = os.path.join(FLAGS.workdir, f"{name}.png")
        files.write_atomically(picture, figures.render(figure, "png"))
    files.write_json(path, evaluation)
    top5 = f", top-5 {evaluation['accuracy_top5']:.2%}" if test.classes > 5 else ""
    show(f"accuracy {evaluation['accuracy']:.2%}{top5} on {evaluation['examples']} images: {path}")
