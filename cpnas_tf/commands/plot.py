"""Draws cells, the progress of a search or a training, and an ablation's accuracies: PNG and SVG.

cpnas plot --workdir=DIR --output=DIR     a search's, a training's or an ablation's, finished or not
cpnas plot --genotype=FILE --output=DIR   a genotype
"""

import os

from absl import flags

from cpnas_tf.cli import app
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command."""
    app.define_path(
        "workdir", "Workdir of a `cpnas search`, `cpnas train` or `cpnas ablate`.", required=False
    )
    app.define_path(
        "genotype", "Genotype file, or a published one: darts, pc_darts.", required=False
    )
    flags.mark_flags_as_mutual_exclusive(["workdir", "genotype"], required=True)
    app.define_path("output", "Folder for the pictures.")
    app.define_overwrite()


def main() -> None:
    """Draws what is there and prints the files' names."""
    if os.path.isdir(FLAGS.output) and os.listdir(FLAGS.output) and not FLAGS.overwrite:
        raise ValueError(f"{FLAGS.output} is not empty: write into it with --overwrite")
    for picture in _draw():
        show(picture)


def _draw():
    from cpnas_tf.ablation import plots as ablation_plots
    from cpnas_tf.ablation import table
    from cpnas_tf.genotypes import Genotype
    from cpnas_tf.plots import figures
    from cpnas_tf.plots import search as search_plots
    from cpnas_tf.plots.training import plot_history
    from cpnas_tf.runs import history, search_log

    if FLAGS.genotype:
        return search_plots.plot(FLAGS.output, genotype=Genotype.load(FLAGS.genotype))
    searches, runs = table.read(FLAGS.workdir)
    if runs:
        return ablation_plots.plot(FLAGS.output, searches, runs)
    log, epochs = (os.path.join(FLAGS.workdir, name) for name in ("search.csv", "history.csv"))
    if os.path.exists(epochs) and not os.path.exists(log):
        return figures.save_all(FLAGS.output, {"history": plot_history(history.read(epochs))})
    rows = search_log.read(log)
    path = os.path.join(FLAGS.workdir, "genotype.json")
    genotype = Genotype.load(path) if os.path.exists(path) else None
    return search_plots.plot(FLAGS.output, genotype=genotype, rows=rows)
