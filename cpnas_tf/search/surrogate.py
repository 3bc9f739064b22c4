"""A model of genotypes' scores: ridge regression on their choices. Loads no TensorFlow.

What a genotype scores is modelled as an intercept plus one figure per edge, that of the operation
on it. Two kinds of features share the work: how often each operation is in a cell type, and which
operation is on each edge. So a few dozen scores tell first what an operation is worth anywhere in a
cell type, and only then what it is worth on one edge.

References:
    BANANAS (White et al., 2021) and WeakNAS (Wu et al., 2021), which search with a predictor that
        is refitted after each round. Decision: ridge instead of neural networks or trees, since a
        few dozen scores of 28 choices support no more, and its additive estimates are exact.
    Allen (1974), the PRESS statistic: leave-one-out predictions of a linear fit in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cpnas_tf.genotypes import CELL_TYPES, CHOICES, EDGES, OPERATIONS, Genotype

PENALTY = 10.0  # lambda of the squared coefficients; the intercept has none
COUNT_SCALE = 0.5  # of the features that count, beside choices of 0 and 1
LEAST = 3  # scores that a fit needs: two always lie on a line


class Surrogate:
    """A ridge regression of scores on genotypes.

    An operation that no genotype has on an edge there gets what its counts say, and one that none
    has at all gets 0, which is what all operations are shrunk to.

    Args:
        genotypes: those that were scored, at least `LEAST`.
        scores: their finite scores; the more the better.
        penalty: lambda, > 0.

    Attributes:
        intercept: float.
        estimates: `[28, operations]`, what each operation adds to the score on each edge; edges as
            in `CHOICES`, operations as in `OPERATIONS`. A prediction is exactly the intercept plus
            the 28 estimates of a genotype's choices.
        left_out: `[genotypes]`, each genotype's prediction by the fit to all others.

    Raises:
        ValueError: if there are too few genotypes, not as many scores, or one is not finite, or
            `penalty` is not positive.

    Example:
        >>> from cpnas_tf.search.random_draw import random_genotype
        >>> from cpnas_tf.search.surrogate import Surrogate
        >>> genotypes = [random_genotype(seed) for seed in range(30)]
        >>> poolings = [sum("pool" in name for name in each.choices) for each in genotypes]
        >>> model = Surrogate(genotypes, poolings)
        >>> model.estimates.shape
        (28, 8)
        >>> from cpnas_tf.genotypes import OPERATIONS
        >>> means = dict(zip(OPERATIONS, model.estimates.mean(axis=0), strict=True))
        >>> means["max_pool_3x3"] > means["sep_conv_3x3"]
        True
    """

    def __init__(
        self, genotypes: Sequence[Genotype], scores: Sequence[float], *, penalty: float = PENALTY
    ) -> None:
        targets = np.asarray(scores, np.float64)
        if len(genotypes) < LEAST:
            raise ValueError(
                f"a model of scores needs {LEAST} genotypes or more, received: {len(genotypes)}"
            )
        if targets.shape != (len(genotypes),) or not np.isfinite(targets).all():
            raise ValueError(
                f"scores must be {len(genotypes)} finite numbers, as many as the genotypes, "
                f"received: {scores!r}"
            )
        if not penalty > 0:
            raise ValueError(f"penalty must be a number > 0, received: {penalty!r}")
        inputs = features(genotypes)
        centre = inputs.mean(axis=0)
        inputs = inputs - centre
        # By the genotypes' products, of which there are fewer than features.
        products = inputs @ inputs.T
        inverse = np.linalg.inv(products + penalty * np.eye(len(targets)))
        residuals = targets - targets.mean()
        coefficients = inputs.T @ (inverse @ residuals)
        self.intercept = float(targets.mean() - centre @ coefficients)
        counts, choices = np.split(coefficients, [len(CELL_TYPES) * len(OPERATIONS)])
        counts = COUNT_SCALE * counts.reshape(len(CELL_TYPES), 1, len(OPERATIONS))
        choices = choices.reshape(len(CELL_TYPES), len(EDGES), len(OPERATIONS))
        self.estimates = (choices + counts).reshape(len(CHOICES), len(OPERATIONS))
        hat = products @ inverse + 1 / len(targets)
        fitted = targets.mean() + products @ (inverse @ residuals)
        self.left_out = targets - (targets - fitted) / (1 - np.diag(hat))

    def predict(self, genotypes: Sequence[Genotype]) -> np.ndarray:
        """The scores `[genotypes]` that the model expects."""
        return self.predict_indices(np.array([genotype.indices for genotype in genotypes]))

    def predict_indices(self, indices: np.ndarray) -> np.ndarray:
        """The same of choices `[genotypes, 28]`, given as positions in `OPERATIONS`."""
        return self.intercept + self.estimates[np.arange(len(CHOICES)), indices].sum(axis=1)


def features(genotypes: Sequence[Genotype]) -> np.ndarray:
    """What the model sees of genotypes.

    Returns:
        Floats `[genotypes, cell types * operations + 28 * operations]`: how often each operation is
        in each cell type, times `COUNT_SCALE`, then 1 for the operation on each edge and 0 for
        the others.
    """
    indices = np.array([genotype.indices for genotype in genotypes])
    choices = np.eye(len(OPERATIONS))[indices]  # [genotypes, 28, operations]
    cells = choices.reshape(len(indices), len(CELL_TYPES), len(EDGES), len(OPERATIONS))
    counts = COUNT_SCALE * cells.sum(axis=2)
    return np.concatenate([part.reshape(len(indices), -1) for part in (counts, choices)], axis=1)
