"""The front of sizes: the best genotype under every budget, from one search.

A model of the search's scores (`surrogate`) adds up what each operation is worth on each edge, and
what a genotype costs adds up in the same way (`networks.costs.ChoiceCosts`). So the best genotype
under a budget is a multiple-choice knapsack: one of some options for each group of edges, the sum
of their scores as large as a limit on the sum of their costs allows. It is solved exactly, for all
budgets at once, by going through the groups and keeping the sums that no other one dominates.

Decision: an edge without an operation is only on the front where the search itself kept so many
inputs per node, two or more. Elsewhere all edges of an input could go, and the preprocessing of
that input with them, which the costs of single edges do not tell.

References:
    Kellerer, Pferschy and Pisinger, "Knapsack Problems" (2004), chapter 11, for multiple-choice
        knapsacks by dynamic programming with dominance.
"""

from __future__ import annotations

import bisect
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from cpnas_tf.files import write_csv
from cpnas_tf.genotypes import CELL_TYPES, CHOICES, EDGES, INPUT_NODES, NODES, OPERATIONS, Genotype
from cpnas_tf.networks.costs import COST_UNITS, ChoiceCosts
from cpnas_tf.plots.figures import save_all
from cpnas_tf.plots.front import plot_front
from cpnas_tf.runs import search_log
from cpnas_tf.search.surrogate import Surrogate
from cpnas_tf.settings import SettingError, checked

KEPT = 10  # genotypes of a front that are written, at most
_NONE = OPERATIONS.index("none")
ALL_INPUTS = NODES - 1  # as many as the last node has
_EDGES = range(len(CHOICES))


class Point(NamedTuple):
    """A genotype of the front.

    Attributes:
        genotype: no genotype with at most its `mbit` has a higher score.
        score: that the model of the search expects.
        mbit: the bits of its network's weights, in millions.
        mflops: its network's FLOPs for an image, in millions.
    """

    genotype: Genotype
    score: float
    mbit: float
    mflops: float


class Estimate(NamedTuple):
    """What a search found out about its space.

    Attributes:
        intercept: of the scores.
        values: `[28, operations]`, what each operation adds to the score on each edge; edges as in
            `CHOICES`, operations as in `OPERATIONS`.
        operations: those that the search tried, but for `none`.
        inputs: how many edges a node keeps, with `none` on the others; `ALL_INPUTS` for all.
    """

    intercept: float
    values: np.ndarray
    operations: tuple[str, ...]
    inputs: int = ALL_INPUTS


def estimate_of(rows: Sequence[Mapping[str, Any]]) -> Estimate:
    """The additive estimate of a search, from the scores of all that it trained.

    Of CP-NAS the scores are z minus its stage's mean, since those of different stages compare only
    so; of a guided search those of its short trainings.

    Args:
        rows: as `search_log.read` gives them.

    Raises:
        ValueError: if the log has no scores of architectures, or too few, or those of nodes with
            one input, whose networks may leave a cell's input out.
    """
    scored = _SCORED[search_log.kind_of(rows)](rows)
    genotypes = [Genotype.from_choices(row[name] for name in CHOICES) for row, _ in scored]
    model = Surrogate(genotypes, [score for _, score in scored])
    tried = {name for genotype in genotypes for name in genotype.choices} - {"none"}
    operations = tuple(name for name in OPERATIONS if name in tried)
    return Estimate(model.intercept, model.estimates, operations, _inputs_of(genotypes))


def _scored_architectures(rows):
    stages = search_log.by_stage(rows).values()
    means = [fmean(row["z"] for row in stage) for stage in stages]
    return [
        (row, row["z"] - mean) for stage, mean in zip(stages, means, strict=True) for row in stage
    ]


def _scored_trainings(rows):
    """But for the finalists, which were trained longer."""
    return [(row, row["score"]) for row in rows if row["phase"] != "final"]


def _no_scores(rows):
    raise ValueError("a search by PC-DARTS scores no architectures, so there is no front of it")


# What each kind of log scored: pairs of a row and its score.
_SCORED = {
    "architectures": _scored_architectures,
    "trainings": _scored_trainings,
    "epochs": _no_scores,
}


def _inputs_of(genotypes):
    """How many edges each node of some genotypes keeps, if they all keep as many."""
    kept = {
        tuple(sum(genotype.choices[edge] != "none" for edge in edges) for edges in _node_edges())
        for genotype in genotypes
    }
    for inputs in range(1, ALL_INPUTS):
        if kept == {tuple(min(inputs, len(edges)) for edges in _node_edges())}:
            if inputs == 1:
                raise ValueError("a front needs a search with two inputs per node or more")
            return inputs
    return ALL_INPUTS


class Options(NamedTuple):
    """What a group of edges can carry together.

    Attributes:
        choices: `[options, edges]`, positions in `OPERATIONS`, on the group's edges.
        scores: `[options]`.
        costs: integers `[options, 2]`, as in `ChoiceCosts`.
    """

    choices: np.ndarray
    scores: np.ndarray
    costs: np.ndarray


def non_dominated(scores: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Which of some solutions no other one is at least as good as in score and both costs.

    Args:
        scores: `[solutions]`.
        costs: `[solutions, 2]`.

    Returns:
        Their positions, ordered by the first cost, then the second; of equal ones the first.
    """
    order = np.lexsort((-scores, costs[:, 1], costs[:, 0]))
    # Of what was kept so far, the best score under every second cost: both increase.
    seconds: list[float] = []
    bests: list[float] = []
    kept = []
    for place, second, score in zip(
        order.tolist(), costs[order, 1].tolist(), scores[order].tolist(), strict=True
    ):
        position = bisect.bisect_right(seconds, second)
        if position and bests[position - 1] >= score:
            continue
        kept.append(place)
        start = bisect.bisect_left(seconds, second)
        end = start
        while end < len(seconds) and bests[end] <= score:
            end += 1
        seconds[start:end], bests[start:end] = [second], [score]
    return np.array(kept, int)


def solve(
    groups: Sequence[tuple[np.ndarray, np.ndarray]], limits: Sequence[float] = (math.inf, math.inf)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solves a multiple-choice knapsack for all budgets of two costs at once.

    Args:
        groups: of options, of which a solution takes one each: pairs of scores `[options]` and
            costs `[options, 2]`, integers of any sign.
        limits: what both costs of a solution may be at most.

    Returns:
        The solutions that are `non_dominated` within the limits: their options
        `[solutions, groups]`, scores `[solutions]` and costs `[solutions, 2]`. Without any, if even
        the least costs are beyond the limits.
    """
    least = np.array([costs.min(axis=0) for _, costs in groups])
    left = np.cumsum(least[::-1], axis=0)[::-1]  # what this group and those behind it cost at least
    picks, scores, totals = np.zeros([1, 0], int), np.zeros(1), np.zeros([1, 2], int)
    for number, (gains, costs) in enumerate(groups):
        new_scores = (scores[:, None] + gains).ravel()
        new_totals = (totals[:, None] + costs).reshape(-1, 2)
        behind = left[number + 1] if number + 1 < len(groups) else 0
        fits = np.flatnonzero((new_totals + behind <= limits).all(axis=1))
        kept = fits[non_dominated(new_scores[fits], new_totals[fits])]
        before, option = np.divmod(kept, len(gains))
        picks = np.concatenate([picks[before], option[:, None]], axis=1)
        scores, totals = new_scores[kept], new_totals[kept]
    return picks, scores, totals


def edge_groups(estimate: Estimate, costs: ChoiceCosts) -> list[Options]:
    """The options of a genotype's edges: a group per edge, or per node that does not keep all.

    Options that others of their group dominate are left out.

    Returns:
        A list of `Options`; their choices side by side are those of a genotype.
    """
    carried = [OPERATIONS.index(name) for name in estimate.operations]
    groups = []
    for edges in _node_edges():
        whole = len(edges) <= estimate.inputs
        for group in [[edge] for edge in edges] if whole else [edges]:
            choices = np.array([*_assignments(len(group), carried, kept=estimate.inputs)])
            scores = estimate.values[group, choices].sum(axis=1)
            prices = costs.choices[group, choices].sum(axis=1)
            best = non_dominated(scores, prices)
            groups.append(Options(choices[best], scores[best], prices[best]))
    return groups


def _node_edges():
    """The positions in `CHOICES` of the edges of each node of both cells."""
    return [
        [cell * len(EDGES) + number for number, edge in enumerate(EDGES) if edge[1] == node]
        for cell in range(len(CELL_TYPES))
        for node in range(INPUT_NODES, NODES)
    ]


def _assignments(edges, carried, *, kept):
    """What some edges can carry if so many are kept, and `none` is on the others."""
    for used in itertools.combinations(range(edges), min(kept, edges)):
        for places in itertools.product(carried, repeat=len(used)):
            given = dict(zip(used, places, strict=True))
            yield [given.get(edge, _NONE) for edge in range(edges)]


@checked("front")
def find_front(
    estimate: Estimate,
    costs: ChoiceCosts,
    *,
    max_mbit: float | None = None,
    max_mflops: float | None = None,
) -> list[Point]:
    """The best genotype under every budget of bits, within limits.

    Args:
        estimate: what a search found out, see `estimate_of`.
        costs: of the network that will be trained.
        max_mbit: what a network's weights may have at most, in millions of bits; None for any.
        max_mflops: the same of its FLOPs for an image, in millions.

    Returns:
        A list of `Point`s, the smallest first: their Mbit and their scores increase, so the last
        one is the best within the limits.

    Raises:
        ValueError: if no genotype is within the limits, naming the smallest possible.
    """
    groups = edge_groups(estimate, costs)
    pairs = [(group.scores, group.costs) for group in groups]
    limits = {"max_mbit": max_mbit, "max_mflops": max_mflops}
    least = costs.trunk + sum(group.costs.min(axis=0) for group in groups)
    for name, units in zip(limits, least, strict=True):
        _check_limit(limits, name, units)
    left = _in_units(limits) - costs.trunk
    picks, scores, totals = solve(pairs, left)
    if not len(picks):  # each limit can be met, both cannot
        *_, within_flops = solve(pairs, (math.inf, left[1]))
        _check_limit(limits, "max_mbit", costs.trunk[0] + within_flops[0, 0], beside="max_mflops")
    # A limit on FLOPs has had its say: of the genotypes within it, scores and bits decide.
    best = non_dominated(scores, totals * [1, 0])
    chosen = [
        np.concatenate([group.choices[pick] for group, pick in zip(groups, one, strict=True)])
        for one in picks[best]
    ]
    return [_point(estimate, costs, choices) for choices in chosen]


def _in_units(limits):
    """Limits in the units of `ChoiceCosts`, rounded as a flag's decimals are; None is no limit."""
    millions = [math.inf if limit is None else 1e6 * limit for limit in limits.values()]
    return np.round(np.array(millions) * COST_UNITS)


def _check_limit(limits, name, least, *, beside=None):
    """Refuses a limit below what the smallest genotype needs, in the units of `ChoiceCosts`."""
    place = [*limits].index(name)
    if least > _in_units(limits)[place]:
        needed = math.ceil(least / COST_UNITS[place]) / 1e6
        condition = "" if beside is None else f" with {beside} = {limits[beside]:g}"
        raise SettingError(
            name,
            f"{name} must be at least {needed:.6f}, what the smallest genotype{condition} has, "
            f"received: {limits[name]:g}",
        )


def _point(estimate, costs, choices):
    genotype = Genotype.from_choices(OPERATIONS[place] for place in choices)
    bits, flops = (costs.trunk + costs.choices[_EDGES, choices].sum(axis=0)) / COST_UNITS
    score = estimate.intercept + float(estimate.values[_EDGES, choices].sum())
    return Point(genotype, score, bits / 1e6, flops / 1e6)


def spread(points: Sequence[Point], count: int) -> list[int]:
    """Which points to keep: the best under budgets evenly between the smallest and the largest.

    Args:
        points: of a front.
        count: how many to keep at most, at least 1; the last point is always kept.

    Returns:
        Positions, increasing.
    """
    sizes = [point.mbit for point in points]
    budgets = np.linspace(sizes[0], sizes[-1], count)
    kept = np.searchsorted(sizes, budgets[:-1], side="right") - 1
    return sorted({*kept.tolist(), len(points) - 1})


def write(
    directory: str | os.PathLike[str],
    points: Sequence[Point],
    *,
    max_mbit: float | None = None,
    max_mflops: float | None = None,
) -> dict[str, Point]:
    """Writes a front: some of its genotypes, the best one, a picture, and at last `front.csv`.

    Args:
        directory: an existing folder.
        points: of a front, as `find_front` gives them.
        max_mbit, max_mflops: its limits, for the picture.

    Returns:
        The points of the genotypes that were written, by the names of their files.
    """
    kept = {place: f"genotype_{n:02d}.json" for n, place in enumerate(spread(points, KEPT), 1)}
    for place, name in kept.items():
        points[place].genotype.save(os.path.join(directory, name))
    points[-1].genotype.save(os.path.join(directory, "genotype.json"))
    picture = plot_front(
        points,
        named={place: str(number) for number, place in enumerate(kept, 1)},
        limits={"Mbit": max_mbit, "MFLOPs": max_mflops},
    )
    save_all(directory, {"front": picture})
    rows = [
        {
            "file": kept.get(place, ""),
            "mbit": point.mbit,
            "mflops": point.mflops,
            "score": point.score,
            **dict(zip(CHOICES, point.genotype.choices, strict=True)),
        }
        for place, point in enumerate(points)
    ]
    write_csv(os.path.join(directory, "front.csv"), rows)
    return {name: points[place] for place, name in kept.items()}
