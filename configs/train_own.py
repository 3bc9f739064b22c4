"""Trains a network on own photos, see `configs/search_own.py`.

    cpnas train --config=own --config.data.name=folder:PHOTOS --genotype=FILE --workdir=DIR

It validates on the photos that the search validates on; `cpnas evaluate` alone sees those to test
with. Classes with fewer photos count as much as the others.
"""

from ml_collections.config_dict import ConfigDict, placeholder


def get_config():
    """3 cells, C = 16, 60 epochs."""
    return ConfigDict(
        {
            "strategy": "none",
            "mixed_precision": False,
            "data": {
                "name": "folder:photos",
                "split": "train",
                "image_size": placeholder(int),
                "largest_size": 64,
            },
            "split": {"validation_fraction": 0.15, "seed": 0},
            "network": {"cells": 3, "channels": 16, "unit": "residual"},
            "training": {
                "epochs": 60,
                "batch_size": 32,
                "optimizer": "adam",
                "learning_rate": 0.01,
                "weight_decay": 0.0,
                "gradient_clip": 5.0,
                "class_weights": True,
                "label_smoothing": 0.0,
                "early_stopping": placeholder(int),
                "jit_compile": False,
                "augmentation": {"crop_padding": 4, "flip": True},
                "seed": 0,
            },
            "child_parent": {"filter_weight": 1e-3, "centre_weight": 1e-2},
        }
    )
