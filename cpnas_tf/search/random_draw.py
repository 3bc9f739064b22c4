"""The random method: a genotype drawn uniformly, which other methods are compared with."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.settings import SettingError, check, checked


def random_genotype(
    seed: int, *, operations: Sequence[str] = OPERATIONS, allow_none: bool = True
) -> Genotype:
    """Draws the operation of each edge, uniformly and independently.

    Args:
        seed: of the draw.
        operations: what an edge may carry.
        allow_none: whether `none` is among them.

    Raises:
        ValueError: if `operations` has another name, or one twice, or leaves nothing to draw.
    """
    check(operations=operations)
    names = [name for name in operations if allow_none or name != "none"]
    if not names:
        raise SettingError(
            "operations", f"operations must be more than none, received: {operations!r}"
        )
    return Genotype.from_choices(np.random.default_rng(seed).choice(names, len(CHOICES)).tolist())


class RandomDraw:
    """A planned draw, with the methods of a planned search.

    Args:
        train, validation: images of a search; not used.
        operations, allow_none, seed: see `random_genotype`.
        others: the other settings of `ChildParentSearch`, with which it shares a section; not used.

    Raises:
        ValueError: if `operations` cannot be drawn from.
    """

    @checked("search")
    def __init__(
        self,
        train: Any = None,
        validation: Any = None,
        *,
        operations: Sequence[str] = OPERATIONS,
        allow_none: bool = True,
        seed: int = 0,
        **others: Any,
    ) -> None:
        self._genotype = random_genotype(seed, operations=operations, allow_none=allow_none)

    def plan(self) -> str:
        """What is going to be done, as text."""
        return "A genotype is drawn at random; nothing is trained."

    def run(
        self, directory: str | os.PathLike[str], *, verbose: int | str = "auto"
    ) -> dict[str, Any]:
        """The draw, as a search returns what it found; it costs nothing and scores nothing."""
        del directory, verbose
        return {"genotype": self._genotype, "scores": None, "seconds": 0.0, "images": 0}
