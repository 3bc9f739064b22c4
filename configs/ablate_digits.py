"""CP-NAS against random search, BNAS† and PC-DARTS on digits: 5 search, 3 training seeds each.

cpnas ablate --config=digits --workdir=DIR

T = 1: a stage of CP-NAS and BNAS† drops all 28 operations of its worst architecture, and no edge is
judged by itself as with the paper's T = 3.

Searches and training are those of `configs/search_digits.py`, which says what they cost, and of
`configs/train_digits.py`. docs/results has a table, of the paper's units. Fig. 6 left of the paper,
accuracy over beta_P, adds `--config.grid.betas="(-1, .33, 1, 2, 3, 5)"`.
"""

from ml_collections import ConfigDict

from cpnas_tf.genotypes import OPERATIONS


def get_config():
    """60 runs: 4 methods, 20 searches or draws, 3 cells, C = 16."""
    return ConfigDict(
        {
            "grid": {
                "methods": ("random", "bnas", "cpnas", "pc_darts"),
                "betas": (2.0,),
                "search_seeds": (0, 1, 2, 3, 4),
                "training_seeds": (0, 1, 2),
            },
            "data": {"name": "digits", "split": "train"},
            "split": {"train_images": 1152, "validation_images": 256, "seed": 0},
            "search": {
                **{"cells": 3, "channels": 16, "unit": "residual"},
                "rounds": 1,
                "batch_size": 128,
                "learning_rate": 0.1,
                "operations": OPERATIONS,
                "allow_none": True,
            },
            "pc_darts": {
                **{"cells": 3, "unit": "residual", "batch_size": 64},
                **{"epochs": 67, "warmup_epochs": 20},
            },
            "network": {"cells": 3, "channels": 16, "unit": "residual"},
            "training": {
                **{"epochs": 40, "batch_size": 128, "optimizer": "adam"},
                **{"learning_rate": 0.02, "weight_decay": 0.0},
            },
            "child_parent": {"filter_weight": 1e-3, "centre_weight": 1e-2},
        }
    )
