"""What the benchmark of the guided search compares, and its table."""

import collections

import guided_search
from fake_trainings import run_trainings

from cpnas_tf.genotypes import CHOICES, Genotype

FOUND = Genotype(["skip_connect"] * 10 + ["sep_conv_3x3"] * 4, ["max_pool_3x3"] * 14)


def test_what_a_search_is_compared_with():
    rows = run_trainings()
    groups = collections.defaultdict(list)
    for name, number, genotype in guided_search.compared(3, FOUND, rows):
        assert number == len(groups[name])
        groups[name].append(genotype)
    assert groups["found"] == [FOUND]
    best = max(rows[7:9], key=lambda row: row["score"])
    assert groups["proposed"][0].choices == tuple(best[name] for name in CHOICES)
    best = max(rows[:5], key=lambda row: row["score"])
    assert groups["best_of_random"][0].choices == tuple(best[name] for name in CHOICES)
    assert len(set(groups["random"])) == 4
    for genotype in groups["same_counts"]:
        assert genotype != FOUND
        assert sorted(genotype.normal) == sorted(FOUND.normal)
        assert genotype.reduce == FOUND.reduce
    assert set(groups["poolings"][0].choices) == {"max_pool_3x3", "avg_pool_3x3"}
    for name in ("poolings_2", "random_2"):
        assert groups[name][0].choices.count("none") == 2 * (14 - 8)
    again = guided_search.compared(3, FOUND, rows)
    assert [genotype for _, _, genotype in again] == [
        one for group in groups.values() for one in group
    ]


def row(name, seed, accuracy):
    return {"name": name, "search_seed": seed, "accuracy": str(accuracy), "epochs": "2"}


def test_the_table_has_a_units_mean_per_search_seed():
    rows = [row("found", 0, 0.45), row("found", 0, 0.43), row("found", 1, 0.46)]
    rows += [row("random", seed, 0.40 + 0.01 * seed) for seed in (0, 1)]
    lines = [line.split() for line in guided_search.summarize(rows).splitlines()]
    assert lines[1][:6] == ["found", "2", "2", "45.00%", "1.41%", "+4.50%"]
    assert lines[2][:6] == ["random", "2", "2", "40.50%", "0.71%", "-"]
    assert 0 < float(lines[1][6]) < 0.2
