"""The figure of a guided search: what the rounds gained, how well the model predicted.

Loads no TensorFlow, and matplotlib to draw.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpnas_tf.plots.figures import CHILD_COLOUR, INK, NARROW_WIDTH, PARENT_COLOUR, new_figure
from cpnas_tf.runs import search_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"random": "#9a9a9a", "guided": CHILD_COLOUR, "final": "#6a3d9a"}
_MARKERS = {"random": "o", "guided": "D", "final": "s"}


def plot_trainings(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws a guided search, narrow enough for a phone.

    Above: the child's validation accuracy in each training and the mean of each round. Below: the
    scores against what the model predicted, for proposals before they were trained, for the first
    design by the fit to all other trainings.

    Args:
        rows: as `search_log.read` gives them, at least one.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = new_figure(6.8, width=NARROW_WIDTH)
    accuracy = figure.add_axes((0.16, 0.61, 0.8, 0.345))
    prediction = figure.add_axes((0.16, 0.07, 0.8, 0.345))
    _draw_accuracies(accuracy, rows)
    _draw_predictions(prediction, rows)
    for axes in (accuracy, prediction):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(9)
        axes.yaxis.label.set_fontsize(9)
        axes.grid(color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        ncols=3,
        fontsize=8,
        frameon=False,
        loc="center",
        bbox_to_anchor=(0.53, 0.5),
    )
    return figure


def _draw_accuracies(axes, rows):
    if rows[0]["parent_accuracy"] is not None:
        parents = [100 * row["parent_accuracy"] for row in rows]
        places = [row["training"] for row in rows]
        axes.plot(
            places, parents, "s", color=PARENT_COLOUR, markersize=3, alpha=0.5, label="parent"
        )
    shown = set()
    for group in search_log.by_round(rows).values():
        phase, places = group[0]["phase"], [row["training"] for row in group]
        values = [100 * row["child_accuracy"] for row in group]
        name = None if phase in shown else phase
        style = {"color": _COLOURS[phase], "marker": _MARKERS[phase], "markersize": 4}
        axes.plot(places, values, linewidth=0, alpha=0.8, label=name, **style)
        mean = statistics.fmean(values)
        axes.hlines(mean, places[0] - 0.5, places[-1] + 0.5, color=INK, linewidth=1.5)
        shown.add(phase)
    axes.plot([], [], color=INK, linewidth=1.5, label="mean of a round")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("child, after its training from scratch", fontsize=9, loc="left")
    axes.set_xlabel("training, in order")
    axes.set_ylabel("validation accuracy (%)")


def _draw_predictions(axes, rows):
    for phase in ("random", "guided"):
        pairs = [
            (expected, row["score"])
            for row in rows
            if row["phase"] == phase and (expected := _prediction(row)) is not None
        ]
        if pairs:
            style = {"color": _COLOURS[phase], "marker": _MARKERS[phase], "markersize": 4}
            axes.plot(*zip(*pairs, strict=True), linewidth=0, alpha=0.8, **style)
    axes.set_title("the model, before it saw the score", fontsize=9, loc="left")
    axes.set_xlabel("predicted score")
    axes.set_ylabel("score")
    axes.margins(0.08)
    if axes.lines:
        low = max(axes.get_xlim()[0], axes.get_ylim()[0])
        high = min(axes.get_xlim()[1], axes.get_ylim()[1])
        if low < high:
            axes.plot([low, high], [low, high], color=INK, linewidth=0.8, linestyle=":")


def _prediction(row: Mapping[str, Any]) -> float | None:
    """What the model said of a training without its score, or None while there was no model.

    Args:
        row: of a training that is no finalist's, as `search_log.read` gives it.
    """
    return row["left_out"] if row["predicted"] is None else row["predicted"]
