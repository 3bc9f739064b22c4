"""Counts what a network costs: parameters, bits, MACs and FLOPs, a layer and in total.

python bin/profile.py --genotype=FILE --config=configs/FILE.py [--precision=parent]
python bin/profile.py --model=wrn22|wrn22_1bit|resnet18|birealnet18

The config is one of bin/train.py, whose data set is not read. Prints a table, with WRN-22 beside
it, or with --json one JSON object. --csv=FILE writes the layers.
"""

import json
import os

from absl import flags

from cpnas_tf.cli import app, config

FLAGS = flags.FLAGS
app.define_network()
app.define_config(required=False)
flags.DEFINE_bool("json", False, "Print one JSON object instead of the table.")
flags.DEFINE_string("csv", None, "File for the layers' costs.")
app.define_overwrite()
flags.adopt_module_key_flags(app)


def main():
    """Counts the network that the flags describe, and prints its costs."""
    from cpnas_tf.genotypes import Genotype

    app.precision()
    if FLAGS.model and FLAGS.config:
        raise ValueError("--config goes with --genotype, not with --model")
    if not FLAGS.model and not FLAGS.config:
        raise ValueError("--config is needed with --genotype, see --help")
    if FLAGS.csv and os.path.exists(FLAGS.csv) and not FLAGS.overwrite:
        raise ValueError(f"{FLAGS.csv} exists: replace it with --overwrite")
    genotype = None if FLAGS.model else Genotype.load(FLAGS.genotype)
    app.load_tensorflow()
    from cpnas_tf.networks import costs, reference

    model = getattr(reference, FLAGS.model)() if FLAGS.model else _network(genotype)
    profile = costs.profile(model)
    if FLAGS.csv:
        costs.write_csv(FLAGS.csv, profile["layers"])
    if FLAGS.json:
        print(json.dumps(profile))
    else:
        _print_layers(profile["layers"])
        _print_comparison(profile, with_paper=model.input_shape[1:] == (32, 32, 3))


def _network(genotype):
    from cpnas_tf import data
    from cpnas_tf.networks.cells import build_network

    input_shape, classes = config.call(data.describe, section="data")
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

    widths = {name: max(len(name), len("1,000,000,000")) for name in costs.COUNTS}
    print(f"{'layer':38}{'kind':12}{'output':>11}", *(f"{n:>{w}}" for n, w in widths.items()))
    rows = [(layer["name"], layer["kind"], costs.shape_text(layer), layer) for layer in layers]
    for name, kind, shape, counts in [*rows, ("total", "", "", costs.total(layers))]:
        numbers = (f"{counts[count]:{width},.0f}" for count, width in widths.items())
        print(f"{name:38}{kind:12}{shape:>11}", *numbers)


def _print_comparison(profile, *, with_paper):
    from cpnas_tf.reports.paper_tables import TABLE_3

    memory, flops = profile["memory_mbit"], profile["flops_m"]
    saving, speedup = profile["memory_saving"], profile["speedup"]
    rows = {
        "this network": (memory, flops, saving, speedup),
        "WRN-22, real, on CIFAR-10": (memory * saving, flops * speedup, 1, 1),
    }
    if with_paper:
        rows |= {f"paper: {name}": figures for name, figures in TABLE_3.items()}
    print(f"\n{'':32}{'Mbit':>10}{'MFLOPs':>10}{'saving':>10}{'speedup':>10}")
    for name, (memory, flops, saving, speedup) in rows.items():
        print(f"{name:32}{memory:10.2f}{flops:10.2f}{saving:9.2f}x{speedup:9.2f}x")


if __name__ == "__main__":
    app.run(
        main,
        sections=("strategy", "mixed_precision", "data", "network", "training", "child_parent"),
    )
