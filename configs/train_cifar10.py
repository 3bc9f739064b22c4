"""Trains a CP-NAS network on CIFAR-10 with the paper's settings (section 3.1), for its Table 1.

    python bin/train.py --config=configs/train_cifar10.py --genotype=FILE --workdir=DIR

C = 56 is the paper's Small: 6.5% test error. `--config.network.channels=72` is its Medium (5.72%)
and 112 its Large (4.73%). Nothing of this has been measured here yet. lambda, which the paper does
not print, is `centre_weight`: 1e-2 is not a measured choice.
"""

from ml_collections import ConfigDict


def get_config():
    """The paper's training: 10 cells, 600 epochs, cutout, Equation 3 with its weight of 1."""
    return ConfigDict(
        {
            "strategy": "none",
            "mixed_precision": False,
            "data": {"name": "cifar10", "split": "train"},
            "network": {"cells": 10, "channels": 56},
            "training": {
                "epochs": 600,
                "batch_size": 96,
                "optimizer": "sgd",
                "learning_rate": 0.025,
                "momentum": 0.9,
                "weight_decay": 3e-4,
                "gradient_clip": 5.0,
                "augmentation": {"crop_padding": 4, "flip": True, "cutout": 16},
                "seed": 0,
            },
            "child_parent": {"filter_weight": 1.0, "centre_weight": 1e-2},
        }
    )
