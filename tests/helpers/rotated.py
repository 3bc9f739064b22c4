"""Few genotypes that have every operation wherever one can be."""

import itertools

from cpnas_tf.genotypes import EDGES, OPERATIONS, Genotype


def genotype(number):
    """Cells whose edges have the operations one after another, from another one on by number."""
    edges = itertools.islice(itertools.cycle(OPERATIONS), 2 * number, 2 * number + len(EDGES))
    return Genotype.from_choices(2 * tuple(edges))


def places(genotype, reductions):
    """The operations, strides and widths of cells, as multiples of the network's channels.

    Args:
        genotype: that of the cells.
        reductions: whether each cell is one.

    Returns:
        A set of triples.
    """
    found, width = set(), 1
    for reduction in reductions:
        width *= 1 + reduction
        operations = genotype.reduce if reduction else genotype.normal
        for (source, _), operation in zip(EDGES, operations, strict=True):
            found.add((operation, 2 if reduction and source < 2 else 1, width))
    return found
