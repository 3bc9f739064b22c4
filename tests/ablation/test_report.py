import pytest
from fake_ablation import ACCURACIES, MORE_ACCURACIES, runs_of, search, searches_of
from pages import Page

from cpnas_tf.ablation import report as ablation_report
from cpnas_tf.ablation.table import make_table
from cpnas_tf.genotypes import OPERATIONS
from cpnas_tf.reports.html import page

METHODS = "Test accuracy over n searches, each the mean of its trainings"
DIFFERENCES = "Paired difference from random, and how well the scores rank"
SEARCHES = "Searches by seed: the genotype's mean score, and test accuracy by training seed"
COST = "Searches and trainings together; images: epochs times training images"


def report(searches, runs, **named):
    return Page(page("an ablation", *ablation_report.sections(searches, runs, **named)))


def plain(rows):
    return [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in rows]


@pytest.fixture(scope="module")
def found():
    return report(searches_of(MORE_ACCURACIES), runs_of(MORE_ACCURACIES))


def test_every_part_is_there(found):
    assert found.headings == [
        "an ablation",
        "Accuracy by method",
        "Against random",
        "Accuracy over beta_P",
        "Operations found",
        "Every search",
        "Cost",
    ]
    assert len(found.pictures) == 2
    for fact in ("search seeds0, 1, 2", "training seeds0", "searches18", "trainings18"):
        assert fact in found.words
    assert "methodsbnas, cpnas, pc_darts, random" in found.words
    assert "Unfinished" not in found.words


def test_the_statistics_are_those_of_the_table():
    searches, runs = searches_of(ACCURACIES), runs_of(ACCURACIES)
    found, (row, _) = report(searches, runs), make_table(searches, runs)
    header, own, baseline = plain(found.tables[METHODS])
    assert header == ["method", "n", "runs", "mean ± std, %", "95% interval", "training std"]
    mean, std, low, high, training = (
        f"{100 * row[name]:.2f}" for name in ("mean", "std", "low", "high", "training_std")
    )
    assert own == ["cpnas, β = 2", "3", "6", f"{mean} ± {std}", f"{low} to {high}", training]
    assert baseline[:3] == ["random", "3", "6"]
    header, own, baseline = plain(found.tables[DIFFERENCES])
    low, high = (f"{100 * row[f'difference_{end}']:.2f}" for end in ("low", "high"))
    assert own == [
        "cpnas, β = 2",
        "3",
        f"{100 * row['difference']:+.2f}",
        f"{low} to {high}",
        f"{row['p_value']:.3f}",
        f"{row['relative_improvement']:+.2f}",
        "–",
    ]
    assert baseline == ["random", "0", *"–––––"]
    assert "Accuracy over beta_P" not in found.headings


def test_significance_is_named_with_its_test(found):
    (row,) = (row for row in plain(found.tables[DIFFERENCES]) if row[0] == "bnas, β = 0")
    sentence = f"at the 5% level (two-sided paired t-test): bnas, β = 0 (p = {row[4]}); cpnas"
    assert sentence in found.words.replace("\N{NO-BREAK SPACE}", " ")
    accuracies = {("cpnas", 2.0): [[0.9], [0.8]], ("random", None): [[0.8], [0.9]]}
    other = report(searches_of(accuracies), runs_of(accuracies))
    assert "at the 5% level (two-sided paired t-test): none." in other.words


def test_without_random_nothing_is_said_of_it():
    accuracies = {("cpnas", 2.0): [[0.9]]}
    found = report(searches_of(accuracies), runs_of(accuracies))
    assert "no random search" in found.words
    assert plain(found.tables[METHODS])[1][1:] == ["1", "1", "90.00 ± –", "–", "–"]


def test_operations_are_counted_over_a_methods_searches():
    searches = searches_of(ACCURACIES)
    searches[0] = search("cpnas", 2.0, 0, name="sep_conv_3x3")
    found = report(searches, runs_of(ACCURACIES))
    header, own, baseline = plain(found.tables["Edges of 28 by operation"])
    assert header == ["method", *OPERATIONS]
    assert own == ["cpnas, β = 2", "18.7", "0.0", "0.0", "0.0", "9.3", "0.0", "0.0", "0.0"]
    assert baseline == ["random", "28.0", *["0.0"] * 7]
    assert (
        "cpnas, β\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}2: 9.3 of 28 edges with sep_conv_3x3"
        in found.notes
    )


def test_every_search_has_its_accuracies_and_what_is_missing():
    searches, runs = searches_of(ACCURACIES), runs_of(ACCURACIES)
    searches[0] = search("cpnas", 2.0, 0, scores=[{"none": 0.75}] * 28)
    found = report(searches, runs[:1] + runs[2:], unfinished=1)
    header, first, second, *_ = plain(found.tables[SEARCHES])
    assert header == ["method", "seed", "score", "seed 0, %", "seed 1, %"]
    assert first == ["cpnas, β = 2", "0", "0.7500", "90.00", "–"]
    assert second == ["cpnas, β = 2", "1", "–", "93.00", "95.00"]
    assert "Unfinished: 1 searches or trainings" in found.words


def test_cost_is_that_of_all():
    found = report(searches_of(ACCURACIES), runs_of(ACCURACIES))
    _, *methods, total = plain(found.tables[COST])
    assert methods[0] == ["cpnas, β = 2", "36", "0:00:36", "3,600"]
    assert total == ["all", "72", "0:01:12", "7,200"]
