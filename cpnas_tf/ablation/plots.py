"""Figures of an ablation: test accuracy by method and over beta_P. No TensorFlow.

References:
    CP-NAS, Fig. 6: beta_P at the left, the methods at the right.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpnas_tf.ablation.table import CONFIDENCE, make_table, samples
from cpnas_tf.catalogue import BASELINE
from cpnas_tf.plots.figures import (
    CHILD_COLOUR,
    INK,
    NARROW_WIDTH,
    PARENT_COLOUR,
    name_ticks,
    new_figure,
    save_all,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE_STYLE: dict[str, Any] = {
    "color": INK,
    "linestyle": (0, (4, 3)),
    "linewidth": 1,
    "zorder": 1,
}
SEED_STYLE: dict[str, Any] = {
    "color": CHILD_COLOUR,
    "alpha": 0.6,
    "marker": "o",
    "markersize": 4,
    "linewidth": 0,
}
MEAN_STYLE: dict[str, Any] = {
    "color": PARENT_COLOUR,
    "marker": "D",
    "markersize": 5,
    "linewidth": 1.8,
}


def row_name(row: Mapping[str, Any]) -> str:
    """The name of a table's row or of a run: its method, and beta_P if it has one."""
    beta = "" if row["beta"] is None else f", β\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{row['beta']:g}"
    return row["method"] + beta


def plot_methods(
    rows: Sequence[Mapping[str, Any]],
    accuracies: Mapping[tuple[str, float | None], Mapping[int, float]],
) -> Figure:
    """Draws each row's test accuracy: every search seed, the mean and its interval.

    Args:
        rows: as `table.make_table` gives them.
        accuracies: as `table.samples` gives them.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    height = 1.1 + 0.4 * len(rows)
    figure = new_figure(height, width=NARROW_WIDTH)
    axes = figure.add_axes((0.3, 0.9 / height, 0.67, 1 - 1.0 / height))
    for line, (row, sample) in enumerate(zip(rows, accuracies.values(), strict=True)):
        axes.plot(_percent(sample.values()), [line + 0.2] * len(sample), **SEED_STYLE)
        axes.plot(_interval(row), [line - 0.1] * 3, markevery=[1], **MEAN_STYLE)
    baseline = _mean_of_baseline(rows)
    if baseline is not None:
        axes.axvline(baseline, **BASELINE_STYLE)
    name_ticks(axes.yaxis, [row_name(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("test accuracy (%)")
    _finish(figure, axes, grid="x", baseline=baseline)
    return figure


def has_betas(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a method ran with more than one beta_P."""
    counts = collections.Counter(row["method"] for row in rows if row["beta"] is not None)
    return max(counts.values(), default=0) > 1


def plot_betas(
    rows: Sequence[Mapping[str, Any]],
    accuracies: Mapping[tuple[str, float | None], Mapping[int, float]],
) -> Figure:
    """Draws the test accuracy of the rows that have a beta_P over it.

    Args:
        rows, accuracies: as for `plot_methods`.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = new_figure(3.4, width=NARROW_WIDTH)
    axes = figure.add_axes((0.17, 0.26, 0.8, 0.71))
    points = sorted((row["beta"], 100 * row["mean"]) for row in rows if row["beta"] is not None)
    beside = (points[-1][0] - points[0][0]) / 40
    for row in rows:
        if row["beta"] is not None:
            sample = accuracies[row["method"], row["beta"]]
            axes.plot([row["beta"] + beside] * len(sample), _percent(sample.values()), **SEED_STYLE)
            axes.plot([row["beta"]] * 3, _interval(row), markevery=[1], **MEAN_STYLE)
    axes.plot(*zip(*points, strict=True), color=PARENT_COLOUR, linewidth=1, alpha=0.6)
    baseline = _mean_of_baseline(rows)
    if baseline is not None:
        axes.axhline(baseline, **BASELINE_STYLE)
    axes.set_xlabel("beta_P (0 is BNAS†)")
    axes.set_ylabel("test accuracy (%)")
    _finish(figure, axes, grid="y", baseline=baseline)
    return figure


def _percent(accuracies):
    return [100 * accuracy for accuracy in accuracies]


def _interval(row):
    """Lower bound, mean and upper bound in percent; three times the mean without an interval."""
    bounds = (row["low"], row["mean"], row["high"])
    return _percent(row["mean"] if bound is None else bound for bound in bounds)


def _mean_of_baseline(rows):
    return next((100 * row["mean"] for row in rows if row["method"] == BASELINE), None)


def _finish(figure, axes, *, grid, baseline):
    from matplotlib.lines import Line2D

    axes.tick_params(labelsize=9)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    axes.grid(axis=grid, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    labels = {"a search": SEED_STYLE, f"mean, {CONFIDENCE:.0%} interval": MEAN_STYLE}
    if baseline is not None:
        labels["mean of random"] = BASELINE_STYLE
    handles = [Line2D([], [], label=label, **style) for label, style in labels.items()]
    style = {"loc": "lower center", "fontsize": 9, "frameon": False}
    spacing = {"columnspacing": 1.2, "handlelength": 1.6}
    figure.legend(handles=handles, ncols=len(handles), **style, **spacing)


def plot(
    output: str | os.PathLike[str],
    searches: Sequence[Mapping[str, Any]],
    runs: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Draws an ablation into a folder: `methods`, and `betas` if a method has several beta_P.

    Args:
        output: the folder, made if missing; each picture is a `.png` and a `.svg`.
        searches, runs: as `table.read` gives them, at least one run.

    Returns:
        The list of paths written.

    Raises:
        ValueError: if there are no runs, or the folder cannot be written.
    """
    if not runs:
        raise ValueError("nothing to draw: the ablation has no finished run yet")
    rows, accuracies = make_table(searches, runs), samples(runs)
    figures = {"methods": plot_methods(rows, accuracies)}
    if has_betas(rows):
        figures["betas"] = plot_betas(rows, accuracies)
    return save_all(output, figures)
