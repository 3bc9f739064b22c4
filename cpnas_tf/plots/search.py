"""Figures of a genotype and of a search's progress. Loads no TensorFlow, and matplotlib to draw.

References:
    CP-NAS, Algorithm 1 and Eq. 1 (search).
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpnas_tf.genotypes import CELL_TYPES, CHOICES, EDGE_NAMES, OPERATIONS, Genotype
from cpnas_tf.plots.cells import plot_cell, plot_genotype
from cpnas_tf.plots.figures import (
    CHILD_COLOUR,
    INK,
    NARROW_WIDTH,
    PARENT_COLOUR,
    new_figure,
    save_all,
)
from cpnas_tf.plots.guided import plot_trainings
from cpnas_tf.runs import search_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_search(rows: Sequence[Mapping[str, Any]], *, genotype: Genotype | None = None) -> Figure:
    """Draws a search's progress: accuracies, scores z and the operations' survival.

    The three panels share an axis, the architectures in the order sampled. An unfinished search is
    drawn as far as it got.

    Args:
        rows: as `search_log.read` gives them, at least one.
        genotype: the search's result, a `Genotype`, shown as the last column.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("nothing to draw: the search has no architecture yet")
    figure = new_figure(7.2)
    ratios = {"width_ratios": (16, 1), "height_ratios": (1.25, 1, 1.25)}
    margins = {"left": 0.135, "right": 0.975, "top": 0.905, "bottom": 0.07}
    grid = figure.add_gridspec(3, 2, hspace=0.2, wspace=0.04, **ratios, **margins)
    accuracy = figure.add_subplot(grid[0, 0])
    score, survival = (figure.add_subplot(grid[row, 0], sharex=accuracy) for row in (1, 2))
    stages = _stage_spans(rows)
    _draw_accuracies(accuracy, rows, stages)
    _draw_points(score, [row["z"] for row in rows], stages, color=INK, marker="D")
    score.set_ylabel("score z (Eq. 1)")
    _draw_survival(survival, search_log.survival(rows), stages)
    survival.set_xlabel("architecture, in the order sampled")
    _style_panels(accuracy, score, survival, stages=stages)
    _label_stages(accuracy, stages, operations=search_log.initial_operations(rows))
    style: dict[str, Any] = {
        "fontsize": 8,
        "va": "bottom",
        "ha": "right",
        "transform": accuracy.transAxes,
    }
    accuracy.text(-0.012, 1.02, "operations left", **style)
    if genotype is not None:
        _draw_result(figure.add_subplot(grid[2, 1]), genotype)
    noun = "architecture" if len(rows) == 1 else "architectures"
    _draw_heading(figure, f"Search, {len(rows)} {noun}", accuracy)
    return figure


def plot_accuracies(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the accuracies of child and parent over a search, narrow enough for a phone.

    Args:
        rows: as `search_log.read` gives them, at least one.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = new_figure(3.3, width=NARROW_WIDTH)
    axes = figure.add_axes((0.16, 0.24, 0.82, 0.69))
    stages = _stage_spans(rows)
    _draw_accuracies(axes, rows, stages)
    axes.set_xlabel("architecture, in order; above: operations left")
    _style_panels(axes, stages=stages)
    _label_stages(axes, stages, operations=search_log.initial_operations(rows))
    _draw_legend(figure, axes, loc="lower center")
    return figure


def plot_epochs(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws the accuracies over the epochs of a search with PC-DARTS, narrow enough for a phone.

    Args:
        rows: as `search_log.read` gives them, at least one.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = new_figure(3.3, width=NARROW_WIDTH)
    axes = figure.add_axes((0.16, 0.24, 0.82, 0.69))
    lines = {"accuracy": ("weights", INK), "architecture_accuracy": ("architecture", CHILD_COLOUR)}
    for measure, (name, colour) in lines.items():
        known = [(row["epoch"], 100 * row[measure]) for row in rows if row[measure] is not None]
        style: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 3, "linewidth": 1.2}
        axes.plot(*zip(*known, strict=True) if known else ((), ()), label=name, **style)
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy in training (%)")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    _style_panels(axes)
    figure.legend(ncols=len(lines), fontsize=9, frameon=False, loc="lower center")
    return figure


def _draw_accuracies(axes, rows, stages):
    for who, colour, marker in (("parent", PARENT_COLOUR, "s"), ("child", CHILD_COLOUR, "o")):
        if who == "child" or search_log.has_parents(rows):
            percent = [100 * row[f"{who}_accuracy"] for row in rows]
            _draw_points(axes, percent, stages, color=colour, marker=marker, label=who)
    axes.set_ylabel("validation accuracy (%)")


def _stage_spans(rows):
    """The stages as [(stage, first, last)], with their architectures counted from 1."""
    spans, first = [], 1
    for stage, group in itertools.groupby(rows, key=lambda row: row["stage"]):
        spans.append((stage, first, first + len(list(group)) - 1))
        first = spans[-1][2] + 1
    return spans


def _style_panels(*panels, stages=()):
    for axes in panels:
        axes.tick_params(labelsize=8, labelbottom=axes is panels[-1])
        axes.yaxis.label.set_size(9)
        axes.xaxis.label.set_size(9)
        axes.spines[["top", "right"]].set_visible(False)
        for _, first, _ in stages[1:]:
            axes.axvline(first - 0.5, color="#bbbbbb", linewidth=0.8, zorder=0)
    if stages:
        panels[-1].set_xlim(0.5, stages[-1][2] + 0.5)
    panels[-1].xaxis.get_major_locator().set_params(integer=True)


def _label_stages(axes, stages, *, operations):
    """Writes above each stage how many operations each edge has left."""
    style = {"fontsize": 8, "va": "bottom", "ha": "center"}
    for stage, first, last in stages:
        middle, where = (first + last) / 2, axes.get_xaxis_transform()
        axes.text(middle, 1.02, str(operations - stage), transform=where, **style)


def _draw_heading(figure, title, axes):
    figure.text(0.015, 0.975, title, fontsize=12, weight="bold", color=INK, va="center")
    _draw_legend(figure, axes, loc="center right", bbox_to_anchor=(0.985, 0.975))


def _draw_legend(figure, axes, **where):
    from matplotlib.lines import Line2D

    handles, _ = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], color=INK, linewidth=1.5, label="mean of a stage"))
    figure.legend(handles=handles, ncols=len(handles), fontsize=9, frameon=False, **where)


def _draw_points(axes, values, stages, *, color, marker, label=None):
    numbers = range(1, len(values) + 1)
    style = {"color": color, "alpha": 0.75, "linewidth": 0}
    axes.plot(numbers, values, marker=marker, markersize=4, label=label, **style)
    for _, first, last in stages:
        mean = statistics.fmean(values[first - 1 : last])
        axes.hlines(mean, first - 0.5, last + 0.5, color=color, linewidth=1.5)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)


def _draw_survival(axes, counts, stages):
    for stage, first, last in stages:
        _draw_column(axes, counts.get(stage), first - 0.5, last + 0.5)
    title = f"edges, of {len(CHOICES)}, that still have the operation"
    axes.set_title(title, fontsize=9, loc="left")
    axes.set_yticks(range(len(OPERATIONS)), OPERATIONS)
    axes.set_ylim(len(OPERATIONS) - 0.5, -0.5)


def _draw_result(axes, genotype):
    counts = {operation: genotype.choices.count(operation) for operation in OPERATIONS}
    _draw_column(axes, counts, 0, 1)
    axes.set(xlim=(0, 1), ylim=(len(OPERATIONS) - 0.5, -0.5), xticks=[0.5], yticks=[])
    axes.set_xticklabels(["result"], fontsize=8)
    axes.spines[:].set_visible(False)


def _draw_column(axes, counts, left, right):
    """A stage's column of the heat map: the number of edges in each operation's cell."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    for row, operation in enumerate(OPERATIONS):
        count = counts[operation] if counts else 0
        face = colormaps["Blues"](0.85 * count / len(CHOICES)) if counts else "white"
        style = {"facecolor": face, "edgecolor": "white", "linewidth": 1}
        axes.add_patch(Rectangle((left, row - 0.5), right - left, 1, **style))
        ink = "white" if count > len(CHOICES) * 0.85 else "black"
        text = str(count) if counts else "?"
        axes.text((left + right) / 2, row, text, fontsize=8, color=ink, ha="center", va="center")


def plot_indicators(evaluations: Sequence[Mapping[str, tuple[float, float]]]) -> Figure:
    """Draws a stage's evaluation indicators e(o) (Eq. 2) as a heat map of edges and operations.

    A frame marks the smallest of each edge: the operation that the edge drops.

    Args:
        evaluations: for each of the 28 edges, `{operation: (zbar, e(o))}`, as in
            `ChildParentOracle.history`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    from matplotlib import colors
    from matplotlib.patches import Rectangle

    figure = new_figure(7.5)
    axes = figure.add_axes((0.14, 0.06, 0.74, 0.88))
    shares = [e for edge in evaluations for _, e in edge.values()]
    scale = colors.Normalize(min(shares), max(shares))
    grid = [
        [edge[name][1] if name in edge else math.nan for name in OPERATIONS] for edge in evaluations
    ]
    picture = axes.imshow(grid, cmap="Blues", norm=scale, aspect="auto")
    for row, edge in enumerate(evaluations):
        for name, (_, e) in edge.items():
            column, ink = OPERATIONS.index(name), "white" if scale(e) > 0.6 else "black"
            axes.text(column, row, f"{e:.3f}", fontsize=6, color=ink, ha="center", va="center")
        smallest = min(edge, key=lambda name: edge[name])
        corner = (OPERATIONS.index(smallest) - 0.5, row - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#c00000", linewidth=1.5))
    axes.set_xticks(range(len(OPERATIONS)), OPERATIONS, fontsize=6)
    edges = [f"{cell} {edge}" for cell in CELL_TYPES for edge in EDGE_NAMES]
    axes.set_yticks(range(len(edges)), edges, fontsize=7)
    figure.colorbar(picture, cax=figure.add_axes((0.9, 0.06, 0.02, 0.88))).ax.tick_params(
        labelsize=7
    )
    title = "Evaluation indicator e(o) of each edge's operations (Eq. 2); framed: the smallest"
    figure.text(0.015, 0.97, title, fontsize=10, weight="bold", color=INK, va="center")
    return figure


# The figure of each kind of log.
_LOG_FIGURES = {
    "architectures": lambda rows, genotype: plot_search(rows, genotype=genotype),
    "epochs": lambda rows, _: plot_epochs(rows),
    "trainings": lambda rows, _: plot_trainings(rows),
}


def plot(
    output: str | os.PathLike[str],
    *,
    genotype: Genotype | None = None,
    rows: Sequence[Mapping[str, Any]] | None = None,
) -> list[str]:
    """Draws all there is to draw of a genotype, of a search, or of both into a folder.

    Args:
        output: the folder, made if missing. A genotype gives `normal`, `reduce` and `genotype`,
            a log gives `search`, each as `.png` and `.svg`.
        genotype: a `Genotype`, or None where a search has none yet.
        rows: a search's log of any kind, as `search_log.read` gives it, or None.

    Returns:
        The list of paths written.

    Raises:
        ValueError: if there is nothing to draw or the folder cannot be written.
    """
    figures = {}
    if genotype is not None:
        figures["normal"] = plot_cell(genotype.normal, title="Normal cell")
        figures["reduce"] = plot_cell(genotype.reduce, title="Reduction cell")
        figures["genotype"] = plot_genotype(genotype)
    if rows is not None:
        figures["search"] = _LOG_FIGURES[search_log.kind_of(rows)](rows, genotype)
    if not figures:
        raise ValueError("nothing to draw: neither a genotype nor a search was given")
    return save_all(output, figures)
