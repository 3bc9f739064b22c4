"""The search space as data: operations, edges and genotypes. Imports no TensorFlow.

A cell is a directed acyclic graph. Nodes 0 and 1 are the outputs of the two previous cells, nodes
2 to 5 are intermediate, and node j is the sum over all i < j of operation(i, j) applied to node i.
That makes 2 + 3 + 4 + 5 = 14 edges. All normal cells share one set of 14 choices and all reduction
cells another, so an architecture is 28 choices, one operation per edge.

Operations are the rows of `operations.OPERATION_FUNCTIONS`. Decision: nodes and edges are constants
and no argument. The file formats, the tables of 28 choices and the drawn cell are made for them; an
argument would run through every class and stored file for spaces that the paper does not have.

References:
    CP-NAS, section 2.2 (search space); the operations' names are those of DARTS.
    DARTS (Liu et al., 2019) and PC-DARTS (Xu et al., 2020): the published cells.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Iterable, Sequence

from cpnas_tf.files import local_path, read_text, write_atomically
from cpnas_tf.operations import OPERATION_FUNCTIONS

OPERATIONS = tuple(OPERATION_FUNCTIONS)
INPUT_NODES = 2
INTERMEDIATE_NODES = 4
NODES = INPUT_NODES + INTERMEDIATE_NODES
EDGES = tuple((source, target) for target in range(INPUT_NODES, NODES) for source in range(target))
# What pictures and reports call nodes and edges; files use the nodes' numbers.
NODE_NAMES = ("c(k-2)", "c(k-1)", *map(str, range(INTERMEDIATE_NODES)))
EDGE_NAMES = tuple(f"{NODE_NAMES[source]} → {NODE_NAMES[target]}" for source, target in EDGES)
CELL_TYPES = ("normal", "reduce")
# What an architecture's 28 choices are called, in the order of `Genotype.choices`.
CHOICES = tuple(f"{cell}_{source}_{target}" for cell in CELL_TYPES for source, target in EDGES)


@dataclasses.dataclass(frozen=True)
class Genotype:
    """One operation for each of the 14 edges of the normal and of the reduction cell.

    Edges are ordered as in `EDGES`: by target node, then by source node. Every edge carries an
    operation; a published DARTS-style cell, with two inputs per node, has `none` on the others.

    Attributes:
        normal: the 14 operations' names of the normal cells.
        reduce: the 14 operations' names of the reduction cells.

    Raises:
        ValueError: if a cell has not 14 operations or names an unknown one.

    Examples:
        >>> import cpnas_tf
        >>> genotype = cpnas_tf.Genotype(normal=["sep_conv_3x3"] * 14, reduce=["max_pool_3x3"] * 14)
        >>> genotype.save("genotype.json")
        >>> cpnas_tf.Genotype.load("genotype.json") == genotype
        True
        >>> cpnas_tf.Genotype.load("darts").normal[:2]
        ('sep_conv_3x3', 'sep_conv_3x3')
    """

    normal: Sequence[str]
    reduce: Sequence[str]

    def __post_init__(self) -> None:
        for cell in CELL_TYPES:
            names = getattr(self, cell)
            if not isinstance(names, (list, tuple)) or len(names) != len(EDGES):
                found = len(names) if isinstance(names, (list, tuple)) else repr(names)
                raise ValueError(
                    f"the {cell} cell needs a list of {len(EDGES)} operations, received: {found}"
                )
            for name in names:
                if name not in OPERATIONS:
                    raise ValueError(
                        f"unknown operation {name!r} in the {cell} cell, "
                        f"expected one of: {', '.join(OPERATIONS)}"
                    )
            object.__setattr__(self, cell, tuple(names))

    @classmethod
    def from_choices(cls, choices: Iterable[str]) -> Genotype:
        """Makes a genotype of 28 names, the normal cell's 14 first."""
        names = tuple(choices)
        return cls(names[: len(EDGES)], names[len(EDGES) :])

    @property
    def choices(self) -> tuple[str, ...]:
        """The 28 operations' names, the normal cell's 14 first."""
        return (*self.normal, *self.reduce)

    @property
    def indices(self) -> tuple[int, ...]:
        """The 28 choices as positions in `OPERATIONS`."""
        return tuple(map(OPERATIONS.index, self.choices))

    def to_json(self) -> str:
        """The genotype as JSON text: `{"normal": [14 names], "reduce": [14 names]}`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Genotype:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: if `text` is not JSON, has other keys or one twice, or is no valid genotype.
        """
        try:
            cells = json.loads(text, object_pairs_hook=_without_repetition)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"a genotype is a JSON object, this is not JSON: {error}") from None
        if not isinstance(cells, dict) or set(cells) != set(CELL_TYPES):
            found = sorted(cells) if isinstance(cells, dict) else type(cells).__name__
            raise ValueError(
                'a genotype is a JSON object with the keys "normal" and "reduce", '
                f"received: {found}"
            )
        return cls(**cells)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Genotype:
        """Reads a genotype file, or gives the published genotype of that name, one of `PUBLISHED`.

        A file of such a name is `./darts`.

        Raises:
            ValueError: naming the file, if it is missing, unreadable or not a genotype; or the
                published genotype, if it is of another search space.
        """
        if path in PUBLISHED:
            return PUBLISHED[path]
        if path in _LISTINGS:
            raise ValueError(
                f"the published genotype {path} has other nodes or operations than the search space"
            )
        path = local_path(path)
        try:
            return cls.from_json(read_text(path))
        except FileNotFoundError:
            published = ", ".join(PUBLISHED)
            raise ValueError(
                f"genotype file not found: {path} (published ones have names: {published})"
            ) from None
        except (OSError, ValueError) as error:
            raise ValueError(f"cannot read the genotype {path}: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a genotype file, atomically."""
        write_atomically(local_path(path), self.to_json())


def _without_repetition(pairs):
    """The dict of a JSON object; Python's own would keep the last value of a repeated key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((key, count),) = collections.Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"a genotype has each key once, received {count} times: {key!r}")
    return found


def _fits(*cells):
    """Whether cells are of this search space."""
    operations = {operation for cell in cells for inputs in cell for operation, _ in inputs}
    return {*map(len, cells)} == {INTERMEDIATE_NODES} and {"none", *operations} <= {*OPERATIONS}


def _published_cell(nodes):
    """A cell's operation on each edge, from the inputs of its nodes, each `(operation, source)`."""
    carried = {
        (source, target): operation
        for target, inputs in enumerate(nodes, start=INPUT_NODES)
        for operation, source in inputs
    }
    return tuple(carried.get(edge, "none") for edge in EDGES)


# The cells that gradient-based searches found on CIFAR-10 in full precision: DARTS (second order)
# and PC-DARTS, as in the code that was published with each: the inputs of nodes 2 to 5, first of
# the normal and then of the reduction cell.
_LISTINGS = {
    "darts": (
        [
            [("sep_conv_3x3", 0), ("sep_conv_3x3", 1)],
            [("sep_conv_3x3", 0), ("sep_conv_3x3", 1)],
            [("sep_conv_3x3", 1), ("skip_connect", 0)],
            [("skip_connect", 0), ("dil_conv_3x3", 2)],
        ],
        [
            [("max_pool_3x3", 0), ("max_pool_3x3", 1)],
            [("skip_connect", 2), ("max_pool_3x3", 1)],
            [("max_pool_3x3", 0), ("skip_connect", 2)],
            [("skip_connect", 2), ("max_pool_3x3", 1)],
        ],
    ),
    "pc_darts": (
        [
            [("sep_conv_3x3", 1), ("skip_connect", 0)],
            [("sep_conv_3x3", 0), ("dil_conv_3x3", 1)],
            [("sep_conv_5x5", 0), ("sep_conv_3x3", 1)],
            [("avg_pool_3x3", 0), ("dil_conv_3x3", 1)],
        ],
        [
            [("sep_conv_5x5", 1), ("max_pool_3x3", 0)],
            [("sep_conv_5x5", 1), ("sep_conv_5x5", 2)],
            [("sep_conv_3x3", 0), ("sep_conv_3x3", 3)],
            [("sep_conv_3x3", 1), ("sep_conv_3x3", 2)],
        ],
    ),
}
PUBLISHED = {
    name: Genotype(*map(_published_cell, cells))
    for name, cells in _LISTINGS.items()
    if _fits(*cells)
}
