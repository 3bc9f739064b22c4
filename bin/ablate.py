"""Compares search methods: a grid of methods, beta_P, search seeds and training seeds.

python bin/ablate.py --config=configs/FILE.py --workdir=DIR

Writes runs.csv, table.csv and table.json into the workdir, and below searches/ and runs/ all that
its searches and trainings write. An ablation that was stopped goes on with the same command; one
that is finished is extended by another --config.grid: its table is of all runs in the workdir.

Several processes share the work if each is given a part by keras-tuner's environment variables, one
of them the chief and the others workers of different names, with one workdir on a shared disk:

export KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=8000  # where the chief listens
KERASTUNER_TUNER_ID=chief   python bin/ablate.py --config=configs/FILE.py --workdir=DIR
KERASTUNER_TUNER_ID=worker0 python bin/ablate.py --config=configs/FILE.py --workdir=DIR

A process of them that ended before the last run is done has to be started again.
"""

import contextlib
import tempfile

from absl import flags

from cpnas_tf.cli import app, config, recipes
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS
app.define_config()
app.define_data_dir()
app.define_path("workdir", "Folder of the ablation.")
app.define_overwrite()
flags.adopt_module_key_flags(app)


def main():
    """Does the runs that the flags describe, and prints their table."""
    from cpnas_tf.runs import workdir

    run = config.resolved_config(command="ablate")
    del run["config"]["grid"]  # a run is one of the ablation's, whatever grid asked for it
    claim = workdir.claim(
        FLAGS.workdir,
        run,
        result=None,
        written=("runs.csv", "table.csv", "table.json", "searches", "runs"),
        overwrite=FLAGS.overwrite,
    )
    app.load_tensorflow()
    from cpnas_tf.ablation import grid, table

    part = grid.role()
    runs = config.call(grid.make_grid, section="grid")
    find, train = _prepare(run)
    with contextlib.nullcontext() if part == "worker" else claim:
        grid.ablate(runs, find=find, train=train, directory=FLAGS.workdir)
        if part != "worker":
            show(table.text(table.write(FLAGS.workdir)))


def _prepare(run):
    """How the methods find a genotype and how that is trained, by the config, once checked.

    Adds the images to the record `run`.
    """
    import tensorflow as tf

    from cpnas_tf import data, training
    from cpnas_tf.genotypes import OPERATIONS
    from cpnas_tf.runs.images import record
    from cpnas_tf.search import methods
    from cpnas_tf.search.pc_darts import PCDarts
    from cpnas_tf.search.tuner import plan_search

    recipes.make_deterministic("grid")
    images, test = recipes.load_images()
    run["images"] = record(images, test)
    parts = config.call(data.split_for_search, images, section="split")
    space = {
        "operations": tuple(FLAGS.config.search.get("operations", OPERATIONS)),
        "allow_none": FLAGS.config.search.get("allow_none", True),
    }

    def start(seed):
        tf.keras.backend.clear_session()
        tf.keras.utils.set_random_seed(seed)

    def plan(directory, beta, seed):
        start(seed)
        given = {"directory": directory, "beta": beta, "seed": seed}
        return config.call(plan_search, *parts, section="search", **given)

    def plan_pc_darts(directory, seed, beta=None, on_start=lambda: None):
        start(seed)
        given = {"directory": directory, "seed": seed, "on_start": on_start}
        return config.call(PCDarts, *parts, section="pc_darts", **given)

    def train(genotype, *, seed, **given):
        start(seed)
        model, history = recipes.train(genotype, images, test, seed=seed, **given)
        evaluation = training.evaluate(model, test)
        reached = {name: evaluation[name] for name in ("accuracy", "loss")}
        return {**reached, "images": len(history) * len(images)}

    def draw(*, seed, **_):
        return methods.draw(seed, **space)

    def search(**given):
        return methods.search(plan(**given))

    def search_pc_darts(**given):
        return methods.search(plan_pc_darts(**given))

    if "pc_darts" in FLAGS.config.grid.get("methods", methods.METHODS):
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_PossibleError):
            plan_pc_darts(folder, seed=0, on_start=_stop)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_PossibleError):
        plan(folder, beta=0.0, seed=0)
        train(methods.random_genotype(0, **space), directory=folder, seed=0, on_start=_stop)
    return {"random": draw, "bnas": search, "cpnas": search, "pc_darts": search_pc_darts}, train


class _PossibleError(Exception):
    """Ends a training that is found possible before it starts."""


def _stop():
    raise _PossibleError


if __name__ == "__main__":
    app.run(
        main,
        sections=(
            *("grid", "data", "split", "search", "pc_darts"),
            *("network", "training", "child_parent"),
        ),
    )
