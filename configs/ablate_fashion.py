"""CP-NAS against random search, BNAS† and PC-DARTS on 10,000 Fashion-MNIST images of 12x12 pixels.

cpnas ablate --config=fashion --workdir=DIR

As `configs/ablate_digits.py`, with fewer seeds and epochs, and other images, which leave more to
gain; T = 1 here, too. CP-NAS trains child and parent on 35 x 1,024 of them, 71,680 in all;
PC-DARTS, whose halves have 768, on 55 x 768 for the weights and 39 x 768 for alpha and beta.
docs/results has a table, of the paper's units.
"""

from ml_collections import ConfigDict

from cpnas_tf.genotypes import OPERATIONS


def get_config():
    """12 runs: 4 methods, 12 searches or draws, 3 cells, C = 16."""
    return ConfigDict(
        {
            "grid": {
                "methods": ("random", "bnas", "cpnas", "pc_darts"),
                "betas": (2.0,),
                "search_seeds": (0, 1, 2),
                "training_seeds": (0,),
            },
            "data": {"name": "fashion_mnist", "split": "train[:10000]", "image_size": 12},
            "split": {"train_images": 1024, "validation_images": 512, "seed": 0},
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
                **{"epochs": 55, "warmup_epochs": 16},
            },
            "network": {"cells": 3, "channels": 16, "unit": "residual"},
            "training": {
                **{"epochs": 5, "batch_size": 64},
                "optimizer": "adam",
                "learning_rate": 0.01,
                "weight_decay": 0.0,
                "gradient_clip": 5.0,
            },
            "child_parent": {"filter_weight": 1e-3, "centre_weight": 1e-2},
        }
    )
