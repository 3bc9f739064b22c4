import statistics

import pytest
from fake_search import run_search
from fake_trainings import run_trainings
from pages import Page

from cpnas_tf.genotypes import CHOICES
from cpnas_tf.reports import guided as guided_report
from cpnas_tf.reports.html import page

CONFIG = {
    "method": "guided",
    "data": {"name": "cifar10", "split": "train"},
    "split": {"seed": 3},
    "guided": {"first": 5, "rounds": 2, "proposals": 2, "finalists": 2, "beta": 0.5, "seed": 7},
}


def report(*arguments, **named):
    return Page(page("a search", *guided_report.sections(*arguments, **named)))


@pytest.fixture(scope="module")
def finished():
    rows, genotype = run_trainings(), run_search(rounds=1)[-1]
    return rows, report(rows, genotype=genotype, config=CONFIG)


def test_every_part_is_there(finished):
    _, found = finished
    assert found.headings == [
        "a search",
        "Cells",
        "What the rounds gained",
        "Operations over the search",
        "Beside the paper",
        "Cost",
    ]
    assert len(found.pictures) == 3
    assert "Unfinished" not in found.words
    facts = ("trainings11 of 11", "time0:00:16", "seed of the search7", "beta_P0.5")
    for fact in (*facts, "tau of model and scores1.00"):
        assert fact in found.words


def test_the_rounds_means(finished):
    rows, found = finished
    header, *lines = found.tables["Means by round"]
    assert header == ["round", "trainings", "child, mean", "child, best", "score", "predicted"]
    assert [line[:2] for line in lines] == [
        ["random", "5"],
        ["guided, round 1", "2"],
        ["guided, round 2", "2"],
        ["final", "2"],
    ]
    second = rows[7:9]
    accuracies = [row["child_accuracy"] for row in second]
    assert lines[2][2:] == [
        f"{statistics.fmean(accuracies):.2%}",
        f"{max(accuracies):.2%}",
        f"{statistics.fmean(row['score'] for row in second):.4f}",
        "-1.6400",
    ]
    assert lines[0][-1] == "–"


def test_operations_are_counted_over_the_edges(finished):
    rows, found = finished
    header, *lines = found.tables["Edges by operation; one column per round"]
    assert header == ["operation", "random", "guided, round 1", "guided, round 2", "final"]
    counts = [sum(row[choice] == "skip_connect" for choice in CHOICES) for row in rows[:5]]
    assert lines[1][:2] == ["skip_connect", f"{statistics.fmean(counts):.1f}"]


def test_what_it_took(finished):
    _, found = finished
    assert found.tables["What it took"][1:4] == [
        ["trainings from scratch", "11"],
        ["epochs in all", "26"],
        ["search, seconds", "16 (0:00:16)"],
    ]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_an_unfinished_search_is_reported_as_far_as_it_got(count):
    rows = run_trainings(parent=True)[:count]
    if count == 1:
        rows[0]["left_out"] = None
    found = report(rows, config=CONFIG)
    assert f"Unfinished: {count} of 11 trainings are done." in found.words
    assert ("No model yet" in found.words) == (count == 1)
    assert f"Unfinished: {count} trainings" in report(rows).words


def test_tau_of_scores_and_predictions():
    rows = run_trainings()
    for row, value in zip(rows, (1, 2, 3, 4, 5, 6, 7, 9, 8), strict=False):
        row["score"], row["left_out"] = row["training"], value
    assert guided_report.correlation(rows) == pytest.approx(34 / 36)
    assert guided_report.correlation(rows[:1]) is None
    assert guided_report.correlation([dict(row, left_out=1.0) for row in rows]) is None
