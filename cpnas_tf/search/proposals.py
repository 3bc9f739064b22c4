"""The genotypes that a guided search draws and proposes. Loads no TensorFlow.

A genotype is here the tuple of its 28 choices as positions in `OPERATIONS`.

References:
    Regularized evolution (Real et al., 2019) for mutations of good genotypes; BANANAS (White et
        al., 2021) for choosing among many mutations by a predictor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cpnas_tf.genotypes import CELL_TYPES, EDGES, INPUT_NODES, NODES, OPERATIONS, Genotype
from cpnas_tf.search.surrogate import Surrogate

PARENTS = 8  # the best genotypes, which proposals descend from
MUTATIONS, CROSSINGS = 4000, 2000  # that a round of proposals chooses from
MOST_CHANGES = 6  # edges that a mutation changes
DISTANCE = 3  # edges in which the proposals of a round differ
_NONE = OPERATIONS.index("none")

Choices = tuple[int, ...]


class Space:
    """All genotypes whose nodes keep so many edges, with one of some operations on each.

    Args:
        operations: their names; `none` is on the edges that a node does not keep, and on no other.
        inputs: how many edges a node keeps, or all that it has if they are fewer; 5 keeps all.
    """

    def __init__(self, operations: Sequence[str], inputs: int) -> None:
        self._operations = [OPERATIONS.index(name) for name in operations if name != "none"]
        self._inputs = inputs
        self._nodes = [
            [
                cell * len(EDGES) + number
                for number, (_, target) in enumerate(EDGES)
                if target == node
            ]
            for cell in range(len(CELL_TYPES))
            for node in range(INPUT_NODES, NODES)
        ]
        self._node_of = {edge: edges for edges in self._nodes for edge in edges}

    def _is_whole(self, edges):
        """Whether a node with these edges keeps all of them."""
        return len(edges) <= self._inputs

    def draw(self, generator: np.random.Generator) -> Choices:
        """A genotype drawn uniformly."""
        choices = [_NONE] * len(self._node_of)
        for edges in self._nodes:
            kept = min(self._inputs, len(edges))
            for edge in generator.permutation(edges)[:kept]:
                choices[edge] = int(generator.choice(self._operations))
        return tuple(choices)

    def mutate(
        self, parent: Choices, generator: np.random.Generator, *, most: int = MOST_CHANGES
    ) -> Choices:
        """A genotype with 1 to `most` edges changed.

        A change gives an edge another operation, moves its operation to an edge that the node did
        not keep, or does both.
        """
        choices = list(parent)
        carried = [edge for edge, operation in enumerate(parent) if operation != _NONE]
        changes = generator.integers(1, most + 1)
        for edge in generator.permutation(carried)[:changes]:
            free = [other for other in self._node_of[edge] if choices[other] == _NONE]
            options = [
                (place, operation)
                for place in (int(edge), *free)
                for operation in self._operations
                if (place, operation) != (edge, choices[edge])
            ]
            place, operation = options[generator.integers(len(options))]
            choices[edge] = _NONE
            choices[place] = operation
        return tuple(choices)

    def cross(self, first: Choices, second: Choices, generator: np.random.Generator) -> Choices:
        """A genotype with each edge of one of two; where nodes choose their edges, each node."""
        choices = list(first)
        for edges in self._nodes:
            for group in [[edge] for edge in edges] if self._is_whole(edges) else [edges]:
                if generator.integers(2):
                    for edge in group:
                        choices[edge] = second[edge]
        return tuple(choices)


def first_design(space: Space, *, count: int, seed: int) -> list[Choices]:
    """Different genotypes of a space, drawn uniformly."""
    generator = np.random.default_rng([seed, 0])
    drawn: dict[Choices, None] = {}
    while len(drawn) < count:
        drawn[space.draw(generator)] = None
    return list(drawn)


def standings(
    model: Surrogate, genotypes: Sequence[Genotype], scores: Sequence[float]
) -> list[float]:
    """How good scored genotypes are: the means of the z-scores of prediction and own score.

    The own score has the noise of one short training, the prediction what a sum cannot express:
    both together rank better than either.
    """
    parts = [np.asarray(scores, float), model.predict(genotypes)]
    parts = [(values - values.mean()) / (values.std() or 1.0) for values in parts]
    return np.round(np.mean(parts, axis=0), 9).tolist()  # without what rounding makes of ties


def best_first(values: Iterable[float]) -> list[int]:
    """The places of values, the largest first, of equals the first."""
    found = list(values)
    return sorted(range(len(found)), key=lambda place: -found[place])


def propose(
    space: Space,
    model: Surrogate,
    genotypes: Sequence[Genotype],
    scores: Sequence[float],
    *,
    count: int,
    seed: Sequence[int],
) -> list[Choices]:
    """The next genotypes to train: the best predicted among descendants of the best.

    Parents are the `PARENTS` best by `standings`. Proposals are new and differ from each other in
    `DISTANCE` edges, as long as there are enough of that kind.

    Args:
        space: of the search.
        model: the surrogate, fitted to the genotypes and scores.
        genotypes, scores: what was trained so far.
        count: how many to propose.
        seed: of the mutations and crossings.
    """
    generator = np.random.default_rng(seed)
    order = best_first(standings(model, genotypes, scores))[:PARENTS]
    parents = [genotypes[place].indices for place in order]
    mutations = (
        space.mutate(parents[generator.integers(len(parents))], generator) for _ in range(MUTATIONS)
    )
    pairs = (generator.permutation(len(parents))[:2] for _ in range(CROSSINGS))
    crossings = (space.cross(parents[one], parents[two], generator) for one, two in pairs)
    known = {genotype.indices for genotype in genotypes}
    children = [*dict.fromkeys((*mutations, *crossings))]
    children = [child for child in children if child not in known]
    predictions = np.round(model.predict_indices(np.array(children)), 9)
    return _spread([children[place] for place in best_first(predictions)], count)


def _spread(ranked, count):
    """The first ones that differ enough from each other, then the first of the others."""
    chosen = []
    for candidate in ranked:
        if len(chosen) == count:
            return chosen
        if all(_distance(candidate, other) >= DISTANCE for other in chosen):
            chosen.append(candidate)
    taken = set(chosen)
    others = [candidate for candidate in ranked if candidate not in taken]
    return [*chosen, *others[: count - len(chosen)]]


def _distance(first, second):
    """In how many edges two genotypes differ."""
    return sum(a != b for a, b in zip(first, second, strict=True))
