"""A program of a user who adds an operation: its row first, then the library.

python new_operation.py FOLDER     searches, trains, exports, draws and reports with it
"""

import pathlib
import sys

from cpnas_tf.operations import OPERATION_FUNCTIONS, sep_conv

NAME = "sep_conv_7x7"
OPERATION_FUNCTIONS[NAME] = sep_conv(7)


def main(folder):
    import numpy as np
    import tensorflow as tf

    from cpnas_tf import Genotype, build_network, train
    from cpnas_tf.data import Images
    from cpnas_tf.export import export
    from cpnas_tf.files import write_json
    from cpnas_tf.genotypes import EDGES
    from cpnas_tf.networks.costs import profile
    from cpnas_tf.plots.search import plot
    from cpnas_tf.reports.pages import make_report
    from cpnas_tf.runs import search_log
    from cpnas_tf.search import search
    from cpnas_tf.search.pc_darts import PCDarts
    from cpnas_tf.search.supernet import Supernet

    tf.keras.utils.set_random_seed(0)
    pixels = np.random.default_rng(0).integers(256, size=(32, 8, 8, 1)).astype(np.uint8)
    images = Images(pixels, np.arange(32) % 2, ("even", "odd"))
    network = {"input_shape": images.image_shape, "classes": 2, "cells": 1, "channels": 2}
    none = ["none"] * len(EDGES)
    genotype = Genotype(normal=none, reduce=[NAME, *none[:-2], NAME])
    genotype.save(folder / "own.json")

    space = {"cells": 1, "batch_size": 16, "operations": ("skip_connect", NAME)}
    found = search(images, images, directory=folder / "cpnas", channels=2, rounds=1, **space)
    found.save(folder / "cpnas" / "genotype.json")
    epochs = {"epochs": 1, "warmup_epochs": 0, "channels": 4}
    PCDarts(images, images, **epochs, **space).run(folder / "pc_darts")

    supernet = Supernet(**network, operations=("none", NAME))
    batch = tf.constant(images.images / 127.5 - 1, tf.float32)
    shared = tf.function(supernet.logits)(batch, tf.constant(genotype.indices))
    np.testing.assert_allclose(supernet.derive(genotype)(batch, training=True), shared, atol=1e-4)

    child = build_network(genotype, **network)
    settings = {"validation": images, "epochs": 1, "batch_size": 16}
    train(child, images, directory=folder / "train", **settings)
    write_json(folder / "profile.json", profile(child))
    write_json(folder / "summary.json", export(child, images, directory=folder / "export"))
    for name in ("cpnas", "pc_darts"):
        rows = search_log.read(folder / name / "search.csv")
        plot(folder / name / "plots", genotype=genotype, rows=rows)
        (folder / name / "report.html").write_bytes(make_report(folder / name))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
