"""CP-NAS on UCI digits, the search of `make quickstart`: 8 operations, T = 1, 35 architectures.

python bin/search.py --config=configs/search_digits.py --workdir=DIR
"""

from ml_collections import ConfigDict

from cpnas_tf.genotypes import OPERATIONS


def get_config():
    """The search on digits: 8x8 images, 3 cells, C = 16."""
    return ConfigDict(
        {
            "strategy": "none",
            "data": {"name": "digits", "split": "train"},
            "split": {"train_images": 1152, "validation_images": 256, "seed": 0},
            "search": {
                "cells": 3,
                "channels": 16,
                "rounds": 1,
                "beta": 2.0,
                "batch_size": 128,
                "learning_rate": 0.1,
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "operations": OPERATIONS,
                "allow_none": True,
                "seed": 0,
            },
        }
    )
