import math

import numpy as np
import pytest
from fake_ablation import ACCURACIES, genotype, run, runs_of, search, searches_of, write
from scipy import stats

from cpnas_tf.ablation.table import (
    count_unfinished,
    genotype_score,
    interval,
    make_table,
    paired_p_value,
    rank_correlation,
    read,
    run_rows,
    samples,
    text,
)
from cpnas_tf.genotypes import CHOICES


@pytest.fixture
def searches():
    return searches_of(ACCURACIES)


@pytest.fixture
def runs():
    return runs_of(ACCURACIES)


class TestRead:
    def test_what_was_written(self, tmp_path, searches, runs):
        assert read(write(tmp_path, searches, runs)) == (searches, runs)

    def test_nothing(self, tmp_path):
        assert read(tmp_path / "missing") == ([], [])

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("searches/000/search.json", "{", "cannot read"),
            ("searches/000/search.json", "[]", "it has no method"),
            ("runs/000/run.json", '{"method": "cpnas"}', "it has no beta"),
            ("runs/000/run.json", '{"method": 7}', "method is 7"),
            ("runs/000/run.json", '{"method": "bnas", "beta": NaN}', "beta is nan"),
            ("runs/000/run.json", f'{{"method": "bnas", "beta": {10**400}}}', "beta is 1000"),
        ],
    )
    def test_a_broken_file_is_named(self, tmp_path, searches, runs, name, content, message):
        (write(tmp_path, searches, runs) / name).write_text(content)
        with pytest.raises(ValueError, match=message) as raised:
            read(tmp_path)
        assert str(tmp_path / name) in str(raised.value)

    def test_a_run_needs_its_search(self, tmp_path, searches, runs):
        with pytest.raises(ValueError, match=r"the search of .*/runs/000/run.json is not in .*"):
            read(write(tmp_path, searches[3:], runs))

    def test_what_is_not_finished_is_counted(self, tmp_path, searches, runs):
        write(tmp_path, searches, runs)
        assert count_unfinished(tmp_path) == 0
        for name in ("searches/more", "runs/more", "runs/other"):
            (tmp_path / name).mkdir()
        assert count_unfinished(tmp_path) == 3


class TestInterval:
    def test_two_values_in_closed_form(self):
        """Student's t of one degree of freedom is Cauchy: its 97.5% quantile is tan(0.475 pi)."""
        found = interval([0.8, 0.9])
        half = math.tan(0.475 * math.pi) * 0.05
        assert found["mean"] == pytest.approx(0.85)
        assert found["std"] == pytest.approx(0.1 / math.sqrt(2))
        assert (found["low"], found["high"]) == pytest.approx((0.85 - half, 0.85 + half))

    def test_against_scipy(self):
        values = np.random.default_rng(0).normal(size=7).tolist()
        found = interval(values)
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (found["low"], found["high"]) == pytest.approx(tuple(expected))

    @pytest.mark.parametrize("values", [[0.8, 0.8, 0.8], [0.3 - 0.2, 0.4 - 0.3]])
    def test_equal_values_have_one_of_no_width(self, values):
        found = interval(values)
        assert found["low"] == found["mean"] == found["high"] == pytest.approx(values[0])
        assert found["std"] == pytest.approx(0, abs=1e-15)

    def test_one_value_has_none(self):
        assert interval([0.5]) == {"mean": 0.5, "std": None, "low": None, "high": None}


def test_p_value():
    own, other = np.random.default_rng(0).normal(size=(2, 6))
    expected = stats.ttest_rel(own, other).pvalue
    assert paired_p_value((own - other).tolist()) == pytest.approx(expected)
    assert paired_p_value([0.1, 0.1]) is None
    differences = [0.3 - 0.2, 0.4 - 0.3]
    assert differences[0] != differences[1]  # but for rounding
    assert paired_p_value(differences) is None
    assert paired_p_value([0.1]) is None


class TestTable:
    def test_the_sample_is_the_search_seeds(self, searches, runs):
        cpnas, baseline = make_table(searches, runs)
        own, other = (np.mean(values, axis=1) for values in ACCURACIES.values())
        assert (cpnas["method"], cpnas["beta"], cpnas["searches"], cpnas["runs"]) == (
            *("cpnas", 2.0),
            *(3, 6),
        )
        assert (baseline["method"], baseline["beta"]) == ("random", None)
        assert cpnas["mean"] == pytest.approx(own.mean())
        assert cpnas["std"] == pytest.approx(own.std(ddof=1))
        test = stats.ttest_rel(own, other)
        assert cpnas["difference"] == pytest.approx((own - other).mean())
        assert (cpnas["difference_low"], cpnas["difference_high"]) == pytest.approx(
            tuple(test.confidence_interval(0.95))
        )
        assert cpnas["p_value"] == pytest.approx(test.pvalue)
        improvement = 100 * (own.mean() - other.mean()) / other.mean()
        assert cpnas["relative_improvement"] == pytest.approx(improvement)
        assert (cpnas["pairs"], baseline["pairs"]) == (3, 0)
        for name in ("difference", "p_value", "relative_improvement", "kendall_tau"):
            assert baseline[name] is None

    def test_the_training_seeds_vary_around_their_searchs_mean(self, searches, runs):
        cpnas, _ = make_table(searches, runs)
        own = ACCURACIES["cpnas", 2.0]
        pooled = np.mean([np.var(reached, ddof=1) for reached in own]) ** 0.5
        assert cpnas["training_std"] == pytest.approx(pooled)
        alone = [run for run in runs if run["training_seed"] == 0]
        assert make_table(searches, alone)[0]["training_std"] is None
        # A search with three trainings counts twice as much as one with two.
        more = [*runs[:4], run("cpnas", 2.0, 1, 2, 0.9)]
        pooled = (np.var(own[0], ddof=1) + 2 * np.var([*own[1], 0.9], ddof=1)) / 3
        assert make_table(searches, more)[0]["training_std"] == pytest.approx(pooled**0.5)

    def test_only_what_both_have_is_compared(self):
        accuracies = {("cpnas", 2.0): [[0.9], [0.8]], ("random", None): [[0.8, 0.2], [0.75, 0.1]]}
        searches, runs = searches_of(accuracies), runs_of(accuracies)
        row, _ = make_table(searches, [*runs, run("cpnas", 2.0, 7, 0, 0.1)])
        assert (row["searches"], row["runs"], row["pairs"]) == (3, 3, 2)
        assert row["difference"] == pytest.approx((0.1 + 0.05) / 2)
        average = (0.5 + 0.425) / 2
        assert row["relative_improvement"] == pytest.approx(100 * (0.6 - average) / average)

    def test_without_common_seeds_the_means_are_compared(self):
        runs = [run("bnas", 0.0, 1, 0, 0.9), run("random", None, 0, 0, 0.8)]
        searches = [search("bnas", 0.0, 1), search("random", None, 0)]
        row, _ = make_table(searches, runs)
        assert (row["pairs"], row["difference"], row["p_value"]) == (0, None, None)
        assert row["relative_improvement"] == pytest.approx(12.5)

    def test_samples_are_in_the_order_of_the_rows(self, searches, runs):
        found = samples(runs[::-1])
        rows = make_table(searches, runs)
        assert list(found) == [(row["method"], row["beta"]) for row in rows]
        for key, values in ACCURACIES.items():
            assert found[key] == pytest.approx(dict(enumerate(np.mean(values, axis=1))))

    def test_a_search_is_paid_once(self, searches, runs):
        for row in make_table(searches, runs):
            assert row["seconds"] == 3 * 10 + 6 * 1
            assert row["images"] == 3 * 1000 + 6 * 100

    def test_the_order_of_the_files_does_not_count(self, searches, runs):
        expected = make_table(searches, runs), run_rows(searches, runs)
        assert (make_table(searches[::-1], runs[::-1]), run_rows(searches, runs[::-1])) == expected

    def test_without_random_there_is_no_difference(self, searches, runs):
        (row,) = make_table(searches[:3], runs[:6])
        assert row["difference"] is None
        assert row["mean"] == pytest.approx(np.mean(ACCURACIES["cpnas", 2.0]))

    def test_text(self, searches, runs):
        lines = text(make_table(searches, runs)).splitlines()
        assert [line.split()[:3] for line in lines[1:3]] == [
            ["cpnas", "2", "3"],
            ["random", "-", "3"],
        ]
        assert "paired t-test" in lines[-1]


class TestRankCorrelation:
    NAMES = ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3")

    def judged(self, zbar, accuracies):
        scores = [dict(zip(self.NAMES, zbar, strict=True)) for _ in CHOICES]
        own = search("cpnas", 2.0, 9, name="none", scores=scores)
        searches = [search("random", None, seed, name=name) for seed, name in enumerate(self.NAMES)]
        reached = {("random", None, seed): accuracy for seed, accuracy in enumerate(accuracies)}
        return rank_correlation(own, [own, *searches], {**reached, ("cpnas", 2.0, 9): 1.0})

    def test_in_closed_form(self):
        assert self.judged([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4]) == pytest.approx(1)
        assert self.judged([1, 2, 3, 4], [0.4, 0.3, 0.2, 0.1]) == pytest.approx(-1)
        # One of six pairs is in the wrong order.
        assert self.judged([1, 2, 3, 4], [0.1, 0.2, 0.4, 0.3]) == pytest.approx((5 - 1) / 6)

    def test_nothing_to_rank(self):
        assert self.judged([1, 1, 1, 1], [0.1, 0.2, 0.3, 0.4]) is None
        assert self.judged([1, 2, 3, 4], [0.1] * 4) is None
        assert rank_correlation(search("random", None, 0), [], {}) is None

    def test_a_genotypes_score_is_the_mean_over_its_edges(self):
        scores = [{"none": edge, "skip_connect": 100} for edge in range(28)]
        assert genotype_score(genotype("none"), scores) == pytest.approx(13.5)
        assert genotype_score(genotype("none"), None) is None

    def test_what_a_search_did_not_know_has_no_score(self):
        scores = [{"skip_connect": edge} for edge in range(28)]
        names = ("skip_connect", "none", "skip_connect", "skip_connect")
        searches = [
            search("pc_darts", None, seed, name=name, scores=scores)
            for seed, name in enumerate(names)
        ]
        assert genotype_score(searches[1]["genotype"], scores) is None
        reached = {("pc_darts", None, seed): 0.1 * seed for seed in range(4)}
        assert rank_correlation(searches[0], searches, reached) is None  # two equal scores
