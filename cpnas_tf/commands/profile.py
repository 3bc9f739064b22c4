"""Counts what a network costs: parameters, bits, MACs and FLOPs, a layer and in total.

cpnas profile --genotype=FILE --config=NAME [--precision=parent]
cpnas profile --model=wrn22|wrn22_1bit|resnet18|resnet18_1bit|birealnet18 [--config=NAME]

The config is one of `cpnas train`, whose data set is not read. With --model it gives the images'
size, the number of classes and how kernels and activations are binarized. Prints a table, with
WRN-22 beside it, or with --json one JSON object. --csv=FILE writes the layers. By the paper's
rule convolutions and classifier count; what is "whole" has batch normalizations, shortcuts, means
and pools as well.
"""

import json
import os

from absl import flags

from cpnas_tf.catalogue import OTHER_LOSSES, binary_settings
from cpnas_tf.cli import app, config, recipes

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command."""
    app.define_network()
    app.define_config("train", recipes.TRAINING_SECTIONS, optional=OTHER_LOSSES, required=False)
    app.define_switch("json", "Print one JSON object instead of the table.")
    app.define_path("csv", "File for the layers' costs.", required=False)
    app.define_overwrite()


def main() -> None:
    """Counts the network that the flags describe, and prints its costs."""
    from cpnas_tf.genotypes import Genotype

    app.precision()
    if not FLAGS.model and not FLAGS.config:
        raise ValueError("--config is needed with --genotype, see --help")
    if FLAGS.csv and os.path.exists(FLAGS.csv) and not FLAGS.overwrite:
        raise ValueError(f"{FLAGS.csv} exists: replace it with --overwrite")
    genotype = None if FLAGS.model else Genotype.load(FLAGS.genotype)
    app.load_tensorflow()
    from cpnas_tf.networks import costs, reference

    model = _network(genotype) if FLAGS.config else reference.build(FLAGS.model)
    profile = costs.profile(model)
    if FLAGS.csv:
        costs.write_csv(FLAGS.csv, profile["layers"])
    if FLAGS.json:
        app.output(json.dumps(profile))
    else:
        _print_layers(profile["layers"])
        _print_comparison(profile, on_cifar10=model.input_shape[1:] == (32, 32, 3))


def _network(genotype):
    from cpnas_tf import data
    from cpnas_tf.networks import reference
    from cpnas_tf.networks.cells import build_network

    input_shape, classes = config.call(data.describe, section="data")
    if FLAGS.model:
        shape = {"input_shape": input_shape, "classes": classes}
        with config.flagged("network"):
            return reference.build(FLAGS.model, **shape, **binary_settings(FLAGS.config.network))
    return config.call(
        build_network,
        genotype,
        section="network",
        input_shape=input_shape,
        classes=classes,
        precision=app.precision(),
    )


def _print_layers(layers):
    from cpnas_tf.networks import costs
    from cpnas_tf.runs.progress import text_table

    rows = [(layer["name"], layer["kind"], costs.shape_text(layer), layer) for layer in layers]
    rows.append(("total", "", "", costs.total(layers)))
    lines = [
        (*names, *(f"{counts[count]:,.0f}" for count in costs.COUNTS)) for *names, counts in rows
    ]
    app.output(text_table([("layer", "kind", "output", *costs.COUNTS), *lines], left=2))


def _print_comparison(profile, *, on_cifar10):
    """Prints the totals beside WRN-22's, which are for the images of CIFAR-10.

    Only a network for images of that size has a speedup and the paper's figures beside it.
    """
    from cpnas_tf.reports.paper_tables import TABLE_3
    from cpnas_tf.runs.progress import text_table

    rows = {}
    for prefix, whole in (("", ""), ("whole_", ", whole")):
        memory, flops = profile[f"{prefix}memory_mbit"], profile[f"{prefix}flops_m"]
        saving, speedup = profile[f"{prefix}memory_saving"], profile[f"{prefix}speedup"]
        rows |= {
            f"this network{whole}": (memory, flops, saving, speedup if on_cifar10 else None),
            f"WRN-22, real, on CIFAR-10{whole}": (memory * saving, flops * speedup, 1, 1),
        }
    if on_cifar10:
        rows |= {f"paper: {name}": figures for name, figures in TABLE_3.items()}
    lines = [("", "Mbit", "MFLOPs", "saving", "speedup")]
    for name, (memory, flops, saving, speedup) in rows.items():
        ratios = ("-" if ratio is None else f"{ratio:.2f}x" for ratio in (saving, speedup))
        lines.append((name, f"{memory:.2f}", f"{flops:.2f}", *ratios))
    app.output(f"\n{text_table(lines)}")
