import pytest
from fake_epochs import run_epochs
from fake_search import run_search
from pages import Page

from cpnas_tf.genotypes import CHOICES, OPERATIONS
from cpnas_tf.reports import pc_darts as pc_darts_report
from cpnas_tf.reports.html import page

CONFIG = {
    "method": "pc_darts",
    "data": {"name": "cifar10", "split": "train"},
    "split": {"seed": 3},
    "pc_darts": {"epochs": 50, "precision": "child", "seed": 7},
}


def report(*arguments, **named):
    return Page(page("a search", *pc_darts_report.sections(*arguments, **named)))


@pytest.fixture(scope="module")
def finished():
    rows, genotype = run_epochs(50), run_search(rounds=1)[-1]
    return rows, report(rows, genotype=genotype, config=CONFIG)


def test_every_part_is_there(finished):
    _, found = finished
    assert found.headings == [
        "a search",
        "Cells",
        "Operations over the search",
        "Accuracy over the search",
        "Beside the paper",
        "Cost",
    ]
    assert len(found.pictures) == 3
    assert "Unfinished" not in found.words
    for fact in ("epochs50 of 50", "time0:01:15", "seed of the search7", "precisionchild"):
        assert fact in found.words


def test_operations_are_counted_over_the_edges(finished):
    rows, found = finished
    header, *lines = found.tables["Edges by operation; one column per epoch"]
    assert header == ["operation", *(str(5 * number) for number in range(1, 11))]
    for name, line in zip(OPERATIONS, lines, strict=True):
        counts = [sum(row[choice] == name for choice in CHOICES) for row in rows[4::5]]
        assert line == [name, *map(str, counts)]


def test_accuracies_and_cost(finished):
    _, found = finished
    lines = found.tables["Accuracy by epoch"]
    assert lines[1] == ["5", "90.00%", "85.00%"]
    assert lines[-1] == ["50", "99.00%", "98.50%"]
    assert found.tables["What it took"][1:4] == [
        ["epochs", "50"],
        ["search, seconds", "75 (0:01:15)"],
        ["seconds per epoch", "1.5"],
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 11])
def test_an_unfinished_search(count):
    found = report(run_epochs(count), config=CONFIG)
    assert f"Unfinished: {count} of 50 epochs are done." in found.words
    assert "None yet" in found.words
    lines = found.tables["Accuracy by epoch"]
    assert lines[-1][0] == str(count)
    assert len(lines) == 1 + min(count, 10)
    assert ("warm-up" in lines[1]) == (count <= 11)
    assert f"Unfinished: {count} epochs are done." in report(run_epochs(count)).words
