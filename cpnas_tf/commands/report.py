"""Makes the report of a run: one HTML file that needs nothing else.

cpnas report --workdir=DIR --output=FILE.html

The workdir is one of `cpnas search`, `cpnas train` or `cpnas ablate`, finished or not. --train=DIR,
once or more, shows networks of `cpnas train` beside the paper's in the report of a search.
"""

import os

from absl import flags

from cpnas_tf.cli import app
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command."""
    app.define_path("workdir", "Workdir of a `cpnas search`, `cpnas train` or `cpnas ablate`.")
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
    is_search = pages.is_search(FLAGS.workdir)
    if FLAGS.train and not is_search:
        raise ValueError(f"--train goes with a search, and {FLAGS.workdir} holds none")
    is_training = not is_search and pages.is_training(FLAGS.workdir)
    if is_search:
        trained = [_describe(folder) for folder in FLAGS.train]
        report = pages.make_report(FLAGS.workdir, trained=trained)
    elif is_training:
        report = pages.make_training_report(FLAGS.workdir, costs=_costs(FLAGS.workdir))
    else:
        report = ablation_report.make_report(FLAGS.workdir)
    try:
        write_atomically(FLAGS.output, report)
    except OSError as error:
        raise ValueError(f"cannot write {FLAGS.output}: {error.strerror}") from None
    show(FLAGS.output)


def _costs(folder):
    """What a training's network costs; None if it is not finished."""
    if not os.path.exists(os.path.join(folder, "metrics.json")):
        return None
    app.load_tensorflow()
    from cpnas_tf.networks import costs
    from cpnas_tf.runs.trained import TrainedRun

    return costs.profile(TrainedRun(folder, data_dir=FLAGS.data_dir).network())


def _describe(folder):
    """What the report shows of a trained network."""
    app.load_tensorflow()
    from cpnas_tf.networks import costs
    from cpnas_tf.runs.trained import TrainedRun

    trained = TrainedRun(folder, data_dir=FLAGS.data_dir)
    evaluation = trained.evaluation or {"accuracy": trained.metrics["val_accuracy"]}
    return {
        "name": os.path.basename(os.path.abspath(folder)),
        "precision": trained.precision,
        "data": trained.config["data"]["name"],
        "genotype": trained.genotype,
        "accuracy": evaluation["accuracy"],
        "seconds": trained.metrics["seconds"],
        **costs.profile(trained.network()),
    }
