"""Drawings of cells. No TensorFlow, and matplotlib only where it draws.

A cell is drawn left to right: the two inputs are tall boxes at the left, the four intermediate
nodes stand on one line, and each of the 14 edges runs at a height of its own, so that the gap
before a node shows exactly the operations that are summed there. All lengths are inches.

References:
    CP-NAS, section 2.2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cpnas_tf.genotypes import EDGES, INPUT_NODES, NODE_NAMES, NODES, Genotype
from cpnas_tf.plots.figures import FAINT_INK, INK, WIDTH, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The kinds of operations, by a part of their names.
KINDS = {
    "none": "no connection",
    "skip": "skip",
    "pool": "pooling",
    "sep_conv": "separable convolution",
    "dil_conv": "dilated convolution",
}
OTHER_KIND = "other operation"
COLOURS = {
    "no connection": "#c4c4c4",
    "skip": "#595959",
    "pooling": "#56b4e9",
    "separable convolution": "#005b96",
    "dilated convolution": "#e07b00",
    OTHER_KIND: "#a500f0",
}
DARK_KINDS = ("skip", "separable convolution", OTHER_KIND)
# As many characters of an operation's name fit on its label at full size.
LABEL_CHARACTERS = 12
CELL_HEIGHT, LEGEND_HEIGHT = 3.6, 0.4
# The track of an edge that does not run on the line of nodes: how far above (+) or below (-) it.
# Edges share a track where they do not meet; so chosen, only 4 pairs of edges cross.
TRACKS = {
    **{(0, 2): 1, (2, 4): 1, (0, 3): 2, (0, 4): 3, (0, 5): 4},
    **{(1, 2): -1, (3, 5): -1, (2, 5): -2, (1, 3): -3, (1, 4): -4, (1, 5): -5},
}


LINE_Y, FIRST_TRACK, TRACK_STEP, PORT_STEP = 1.75, 0.48, 0.27, 0.14


INPUT_X, FIRST_X, OUTPUT_X, NODE_STEP = 0.42, 2.27, 8.67, 1.78


NODE, INPUT_WIDTH, LABEL_WIDTH, LABEL_HEIGHT = 0.42, 0.56, 1.02, 0.2


CORNER, HEAD = 0.08, 0.12


def plot_cell(operations: Sequence[str], *, title: str) -> Figure:
    """Draws one cell.

    An operation is drawn as its kind, by its name: see `kind_of`.

    Args:
        operations: the 14 operations' names in the order of `genotypes.EDGES`.
        title: what stands above the cell.

    Returns:
        A `matplotlib.figure.Figure`, 9 inches wide: read at 900 pixels, its text is 8 pt or more.

    Raises:
        ValueError: if `operations` are not 14 known names.
    """
    operations = Genotype(normal=operations, reduce=operations).normal
    return _plot_cells({title: operations})


def plot_genotype(genotype: Genotype) -> Figure:
    """Draws the normal cell of a `Genotype` and, below it, its reduction cell; see `plot_cell`."""
    return _plot_cells({"Normal cell": genotype.normal, "Reduction cell": genotype.reduce})


def _plot_cells(cells):
    from matplotlib.lines import Line2D

    height = len(cells) * CELL_HEIGHT + LEGEND_HEIGHT
    figure = new_figure(height)
    for row, (title, operations) in enumerate(cells.items(), start=1):
        bottom = (height - row * CELL_HEIGHT) / height
        axes = figure.add_axes((0, bottom, 1, CELL_HEIGHT / height))
        axes.set(xlim=(0, WIDTH), ylim=(0, CELL_HEIGHT))
        axes.axis("off")
        heading = {"fontsize": 12, "weight": "bold", "color": INK, "va": "top"}
        axes.text(node_box(0)[0], CELL_HEIGHT - 0.1, title, **heading)
        _draw_nodes(axes)
        for edge, operation in zip(EDGES, operations, strict=True):
            _draw_edge(axes, edge, operation)
    drawn = {kind_of(operation) for operations in cells.values() for operation in operations}
    kinds = [kind for kind in COLOURS if kind != OTHER_KIND or kind in drawn]
    lines = [Line2D([], [], label=kind, **_line_style(kind)) for kind in kinds]
    figure.legend(handles=lines, ncols=len(lines), loc="lower center", fontsize=9, frameon=False)
    return figure


def kind_of(operation: str) -> str:
    """The kind of an operation, a key of `COLOURS`, by its name."""
    return next((kind for part, kind in KINDS.items() if part in operation), OTHER_KIND)


def node_box(node: int) -> tuple[float, float, float, float]:
    """The rectangle (left, bottom, right, top) of a node; `NODES` stands for the cell's output."""
    if node < INPUT_NODES:  # tall: all edges of an input leave it at the heights they run at
        tracks = [track for edge, track in TRACKS.items() if edge[0] == node]
        bottom, top = _track_y(min(tracks)) - 0.16, _track_y(max(tracks)) + 0.16
        middle = (bottom + top) / 2
        return _around(INPUT_X, middle, width=INPUT_WIDTH, height=top - bottom)
    x = OUTPUT_X if node == NODES else FIRST_X + (node - INPUT_NODES) * NODE_STEP
    return _around(x, LINE_Y, width=NODE, height=NODE)


def edge_route(edge: tuple[int, int]) -> list[tuple[float, float]]:
    """The corners [(x, y), ...] of an edge's line, from its source's box to its target's."""
    source, target = edge
    track = TRACKS.get(edge, 0)
    y = _track_y(track)
    if track == 0:
        return [(node_box(source)[2], y), (node_box(target)[0], y)]
    side = LINE_Y + math.copysign(NODE / 2, track)
    end = [(_port(edge, target), y), (_port(edge, target), side)]
    if source < INPUT_NODES:
        return [(node_box(source)[2], y), *end]
    return [(_port(edge, source), side), (_port(edge, source), y), *end]


def label_centre(edge: tuple[int, int]) -> tuple[float, float]:
    """Where an edge's operation is written: on its line, in the gap before its target."""
    target = edge[1]
    before = node_box(0 if target == INPUT_NODES else target - 1)
    return (before[2] + node_box(target)[0]) / 2, _track_y(TRACKS.get(edge, 0))


def _track_y(track):
    if track == 0:
        return LINE_Y
    return LINE_Y + math.copysign(FIRST_TRACK + (abs(track) - 1) * TRACK_STEP, track)


def _port(edge, node):
    """The x where an edge meets a node from above or below: arriving ones at the left, nested."""
    ports = [other for other in TRACKS if node in other and TRACKS[other] * TRACKS[edge] > 0]
    ports.sort(key=lambda other: (other[0] == node, abs(TRACKS[other])))
    left, _, right, _ = node_box(node)
    return (left + right) / 2 + (ports.index(edge) - (len(ports) - 1) / 2) * PORT_STEP


def _draw_nodes(axes):
    left, bottom, right, top = node_box(INPUT_NODES)[:2] + node_box(NODES - 1)[2:]
    band = (left - 0.1, bottom - 0.1, right + 0.1, top + 0.1)
    _draw_box(axes, band, facecolor="#f0f0f0", zorder=0)
    _draw_arrow(axes, [(band[2], LINE_Y), (node_box(NODES)[0], LINE_Y)], color=INK, linewidth=1.5)
    middle = (band[2] + node_box(NODES)[0]) / 2
    axes.text(middle, LINE_Y - 0.1, "concat", fontsize=8, color=INK, ha="center", va="top")
    names = [re.sub(r"c\((.+)\)", r"$c_{\1}$", name) for name in (*NODE_NAMES, "c(k)")]
    for node, name in enumerate(names):
        inner = INPUT_NODES <= node < NODES
        style = {"facecolor": "white" if inner else "#e0e0e0", "edgecolor": INK, "linewidth": 1.2}
        _draw_box(axes, node_box(node), text=name, fontsize=12, zorder=5, **style)


def _draw_edge(axes, edge, operation):
    kind = kind_of(operation)
    faint = operation == "none"
    layer = {"zorder": 1} if faint else {"zorder": 2, "seam": edge in TRACKS}
    _draw_arrow(axes, edge_route(edge), **layer, **_line_style(kind))
    x, y = label_centre(edge)
    box = _around(x, y, width=0.4 if faint else LABEL_WIDTH, height=LABEL_HEIGHT)
    ink = FAINT_INK if faint else "white" if kind in DARK_KINDS else "black"
    face = "white" if faint else COLOURS[kind]
    size = 8 if faint else 9 * min(1, LABEL_CHARACTERS / len(operation))
    _draw_box(axes, box, text=operation, fontsize=size, color=ink, facecolor=face, zorder=3)


def _around(x, y, *, width, height):
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _line_style(kind):
    if kind == KINDS["none"]:
        return {"color": COLOURS[kind], "linewidth": 1.0, "linestyle": (0, (4, 3))}
    return {"color": COLOURS[kind], "linewidth": 2.0, "linestyle": "solid"}


def _draw_arrow(axes, corners, *, color, seam=False, zorder=2, **style):
    """A line with rounded corners and a head; a white seam shows that lines it crosses go on."""
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.patheffects import Normal, Stroke

    (x, y), (tip_x, tip_y) = corners[-2:]
    length = math.hypot(tip_x - x, tip_y - y)
    ahead = ((tip_x - x) / length, (tip_y - y) / length)
    base = (tip_x - HEAD * ahead[0], tip_y - HEAD * ahead[1])
    aside = (-ahead[1] * HEAD * 0.45, ahead[0] * HEAD * 0.45)
    path = _rounded([*corners[:-1], base])
    line = PathPatch(path, fill=False, edgecolor=color, capstyle="butt", zorder=zorder, **style)
    if seam:
        line.set_path_effects([Stroke(linewidth=5, foreground="white"), Normal()])
    axes.add_patch(line)
    head = [(tip_x, tip_y), *((base[0] + s * aside[0], base[1] + s * aside[1]) for s in (1, -1))]
    axes.add_patch(Polygon(head, facecolor=color, linewidth=0, zorder=zorder))


def _rounded(corners):
    """The path through `corners`, each turn a quarter arc."""
    from matplotlib.path import Path

    vertices, codes = [corners[0]], [Path.MOVETO]
    for before, corner, after in zip(corners, corners[1:], corners[2:], strict=False):
        vertices += [_towards(corner, before), corner, _towards(corner, after)]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    return Path([*vertices, corners[-1]], [*codes, Path.LINETO])


def _towards(start, end):
    share = CORNER / math.dist(start, end)
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _draw_box(axes, box, *, text="", fontsize=9, color=INK, zorder, edgecolor="none", **style):
    from matplotlib.patches import FancyBboxPatch

    left, bottom, right, top = box
    shape = "round,pad=0,rounding_size=0.07"
    style = {"edgecolor": edgecolor, "zorder": zorder, **style}
    axes.add_patch(FancyBboxPatch((left, bottom), right - left, top - bottom, shape, **style))
    if text:
        centre = (left + right) / 2, (bottom + top) / 2
        align = {"ha": "center", "va": "center_baseline", "zorder": zorder + 1}
        axes.text(*centre, text, fontsize=fontsize, color=color, **align)
