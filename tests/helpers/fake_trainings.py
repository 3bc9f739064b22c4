"""The log of a guided search, without the search."""

import random

from cpnas_tf.genotypes import CHOICES, OPERATIONS
from cpnas_tf.runs import search_log

ROUNDS = ("random", "guided", "guided", "final")


def run_trainings(*, first=5, proposals=2, finalists=2, parent=False, seed=0):
    """Rows as `search_log.read` gives them: two rounds of proposals that gain from one another."""
    chance = random.Random(seed)
    counts = (first, proposals, proposals, finalists)
    rows = []
    for round_index, (phase, count) in enumerate(zip(ROUNDS, counts, strict=True)):
        for _ in range(count):
            loss = 1.8 - 0.1 * round_index + chance.uniform(-0.05, 0.05)
            rows.append(
                {
                    "training": len(rows) + 1,
                    "phase": phase,
                    "round": round_index,
                    "epochs": 4 if phase == "final" else 2,
                    **{choice: chance.choice(OPERATIONS[1:]) for choice in CHOICES},
                    "child_loss": loss,
                    "child_accuracy": 1 - loss / 3,
                    "parent_loss": loss / 2 if parent else None,
                    "parent_accuracy": 1 - loss / 6 if parent else None,
                    "score": -loss,
                    "predicted": None if phase == "random" else -1.8 + 0.08 * round_index,
                    "left_out": None if phase == "final" else -1.02 * loss,
                    "seconds": 1.5,
                }
            )
    return rows


def write(path, rows):
    """Writes what a search with these rows would write."""
    search_log.write_trainings(path, rows)
    return path
