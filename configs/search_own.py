"""CP-NAS on own photos: 35 architectures; T = 1, so a stage drops its worst one's operations.

    cpnas search --config=own --config.data.name=folder:PHOTOS --workdir=DIR

The photos lie in folders, one per class: PHOTOS/CLASS/1.jpg; or PHOTOS/train/CLASS/1.jpg and
PHOTOS/test/CLASS/2.jpg. Their size is chosen: their middle gets 64x64 pixels, less if the photos
are smaller or many. `--config.data.image_size=96` is another one. For 300 to 30,000 of them.
"""

from ml_collections.config_dict import ConfigDict, placeholder

from cpnas_tf.genotypes import OPERATIONS


def get_config():
    """3 cells, C = 16, at most 2000 photos to train on and 500 to validate on."""
    return ConfigDict(
        {
            "method": "cpnas",
            "strategy": "none",
            "data": {
                "name": "folder:photos",
                "split": "train",
                "image_size": placeholder(int),
                "largest_size": 64,
            },
            "split": {
                "train_fraction": placeholder(float),  # all that are not validated on
                "validation_fraction": 0.15,  # where no part of the folder is for that
                "most_images": 2000,
                "seed": 0,
            },
            "search": {
                "cells": 3,
                "channels": 16,
                "unit": "residual",
                "rounds": 1,
                "beta": 2.0,
                "batch_size": 32,
                "optimizer": "adam",
                "learning_rate": 0.01,
                "weight_decay": 0.0,
                "operations": OPERATIONS,
                "allow_none": True,
                "augmentation": {"crop_padding": 4, "flip": True},
                "seed": 0,
            },
            "pc_darts": {},
        }
    )
