"""Makes the report of a search or of an ablation: one HTML file that needs nothing else.

cpnas report --workdir=DIR --output=FILE.html

The workdir is one of `cpnas search` or `cpnas ablate`, finished or not. --train=DIR, once or more,
shows networks of `cpnas train` beside the paper's.
"""

import os

from absl import flags

from cpnas_tf.cli import app
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command."""
    app.define_path("workdir", "Workdir of a `cpnas search` or `cpnas ablate`.")
    app.define_path("output", "File for the report.")
    app.define_paths("train", "Workdir of a finished `cpnas train`; may be repeated.")
    app.define_data_dir()
    app.define_overwrite()


def main() -> None:
    """Writes the report and prints its name."""
    from cpnas_tf.ablation import report as ablation_report
    from cpnas_tf.files import write_atomically
    from cpnas_tf.reports import pages

    if os.path.lexists(FLAGS.output):
        if not pages.is_report(FLAGS.output):
            raise ValueError(f"{FLAGS.output} is there and is no report: choose another --output")
        if not FLAGS.overwrite:
            raise ValueError(f"{FLAGS.output} exists: replace it with --overwrite")
    if FLAGS.train:
        app.load_tensorflow()
    if pages.is_search(FLAGS.workdir):
        trained = [_describe(folder) for folder in FLAGS.train]
        report = pages.make_report(FLAGS.workdir, trained=trained)
    elif FLAGS.train:
        raise ValueError(f"--train goes with a search, and {FLAGS.workdir} holds none")
    else:
        report = ablation_report.make_report(FLAGS.workdir)
    try:
        write_atomically(FLAGS.output, report)
    except OSError as error:
        raise ValueError(f"cannot write {FLAGS.output}: {error.strerror}") from None
    show(FLAGS.output)


def _describe(folder):
    """What the report shows of a trained network."""
    from cpnas_tf.networks import costs
    from cpnas_tf.runs.trained import TrainedRun

    trained = TrainedRun(folder, data_dir=FLAGS.data_dir)
    return {
        "name": os.path.basename(os.path.abspath(folder)),
        "precision": trained.precision,
        "data": trained.config["data"]["name"],
        "genotype": trained.genotype,
        "accuracy": trained.metrics["val_accuracy"],
        "seconds": trained.metrics["seconds"],
        **costs.profile(trained.network()),
    }
