"""The figure of a search's front of sizes: predicted score against Mbit. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpnas_tf.plots.figures import CHILD_COLOUR, INK, NARROW_WIDTH, PARENT_COLOUR, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_front(
    points: Sequence[Any],
    *,
    named: Mapping[int, str],
    limits: Mapping[str, float | None] | None = None,
) -> Figure:
    """Draws the best predicted score under every budget of bits, narrow enough for a phone.

    Args:
        points: `search.front.Point`s, the smallest first.
        named: names of some points, by their positions.
        limits: that the genotypes keep, such as `{"MFLOPs": 2.0}`; None is none.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = new_figure(3.4, width=NARROW_WIDTH)
    axes = figure.add_axes((0.17, 0.16, 0.8, 0.72))
    sizes, scores = [point.mbit for point in points], [point.score for point in points]
    axes.step(sizes, scores, where="post", color=CHILD_COLOUR, linewidth=1.2)
    axes.plot(sizes, scores, color=CHILD_COLOUR, marker="o", markersize=2, linewidth=0)
    style: dict[str, Any] = {"color": PARENT_COLOUR, "marker": "D", "markersize": 5, "linewidth": 0}
    axes.plot([sizes[place] for place in named], [scores[place] for place in named], **style)
    for place, name in named.items():
        offset: dict[str, Any] = {"xytext": (0, 6), "textcoords": "offset points"}
        where = (sizes[place], scores[place])
        axes.annotate(name, where, fontsize=7, color=INK, ha="center", **offset)
    axes.set_xlabel("Mbit", fontsize=9)
    axes.set_ylabel("predicted score", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.06, y=0.12)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    kept = [f"{name} ≤ {limit:g}" for name, limit in (limits or {}).items() if limit is not None]
    title = ", ".join(["Best genotype under every budget", *kept])
    figure.text(0.02, 0.95, title, fontsize=9, weight="bold", color=INK, va="center")
    return figure
