"""The drawn cells: nothing hidden or overlapping, the right operation on each edge."""

import itertools
import random

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import PathPatch, Polygon
from pictures import READABLE_CONTRAST, contrast, drawn, linear, meet, smallest_font

from cpnas_tf import genotypes
from cpnas_tf.genotypes import CHOICES, EDGES, NODES, OPERATIONS, Genotype
from cpnas_tf.plots import cells as cell_plots

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
    return Genotype.from_choices(generator.choice(OPERATIONS) for _ in CHOICES)


GENOTYPES = [
    *map(random_genotype, range(20)),
    *(Genotype((name,) * len(EDGES), (name,) * len(EDGES)) for name in OPERATIONS),
]


def extents(texts):
    return [text.get_window_extent() for text in texts]


def operation_texts(axes):
    return [text for text in axes.texts if text.get_text() in OPERATIONS]


def box_in_pixels(axes, box):
    (left, bottom), (right, top) = axes.transData.transform([box[:2], box[2:]])
    return left, bottom, right, top


def segment_boxes(edge, *, margin=0.0):
    """The segments of an edge's route as boxes, wider by `margin` on all sides."""
    for start, end in itertools.pairwise(cell_plots.edge_route(edge)):
        low, high = np.minimum(start, end) - margin, np.maximum(start, end) + margin
        yield (*low, *high)


def label_box(edge):
    x, y = cell_plots.label_centre(edge)
    half_width, half_height = cell_plots.LABEL_WIDTH / 2, cell_plots.LABEL_HEIGHT / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def is_on_border(point, box):
    left, bottom, right, top = box
    on_side = np.isclose(point[0], (left, right)).any() and bottom <= point[1] <= top
    on_end = np.isclose(point[1], (bottom, top)).any() and left <= point[0] <= right
    return on_side or on_end


@pytest.mark.parametrize("edge", EDGES)
def test_route_joins_its_two_nodes_and_touches_no_other(edge):
    route = cell_plots.edge_route(edge)
    assert is_on_border(route[0], cell_plots.node_box(edge[0]))
    assert is_on_border(route[-1], cell_plots.node_box(edge[1]))
    others = [cell_plots.node_box(node) for node in range(NODES + 1) if node not in edge]
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
    boxes = [*map(label_box, EDGES), *map(cell_plots.node_box, range(NODES + 1))]
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
    figure = drawn(cell_plots.plot_genotype(genotype))
    page = figure.bbox.extents
    shown = []
    for axes in figure.axes:
        texts = operation_texts(axes)
        shown += [text.get_text() for text in texts]
        boxes = [box.extents for box in extents(axes.texts)]
        assert not any(meet(*pair) for pair in itertools.combinations(boxes, 2))
        assert all(page[0] <= b[0] and page[1] <= b[1] and b[2] <= page[2] for b in boxes)
        nodes = [box_in_pixels(axes, cell_plots.node_box(node)) for node in range(NODES + 1)]
        for box in extents(texts):
            assert not any(meet(box.extents, node) for node in nodes)
            assert box.width < cell_plots.LABEL_WIDTH * figure.dpi
            assert box.height < cell_plots.TRACK_STEP * figure.dpi
    assert shown == list(genotype.choices)


def test_labels_stand_on_their_edges():
    for seed in range(5):
        genotype = random_genotype(seed)
        for cell, axes in zip(
            ("normal", "reduce"), cell_plots.plot_genotype(genotype).axes, strict=True
        ):
            at = {text.get_position(): text.get_text() for text in operation_texts(axes)}
            for edge, operation in zip(EDGES, getattr(genotype, cell), strict=True):
                (found,) = (at[p] for p in at if np.allclose(p, cell_plots.label_centre(edge)))
                assert found == operation


@pytest.mark.parametrize("operation", OPERATIONS)
def test_arrow_points_into_its_target_in_its_operation_s_colour(operation):
    colour = to_rgb(cell_plots.COLOURS[cell_plots.kind_of(operation)])
    for marked, edge in enumerate(EDGES):
        background = "skip_connect" if operation != "skip_connect" else "none"
        operations = [background] * len(EDGES)
        operations[marked] = operation
        (axes,) = cell_plots.plot_cell(operations, title="Cell").axes
        lines = [
            p for p in axes.patches if type(p) is PathPatch and p.get_edgecolor()[:3] == colour
        ]
        heads = [p for p in axes.patches if type(p) is Polygon and p.get_facecolor()[:3] == colour]
        assert len(lines) == len(heads) == 1
        route = cell_plots.edge_route(edge)
        np.testing.assert_allclose(lines[0].get_path().vertices[0], route[0])
        np.testing.assert_allclose(heads[0].get_xy()[0], route[-1])
        assert (lines[0].get_linestyle() == "solid") == (operation != "none")


def test_none_lies_beneath_everything_else():
    operations = ["none", "sep_conv_3x3"] * 7
    (axes,) = cell_plots.plot_cell(operations, title="Cell").axes
    lines = [patch for patch in axes.patches if type(patch) is PathPatch]
    faint = to_rgb(cell_plots.COLOURS["no connection"])
    below = [line.get_zorder() for line in lines if line.get_edgecolor()[:3] == faint]
    above = [line.get_zorder() for line in lines if line.get_edgecolor()[:3] != faint]
    assert len(below) == 7
    assert max(below) < min(above)


def test_text_is_at_least_8_points():
    assert smallest_font(drawn(cell_plots.plot_genotype(random_genotype(0)))) >= 8


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("none", "no connection"),
        ("skip_connect", "skip"),
        ("avg_pool_3x3", "pooling"),
        ("max_pool_5x5", "pooling"),
        ("sep_conv_7x7", "separable convolution"),
        ("dil_conv_3x3", "dilated convolution"),
        ("squeeze_and_excite", "other operation"),
    ],
)
def test_an_operation_s_kind_is_in_its_name(operation, kind):
    assert cell_plots.kind_of(operation) == kind


def test_a_new_operation_s_long_name_fits_on_its_label_and_its_kind_is_in_the_legend(monkeypatch):
    name = "squeeze_and_excite"
    monkeypatch.setattr(genotypes, "OPERATIONS", (*OPERATIONS, name))
    kinds = list(cell_plots.COLOURS)
    for operation, shown in ((name, kinds), ("none", kinds[:-1])):
        figure = drawn(cell_plots.plot_cell([operation] * len(EDGES), title="Cell"))
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == shown
        box, page = legend.get_window_extent(), figure.bbox
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        labels = [text for text in figure.axes[0].texts if text.get_text() == operation]
        assert len(labels) == len(EDGES)
        for label in labels:
            assert label.get_window_extent().width < cell_plots.LABEL_WIDTH * figure.dpi
            if operation == name:
                box_colour = cell_plots.COLOURS["other operation"]
                assert contrast(label.get_color(), box_colour) >= READABLE_CONTRAST


def lab(rgb):
    """CIE L*a*b* of linear sRGB."""
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = to_xyz @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", COLOUR_VISIONS)
def test_kinds_can_be_told_apart_with_any_colour_vision(vision):
    seen = [lab(COLOUR_VISIONS[vision] @ linear(colour)) for colour in cell_plots.COLOURS.values()]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(distances) > 20


@pytest.mark.parametrize("operation", OPERATIONS)
def test_label_contrasts_with_its_box(operation):
    (axes,) = cell_plots.plot_cell([operation] * len(EDGES), title="Cell").axes
    ink = operation_texts(axes)[0].get_color()
    box = "white" if operation == "none" else cell_plots.COLOURS[cell_plots.kind_of(operation)]
    assert contrast(ink, box) >= READABLE_CONTRAST


@pytest.mark.parametrize(
    ("operations", "message"),
    [(["none"] * 13, "13"), (["none"] * 13 + ["conv"], "'conv'"), (None, "None")],
)
def test_plot_cell_refuses_what_is_no_cell(operations, message):
    with pytest.raises(ValueError, match=message):
        cell_plots.plot_cell(operations, title="Cell")
