"""CP-NAS on ImageNet with the paper's settings (section 3.1): T = 3, 105 architectures.

    cpnas search --config=imagenet --workdir=DIR [--data_dir=DIR]

As on CIFAR-10 but for the learning rate and beta_P; the paper: 2.8 GPU-days on TITAN V. Nothing of
it has been measured here, memory neither. The network begins with the stem of
configs/train_imagenet.py; as large as an architecture of it, 0.51 M parameters of which 0.26 M are
real, is benchmarks/results/search_cifar10_2560 with 6 cells and C = 16.
"""

from ml_collections.config_dict import ConfigDict, placeholder

from cpnas_tf.genotypes import OPERATIONS


def get_config():
    """The paper's search: 6 cells, C = 16, half of the training set, 5% to validate."""
    return ConfigDict(
        {
            "method": "cpnas",
            "strategy": "none",
            "data": {"name": "imagenet2012", "split": "train", "image_size": 224},
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
                "stem": "imagenet",
                "real_inputs": (),
                "rounds": 3,
                "beta": 0.33,
                "batch_size": 512,
                "learning_rate": 0.05,
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "operations": OPERATIONS,
                "allow_none": True,
                "augmentation": {"crop_area": 0.08, "flip": True},
                "mixed_precision": False,
                "seed": 0,
            },
            "pc_darts": {},
        }
    )
