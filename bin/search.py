"""Searches a binary architecture.

python bin/search.py --config=configs/FILE.py --workdir=DIR [--config.method=pc_darts]

Writes genotype.json, search.csv, config.json, TensorBoard logs and checkpoints into the
workdir. A search that was stopped goes on with the same command. --dry_run says what a search will
do and cost, from a few measured steps.

--config.method chooses how to search: cpnas; bnas, which is the same with beta_P = 0; pc_darts, by
gradients, with the settings of --config.pc_darts; random, which draws a genotype and does no more.
--config.strategy=mirrored uses all devices of the machine, multi_worker those of several, for cpnas
and bnas: see cpnas_tf/devices.py.
"""

import contextlib
import os

from absl import flags

from cpnas_tf.cli import app, config, recipes
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS
app.define_config()
app.define_data_dir()
app.define_path("workdir", "Folder of the search.")
flags.DEFINE_bool("dry_run", False, "Show the plan and what it will cost, and write nothing.")
app.define_overwrite()
flags.adopt_module_key_flags(app)


def main():
    """Runs the search that the flags describe, or shows its plan."""
    from cpnas_tf import devices
    from cpnas_tf.runs import workdir

    method = _method()
    worker, workers = devices.check_strategy(FLAGS.config.strategy)
    run = config.resolved_config(command="search", workers=workers)
    claim = contextlib.nullcontext()
    if not FLAGS.dry_run:
        owned = workdir.claim(
            FLAGS.workdir,
            run,
            result="genotype.json",
            written=workdir.SEARCH,
            overwrite=FLAGS.overwrite,
        )
        claim = claim if worker else owned
    app.load_tensorflow()
    if method == "random":
        _draw(claim)
    else:
        _search(claim, run, section="pc_darts" if method == "pc_darts" else "search")


def _method():
    """The method, once it is found possible; makes of `bnas` what it is of `cpnas`."""
    method, strategy = FLAGS.config.method, FLAGS.config.strategy
    if method not in ("cpnas", "bnas", "pc_darts", "random"):
        raise ValueError(f"method must be cpnas, bnas, pc_darts or random, received: {method!r}")
    if method in ("pc_darts", "random") and strategy != "none":
        raise ValueError(f"{method} takes strategy none alone, received: {strategy!r}")
    if method == "bnas":
        with FLAGS.config.unlocked():
            FLAGS.config.search.beta = 0.0
    return method


def _draw(claim):
    from cpnas_tf.search.methods import random_genotype

    space = {name: FLAGS.config.search[name] for name in ("seed", "operations", "allow_none")}
    with claim:
        _save(random_genotype(**space))


def _search(claim, run, *, section):
    from cpnas_tf import data, devices
    from cpnas_tf.runs import progress, search_log
    from cpnas_tf.runs.images import record
    from cpnas_tf.search import ChildParentSearch, PCDarts

    strategy = recipes.make_strategy()
    recipes.make_deterministic(section)
    images = config.call(data.load, section="data", data_dir=FLAGS.data_dir)
    run["images"] = record(images)
    train, validation = config.call(data.split_for_search, images, section="split")
    search = PCDarts if section == "pc_darts" else ChildParentSearch
    with strategy.scope():
        planned = config.call(search, train, validation, section=section)
    if FLAGS.dry_run:
        app.output(planned.plan())
        return
    with claim:
        found = planned.run(FLAGS.workdir)
        if devices.is_chief(strategy):
            log = os.path.join(FLAGS.workdir, "search.csv")
            if section == "pc_darts":
                show(progress.summary_epochs(search_log.read_epochs(log)))
            else:
                show(progress.summary(search_log.read(log)))
            _save(found["genotype"])


def _save(genotype):
    path = os.path.join(FLAGS.workdir, "genotype.json")
    genotype.save(path)
    show(f"genotype: {path}")


if __name__ == "__main__":
    app.run(main, sections=("method", "data", "split", "search", "pc_darts", "strategy"))
