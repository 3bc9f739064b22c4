"""CP-NAS on CIFAR-10 with the paper's settings (section 3.1): T = 3, 105 architectures.

    cpnas search --config=cifar10 --workdir=DIR [--config.method=pc_darts]

The paper: 0.1 GPU-days on TITAN V. A small try of the whole algorithm on two CPU cores adds
`--config.split.train_images=1024 --config.split.validation_images=256 --config.search.rounds=1
--config.search.indicator=additive --config.search.batch_size=64`.
"""

from ml_collections.config_dict import ConfigDict, placeholder

from cpnas_tf.genotypes import OPERATIONS


def get_config():
    """The paper's search: 6 cells, C = 16, half of the training set, 5% to validate."""
    return ConfigDict(
        {
            "method": "cpnas",
            "strategy": "none",
            "data": {"name": "cifar10", "split": "train", "image_size": placeholder(int)},
            "split": {
                "train_fraction": 0.5,
                "validation_fraction": 0.05,
                "train_images": placeholder(int),  # a number instead of the fraction
                "validation_images": placeholder(int),
                "seed": 0,
            },
            "search": {
                "cells": 6,
                "channels": 16,
                "rounds": 3,
                "beta": 2.0,
                "batch_size": 512,
                "learning_rate": 0.025,
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "operations": OPERATIONS,
                "allow_none": True,
                "augmentation": {"crop_padding": 4, "flip": True, "cutout": 0},
                "mixed_precision": False,
                "seed": 0,
            },
            "pc_darts": {"cells": 6, "epochs": 50, "precision": "child", "seed": 0},
        }
    )
