"""Photos side by side, each with a line or two below it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cpnas_tf.plots.figures import FAINT_INK, INK, NOT_IN_XML, WIDTH, new_figure

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

COLUMNS = 6
MOST = 120  # photos in a figure
SIDE = 256  # pixels of a photo that are worth drawing
_CELL = WIDTH / COLUMNS  # inches
_CAPTION = 0.42
_TITLE = 0.4
_LONGEST = 20  # characters of a line


def plot_photos(groups: Mapping[str, Sequence[tuple[np.ndarray, str]]]) -> Figure:
    """Draws groups of photos, in rows of six.

    Args:
        groups: by title, which may be empty, pairs of a photo, uint8 [height, width, 1 or 3], and
            of a line or two for it. A long line is cut in its middle.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    heights = [
        (_TITLE if title else 0) + math.ceil(len(photos) / COLUMNS) * (_CELL + _CAPTION)
        for title, photos in groups.items()
    ]
    figure = new_figure(sum(heights))
    top = sum(heights)
    for (title, photos), height in zip(groups.items(), heights, strict=True):
        if title:
            place = (0.1 / WIDTH, (top - _TITLE / 2) / sum(heights))
            figure.text(*place, title, fontsize=10, weight="bold", color=INK, va="center")
        for index, (photo, caption) in enumerate(photos):
            row, column = divmod(index, COLUMNS)
            lower = top - (_TITLE if title else 0) - (row + 1) * (_CELL + _CAPTION) + _CAPTION
            _draw(figure, photo, caption, left=column * _CELL, lower=lower)
        top -= height
    return figure


def _draw(figure, photo, caption, *, left, lower):
    """Draws a photo with its line below it, at a place in inches."""
    width, height = figure.get_size_inches()
    side, margin = 0.92 * _CELL, 0.04 * _CELL
    axes = figure.add_axes(((left + margin) / width, lower / height, side / width, side / height))
    pixels = photo[..., 0] if photo.shape[2] == 1 else photo
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)
    axes.spines[:].set_color(FAINT_INK)
    place = ((left + _CELL / 2) / width, (lower - 0.05) / height)
    style = {"fontsize": 8, "color": INK, "ha": "center", "va": "top", "parse_math": False}
    lines = map(_shortened, caption.splitlines())
    figure.text(*place, "\n".join(lines), **style)


def _shortened(line):
    line = NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", line)
    if len(line) <= _LONGEST:
        return line
    end = line[-_LONGEST // 2 :]
    return f"{line[: _LONGEST - len(end) - 1]}\N{HORIZONTAL ELLIPSIS}{end}"
