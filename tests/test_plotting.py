"""The pictures: nothing hidden or overlapping, the right operation on each edge, valid files."""

import csv
import itertools
import random
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import PathPatch, Polygon, Rectangle

from cpnas_tf import plotting
from cpnas_tf.genotypes import EDGES, NODES, OPERATIONS, Genotype

READABLE_CONTRAST = 4.5  # WCAG 2, level AA
# Machado et al. 2009, severity 1, on linear RGB.
COLOUR_VISIONS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def random_genotype(seed):
    generator = random.Random(seed)
    return Genotype.from_choices(generator.choice(OPERATIONS) for _ in plotting.CHOICES)


GENOTYPES = [
    *map(random_genotype, range(20)),
    *(Genotype((name,) * len(EDGES), (name,) * len(EDGES)) for name in OPERATIONS),
]


def run_search(*, rounds, seed=0, operations=OPERATIONS):
    """What Algorithm 1 would log, accuracies drawn at random.

    Returns:
        The rows, the operations left on the 28 edges in each stage, and the genotype.
    """
    generator = random.Random(seed)
    left = {edge: list(operations) for edge in plotting.CHOICES}
    rows, history = [], []
    for stage in range(len(operations) - 1):
        history.append({edge: tuple(names) for edge, names in left.items()})
        for round_index in range(rounds):
            orders = {edge: generator.sample(names, len(names)) for edge, names in left.items()}
            for sample in range(len(operations) - stage):
                child, parent = generator.uniform(0.1, 0.5), generator.uniform(0.5, 0.9)
                rows.append(
                    {
                        "stage": stage,
                        "round": round_index,
                        "sample": sample,
                        **{edge: order[sample] for edge, order in orders.items()},
                        "child_accuracy": child,
                        "parent_accuracy": parent,
                        "z": child + 2 * (parent - child),
                        "seconds": 1.5,
                    }
                )
        for names in left.values():
            names.remove(generator.choice(names))
    return rows, history, Genotype.from_choices(names[0] for names in left.values())


def write_log(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, plotting.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


def extents(texts):
    return [text.get_window_extent() for text in texts]


def operation_texts(axes):
    return [text for text in axes.texts if text.get_text() in OPERATIONS]


def visible_texts(figure):
    """All texts of a drawn figure; without the ticks' labels that lie outside of their axis."""
    texts = [*figure.texts, *figure.legends[0].texts]
    for axes in figure.axes:
        texts += [*axes.texts, axes.xaxis.label, axes.yaxis.label, axes._left_title]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            texts += [
                tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high
            ]
    return [text for text in texts if text.get_text() and text.get_visible()]


def box_in_pixels(axes, box):
    (left, bottom), (right, top) = axes.transData.transform([box[:2], box[2:]])
    return left, bottom, right, top


def meet(first, second):
    """Whether two boxes (left, bottom, right, top) have a point in common."""
    return all(first[i] < second[i + 2] and second[i] < first[i + 2] for i in (0, 1))


def segment_boxes(edge, *, margin=0.0):
    """The segments of an edge's route as boxes, wider by `margin` on all sides."""
    for start, end in itertools.pairwise(plotting.edge_route(edge)):
        low, high = np.minimum(start, end) - margin, np.maximum(start, end) + margin
        yield (*low, *high)


def label_box(edge):
    x, y = plotting.label_centre(edge)
    half_width, half_height = plotting.LABEL_WIDTH / 2, plotting.LABEL_HEIGHT / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def is_on_border(point, box):
    left, bottom, right, top = box
    on_side = np.isclose(point[0], (left, right)).any() and bottom <= point[1] <= top
    on_end = np.isclose(point[1], (bottom, top)).any() and left <= point[0] <= right
    return on_side or on_end


@pytest.mark.parametrize("edge", EDGES)
def test_route_joins_its_two_nodes_and_touches_no_other(edge):
    route = plotting.edge_route(edge)
    assert is_on_border(route[0], plotting.node_box(edge[0]))
    assert is_on_border(route[-1], plotting.node_box(edge[1]))
    others = [plotting.node_box(node) for node in range(NODES + 1) if node not in edge]
    for segment in segment_boxes(edge, margin=0.03):
        assert not any(meet(segment, box) for box in others)


@pytest.mark.parametrize("edge", EDGES)
def test_label_lies_on_its_own_route_and_no_other_edge_crosses_it(edge):
    label = label_box(edge)
    assert any(meet(label, segment) for segment in segment_boxes(edge, margin=1e-6))
    for other in EDGES:
        if other != edge:
            assert not any(meet(label, segment) for segment in segment_boxes(other, margin=0.03))


def test_label_boxes_do_not_overlap():
    boxes = [*map(label_box, EDGES), *map(plotting.node_box, range(NODES + 1))]
    assert not any(meet(*pair) for pair in itertools.combinations(boxes, 2))


def test_routes_cross_at_four_places_and_never_run_together():
    crossings = 0
    for first, second in itertools.combinations(EDGES, 2):
        for one, other in itertools.product(
            segment_boxes(first, margin=0.02), segment_boxes(second, margin=0.02)
        ):
            if meet(one, other):
                widths = {box[2] - box[0] > 0.05 for box in (one, other)}
                assert widths == {True, False}, "a horizontal segment crosses a vertical one"
                crossings += 1
    assert crossings == 4


@pytest.mark.parametrize("genotype", GENOTYPES)
def test_genotype_shows_28_labels_apart_from_each_other_and_from_the_nodes(genotype):
    figure = drawn(plotting.plot_genotype(genotype))
    page = figure.bbox.extents
    shown = []
    for axes in figure.axes:
        texts = operation_texts(axes)
        shown += [text.get_text() for text in texts]
        boxes = [box.extents for box in extents(axes.texts)]
        assert not any(meet(*pair) for pair in itertools.combinations(boxes, 2))
        assert all(page[0] <= b[0] and page[1] <= b[1] and b[2] <= page[2] for b in boxes)
        nodes = [box_in_pixels(axes, plotting.node_box(node)) for node in range(NODES + 1)]
        for box in extents(texts):
            assert not any(meet(box.extents, node) for node in nodes)
            assert box.width < plotting.LABEL_WIDTH * figure.dpi
            assert box.height < plotting.TRACK_STEP * figure.dpi
    assert shown == list(genotype.choices)


def test_labels_stand_on_their_edges():
    for seed in range(5):
        genotype = random_genotype(seed)
        for cell, axes in zip(
            ("normal", "reduce"), plotting.plot_genotype(genotype).axes, strict=True
        ):
            at = {text.get_position(): text.get_text() for text in operation_texts(axes)}
            for edge, operation in zip(EDGES, getattr(genotype, cell), strict=True):
                (found,) = (at[p] for p in at if np.allclose(p, plotting.label_centre(edge)))
                assert found == operation


@pytest.mark.parametrize("operation", OPERATIONS)
def test_arrow_points_into_its_target_in_its_operation_s_colour(operation):
    colour = to_rgb(plotting.COLOURS[plotting.KINDS[operation]])
    for marked, edge in enumerate(EDGES):
        background = "skip_connect" if operation != "skip_connect" else "none"
        operations = [background] * len(EDGES)
        operations[marked] = operation
        (axes,) = plotting.plot_cell(operations, title="Cell").axes
        lines = [
            p for p in axes.patches if type(p) is PathPatch and p.get_edgecolor()[:3] == colour
        ]
        heads = [p for p in axes.patches if type(p) is Polygon and p.get_facecolor()[:3] == colour]
        assert len(lines) == len(heads) == 1
        route = plotting.edge_route(edge)
        np.testing.assert_allclose(lines[0].get_path().vertices[0], route[0])
        np.testing.assert_allclose(heads[0].get_xy()[0], route[-1])
        assert (lines[0].get_linestyle() == "solid") == (operation != "none")


def test_none_lies_beneath_everything_else():
    operations = ["none", "sep_conv_3x3"] * 7
    (axes,) = plotting.plot_cell(operations, title="Cell").axes
    lines = [patch for patch in axes.patches if type(patch) is PathPatch]
    faint = to_rgb(plotting.COLOURS["no connection"])
    below = [line.get_zorder() for line in lines if line.get_edgecolor()[:3] == faint]
    above = [line.get_zorder() for line in lines if line.get_edgecolor()[:3] != faint]
    assert len(below) == 7
    assert max(below) < min(above)


def test_text_is_at_least_8_points():
    rows, _, genotype = run_search(rounds=1)
    for figure in (plotting.plot_genotype(genotype), plotting.plot_search(rows, genotype=genotype)):
        drawn(figure)
        texts = figure.findobj(lambda artist: hasattr(artist, "get_fontsize"))
        for text in texts:
            subscript = 0.7 if "_" in text.get_text() and "$" in text.get_text() else 1
            assert text.get_fontsize() * subscript >= 8, text.get_text()


def contrast(*colours):
    dark, light = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in colours)
    return (light + 0.05) / (dark + 0.05)


def linear(colour):
    colour = np.array(to_rgb(colour))
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE L*a*b* of linear sRGB."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", COLOUR_VISIONS)
def test_kinds_can_be_told_apart_with_any_colour_vision(vision):
    seen = [lab(COLOUR_VISIONS[vision] @ linear(colour)) for colour in plotting.COLOURS.values()]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(distances) > 20


@pytest.mark.parametrize("operation", OPERATIONS)
def test_label_contrasts_with_its_box(operation):
    (axes,) = plotting.plot_cell([operation] * len(EDGES), title="Cell").axes
    ink = operation_texts(axes)[0].get_color()
    box = "white" if operation == "none" else plotting.COLOURS[plotting.KINDS[operation]]
    assert contrast(ink, box) >= READABLE_CONTRAST


def test_survival_s_numbers_contrast_with_their_cells():
    seen = set()
    for seed in range(3):
        held = plotting.plot_search(run_search(rounds=1, seed=seed)[0]).axes[2]
        for text, cell in zip(held.texts, held.patches, strict=True):
            assert contrast(text.get_color(), cell.get_facecolor()) >= READABLE_CONTRAST
            seen.add(int(text.get_text()))
    assert seen >= {*range(20, 27), 28}, "both inks, and the counts where they change"


@pytest.mark.parametrize(
    ("operations", "message"),
    [(["none"] * 13, "13"), (["none"] * 13 + ["conv"], "'conv'"), (None, "None")],
)
def test_plot_cell_refuses_what_is_no_cell(operations, message):
    with pytest.raises(ValueError, match=message):
        plotting.plot_cell(operations, title="Cell")


@pytest.mark.parametrize("rounds", [1, 3])
def test_survival_counts_the_edges_that_hold_each_operation(rounds):
    rows, history, _ = run_search(rounds=rounds)
    expected = {
        stage: {name: sum(name in left for left in edges.values()) for name in OPERATIONS}
        for stage, edges in enumerate(history)
    }
    assert plotting.survival(rows) == expected
    assert [sum(counts.values()) for counts in expected.values()] == [
        28 * k for k in range(8, 1, -1)
    ]


def test_survival_waits_for_a_stage_s_first_round():
    rows, _, _ = run_search(rounds=2)
    assert list(plotting.survival(rows[:7])) == []
    assert list(plotting.survival(rows[:8])) == [0]
    assert list(plotting.survival(rows[: 16 + 6])) == [0]
    assert list(plotting.survival(rows[: 16 + 7])) == [0, 1]


def test_survival_of_a_search_over_fewer_operations():
    rows, _, _ = run_search(rounds=2, operations=OPERATIONS[:3])
    counts = plotting.survival(rows)
    assert [sum(stage.values()) for stage in counts.values()] == [28 * 3, 28 * 2]
    assert counts[0]["dil_conv_5x5"] == 0


def test_search_figure_shows_the_rows():
    rows, _, genotype = run_search(rounds=1)
    accuracy, score, held, result = plotting.plot_search(rows, genotype=genotype).axes
    points = {line.get_label(): line.get_ydata() for line in accuracy.lines}
    for who in ("child", "parent"):
        np.testing.assert_allclose(points[who], [100 * row[f"{who}_accuracy"] for row in rows])
    np.testing.assert_allclose(score.lines[0].get_ydata(), [row["z"] for row in rows])
    boundaries = [line.get_xdata()[0] for line in score.lines if len(line.get_xdata()) == 2]
    assert boundaries == [8.5, 15.5, 21.5, 26.5, 30.5, 33.5]
    means = [lines.get_segments()[0][0][1] for lines in score.collections]
    assert means[1] == pytest.approx(np.mean([row["z"] for row in rows if row["stage"] == 1]))
    written = [int(text.get_text()) for text in held.texts]
    counts = plotting.survival(rows).values()
    assert written == [stage[name] for stage in counts for name in OPERATIONS]
    assert [int(text.get_text()) for text in result.texts] == [
        genotype.choices.count(name) for name in OPERATIONS
    ]
    assert [text.get_text() for text in accuracy.texts[:7]] == list("8765432")
    assert all(axes.get_ylabel() for axes in (accuracy, score))
    assert [label.get_text() for label in held.get_yticklabels()] == list(OPERATIONS)


@pytest.mark.parametrize(
    ("rounds", "stop"), [(1, 1), (1, 5), (3, 25), (1, 34), (1, 35), (3, 100), (3, 105)]
)
def test_search_figure_has_no_overlaps_however_far_the_search_got(rounds, stop):
    rows, _, _ = run_search(rounds=rounds)
    figure = drawn(plotting.plot_search(rows[:stop]))
    accuracy, _, held = figure.axes
    cells = [patch for patch in held.patches if isinstance(patch, Rectangle)]
    for text, cell in zip(held.texts, cells, strict=True):
        assert text.get_window_extent().width < cell.get_window_extent().width
    assert len(cells) == 8 * len({row["stage"] for row in rows[:stop]})
    boxes = [text.get_window_extent().extents for text in visible_texts(figure)]
    page = figure.bbox.extents
    assert not any(meet(*pair) for pair in itertools.combinations(boxes, 2))
    assert all(page[0] <= box[0] and box[2] <= page[2] for box in boxes)
    legend = figure.legends[0].get_window_extent().extents
    assert not any(meet(legend, axes.bbox.extents) for axes in figure.axes)
    assert accuracy.get_xlim()[1] >= stop


def test_search_figure_marks_what_is_not_known_yet():
    rows, _, _ = run_search(rounds=1)
    held = plotting.plot_search(rows[:10]).axes[2]
    assert [text.get_text() for text in held.texts] == ["28"] * 8 + ["?"] * 8


def test_search_figure_needs_rows():
    with pytest.raises(ValueError, match="no architecture yet"):
        plotting.plot_search([])


def test_log_is_read_as_it_was_written(tmp_path):
    rows, _, _ = run_search(rounds=1)
    assert plotting.read_search(write_log(tmp_path / "search.csv", rows)) == rows
    assert plotting.read_search(write_log(tmp_path / "search.csv", rows[:3])) == rows[:3]


def test_columns_are_those_of_the_oracle():
    from cpnas_tf import oracle

    assert plotting.CHOICES == oracle.CHOICES
    assert len(plotting.COLUMNS) == 3 + 28 + 4


def replaced(old, new):
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "line 1: expected 35 columns"),
        (lambda text: text.splitlines()[0], "holds no architecture yet"),
        (replaced("child_accuracy", "accuracy"), "line 1: expected 35 columns"),
        (lambda text: text[:-30], "line 36: "),
        (lambda text: text + "7,0\n", "line 37: expected 35 values, received 2"),
        (lambda text: text + text.splitlines()[-1], "line 37: stage, round and sample must incr"),
        (replaced(",skip_connect,", ",skip,"), "unknown operation 'skip' in column"),
        (replaced("\n0,0,0,", "\n0,x,0,"), "line 2: .*'x'"),
        (replaced("\n0,0,0,", "\n7,0,0,"), "line 2: stage must be 0 to 6, received 7"),
        (replaced(",1.5\n", ",nan\n"), "line 2: seconds must be finite, received nan"),
        (replaced("0,0,0,", '0,0,"0,'), "cannot read the search log"),
        (lambda text: text.encode() + b"\xff\n", "cannot read the search log"),
    ],
)
def test_broken_log_is_one_clear_line(tmp_path, damage, message):
    path = write_log(tmp_path / "search.csv", run_search(rounds=1)[0])
    damaged = damage(path.read_text().replace("\r", ""))
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    with pytest.raises(ValueError, match=message) as raised:
        plotting.read_search(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "message"), [("missing", "not found"), (".", "Is a directory")])
def test_log_that_is_no_file_is_one_clear_line(tmp_path, name, message):
    with pytest.raises(ValueError, match=message) as raised:
        plotting.read_search(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


def svg_texts(path):
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return [
        "".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")
    ]


def test_plot_writes_every_picture(tmp_path):
    rows, _, genotype = run_search(rounds=1)
    paths = plotting.plot(tmp_path / "new" / "plots", genotype=genotype, rows=rows)
    names = ("normal", "reduce", "genotype", "search")
    expected = [tmp_path / "new" / "plots" / f"{n}.{e}" for n in names for e in ("png", "svg")]
    assert paths == list(map(str, expected))
    assert sorted((tmp_path / "new" / "plots").iterdir()) == sorted(expected)
    for png in expected[::2]:
        data = png.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        width, height = struct.unpack(">II", data[16:24])
        assert width == 1800
        assert height > 700
    operations = [text for text in svg_texts(paths[5]) if text in OPERATIONS]
    assert operations == list(genotype.choices)
    assert {*OPERATIONS, "child", "parent", "mean of a stage"} <= set(svg_texts(paths[7]))


def test_equal_input_gives_equal_bytes(tmp_path):
    rows, _, genotype = run_search(rounds=1)
    first, second = (plotting.plot(tmp_path / n, genotype=genotype, rows=rows) for n in "ab")
    for one, other in zip(first, second, strict=True):
        with open(one, "rb") as left, open(other, "rb") as right:
            assert left.read() == right.read()
    with open(first[-1], encoding="utf-8") as file:
        assert not re.search(r"20\d\d-\d\d", file.read()), "no date"


def test_plot_of_a_search_without_a_result(tmp_path):
    paths = plotting.plot(tmp_path, rows=run_search(rounds=1)[0][:9])
    assert paths == [str(tmp_path / "search.png"), str(tmp_path / "search.svg")]


def test_plot_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(ValueError, match="neither a genotype nor a search"):
        plotting.plot(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="cannot write the pictures to .*file: File exists"):
        plotting.plot(tmp_path / "file", genotype=GENOTYPES[0])
    assert (tmp_path / "file").read_text() == "mine"


def test_drawing_loads_neither_tensorflow_nor_pyplot():
    program = """
import sys
from cpnas_tf import plotting
assert "matplotlib" not in sys.modules
plotting.plot_cell(["none"] * 14, title="Cell")
assert not {"tensorflow", "matplotlib.pyplot"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
