"""Searches a binary architecture.

cpnas search --config=NAME --workdir=DIR [--config.method=pc_darts]

Writes genotype.json, search.csv, config.json, TensorBoard logs and checkpoints into the
workdir. A search that was stopped goes on with the same command. --dry_run says what a search will
do and cost, from a few measured steps.

--config.method chooses how to search: cpnas; bnas, which is the same with beta_P = 0; guided, by
short trainings and a model of them, with the settings of --config.guided; pc_darts, by gradients,
with those of --config.pc_darts; random, which draws a genotype and does no more.
--config.strategy=mirrored uses all devices of the machine, multi_worker those of several, for
cpnas, bnas and guided: see cpnas_tf/devices.py.
"""

import contextlib
import os

from absl import flags

from cpnas_tf.catalogue import method_sections
from cpnas_tf.cli import app, config, recipes
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command."""
    app.define_config("search", ("method", "data", "split", "strategy"), optional=method_sections())
    app.define_data_dir()
    app.define_path("workdir", "Folder of the search.")
    app.define_switch("dry_run", "Show the plan and what it will cost, and write nothing.")
    app.define_overwrite()


def main() -> None:
    """Runs the search that the flags describe, or shows its plan."""
    from cpnas_tf import devices
    from cpnas_tf.runs import workdir

    method = recipes.search_method()
    worker, workers = devices.check_strategy(FLAGS.config.strategy)
    run = config.resolved_config(command="search", workers=workers)
    claim: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if not FLAGS.dry_run:
        owned = workdir.claim(
            FLAGS.workdir,
            run,
            result="genotype.json",
            written=workdir.SEARCH,
            overwrite=FLAGS.overwrite,
        )
        joined = workdir.joined(FLAGS.workdir, run, overwrite=FLAGS.overwrite)
        claim = joined if worker else owned
    app.load_tensorflow()
    strategy = recipes.make_strategy()
    recipes.make_deterministic(method.section)
    parts = recipes.load_search_images(run) if method.needs_images else (None, None)
    with strategy.scope():
        planned = recipes.plan_search(method, parts)
    if FLAGS.dry_run:
        app.output(planned.plan())
        return
    with claim:
        found = planned.run(FLAGS.workdir)
        if not worker:
            _finish(found["genotype"])


def _finish(genotype):
    """Says what the search did, and saves what it found."""
    from cpnas_tf.runs import progress, search_log

    log, path = (os.path.join(FLAGS.workdir, name) for name in ("search.csv", "genotype.json"))
    if os.path.exists(log):
        show(progress.summary(search_log.read(log)))
    genotype.save(path)
    show(f"genotype: {path}")
