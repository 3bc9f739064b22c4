"""CP-NAS on UCI digits, the search of `make quickstart`: 8 operations, T = 1, 35 architectures.

    cpnas search --config=digits --workdir=DIR [--config.method=pc_darts]

With T = 1 a stage of CP-NAS drops all 28 operations of its worst architecture: the paper's T = 3
judges every edge by itself, as indicator="additive" does. It trains child and parent on 35 x 1,152
images, 80,640 in all; PC-DARTS, whose halves have 704, on 67 x 704 for the weights and 47 x 704 for
alpha and beta, 80,256, with the original's share of warm-up epochs. The guided search trains 28
children for two epochs each and the best two for six, on 78,336 images.
"""

from ml_collections.config_dict import ConfigDict, placeholder

from cpnas_tf.genotypes import OPERATIONS


def get_config():
    """The search on digits: 8x8 images, 3 cells, C = 16."""
    return ConfigDict(
        {
            "method": "cpnas",
            "strategy": "none",
            "data": {"name": "digits", "split": "train", "image_size": placeholder(int)},
            "split": {"train_images": 1152, "validation_images": 256, "seed": 0},
            "search": {
                **{"cells": 3, "channels": 16, "unit": "residual"},
                "rounds": 1,
                "beta": 2.0,
                "batch_size": 128,
                "learning_rate": 0.1,
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "operations": OPERATIONS,
                "allow_none": True,
                "seed": 0,
            },
            "pc_darts": {
                **{"cells": 3, "channels": 16, "precision": "child", "unit": "residual"},
                **{"operations": OPERATIONS, "seed": 0},
                **{"epochs": 67, "warmup_epochs": 20, "batch_size": 64, "learning_rate": 0.1},
                "architecture_learning_rate": 6e-4,
            },
            "guided": {
                **{"cells": 3, "channels": 16, "unit": "residual", "learning_rate": 0.02},
                **{"first": 16, "rounds": 3, "proposals": 4, "epochs": 2},
                **{"finalists": 2, "finalist_epochs": 6, "seed": 0},
            },
        }
    )
