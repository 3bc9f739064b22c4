"""A guided search on CIFAR-10 at 16x16 pixels: 38 trainings of half a minute each on two cores.

    cpnas search --config=cifar10_small --workdir=DIR [--config.guided.seed=1]

It searches with the first 15,000 training images, 10,000 to train and 5,000 to validate on.
"""

from ml_collections.config_dict import ConfigDict, placeholder


def get_config():
    """3 cells, C = 16, residual units, 2 epochs per training and 4 per finalist."""
    network = {"cells": 3, "channels": 16, "unit": "residual"}
    training = {
        "batch_size": 64,
        "learning_rate": 3e-3,
        "weight_decay": 0.0,
        "augmentation": {"crop_padding": 2, "flip": True},
    }
    return ConfigDict(
        {
            "method": "guided",
            "strategy": "none",
            "data": {"name": "cifar10", "split": "train[:15000]", "image_size": 16},
            "split": {
                "train_images": 10_000,
                "validation_images": 5000,
                "train_fraction": placeholder(float),
                "validation_fraction": placeholder(float),
                "seed": 0,
            },
            "search": {**network, **training, "optimizer": "adam", "rounds": 3, "seed": 0},
            "pc_darts": {"cells": 3, "unit": "residual", "epochs": 50, "seed": 0},
            "guided": {
                **network,
                **training,
                "optimizer": "adam",
                "inputs": 5,
                "first": 24,
                "rounds": 3,
                "proposals": 4,
                "finalists": 2,
                "epochs": 2,
                "finalist_epochs": 4,
                "beta": 0.0,
                "seed": 0,
            },
        }
    )
