"""The figures of a training: its curves, and images that its network gets right and wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpnas_tf.plots.figures import CHILD_COLOUR, INK, NARROW_WIDTH, new_figure
from cpnas_tf.plots.photos import COLUMNS, plot_photos

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

# Each panel's label, and the columns of history.csv that it shows, by what they are called.
_PANELS = (
    ("accuracy (%)", {"training": "accuracy", "validation": "val_accuracy"}, 100),
    ("cross-entropy", {"training": "cross_entropy", "validation": "val_loss"}, 1),
)
_RIGHT, _WORST = COLUMNS, 3 * COLUMNS  # images
_COLOURS = {"training": INK, "validation": CHILD_COLOUR}


def plot_history(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws accuracy and cross-entropy over the epochs, narrow enough for a phone.

    Args:
        rows: as `runs.history.read` gives them, at least one; the training may be unfinished.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("nothing to draw: the training has no epoch yet")
    figure = new_figure(5.4, width=NARROW_WIDTH)
    grid = figure.add_gridspec(2, 1, left=0.16, right=0.96, top=0.97, bottom=0.15, hspace=0.1)
    first, second = panels = [figure.add_subplot(grid[row, 0]) for row in range(2)]
    epochs = [row["epoch"] for row in rows]
    for axes, (label, columns, factor) in zip(panels, _PANELS, strict=True):
        for name, column in columns.items():
            column = column if column in rows[0] else "loss"  # without a Child-Parent loss
            values = [factor * row[column] for row in rows]
            style: dict[str, Any] = {"color": _COLOURS[name], "marker": "o", "markersize": 2.5}
            axes.plot(epochs, values, label=name, linewidth=1.2, **style)
        axes.set_ylabel(label, fontsize=9)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    first.tick_params(labelbottom=False)
    second.set_xlabel("epoch", fontsize=9)
    for axes in panels:
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, ncols=2, fontsize=9, frameon=False, loc="lower center")
    return figure


def plot_examples(
    images: np.ndarray, logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Draws the images that a network is surest of and right, and those with the largest loss.

    Args:
        images: uint8 [n, height, width, 1 or 3].
        logits: of the network, float32 [n, classes].
        labels: of the images, integers [n].
        class_names: the classes' names.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    import numpy as np

    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    found, right = logits.argmax(axis=1), shares[np.arange(len(labels)), labels]
    surest = [index for index in np.argsort(-right, kind="stable") if found[index] == labels[index]]

    def shown(index):
        said = f"{class_names[found[index]]} {shares[index].max():.0%}"
        is_right = found[index] == labels[index]
        return images[index], said if is_right else f"{said}\nis {class_names[labels[index]]}"

    return plot_photos(
        {
            "Surest and right": [shown(index) for index in surest[:_RIGHT]],
            "Largest loss": [shown(index) for index in np.argsort(right, kind="stable")[:_WORST]],
        }
    )
