"""Searches a binary architecture.

python bin/search.py --config=configs/FILE.py --workdir=DIR

Writes genotype.json, search.csv, config.json and the tuner's project folder into the workdir. A
search that was stopped goes on with the same command.
"""

import os

from absl import flags

from cpnas_tf import cli

FLAGS = flags.FLAGS
cli.define_config()
cli.define_folder("workdir", "Folder of the search.")
cli.define_overwrite()
flags.adopt_module_key_flags(cli)


def main():
    """Runs the search that the flags describe."""
    from cpnas_tf import data, workdir
    from cpnas_tf.search import search

    config = FLAGS.config
    cli.make_deterministic(config.search.seed)
    images = data.load(config.data.name, config.data.split, data_dir=FLAGS.data_dir)
    train, validation = data.split_for_search(images, **config.split)
    with workdir.claim(
        FLAGS.workdir,
        cli.resolved_config(command="search"),
        result="genotype.json",
        written=("genotype.json", "search.csv", "tuner"),
        overwrite=FLAGS.overwrite,
    ):
        genotype = search(train, validation, directory=FLAGS.workdir, **config.search)
        path = os.path.join(FLAGS.workdir, "genotype.json")
        genotype.save(path)
    print(f"genotype: {path}")


if __name__ == "__main__":
    cli.run(main)
