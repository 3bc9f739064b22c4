"""The log of a search with PC-DARTS, without the search."""

import random

from cpnas_tf.genotypes import CHOICES, OPERATIONS
from cpnas_tf.runs import search_log


def run_epochs(epochs, *, warmup_epochs=2, seed=0):
    """Rows as `search_log.read` gives them."""
    chance = random.Random(seed)
    return [
        {
            "epoch": epoch,
            **{choice: chance.choice(OPERATIONS) for choice in CHOICES},
            "loss": 2.0 / epoch,
            "accuracy": 1 - 0.5 / epoch,
            "architecture_loss": 2.5 / epoch if epoch > warmup_epochs else None,
            "architecture_accuracy": 1 - 0.75 / epoch if epoch > warmup_epochs else None,
            "seconds": 1.5,
        }
        for epoch in range(1, epochs + 1)
    ]


def write(path, rows):
    """Writes what a search with these rows would write."""
    search_log.write_epochs(path, [{"choices": [row[c] for c in CHOICES], **row} for row in rows])
    return path
