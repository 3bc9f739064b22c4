"""Pictures of cells and of a search's progress. No TensorFlow; matplotlib only where it draws.

A cell is drawn left to right: the two inputs are tall boxes at the left, the four intermediate
nodes stand on one line, and each of the 14 edges runs at a height of its own, so that the gap
before a node shows exactly the operations that are summed there. All lengths are inches.

References:
    CP-NAS, section 2.2 (cells), Algorithm 1 and Eq. 1 (search).
"""

import csv
import io
import itertools
import math
import os
import statistics

from cpnas_tf.genotypes import (
    CELL_TYPES,
    EDGES,
    INPUT_NODES,
    INTERMEDIATE_NODES,
    NODES,
    OPERATIONS,
    Genotype,
)
from cpnas_tf.workdir import write_atomically

KINDS = {
    "none": "no connection",
    "skip_connect": "skip",
    "max_pool_3x3": "pooling",
    "avg_pool_3x3": "pooling",
    "sep_conv_3x3": "separable convolution",
    "sep_conv_5x5": "separable convolution",
    "dil_conv_3x3": "dilated convolution",
    "dil_conv_5x5": "dilated convolution",
}
COLOURS = {
    "no connection": "#c4c4c4",
    "skip": "#595959",
    "pooling": "#56b4e9",
    "separable convolution": "#005b96",
    "dilated convolution": "#e07b00",
}
DARK_KINDS = ("skip", "separable convolution")
INK, FAINT_INK = "#222222", "#6b6b6b"
CHILD_COLOUR, PARENT_COLOUR = "#e07b00", "#005b96"

# The track of an edge that does not run on the line of nodes: how far above (+) or below (-) it.
# Edges share a track where they do not meet; so chosen, only 4 pairs of edges cross.
TRACKS = {
    **{(0, 2): 1, (2, 4): 1, (0, 3): 2, (0, 4): 3, (0, 5): 4},
    **{(1, 2): -1, (3, 5): -1, (2, 5): -2, (1, 3): -3, (1, 4): -4, (1, 5): -5},
}
WIDTH, CELL_HEIGHT, LEGEND_HEIGHT = 9.0, 3.6, 0.4
LINE_Y, FIRST_TRACK, TRACK_STEP, PORT_STEP = 1.75, 0.48, 0.27, 0.14
INPUT_X, FIRST_X, OUTPUT_X, NODE_STEP = 0.42, 2.27, 8.67, 1.78
NODE, INPUT_WIDTH, LABEL_WIDTH, LABEL_HEIGHT = 0.42, 0.56, 1.02, 0.2
CORNER, HEAD = 0.08, 0.12

CHOICES = tuple(f"{cell}_{source}_{target}" for cell in CELL_TYPES for source, target in EDGES)
COLUMNS = (
    *("stage", "round", "sample", *CHOICES),
    *("child_accuracy", "parent_accuracy", "z", "seconds"),
)
SAVE_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "cpnas_tf"}
PIXELS_PER_INCH = 200


def plot_cell(operations, *, title):
    """Draws one cell.

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


def plot_genotype(genotype):
    """Draws the normal cell of a `Genotype` and, below it, its reduction cell; see `plot_cell`."""
    return _plot_cells({"Normal cell": genotype.normal, "Reduction cell": genotype.reduce})


def _plot_cells(cells):
    from matplotlib.lines import Line2D

    height = len(cells) * CELL_HEIGHT + LEGEND_HEIGHT
    figure = _figure(height)
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
    lines = [Line2D([], [], label=kind, **_line_style(kind)) for kind in COLOURS]
    figure.legend(handles=lines, ncols=len(lines), loc="lower center", fontsize=9, frameon=False)
    return figure


def read_search(path):
    """Reads a search's log `search.csv`, finished or not.

    Returns:
        A list with a dict an architecture, in the order sampled: `stage`, `round` and `sample` are
        integers; the 28 `CHOICES` operations' names; `child_accuracy` and `parent_accuracy` (in
        [0, 1]), `z` and `seconds` floats.

    Raises:
        ValueError: naming the file and line, if it is missing, empty or not such a log.
    """
    rows, line = [], 1
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.reader(file, strict=True)
            _check_header(next(reader, ()))
            for fields in reader:
                line = reader.line_num
                rows.append(_parse_row(fields))
                if len(rows) > 1 and _position(rows[-2]) >= _position(rows[-1]):
                    raise ValueError("stage, round and sample must increase from line to line")
    except FileNotFoundError:
        raise ValueError(f"search log not found: {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read the search log {path}: {error.strerror}") from None
    except (csv.Error, ValueError) as error:
        raise ValueError(f"cannot read the search log {path}, line {line}: {error}") from None
    if not rows:
        raise ValueError(f"the search log {path} holds no architecture yet")
    return rows


def _check_header(fields):
    if tuple(fields) != COLUMNS:
        raise ValueError(
            f"expected {len(COLUMNS)} columns: stage, round, sample, {CHOICES[0]}, ..., "
            f"{CHOICES[-1]}, {', '.join(COLUMNS[-4:])}"
        )


def _parse_row(fields):
    if len(fields) != len(COLUMNS):
        raise ValueError(f"expected {len(COLUMNS)} values, received {len(fields)}")
    row = dict(zip(COLUMNS, fields, strict=True))
    for name in CHOICES:
        if row[name] not in OPERATIONS:
            raise ValueError(f"unknown operation {row[name]!r} in column {name}")
    for name in ("stage", "round", "sample"):
        row[name] = int(row[name])
    if not 0 <= row["stage"] < len(OPERATIONS) - 1:
        raise ValueError(f"stage must be 0 to {len(OPERATIONS) - 2}, received {row['stage']}")
    for name in ("child_accuracy", "parent_accuracy", "z", "seconds"):
        row[name] = float(row[name])
        if not math.isfinite(row[name]):
            raise ValueError(f"{name} must be finite, received {row[name]}")
    return row


def _position(row):
    return row["stage"], row["round"], row["sample"]


def _operations_at_first(rows):
    """K at the start of the search: as many as its first round samples, once that is complete."""
    first_round = sum(row["stage"] == row["round"] == 0 for row in rows)
    return first_round if first_round < len(rows) else len(OPERATIONS)


def survival(rows):
    """How many of the 28 edges still hold each operation, a stage of the search at a time.

    A round samples every remaining operation of every edge once (Algorithm 1), so a stage's counts
    are known when its first round is complete.

    Args:
        rows: as `read_search` gives them.

    Returns:
        `{stage: {operation: edges}}` for each stage that has a complete round.
    """
    counts = {}
    operations = _operations_at_first(rows)
    for stage, group in itertools.groupby(rows, key=lambda row: row["stage"]):
        group = list(group)
        if len(group) >= operations - stage:
            held = [{row[name] for row in group} for name in CHOICES]
            counts[stage] = {
                operation: sum(operation in edge for edge in held) for operation in OPERATIONS
            }
    return counts


def plot_search(rows, *, genotype=None):
    """Draws a search's progress: accuracies, scores z and the operations' survival.

    The three panels share their axis, the architectures in the order sampled; a search that is not
    finished is drawn as far as it got.

    Args:
        rows: as `read_search` gives them, at least one.
        genotype: the search's result, a `Genotype`, to be shown as the last column.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("nothing to draw: the search has no architecture yet")
    figure = _figure(7.2)
    ratios = {"width_ratios": (16, 1), "height_ratios": (1.25, 1, 1.25)}
    margins = {"left": 0.135, "right": 0.975, "top": 0.905, "bottom": 0.07}
    grid = figure.add_gridspec(3, 2, hspace=0.2, wspace=0.04, **ratios, **margins)
    accuracy = figure.add_subplot(grid[0, 0])
    score, held = (figure.add_subplot(grid[row, 0], sharex=accuracy) for row in (1, 2))
    stages = _stage_spans(rows)
    for who, colour, marker in (("parent", PARENT_COLOUR, "s"), ("child", CHILD_COLOUR, "o")):
        percent = [100 * row[f"{who}_accuracy"] for row in rows]
        _draw_points(accuracy, percent, stages, color=colour, marker=marker, label=who)
    accuracy.set_ylabel("validation accuracy (%)")
    _draw_points(score, [row["z"] for row in rows], stages, color=INK, marker="D")
    score.set_ylabel("score z (Eq. 1)")
    _draw_survival(held, survival(rows), stages)
    held.set_xlabel("architecture, in the order sampled")
    _style_panels(accuracy, score, held, stages=stages)
    _label_stages(accuracy, stages, operations=_operations_at_first(rows))
    if genotype is not None:
        _draw_result(figure.add_subplot(grid[2, 1]), genotype)
    noun = "architecture" if len(rows) == 1 else "architectures"
    _draw_heading(figure, f"Search, {len(rows)} {noun}", accuracy)
    return figure


def _stage_spans(rows):
    """[(stage, first, last)]: the architectures, counted from 1, of each stage."""
    spans, first = [], 1
    for stage, group in itertools.groupby(rows, key=lambda row: row["stage"]):
        spans.append((stage, first, first + len(list(group)) - 1))
        first = spans[-1][2] + 1
    return spans


def _style_panels(*panels, stages):
    for axes in panels:
        axes.tick_params(labelsize=8, labelbottom=axes is panels[-1])
        axes.yaxis.label.set_size(9)
        axes.xaxis.label.set_size(9)
        axes.spines[["top", "right"]].set_visible(False)
        for _, first, _ in stages[1:]:
            axes.axvline(first - 0.5, color="#bbbbbb", linewidth=0.8, zorder=0)
    panels[-1].set_xlim(0.5, stages[-1][2] + 0.5)
    panels[-1].xaxis.get_major_locator().set_params(integer=True)


def _label_stages(axes, stages, *, operations):
    """Writes above each stage how many operations an edge has left in it."""
    style = {"fontsize": 8, "va": "bottom"}
    for stage, first, last in stages:
        where = {"ha": "center", "transform": axes.get_xaxis_transform()}
        axes.text((first + last) / 2, 1.02, str(operations - stage), **where, **style)
    axes.text(-0.012, 1.02, "operations left", ha="right", transform=axes.transAxes, **style)


def _draw_heading(figure, title, axes):
    from matplotlib.lines import Line2D

    figure.text(0.015, 0.975, title, fontsize=12, weight="bold", color=INK, va="center")
    handles, _ = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], color=INK, linewidth=1.5, label="mean of a stage"))
    where = {"loc": "center right", "bbox_to_anchor": (0.985, 0.975)}
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
    title = f"edges, of {len(CHOICES)}, that still hold the operation"
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


def plot(output, *, genotype=None, rows=None):
    """Draws all there is to draw of a genotype, of a search, or of both into a folder.

    Args:
        output: the folder, made if missing. A genotype gives `normal`, `reduce` and `genotype`,
            rows give `search`, each as `.png` and `.svg`.
        genotype: a `Genotype`, or None where a search has none yet.
        rows: a search's log, as `read_search` gives it, or None.

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
        figures["search"] = plot_search(rows, genotype=genotype)
    if not figures:
        raise ValueError("nothing to draw: neither a genotype nor a search was given")
    try:
        os.makedirs(output, exist_ok=True)
        return [
            path
            for name, figure in figures.items()
            for path in save(figure, os.path.join(output, name))
        ]
    except OSError as error:
        raise ValueError(f"cannot write the pictures to {output}: {error.strerror}") from None


def save(figure, stem):
    """Writes a figure to `stem`.png and `stem`.svg, atomically; equal figures give equal bytes.

    Text in the SVG stays text, so that it can be searched and selected.

    Returns:
        The two paths.

    Raises:
        OSError: if the folder cannot be written.
    """
    import matplotlib

    paths = []
    for extension, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        image = io.BytesIO()
        with matplotlib.rc_context(SAVE_STYLE):
            figure.savefig(image, format=extension, dpi=PIXELS_PER_INCH, metadata=metadata)
        paths.append(f"{stem}.{extension}")
        write_atomically(paths[-1], image.getvalue())
    return paths


def node_box(node):
    """The rectangle (left, bottom, right, top) of a node; `NODES` stands for the cell's output."""
    if node < INPUT_NODES:  # tall: all edges of an input leave it at the heights they run at
        tracks = [track for edge, track in TRACKS.items() if edge[0] == node]
        bottom, top = _track_y(min(tracks)) - 0.16, _track_y(max(tracks)) + 0.16
        middle = (bottom + top) / 2
        return _around(INPUT_X, middle, width=INPUT_WIDTH, height=top - bottom)
    x = OUTPUT_X if node == NODES else FIRST_X + (node - INPUT_NODES) * NODE_STEP
    return _around(x, LINE_Y, width=NODE, height=NODE)


def edge_route(edge):
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


def label_centre(edge):
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
    names = ["$c_{k-2}$", "$c_{k-1}$", *map(str, range(INTERMEDIATE_NODES)), "$c_k$"]
    for node, name in enumerate(names):
        inner = INPUT_NODES <= node < NODES
        style = {"facecolor": "white" if inner else "#e0e0e0", "edgecolor": INK, "linewidth": 1.2}
        _draw_box(axes, node_box(node), text=name, fontsize=12, zorder=5, **style)


def _draw_edge(axes, edge, operation):
    kind = KINDS[operation]
    faint = operation == "none"
    layer = {"zorder": 1} if faint else {"zorder": 2, "seam": edge in TRACKS}
    _draw_arrow(axes, edge_route(edge), **layer, **_line_style(kind))
    x, y = label_centre(edge)
    box = _around(x, y, width=0.4 if faint else LABEL_WIDTH, height=LABEL_HEIGHT)
    ink = FAINT_INK if faint else "white" if kind in DARK_KINDS else "black"
    face = "white" if faint else COLOURS[kind]
    size = 8 if faint else 9
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


def _figure(height):
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), facecolor="white")
