"""The search methods by name."""

import numpy as np

from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype

METHODS = ("random", "bnas", "cpnas", "pc_darts")


def random_genotype(seed, *, operations=OPERATIONS, allow_none=True):
    """Draws the operation of each edge, uniformly and independently.

    Args:
        seed: of the draw.
        operations: what an edge may carry.
        allow_none: whether `none` is among them.
    """
    names = [name for name in operations if allow_none or name != "none"]
    return Genotype.from_choices(np.random.default_rng(seed).choice(names, len(CHOICES)).tolist())


def draw(seed, **space):
    """The `random` method: see `random_genotype`; costs nothing and scores nothing."""
    genotype = random_genotype(seed, **space)
    return {"genotype": genotype, "scores": None, "seconds": 0.0, "images": 0}
