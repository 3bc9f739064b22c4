"""Whether a guided search beats random genotypes, the best of n, and poolings, on CIFAR-10.

python benchmarks/guided_search.py --workdir=DIR --data_dir=DIR [--search_seeds=0,1]

For each search seed it searches as configs/search_cifar10_small.py says: 16x16 pixels, 3 cells,
C = 16, residual units; 10,000 training images to train and 5,000 to validate on. Then it trains
afresh, for as long as the search does, with training seeds that no search has, and judges on 5,000
*other training* images that no choice has seen; the test images are not read:

| name             | genotypes                                                                    |
| ---------------- | ---------------------------------------------------------------------------- |
| found            | the search's result                                                          |
| proposed         | the best of the last round's proposals                                       |
| random           | drawn uniformly without `none`, other ones for each search seed              |
| best_of_random   | of the search's first design the best by its short training                  |
| poolings         | a random pooling on each edge                                                |
| poolings_2       | the same on two inputs per node                                              |
| random_2         | drawn uniformly on two inputs per node                                       |
| same_counts      | the found one's operations in another order within each cell type            |

All trainings run in one traced graph (`search.trainer`), so that one takes as long as its steps;
BN takes its statistics from the batch, as in the search. --epochs=6 trains three times longer.

A search that was stopped goes on with the same command, a finished training is not done again.
results.csv in the workdir has a row per training, in the order in which they come; --summarize
prints the table of those that are there, the mean over the search seeds' means, and Welch's test of
each against random, and trains nothing.
"""

import collections
import csv
import functools
import os
import statistics
import time

import numpy as np
from absl import app, flags

import cpnas_tf  # noqa: F401  chooses Keras 2
from cpnas_tf import files
from cpnas_tf.genotypes import CELL_TYPES, CHOICES, OPERATIONS, Genotype
from cpnas_tf.runs import search_log
from cpnas_tf.runs.progress import text_table

FLAGS = flags.FLAGS

NETWORK = {"cells": 3, "channels": 16, "unit": "residual"}
TRAINING = {
    **{"batch_size": 64, "optimizer": "adam", "learning_rate": 3e-3, "weight_decay": 0.0},
    "augmentation": {"crop_padding": 2, "flip": True},
}
SEARCH = {"first": 24, "rounds": 3, "proposals": 4, "finalists": 2}
SEARCH |= {"epochs": 2, "finalist_epochs": 4}
POOLINGS = ("max_pool_3x3", "avg_pool_3x3")
FIRST_TRAINING_SEED = 1_000_000  # far from those of the searches
MOST_TRAININGS = 10_000  # training seeds, each with epochs of its own in one stream
COLUMNS = ("name", "search_seed", "genotype", "training_seed", "epochs", "accuracy", "loss")
COLUMNS += ("convolutions", "seconds", "choices")


def load():
    """The images to train on, to choose by, and to judge on: parts of the training images."""
    from cpnas_tf import data

    parts = ((0, 10_000), (10_000, 15_000), (15_000, 20_000))
    images = data.load("cifar10", "train[:20000]", data_dir=FLAGS.data_dir, image_size=16)
    return [images.take(slice(*part)) for part in parts]


def search(seed, train, validation):
    """Runs or goes on with a search; returns its genotype and its log."""
    from cpnas_tf.search import GuidedSearch

    folder = os.path.join(FLAGS.workdir, f"search{seed}")
    settings = {**NETWORK, **TRAINING, **SEARCH, "inputs": FLAGS.inputs, "beta": FLAGS.beta}
    result = os.path.join(folder, "genotype.json")
    if not os.path.exists(result):
        found = GuidedSearch(train, validation, **settings, seed=seed).run(folder)
        found["genotype"].save(result)
    return Genotype.load(result), search_log.read(os.path.join(folder, "search.csv"))


def drawn(count, seed, *, operations=OPERATIONS, inputs=5):
    """Genotypes drawn uniformly without `none`."""
    from cpnas_tf.search.proposals import Space, first_design

    choices = first_design(Space(operations, inputs), count=count, seed=seed)
    return [Genotype.from_choices(OPERATIONS[index] for index in each) for each in choices]


def shuffled(genotype, count, seed):
    """Genotypes with the operations of another in another order, within each cell type."""
    generator = np.random.default_rng(seed)
    return [
        Genotype(*(generator.permutation(getattr(genotype, cell)).tolist() for cell in CELL_TYPES))
        for _ in range(count)
    ]


def genotype_of(row):
    """The genotype of a search log's row."""
    return Genotype.from_choices(row[name] for name in CHOICES)


def compared(seed, found, rows, *, random=4):
    """What a search is compared with: `(name, genotype's number, genotype)`."""
    other = 10_000 + seed  # of draws that no search makes
    groups = {
        "found": [found],
        "proposed": [genotype_of(max(last_round(rows), key=lambda row: row["score"]))],
        "random": drawn(random, other),
        "best_of_random": [
            genotype_of(
                max((row for row in rows if row["phase"] == "random"), key=lambda row: row["score"])
            )
        ],
        "same_counts": shuffled(found, 2, other),
        "poolings": drawn(1, other, operations=POOLINGS),
        "poolings_2": drawn(1, other, operations=POOLINGS, inputs=2),
        "random_2": drawn(1, other, inputs=2),
    }
    return [
        (name, number, genotype)
        for name, genotypes in groups.items()
        for number, genotype in enumerate(genotypes)
    ]


def last_round(rows):
    """The trainings of the last round of proposals."""
    proposals = [row for row in rows if row["phase"] == "guided"]
    return [row for row in proposals if row["round"] == proposals[-1]["round"]]


def make_trainer(train, judged_on):
    """What trains the genotypes that are compared, whatever their inputs."""
    from cpnas_tf.data import streams
    from cpnas_tf.networks.units import find_unit
    from cpnas_tf.search.cpnas import equal_batches
    from cpnas_tf.search.supernet import Supernet
    from cpnas_tf.search.trainer import Trainer

    batch = TRAINING["batch_size"]

    shape = {"input_shape": train.image_shape, "classes": train.classes}
    network = {**NETWORK, **shape, "unit": find_unit(NETWORK["unit"])}
    return Trainer(
        {"child": Supernet(**network, optimizer=TRAINING["optimizer"])},
        stream=functools.partial(
            streams.batches,
            train,
            batch_size=batch,
            seed=FIRST_TRAINING_SEED,
            epochs=MOST_TRAININGS * FLAGS.epochs,
            augmentation=TRAINING["augmentation"],
        ),
        validation=equal_batches(judged_on, batch),
        steps=streams.steps_per_epoch(train, batch_size=batch),
        batch_size=batch,
        learning_rate=TRAINING["learning_rate"],
        momentum=0.9,
        weight_decay=TRAINING["weight_decay"],
    )


def train_afresh(trainer, genotype, training_seed):
    """Trains a genotype; returns its accuracy and loss on images that no choice has seen."""
    started = time.process_time()
    trainer.train(
        genotype,
        seed=FIRST_TRAINING_SEED + training_seed,
        epochs=FLAGS.epochs,
        first_epoch=training_seed * FLAGS.epochs,
    )
    measures = trainer.validate(genotype)
    return {
        "accuracy": measures["child_accuracy"],
        "loss": measures["child_loss"],
        "seconds": round(time.process_time() - started, 1),
    }


def done(path):
    """The rows of results.csv."""
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def key(row):
    """What tells a training from all others."""
    names = ("name", "search_seed", "genotype", "training_seed", "epochs")
    return tuple(str(row[name]) for name in names)


def compare(seed, found, log, trainer, path):
    """Does the trainings of a search seed that are not done, one row of results.csv each."""
    genotypes = compared(seed, found, log, random=FLAGS.random)
    for training_seed in range(FLAGS.training_seeds):
        for name, number, genotype in genotypes:
            row = {
                "name": name,
                "search_seed": seed,
                "genotype": number,
                "training_seed": FLAGS.training_seeds * seed + training_seed,
                "epochs": FLAGS.epochs,
            }
            rows = done(path)
            if key(row) in set(map(key, rows)):
                continue
            row |= train_afresh(trainer, genotype, row["training_seed"])
            row["convolutions"] = sum("conv" in choice for choice in genotype.choices)
            row["choices"] = " ".join(genotype.choices)
            files.write_csv(path, [*rows, row], columns=COLUMNS)


def summarize(rows):
    """The table: each name's mean over the search seeds' means, and its test against random."""
    from scipy import stats

    means = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        means[row["name"], row["epochs"]][row["search_seed"]].append(float(row["accuracy"]))
    units = {
        name: [statistics.fmean(values) for values in seeds.values()]
        for name, seeds in means.items()
    }
    lines = [("genotypes", "epochs", "search seeds", "accuracy", "std", "to random", "Welch p")]
    for (name, epochs), values in units.items():
        random = units.get(("random", epochs), [])
        std = f"{statistics.stdev(values):.2%}" if len(values) > 1 else "-"
        to_random, p = "-", "-"
        if random and name != "random":
            to_random = f"{statistics.fmean(values) - statistics.fmean(random):+.2%}"
        if min(len(values), len(random)) > 1 and name != "random":
            p = f"{stats.ttest_ind(values, random, equal_var=False).pvalue:.4f}"
        mean = f"{statistics.fmean(values):.2%}"
        lines.append((name, epochs, str(len(values)), mean, std, to_random, p))
    return text_table(lines)


def main(_):
    """Searches and trains what is not done, and prints the table."""
    path = os.path.join(FLAGS.workdir, "results.csv")
    if FLAGS.summarize:
        print(summarize(done(path)))
        return
    train, validation, judged_on = load()
    with files.exclusive(FLAGS.workdir):
        trainer = None
        for seed in map(int, FLAGS.search_seeds):
            found, log = search(seed, train, validation)
            trainer = trainer or make_trainer(train, judged_on)
            compare(seed, found, log, trainer, path)
            print(summarize(done(path)), flush=True)


def define_flags():
    """Defines the flags; not on import, since a test imports several benchmarks."""
    flags.DEFINE_string("workdir", None, "Folder of the searches and results.", required=True)
    flags.DEFINE_string("data_dir", None, "TFDS data directory, TFDS's own by default.")
    flags.DEFINE_list("search_seeds", ["0"], "Seeds of the searches.")
    flags.DEFINE_integer("training_seeds", 2, "Trainings per genotype.")
    flags.DEFINE_integer("random", 4, "Random genotypes per search seed.")
    flags.DEFINE_integer("epochs", 2, "Epochs of a training afresh.")
    flags.DEFINE_integer("inputs", 5, "How many edges a node keeps in the search; 5 keeps all.")
    flags.DEFINE_float("beta", 0.0, "beta_P of the search.")
    flags.DEFINE_bool("summarize", False, "Print the table of the trainings that are done.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
