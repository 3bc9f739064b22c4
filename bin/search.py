"""Searches a binary architecture.

python bin/search.py --config=configs/FILE.py --workdir=DIR

Writes genotype.json, search.csv, config.json and the tuner's project folder into the workdir. A
search that was stopped goes on with the same command.
"""

import contextlib
import os

from absl import flags

from cpnas_tf import cli

FLAGS = flags.FLAGS
cli.define_config()
cli.define_data_dir()
cli.define_path("workdir", "Folder of the search.")
cli.define_overwrite()
flags.adopt_module_key_flags(cli)


def main():
    """Runs the search that the flags describe."""
    from cpnas_tf import workdir

    claim = workdir.claim(
        FLAGS.workdir,
        cli.resolved_config(command="search"),
        result="genotype.json",
        written=("genotype.json", "search.csv", "tuner"),
        overwrite=FLAGS.overwrite,
    )
    cli.load_tensorflow()
    from cpnas_tf import data
    from cpnas_tf.search import search

    cli.make_deterministic("search")
    images = cli.call(data.load, section="data", data_dir=FLAGS.data_dir)
    train, validation = cli.call(data.split_for_search, images, section="split")
    with contextlib.ExitStack() as claimed:
        genotype = cli.call(
            search,
            train,
            validation,
            section="search",
            directory=FLAGS.workdir,
            on_start=lambda: claimed.enter_context(claim),
        )
        path = os.path.join(FLAGS.workdir, "genotype.json")
        genotype.save(path)
    print(f"genotype: {path}")


if __name__ == "__main__":
    cli.run(main, sections=("data", "split", "search"))
