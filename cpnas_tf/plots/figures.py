"""What all figures share: sizes, colours, names and files; and the confusion matrix."""

from __future__ import annotations

import io
import itertools
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpnas_tf.files import write_atomically

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, FAINT_INK = "#222222", "#6b6b6b"
CHILD_COLOUR, PARENT_COLOUR = "#e07b00", "#005b96"
WIDTH = 9.0  # inches
NARROW_WIDTH = 4.2  # inches: on a phone, text of 8 points is still of 9 pixels
PIXELS_PER_INCH = 200
SAVE_STYLE: dict[Any, str] = {"svg.fonttype": "none", "svg.hashsalt": "cpnas_tf"}
_NAMED_CLASSES = 20
NOT_IN_XML = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def new_figure(height: float, *, width: float = WIDTH) -> Figure:
    """An empty `matplotlib.figure.Figure` of a height and a width in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def name_ticks(axis: Axis, names: Sequence[str], **style: Any) -> None:
    """Labels the positions 0, 1, ... of an axis with names that may hold any character.

    A `$` starts no formula, and a character that an SVG cannot hold is shown as U+FFFD.

    Args:
        axis: a `matplotlib.axis.Axis`.
        names: one per position.
        style: of the labels, as for `matplotlib.text.Text`.
    """
    labels = [NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", name) for name in names]
    axis.set_ticks(range(len(names)), labels, parse_math=False, **style)


def plot_confusion_matrix(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws a confusion matrix: which classes the images of each class are classified as.

    Colours show shares of a class's images. Up to 20 classes have their names and counts.

    Args:
        matrix: counts, one row per class, one column per predicted class.
        class_names: the classes' names.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure = new_figure(7.2)
    axes = figure.add_axes((0.19, 0.19, 0.69, 0.72))
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    if len(class_names) <= _NAMED_CLASSES:
        numbers = range(len(class_names))
        name_ticks(axes.xaxis, class_names, fontsize=8, rotation=45, ha="right")
        name_ticks(axes.yaxis, class_names, fontsize=8)
        for row, column in itertools.product(numbers, numbers):
            ink = "white" if shares[row][column] > 0.715 else "black"
            style: dict[str, Any] = {"fontsize": 8, "color": ink, "ha": "center", "va": "center"}
            axes.text(column, row, str(matrix[row][column]), **style)
    axes.set_xlabel("predicted class", fontsize=9)
    axes.set_ylabel("class", fontsize=9)
    bar = figure.colorbar(picture, cax=figure.add_axes((0.9, 0.19, 0.02, 0.72)))
    bar.ax.tick_params(labelsize=8)
    axes.tick_params(labelsize=8)
    right, total = (sum(row[i] for i, row in enumerate(matrix)), sum(map(sum, matrix)))
    title = f"Confusion matrix: {right:,} of {total:,} images right"
    figure.text(0.015, 0.96, title, fontsize=12, weight="bold", color=INK, va="center")
    return figure


def save_all(output: str | os.PathLike[str], figures: Mapping[str, Figure]) -> list[str]:
    """Writes figures into a folder, which is made if missing; see `save`.

    Args:
        output: the folder.
        figures: `{name of the files: figure}`.

    Returns:
        The list of paths written.

    Raises:
        ValueError: if the folder cannot be written.
    """
    try:
        os.makedirs(output, exist_ok=True)
        return [
            path
            for name, figure in figures.items()
            for path in save(figure, os.path.join(output, name))
        ]
    except OSError as error:
        raise ValueError(f"cannot write the pictures to {output}: {error.strerror}") from None


def save(figure: Figure, stem: str | os.PathLike[str]) -> list[str]:
    """Writes a figure to `stem`.png and `stem`.svg, atomically; equal figures give equal bytes.

    Text in the SVG stays text, so that it can be searched and selected.

    Returns:
        The two paths.

    Raises:
        OSError: if the folder cannot be written.
    """
    paths = []
    for extension in ("png", "svg"):
        paths.append(f"{stem}.{extension}")
        write_atomically(paths[-1], render(figure, extension))
    return paths


def render(figure: Figure, extension: str) -> bytes:
    """A figure as the bytes of a "png" or "svg" file.

    A character that the font lacks is a box in the PNG, without a warning, and itself in the SVG.
    """
    import matplotlib

    image = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None}}[extension]
    with matplotlib.rc_context(SAVE_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(image, format=extension, dpi=PIXELS_PER_INCH, metadata=metadata)
    return image.getvalue()
