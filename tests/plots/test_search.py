"""The pictures: what a search's progress shows, nothing overlapping, valid files."""

import itertools
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from random import Random

import numpy as np
import pytest
from fake_search import run_search, without_parents
from matplotlib.patches import Rectangle
from pictures import READABLE_CONTRAST, contrast, drawn, meet, smallest_font

from cpnas_tf.genotypes import CHOICES, EDGE_NAMES, OPERATIONS
from cpnas_tf.plots import figures
from cpnas_tf.plots import search as search_plots
from cpnas_tf.runs import search_log


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


def test_text_is_at_least_8_points():
    rows, _, genotype = run_search(rounds=1)
    assert smallest_font(drawn(search_plots.plot_search(rows, genotype=genotype))) >= 8


def test_survival_s_numbers_contrast_with_their_cells():
    seen = set()
    for seed in range(3):
        survival = search_plots.plot_search(run_search(rounds=1, seed=seed)[0]).axes[2]
        for text, cell in zip(survival.texts, survival.patches, strict=True):
            assert contrast(text.get_color(), cell.get_facecolor()) >= READABLE_CONTRAST
            seen.add(int(text.get_text()))
    assert seen >= {*range(20, 27), 28}, "both inks, and the counts where they change"


def test_search_figure_shows_the_rows():
    rows, _, genotype = run_search(rounds=1)
    accuracy, score, survival, result = search_plots.plot_search(rows, genotype=genotype).axes
    points = {line.get_label(): line.get_ydata() for line in accuracy.lines}
    for who in ("child", "parent"):
        np.testing.assert_allclose(points[who], [100 * row[f"{who}_accuracy"] for row in rows])
    np.testing.assert_allclose(score.lines[0].get_ydata(), [row["z"] for row in rows])
    boundaries = [line.get_xdata()[0] for line in score.lines if len(line.get_xdata()) == 2]
    assert boundaries == [8.5, 15.5, 21.5, 26.5, 30.5, 33.5]
    means = [lines.get_segments()[0][0][1] for lines in score.collections]
    assert means[1] == pytest.approx(np.mean([row["z"] for row in rows if row["stage"] == 1]))
    written = [int(text.get_text()) for text in survival.texts]
    counts = search_log.survival(rows).values()
    assert written == [stage[name] for stage in counts for name in OPERATIONS]
    assert [int(text.get_text()) for text in result.texts] == [
        genotype.choices.count(name) for name in OPERATIONS
    ]
    assert [text.get_text() for text in accuracy.texts[:7]] == list("8765432")
    assert all(axes.get_ylabel() for axes in (accuracy, score))
    assert [label.get_text() for label in survival.get_yticklabels()] == list(OPERATIONS)


def test_a_search_without_parents_shows_children_alone():
    rows = without_parents(run_search(rounds=1)[0])
    for figure in (search_plots.plot_search(rows), search_plots.plot_accuracies(rows)):
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.texts] == ["child", "mean of a stage"]
        line = next(line for line in figure.axes[0].lines if line.get_label() == "child")
        np.testing.assert_allclose(line.get_ydata(), [100 * row["z"] for row in rows])


class TestConfusionMatrix:
    NAMES = tuple(f"class number {index}" for index in range(10))

    def matrix(self, classes):
        """Rows of 1 to 100 images, so that all shares of a row occur; the last class has none."""
        matrix = np.random.default_rng(0).integers(0, 12, size=(classes, classes))
        matrix[range(classes), range(classes)] += np.linspace(0, 400, classes).astype(int)
        matrix[-1] = 0
        return matrix.tolist()

    def test_it_shows_the_counts_and_the_shares(self):
        matrix = self.matrix(10)
        axes, bar = figures.plot_confusion_matrix(matrix, self.NAMES).axes
        assert [int(text.get_text()) for text in axes.texts] == np.ravel(matrix).tolist()
        sums = np.maximum(np.sum(matrix, axis=1, keepdims=True), 1)
        np.testing.assert_allclose(axes.images[0].get_array(), matrix / sums)
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            assert [label.get_text() for label in labels] == list(self.NAMES)
        assert bar.get_ylim() == (0, 1)
        right = np.trace(matrix)
        title = axes.figure.texts[0].get_text()
        assert title == f"Confusion matrix: {right:,} of {np.sum(matrix):,} images right"

    def test_it_can_be_read(self):
        figure = drawn(figures.plot_confusion_matrix(self.matrix(10), self.NAMES))
        axes, picture = figure.axes[0], figure.axes[0].images[0]
        assert smallest_font(figure) >= 8
        for text, value in zip(axes.texts, np.ravel(picture.get_array()), strict=True):
            colour = picture.cmap(picture.norm(value))
            assert contrast(text.get_color(), colour) >= READABLE_CONTRAST
        width, height = figure.canvas.get_width_height()
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label):
            box = text.get_window_extent()
            assert 0 <= box.x0 <= box.x1 <= width
            assert 0 <= box.y0 <= box.y1 <= height

    @pytest.mark.parametrize("kind", ["png", "svg"])
    def test_any_name_is_text(self, kind):
        """No formula, no warning of a missing glyph (pytest makes it an error), valid XML."""
        names = ["$\\frac{", "US$_^$", "cost $", "a\\b", "<script>", "&amp;\"'", "猫", "%s{0}"]
        broken = ["two\nlines", "\x1b[0m", "not UTF-8: \udcff"]
        figure = figures.plot_confusion_matrix(self.matrix(11), [*names, *broken])
        image = figures.render(figure, kind)
        if kind == "svg":
            written = list(ElementTree.fromstring(image).itertext())
            for name in (*names, "two\ufffdlines", "\ufffd[0m", "not UTF-8: \ufffd"):
                assert written.count(name) == 2

    def test_many_classes_are_not_named(self):
        names = [str(index) for index in range(1000)]
        axes, _ = figures.plot_confusion_matrix(np.eye(1000, dtype=int).tolist(), names).axes
        assert not axes.texts
        assert figures.render(axes.figure, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("rounds", "stop"), [(1, 1), (1, 5), (3, 25), (1, 34), (1, 35), (3, 100), (3, 105)]
)
def test_search_figure_has_no_overlaps_however_far_the_search_got(rounds, stop):
    rows, _, _ = run_search(rounds=rounds)
    figure = drawn(search_plots.plot_search(rows[:stop]))
    accuracy, _, survival = figure.axes
    cells = [patch for patch in survival.patches if isinstance(patch, Rectangle)]
    for text, cell in zip(survival.texts, cells, strict=True):
        assert text.get_window_extent().width < cell.get_window_extent().width
    assert len(cells) == 8 * len({row["stage"] for row in rows[:stop]})
    boxes = [text.get_window_extent().extents for text in visible_texts(figure)]
    page = figure.bbox.extents
    assert not any(meet(*pair) for pair in itertools.combinations(boxes, 2))
    assert all(page[0] <= box[0] and box[2] <= page[2] for box in boxes)
    legend = figure.legends[0].get_window_extent().extents
    assert not any(meet(legend, axes.bbox.extents) for axes in figure.axes)
    assert accuracy.get_xlim()[1] >= stop


@pytest.mark.parametrize(("rounds", "stop"), [(1, 1), (1, 9), (1, 35), (3, 25), (3, 105)])
def test_accuracies_alone_fit_a_phone_however_far_the_search_got(rounds, stop):
    rows = run_search(rounds=rounds)[0][:stop]
    figure = drawn(search_plots.plot_accuracies(rows))
    (axes,) = figure.axes
    points = {line.get_label(): line.get_ydata() for line in axes.lines}
    for who in ("child", "parent"):
        np.testing.assert_allclose(points[who], [100 * row[f"{who}_accuracy"] for row in rows])
    boxes = [text.get_window_extent().extents for text in [*axes.texts, *figure.legends[0].texts]]
    boxes += [label.get_window_extent().extents for label in (axes.xaxis.label, axes.yaxis.label)]
    page = figure.bbox.extents
    assert not any(meet(*pair) for pair in itertools.combinations(boxes, 2))
    assert all(page[i] <= box[i] and box[i + 2] <= page[i + 2] for box in boxes for i in (0, 1))
    assert smallest_font(figure) * 358 / (72 * figure.get_figwidth()) >= 9, "pixels on a phone"


def test_search_figure_marks_what_is_not_known_yet():
    rows, _, _ = run_search(rounds=1)
    survival = search_plots.plot_search(rows[:10]).axes[2]
    assert [text.get_text() for text in survival.texts] == ["28"] * 8 + ["?"] * 8


def test_search_figure_needs_rows():
    with pytest.raises(ValueError, match="no architecture yet"):
        search_plots.plot_search([])


def svg_texts(path):
    root = ElementTree.parse(path).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return [
        "".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")
    ]


def test_the_indicator_is_a_map_of_edges_and_operations():
    """Each edge has lost `none`, and the next to go is marked."""
    left, random = OPERATIONS[1:], Random(0)
    evaluations = []
    for _ in CHOICES:
        shares = [random.uniform(0.5, 1.5) / len(left) for _ in left]
        evaluations.append({name: (0.0, e) for name, e in zip(left, shares, strict=True)})
    figure = search_plots.plot_indicators(evaluations)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(OPERATIONS)
    edges = [label.get_text() for label in axes.get_yticklabels()]
    assert edges == [f"{cell} {edge}" for cell in ("normal", "reduce") for edge in EDGE_NAMES]
    assert (edges[0], edges[-1]) == ("normal c(k-2) → 0", "reduce 2 → 3")
    written = {text.get_position(): text.get_text() for text in axes.texts}
    frames = {(patch.get_y() + 0.5, int(patch.get_x() + 0.5)) for patch in axes.patches}
    for row, edge in enumerate(evaluations):
        assert (0, row) not in written
        for column, (_, e) in enumerate(edge.values(), start=1):
            assert written[column, row] == f"{e:.3f}"
        smallest = min(e for _, e in edge.values())
        (column,) = [column for place, column in frames if place == row]
        assert edge[OPERATIONS[column]][1] == smallest
    assert figures.render(figure, "png").startswith(b"\x89PNG")


def test_plot_writes_every_picture(tmp_path):
    rows, _, genotype = run_search(rounds=1)
    paths = search_plots.plot(tmp_path / "new" / "plots", genotype=genotype, rows=rows)
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
    first, second = (search_plots.plot(tmp_path / n, genotype=genotype, rows=rows) for n in "ab")
    for one, other in zip(first, second, strict=True):
        with open(one, "rb") as left, open(other, "rb") as right:
            assert left.read() == right.read()
    with open(first[-1], encoding="utf-8") as file:
        assert not re.search(r"20\d\d-\d\d", file.read()), "no date"


def test_plot_of_a_search_without_a_result(tmp_path):
    paths = search_plots.plot(tmp_path, rows=run_search(rounds=1)[0][:9])
    assert paths == [str(tmp_path / "search.png"), str(tmp_path / "search.svg")]


def test_plot_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(ValueError, match="neither a genotype nor a search"):
        search_plots.plot(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="cannot write the pictures to .*file: File exists"):
        search_plots.plot(tmp_path / "file", rows=run_search(rounds=1)[0])
    assert (tmp_path / "file").read_text() == "mine"


def test_drawing_loads_neither_tensorflow_nor_pyplot(tmp_path):
    program = """
import sys
from cpnas_tf import genotypes
from cpnas_tf.plots import search
assert "matplotlib" not in sys.modules
search.plot(sys.argv[1], genotype=genotypes.Genotype.from_choices(["none"] * 28))
assert not {"tensorflow", "matplotlib.pyplot"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True)
