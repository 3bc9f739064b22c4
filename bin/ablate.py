"""Compares search methods: a grid of methods, beta_P, search seeds and training seeds.

python bin/ablate.py --config=configs/FILE.py --workdir=DIR

Writes runs.csv, table.csv and table.json into the workdir, and below searches/ and runs/ all that
its searches and trainings write. An ablation that was stopped goes on with the same command, and one
that is finished is extended by another --config.grid: its table is of all runs in the workdir.

Several processes share the work if each is given a part by keras-tuner's environment variables, one
of them the chief and the others workers of different names, with one workdir on a shared disk:

export KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=8000  # where the chief listens
KERASTUNER_TUNER_ID=chief   python bin/ablate.py --config=configs/FILE.py --workdir=DIR
KERASTUNER_TUNER_ID=worker0 python bin/ablate.py --config=configs/FILE.py --workdir=DIR
"""

import contextlib
import tempfile

from absl import flags

from cpnas_tf import cli

FLAGS = flags.FLAGS
cli.define_config()
cli.define_data_dir()
cli.define_path("workdir", "Folder of the ablation.")
cli.define_overwrite()
flags.adopt_module_key_flags(cli)


def main():
    """Does the runs that the flags describe, and prints their table."""
    from cpnas_tf import workdir

    run = cli.resolved_config(command="ablate")
    del run["config"]["grid"]  # a run is one of the ablation's, whatever grid asked for it
    claim = workdir.claim(
        FLAGS.workdir,
        run,
        result=None,
        written=("runs.csv", "table.csv", "table.json", "searches", "runs"),
        overwrite=FLAGS.overwrite,
    )
    cli.load_tensorflow()
    from cpnas_tf import ablation, ablation_table

    part = ablation.role()
    grid = cli.call(ablation.make_grid, section="grid")
    find, train = _prepare()
    with contextlib.nullcontext() if part == "worker" else claim:
        ablation.ablate(grid, find=find, train=train, directory=FLAGS.workdir)
        if part != "worker":
            print(ablation_table.text(ablation_table.write(FLAGS.workdir)))


def _prepare():
    """How the methods find a genotype and how that is trained, by the config, once checked."""
    import tensorflow as tf

    from cpnas_tf import ablation, data, training
    from cpnas_tf.child_parent import ChildParentLoss
    from cpnas_tf.genotypes import OPERATIONS
    from cpnas_tf.networks import build_network
    from cpnas_tf.search import plan_search

    cli.make_deterministic("grid")
    images = cli.call(data.load, section="data", data_dir=FLAGS.data_dir)
    test = data.load(FLAGS.config.data.name, "test", data_dir=FLAGS.data_dir)
    parts = cli.call(data.split_for_search, images, section="split")
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
        return cli.call(plan_search, *parts, section="search", **given)

    def train(genotype, *, directory, seed, on_start=lambda: None):
        start(seed)
        model = cli.call(
            build_network,
            genotype,
            section="network",
            input_shape=images.images.shape[1:],
            classes=len(images.class_names),
        )
        history = cli.call(
            training.train,
            model,
            images,
            section="training",
            validation=test,
            directory=directory,
            child_parent=cli.call(ChildParentLoss, section="child_parent"),
            seed=seed,
            on_start=on_start,
        )
        evaluation = training.evaluate(model, test)
        reached = {name: evaluation[name] for name in ("accuracy", "loss")}
        return {**reached, "images": len(history) * len(images)}

    def draw(*, seed, **_):
        return ablation.draw(seed, **space)

    def search(**given):
        return ablation.search(plan(**given))

    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_PossibleError):
        plan(folder, beta=0.0, seed=0)
        train(ablation.random_genotype(0, **space), directory=folder, seed=0, on_start=_stop)
    return {"random": draw, "bnas": search, "cpnas": search}, train


class _PossibleError(Exception):
    """Ends a training that is found possible before it starts."""


def _stop():
    raise _PossibleError


if __name__ == "__main__":
    cli.run(
        main,
        sections=("grid", "data", "split", "search", "network", "training", "child_parent"),
    )
