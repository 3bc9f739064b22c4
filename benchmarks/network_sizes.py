"""What the paper's networks cost: a genotype's and random ones, beside the paper's own.

python benchmarks/network_sizes.py [--genotype=FILE] [--random=20]

Builds the children of 10 cells for CIFAR-10 at C = 56, 72 and 112 (Small, Medium, Large) and for
ImageNet at C = 102, as configs/train_cifar10.py and configs/train_imagenet.py do, and counts them
by the paper's accounting (see cpnas_tf/networks/costs.py). The last line is one JSON object: for
each network the `paper`'s figures where it prints them, the genotype's (`ours`), and for CIFAR-10
`random`, the smallest and the largest of the random genotypes. Parameters in millions, of which
`real_parameters`; Mbit; MFLOPs; saving and speedup against WRN-22. A build takes some 8 s of
processor time, and 20 random genotypes are 60 builds.
"""

import json
import os
import random

from absl import app, flags

import cpnas_tf  # noqa: F401  (before TensorFlow: Keras 2)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from cpnas_tf.genotypes import OPERATIONS, Genotype
from cpnas_tf.networks import costs
from cpnas_tf.networks.cells import build_network
from cpnas_tf.networks.reference import wrn22
from cpnas_tf.reports.paper_tables import TABLE_3

FLAGS = flags.FLAGS
flags.DEFINE_string(
    "genotype", "benchmarks/results/search_cifar10_2560/genotype.json", "Genotype file."
)
flags.DEFINE_integer("random", 20, "How many random genotypes.")

CIFAR = {"input_shape": (32, 32, 3), "classes": 10}
IMAGENET = {"input_shape": (224, 224, 3), "classes": 1000, "channels": 102, "stem": "imagenet"}
NETWORKS = {
    "Small": {**CIFAR, "channels": 56},
    "Medium": {**CIFAR, "channels": 72},
    "Large": {**CIFAR, "channels": 112},
    "ImageNet": IMAGENET,
    "ImageNet *": {**IMAGENET, "real_inputs": ("depthwise",)},
    "ImageNet **": {**IMAGENET, "real_inputs": ("depthwise", "preprocessing")},
}
COLUMNS = ("parameters", "real_parameters", "mbit", "mflops", "saving", "speedup")
PARAMETERS = {"Small": 2.9, "Medium": 4.4, "Large": 10.6, "ImageNet *": 12.5, "ImageNet **": 12.5}


def paper(name):
    """What the paper's Tables 1 to 3 print of a network, by column."""
    memory = dict(zip(COLUMNS[2:], TABLE_3.get(f"CP-NAS ({name})", ()), strict=False))
    return {"parameters": PARAMETERS[name], **memory} if name in PARAMETERS else {}


def measure(genotype, settings, reference):
    """Counts the child of a genotype, by column."""
    total = costs.total(costs.layer_costs(build_network(genotype, cells=10, **settings)))
    return {
        "parameters": (total["real_parameters"] + total["binary_parameters"]) / 1e6,
        "real_parameters": total["real_parameters"],
        "mbit": total["bits"] / 1e6,
        "mflops": total["flops"] / 1e6,
        "saving": reference["bits"] / total["bits"],
        "speedup": reference["flops"] / total["flops"],
    }


def span(rows):
    """The smallest and the largest of each column."""
    return {key: [pick(row[key] for row in rows) for pick in (min, max)] for key in COLUMNS}


def text(value):
    """A figure, a span of two or nothing, for the table."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "-".join(map(text, value))
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


def main(_):
    """Builds and counts all networks; prints the table and the JSON object."""
    reference = costs.total(costs.layer_costs(wrn22()))
    ours = Genotype.load(FLAGS.genotype)
    others = [
        Genotype.from_choices(random.Random(seed).choices(OPERATIONS, k=28))
        for seed in range(FLAGS.random)
    ]
    result = {}
    print(f"{'network':12}{'':8}", *(f"{column:>23}" for column in COLUMNS))
    for name, settings in NETWORKS.items():
        rows = {"paper": paper(name), "ours": measure(ours, settings, reference)}
        if others and settings["classes"] == CIFAR["classes"]:
            rows["random"] = span([measure(genotype, settings, reference) for genotype in others])
        for kind, row in rows.items():
            print(f"{name:12}{kind:8}", *(f"{text(row.get(column)):>23}" for column in COLUMNS))
        result[name] = rows
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
