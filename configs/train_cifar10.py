"""Trains the networks of the paper's Table 1 on CIFAR-10, with its settings (section 3.1).

    cpnas train --config=cifar10:small --genotype=FILE --workdir=DIR

| variant, C | the paper's test error, parameters, Mbit, MFLOPs | ours |
| --- | --- | --- |
| small, 56 | 6.5%, 2.9 M, 3.32, 12.89 | 5.3 M, 5.76, 17.20 |
| medium, 72 | 5.72%, 4.4 M, 4.85, 18.30 | 8.7 M, 9.24, 26.29 |
| large, 112 | 4.73%, 10.6 M, 11.51, 38.67 | 20.7 M, 21.52, 57.17 |

Ours: the genotype of `benchmarks/results/search_cifar10_2560`, counted. docs/results: loss weights.
"""

from ml_collections.config_dict import ConfigDict, placeholder

CHANNELS = {"small": 56, "medium": 72, "large": 112}


def get_config(size="small"):
    """The paper's training: 10 cells, 600 epochs, cutout and the Child-Parent loss."""
    if size not in CHANNELS:
        raise ValueError(f"the variant must be one of {', '.join(CHANNELS)}, received: {size!r}")
    loss = {"filter_weight": 1e-3, "centre_weight": 1e-1, "warmup_epochs": 0, "pooled": False}
    return ConfigDict(
        {
            "strategy": "none",
            "mixed_precision": False,
            "data": {"name": "cifar10", "split": "train", "image_size": placeholder(int)},
            "split": {"validation_images": placeholder(int), "seed": 0},
            "network": {"cells": 10, "channels": CHANNELS[size], "drop_path": 0.0},
            "training": {
                "epochs": 600,
                "batch_size": 96,
                "optimizer": "sgd",
                "learning_rate": 0.025,
                "momentum": 0.9,
                "weight_decay": 3e-4,
                "decay_batch_norm": True,
                "gradient_clip": 5.0,
                "label_smoothing": 0.0,
                "auxiliary_weight": 0.0,
                "early_stopping": placeholder(int),
                "jit_compile": False,
                "steps_per_execution": 1,
                "augmentation": {"crop_padding": 4, "flip": True, "cutout": 16},
                "seed": 0,
            },
            "child_parent": loss,
        }
    )
