"""Finds the best genotype under every budget of bits, from one search.

cpnas front --workdir=SEARCH --config=NAME --output=DIR [--config.front.max_mbit=2]

--workdir is that of a `cpnas search` that scores architectures, not of pc_darts; it may be
unfinished. The config is one of `cpnas train`: what its network costs is what counts. Both
--config.front.max_mbit and --config.front.max_mflops limit all genotypes.

Writes front.csv and its picture, some genotypes of all sizes, and the best one as genotype.json.
"""

import os

from absl import flags

from cpnas_tf.catalogue import OTHER_LOSSES
from cpnas_tf.cli import app, config, recipes
from cpnas_tf.runs.progress import show, text_table

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command."""
    app.define_path("workdir", "Workdir of a `cpnas search`.")
    app.define_config("train", recipes.TRAINING_SECTIONS, optional=("front", *OTHER_LOSSES))
    app.define_data_dir()
    app.define_path("output", "Folder for the front.")
    app.define_overwrite()


def main() -> None:
    """Finds the front of the search that the flags name, writes it and prints what was kept."""
    from cpnas_tf.runs import search_log, workdir

    rows = search_log.read(os.path.join(FLAGS.workdir, "search.csv"))
    run = config.resolved_config(command="front", search=os.path.abspath(FLAGS.workdir))
    claim = workdir.claim(
        FLAGS.output,
        run,
        result="front.csv",
        written=workdir.FRONT,
        overwrite=FLAGS.overwrite,
    )
    app.load_tensorflow()
    from cpnas_tf.search import front

    estimate = front.estimate_of(rows)
    points = config.call(front.find_front, estimate, _costs(estimate), section="front")
    with claim:
        kept = front.write(FLAGS.output, points, **FLAGS.config.get("front", {}))
    columns = ("genotype", "Mbit", "MFLOPs", "score")
    lines = [
        (name, f"{point.mbit:.3f}", f"{point.mflops:.3f}", f"{point.score:.4f}")
        for name, point in kept.items()
    ]
    show(text_table([columns, *lines]))


def _costs(estimate):
    """What the operations of a search cost in the network of the config."""
    from cpnas_tf import data
    from cpnas_tf.networks import costs
    from cpnas_tf.networks.cells import build_network

    input_shape, classes = config.call(data.describe, section="data")

    def build(genotype):
        return config.call(
            build_network, genotype, section="network", input_shape=input_shape, classes=classes
        )

    return costs.choice_costs(build, estimate.operations)
