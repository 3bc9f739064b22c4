"""Compares search methods: a grid of methods, beta_P, search seeds and training seeds.

cpnas ablate --config=NAME --workdir=DIR

Writes runs.csv, table.csv and table.json into the workdir, and below searches/ and runs/ all that
its searches and trainings write. An ablation that was stopped goes on with the same command; one
that is finished is extended by another --config.grid: its table is of all runs in the workdir.

Several processes share the work if each is given a part by keras-tuner's environment variables, one
of them the chief and the others workers of different names, with one workdir on a shared disk:

export KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=8000  # where the chief listens
KERASTUNER_TUNER_ID=chief   cpnas ablate --config=NAME --workdir=DIR
KERASTUNER_TUNER_ID=worker0 cpnas ablate --config=NAME --workdir=DIR

A process of them that ended before the last run is done has to be started again.
"""

from absl import flags

from cpnas_tf.catalogue import OTHER_LOSSES, method_sections
from cpnas_tf.cli import app, config, recipes
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command."""
    app.define_config(
        "ablate",
        ("grid", "data", "split", "network", "training", "child_parent"),
        optional=(*method_sections(), *OTHER_LOSSES),
    )
    app.define_data_dir()
    app.define_path("workdir", "Folder of the ablation.")
    app.define_overwrite()


def main() -> None:
    """Does the runs that the flags describe, and prints their table."""
    from cpnas_tf.runs import workdir

    run = config.resolved_config(command="ablate")
    del run["config"]["grid"]  # a run is one of the ablation's, whatever grid asked for it
    claim = workdir.claim(
        FLAGS.workdir,
        run,
        result=None,
        written=workdir.ABLATION,
        overwrite=FLAGS.overwrite,
    )
    app.load_tensorflow()
    from cpnas_tf.ablation import grid, table

    part = grid.role()
    runs = config.call(grid.make_grid, section="grid")
    find, train = recipes.plan_ablation(run)
    joined = workdir.joined(FLAGS.workdir, run, overwrite=FLAGS.overwrite)
    with joined if part == "worker" else claim:
        grid.ablate(runs, find=find, train=train, directory=FLAGS.workdir)
        if part != "worker":
            show(table.text(table.write(FLAGS.workdir)))
