"""What to compare a guided search with, at the same cost: its trainings without its model.

Each of these takes the settings of a `GuidedSearch` and does as many trainings of the same length,
finalists included. Only what a round proposes is another, and genotypes are ranked by their own
scores alone.

References:
    Li and Talwalkar, "Random search and reproducibility for neural architecture search", UAI 2019,
        for the best of n. Real et al., "Regularized evolution for image classifier architecture
        search", AAAI 2019.
"""

from typing import ClassVar

import numpy as np

from cpnas_tf.search.guided import GuidedSearch
from cpnas_tf.search.guided_oracle import GuidedOracle

SAMPLE_SHARE = 4  # evolution mutates the best of so large a part of its population, a quarter


class RandomOracle(GuidedOracle):
    """Proposes what it draws uniformly: the result is the best of n genotypes."""

    def _model(self, results):
        return None

    def _propose(self, round_index):
        generator = np.random.default_rng([self.seed, round_index])
        return [self._space.draw(generator) for _ in range(self.proposals)]


class EvolutionOracle(RandomOracle):
    """Regularized evolution: mutates the best of a sample of the youngest genotypes.

    The first design is the first population. Each child replaces the oldest genotype, however good.
    Decision: a sample is a quarter of the population, as in the paper (25 of 100), and a mutation
    changes one edge; the children of a round have the same population, so that several tuners can
    train them at the same time.
    """

    def _propose(self, round_index):
        generator = np.random.default_rng([self.seed, round_index])
        population = self._before(round_index)[-self.first :]
        size = -(-len(population) // SAMPLE_SHARE)
        children = []
        for _ in range(self.proposals):
            sample = generator.choice(len(population), size, replace=False)
            parent = max(sample, key=lambda place: population[place].score)
            genotype = population[parent].genotype
            children.append(self._space.mutate(genotype.indices, generator, most=1))
        return children


class BestOfN(GuidedSearch):
    """A planned search that keeps the best of random genotypes; settings of `GuidedSearch`."""

    oracle: ClassVar[type[GuidedOracle]] = RandomOracle


class Evolution(GuidedSearch):
    """A planned search by regularized evolution; settings of `GuidedSearch`."""

    oracle: ClassVar[type[GuidedOracle]] = EvolutionOracle
