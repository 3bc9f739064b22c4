"""Prints what `make quickstart` made.

python bin/quickstart.py --folder=runs/quickstart
"""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
import os

from absl import flags

from cpnas_tf.cli import app

FLAGS = flags.FLAGS


def define_flags():
    """Defines the flags of the command."""
    app.define_path("folder", "Folder of the quickstart.")


def main():
    """Prints a short table and where the files are."""
    from cpnas_tf.files import read_json
    from cpnas_tf.runs import search_log
    from cpnas_tf.runs.progress import text_table

    def path(*names):
        return os.path.join(FLAGS.folder, *names)

    rows = search_log.read(path("search", "search.csv"))
    exported = read_json(path("export", "export.json"))
    evaluations = [read_json(path(run, "evaluation.json")) for run in ("train", "train_parent")]
    metrics = [read_json(path(run, "metrics.json")) for run in ("train", "train_parent")]
    lines = [
        ("", "1-bit child", "parent"),
        ("test accuracy", *(f"{evaluation['accuracy']:.2%}" for evaluation in evaluations)),
        ("test cross-entropy", *(f"{evaluation['loss']:.4f}" for evaluation in evaluations)),
        ("test images", *(str(evaluation["examples"]) for evaluation in evaluations)),
        ("epochs", *(str(run["epoch"]) for run in metrics)),
        ("training seconds", *(f"{run['seconds']:.0f}" for run in metrics)),
    ]
    app.output(
        f"\n{text_table(lines)}\n"
        f"\nsearched  {len(rows)} architectures: {path('search', 'genotype.json')}"
        f"\ntrained   {path('train')} and {path('train_parent')}"
        f"\nexported  {path('export', 'saved_model')}, largest difference to Keras "
        f"{exported['largest_difference']:.1e} on {exported['images_checked']} images"
        f"\ndrawn     {path('plots')}"
        f"\nreport    {path('report.html')}"
    )


if __name__ == "__main__":
    app.run(main, define_flags)
