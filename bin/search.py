"""Searches a binary architecture.

python bin/search.py --config=configs/FILE.py --workdir=DIR

Writes genotype.json, search.csv, config.json, TensorBoard logs and the tuner's project folder into
the workdir. A search that was stopped goes on with the same command. --dry_run says what a search
will do and cost, from a few measured steps. --config.strategy=mirrored uses all devices of the
machine, multi_worker those of several: see cpnas_tf/devices.py.
"""

import contextlib
import os
import tempfile

from absl import flags

from cpnas_tf import cli

FLAGS = flags.FLAGS
cli.define_config()
cli.define_data_dir()
cli.define_path("workdir", "Folder of the search.")
flags.DEFINE_bool("dry_run", False, "Show the plan and what it will cost, and write nothing.")
cli.define_overwrite()
flags.adopt_module_key_flags(cli)


def main():
    """Runs the search that the flags describe, or shows its plan."""
    from cpnas_tf import devices, workdir

    worker, workers = devices.check_strategy(FLAGS.config.strategy)
    claim = contextlib.nullcontext()
    if not FLAGS.dry_run:
        owned = workdir.claim(
            FLAGS.workdir,
            cli.resolved_config(command="search", workers=workers),
            result="genotype.json",
            written=("genotype.json", "search.csv", "tuner", "logs"),
            overwrite=FLAGS.overwrite,
        )
        claim = claim if worker else owned
    cli.load_tensorflow()
    from cpnas_tf import data, search_log, search_progress
    from cpnas_tf.search import plan_search

    strategy = devices.make_strategy(FLAGS.config.strategy)
    cli.make_deterministic("search")
    images = cli.call(data.load, section="data", data_dir=FLAGS.data_dir)
    train, validation = cli.call(data.split_for_search, images, section="split")
    with contextlib.ExitStack() as stack:
        stack.enter_context(strategy.scope())
        folder = FLAGS.workdir
        if FLAGS.dry_run:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        tuner = cli.call(
            plan_search,
            train,
            validation,
            section="search",
            directory=folder,
            on_start=lambda: stack.enter_context(claim),
        )
        if FLAGS.dry_run:
            print(
                search_progress.plan(
                    operations=len(tuner.oracle.operations),
                    rounds=tuner.oracle.rounds,
                    images=len(train),
                    estimate=tuner.estimate(),
                )
            )
            return
        tuner.search()
        if devices.is_chief(strategy):
            tuner.oracle.genotype().save(os.path.join(folder, "genotype.json"))
            print(search_progress.summary(search_log.read(os.path.join(folder, "search.csv"))))
            print(f"genotype: {folder}/genotype.json")


if __name__ == "__main__":
    cli.run(main, sections=("data", "split", "search", "strategy"))
