import statistics

import pytest
from fake_trainings import run_trainings

from cpnas_tf.plots import search as search_plots
from cpnas_tf.plots.guided import plot_trainings


def points(axes):
    """The points of all lines that have markers, `{colour: [(x, y)]}`."""
    return {
        line.get_color(): list(zip(*line.get_data(), strict=True))
        for line in axes.lines
        if line.get_marker() not in ("None", "")
    }


@pytest.mark.parametrize("parent", [False, True])
def test_trainings_and_the_means_of_their_rounds(parent):
    rows = run_trainings(parent=parent)
    accuracy, prediction = plot_trainings(rows).axes
    drawn = sorted(point for group in points(accuracy).values() for point in group)
    children = [(row["training"], 100 * row["child_accuracy"]) for row in rows]
    parents = [(row["training"], 100 * row["parent_accuracy"]) for row in rows] if parent else []
    guided = [place for place in children if rows[place[0] - 1]["round"] in (1, 2)]
    assert set(drawn) >= {*parents, *children} - set(guided)
    means = [line.get_segments()[0][0][1] for line in accuracy.collections]
    expected = [
        statistics.fmean(100 * row["child_accuracy"] for row in rows if row["round"] == number)
        for number in range(4)
    ]
    assert means == pytest.approx(expected)
    seen = sorted(point for group in points(prediction).values() for point in group)
    random = [(row["left_out"], row["score"]) for row in rows[:5]]
    assert seen == sorted(random + [(row["predicted"], row["score"]) for row in rows[5:9]])


@pytest.mark.parametrize("count", [1, 2, 6])
def test_an_unfinished_search_is_drawn(tmp_path, count):
    rows = [dict(row, left_out=None) for row in run_trainings()[:count]]
    paths = search_plots.plot(tmp_path, rows=rows)
    assert sorted(path.rpartition("/")[2] for path in paths) == ["search.png", "search.svg"]
