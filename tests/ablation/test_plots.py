import itertools
from xml.etree import ElementTree

import pytest
from fake_ablation import ACCURACIES, MORE_ACCURACIES, runs_of, search, searches_of
from pictures import drawn, meet, smallest_font

from cpnas_tf.ablation import plots as ablation_plots
from cpnas_tf.ablation.table import make_table, samples


@pytest.fixture
def table():
    searches, runs = searches_of(MORE_ACCURACIES), runs_of(MORE_ACCURACIES)
    return make_table(searches, runs), samples(runs)


def check_texts(figure):
    """Of a readable size, apart from each other and on the page."""
    assert smallest_font(drawn(figure)) >= 8
    (axes,) = figure.axes
    texts = [axes.xaxis.label, axes.yaxis.label, *figure.legends[0].texts]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    boxes = [text.get_window_extent().extents for text in texts if text.get_text()]
    page = figure.bbox.extents
    assert not any(meet(*pair) for pair in itertools.combinations(boxes, 2))
    assert all(page[i] <= box[i] and box[i + 2] <= page[i + 2] for box in boxes for i in (0, 1))


def test_methods_are_drawn_with_their_searches_and_intervals(table):
    rows, accuracies = table
    figure = ablation_plots.plot_methods(rows, accuracies)
    check_texts(figure)
    (axes,) = figure.axes
    labels = [
        label.get_text().replace("\N{NO-BREAK SPACE}", " ") for label in axes.get_yticklabels()
    ]
    assert labels == [
        *("bnas, β = 0", "cpnas, β = -1", "cpnas, β = 0.33", "cpnas, β = 2", "pc_darts", "random"),
    ]
    *lines, baseline = axes.lines
    for row, seeds, interval in zip(rows, lines[::2], lines[1::2], strict=True):
        values = MORE_ACCURACIES[row["method"], row["beta"]]
        assert list(seeds.get_xdata()) == pytest.approx([100 * value for (value,) in values])
        expected = [100 * row[name] for name in ("low", "mean", "high")]
        assert list(interval.get_xdata()) == pytest.approx(expected)
    assert baseline.get_xdata()[0] == pytest.approx(81)


def test_betas_are_drawn_from_left_to_right(table):
    figure = ablation_plots.plot_betas(*table)
    check_texts(figure)
    *_, means, baseline = figure.axes[0].lines
    assert list(means.get_xdata()) == [-1.0, 0.0, 0.33, 2.0]
    expected = [91, 90 + 1 / 3, 92 + 2 / 3, 92 + 1 / 3]
    assert list(means.get_ydata()) == pytest.approx(expected)
    assert baseline.get_ydata()[0] == pytest.approx(81)


def test_one_search_has_no_interval_and_nothing_to_compare_with():
    accuracies = {("cpnas", 2.0): [[0.9]]}
    searches, runs = searches_of(accuracies), runs_of(accuracies)
    figure = ablation_plots.plot_methods(make_table(searches, runs), samples(runs))
    check_texts(figure)
    seed, interval = figure.axes[0].lines
    assert list(seed.get_xdata()) == list(interval.get_xdata())[:1] == pytest.approx([90])
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert labels == ["a search", "mean, 95% interval"]


@pytest.mark.parametrize(
    ("accuracies", "names"), [(ACCURACIES, ["methods"]), (MORE_ACCURACIES, ["methods", "betas"])]
)
def test_beta_is_drawn_if_there_are_several(tmp_path, accuracies, names):
    paths = ablation_plots.plot(tmp_path, searches_of(accuracies), runs_of(accuracies))
    assert paths == [f"{tmp_path}/{name}.{kind}" for name in names for kind in ("png", "svg")]
    for path in paths:
        with open(path, "rb") as file:
            assert file.read(4) in (b"\x89PNG", b"<?xm")


@pytest.mark.parametrize("name", ["$\\broken$ <b>", "猫 $"])
def test_a_name_is_no_formula(tmp_path, name):
    accuracies = {(name, None): [[0.9]]}
    _, svg = ablation_plots.plot(tmp_path, searches_of(accuracies), runs_of(accuracies))
    assert name in ElementTree.parse(svg).getroot().itertext()


def test_nothing_to_draw(tmp_path):
    with pytest.raises(ValueError, match="no finished run yet"):
        ablation_plots.plot(tmp_path, [search("random", None, 0)], [])
