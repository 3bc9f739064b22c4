"""Evaluates a trained network on the test images.

python bin/evaluate.py --workdir=DIR

Writes evaluation.json and the confusion matrix's picture, confusion_matrix.png, into the workdir.
"""

import os

from absl import flags

from cpnas_tf import cli

FLAGS = flags.FLAGS
cli.define_path("workdir", "Workdir of a finished bin/train.py.")
cli.define_data_dir()
cli.define_overwrite()
flags.adopt_module_key_flags(cli)


def main():
    """Evaluates and prints the accuracy."""
    from cpnas_tf import workdir

    path = os.path.join(FLAGS.workdir, "evaluation.json")
    if os.path.exists(path) and not FLAGS.overwrite:
        raise ValueError(f"{path} exists: replace it with --overwrite")
    cli.load_tensorflow()
    from cpnas_tf import plotting, training

    model, test, _ = training.load_trained(FLAGS.workdir, data_dir=FLAGS.data_dir)
    evaluation = training.evaluate(model, test)
    figure = plotting.plot_confusion_matrix(evaluation["confusion_matrix"], test.class_names)
    picture = os.path.join(FLAGS.workdir, "confusion_matrix.png")
    workdir.write_atomically(picture, plotting.render(figure, "png"))
    workdir.write_json(path, evaluation)
    print(
        f"accuracy {evaluation['accuracy']:.2%}, top-5 {evaluation['accuracy_top5']:.2%} "
        f"on {evaluation['examples']} images: {path}"
    )


if __name__ == "__main__":
    cli.run(main)
