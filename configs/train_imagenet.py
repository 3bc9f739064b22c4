"""Trains the networks of the paper's Table 2 on ImageNet, with its settings (section 3.1).

    cpnas train --config=imagenet:star --genotype=FILE --workdir=DIR

| variant | real inputs | the paper's top-1, top-5, parameters | ours |
| --- | --- | --- | --- |
| plain | none | | 18.9 M, 73.9 Mbit, 269 MFLOPs |
| star | depthwise (`*`) | 64.3%, 85.6%, 12.5 M | 18.9 M, 73.9 Mbit, 370 MFLOPs |
| starstar | and preprocessing (`**`) | 66.5%, 86.8%, 12.5 M | 18.9 M, 73.9 Mbit, 1,037 MFLOPs |

Ours is of `benchmarks/results/search_cifar10_2560`, not measured; what the paper omits is DARTS'.
"""

from ml_collections.config_dict import ConfigDict, placeholder

REAL_INPUTS = {"plain": (), "star": ("depthwise",), "starstar": ("depthwise", "preprocessing")}


def get_config(kind="plain"):
    """The paper's training: 10 cells, C = 102, 250 epochs, smoothed labels, an auxiliary tower."""
    if kind not in REAL_INPUTS:
        raise ValueError(f"the variant must be one of {', '.join(REAL_INPUTS)}, received: {kind!r}")
    network = {"cells": 10, "channels": 102, "stem": "imagenet", "drop_path": 0.0}
    return ConfigDict(
        {
            "strategy": "none",
            "mixed_precision": False,
            "data": {"name": "imagenet2012", "split": "train", "image_size": 224},
            "split": {"validation_images": placeholder(int), "seed": 0},
            "network": {**network, "real_inputs": REAL_INPUTS[kind]},
            "training": {
                "epochs": 250,
                "batch_size": 256,
                "optimizer": "sgd",
                "learning_rate": 0.05,
                "momentum": 0.9,
                "weight_decay": 3e-5,
                "decay_batch_norm": True,
                "gradient_clip": 5.0,
                "label_smoothing": 0.1,
                "auxiliary_weight": 0.4,
                "early_stopping": placeholder(int),
                "jit_compile": False,
                "steps_per_execution": 1,
                "augmentation": {"crop_area": 0.08, "flip": True},
                "seed": 0,
            },
            "child_parent": {"filter_weight": 1e-3, "centre_weight": 1e-1, "pooled": True},
        }
    )
