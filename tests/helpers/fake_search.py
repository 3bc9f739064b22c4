"""A search that never ran, for the tests of its log and of the pictures of it."""

import random

from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.runs import search_log
from cpnas_tf.search.oracle import Result


def run_search(*, rounds, seed=0, operations=OPERATIONS):
    """What Algorithm 1 would log, accuracies drawn at random.

    Returns:
        The rows, the operations left on the 28 edges in each stage, and the genotype.
    """
    generator = random.Random(seed)
    left = {edge: list(operations) for edge in CHOICES}
    rows, history = [], []
    for stage in range(len(operations) - 1):
        history.append({edge: tuple(names) for edge, names in left.items()})
        for round_index in range(rounds):
            orders = {edge: generator.sample(names, len(names)) for edge, names in left.items()}
            for sample in range(len(operations) - stage):
                child, parent = generator.uniform(0.1, 0.5), generator.uniform(0.5, 0.9)
                rows.append(
                    {
                        "stage": stage,
                        "round": round_index,
                        "sample": sample,
                        **{edge: order[sample] for edge, order in orders.items()},
                        "child_accuracy": child,
                        "parent_accuracy": parent,
                        "z": child + 2 * (parent - child),
                        "seconds": 1.5,
                    }
                )
        for names in left.values():
            names.remove(generator.choice(names))
    return rows, history, Genotype.from_choices(names[0] for names in left.values())


def without_parents(rows):
    """The rows of a search that trains and scores children alone."""
    return [{**row, "parent_accuracy": None, "z": row["child_accuracy"]} for row in rows]


def write_log(path, rows):
    """Writes what a search with these rows would write."""
    results = [
        Result(
            choices=tuple(row[name] for name in CHOICES),
            **{name: row[name] for name in Result._fields if name != "choices"},
        )
        for row in rows
    ]
    search_log.write(path, results, [row["seconds"] for row in rows])
    return path
