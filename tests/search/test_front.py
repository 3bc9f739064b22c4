"""The front of sizes, against all genotypes of spaces that are small enough to count them."""

import csv
import itertools
import math

import numpy as np
import pytest

from cpnas_tf.genotypes import CHOICES, EDGES, OPERATIONS, Genotype
from cpnas_tf.networks.costs import ChoiceCosts
from cpnas_tf.plots.front import plot_front
from cpnas_tf.search.front import (
    Estimate,
    Point,
    estimate_of,
    find_front,
    non_dominated,
    solve,
    spread,
    write,
)
from cpnas_tf.search.random_draw import random_genotype
from cpnas_tf.search.surrogate import Surrogate

NONE = OPERATIONS.index("none")


def made_up_costs(seed, *, highest=60):
    """Few different ones, so that many solutions cost the same."""
    random = np.random.default_rng(seed)
    choices = random.integers(highest, size=[len(CHOICES), len(OPERATIONS), 2]) * 10_000
    choices[:, NONE] = 0
    return ChoiceCosts(np.array([150_000, 64 * 70_000]), choices)


def made_up_estimate(seed, operations, **inputs):
    values = np.random.default_rng(seed).normal(size=[len(CHOICES), len(OPERATIONS)])
    return Estimate(0.5, values, operations, **inputs)


def knapsack(seed, *, groups=6, options=4):
    random = np.random.default_rng(seed)
    return [
        (random.normal(size=options).round(1), random.integers(-2, 9, size=[options, 2]))
        for _ in range(groups)
    ]


def all_solutions(groups):
    """Scores and costs of all combinations of options."""
    options = itertools.product(*(range(len(scores)) for scores, _ in groups))
    picks = np.array(list(options))
    scores = sum(scores[picks[:, place]] for place, (scores, _) in enumerate(groups))
    costs = sum(costs[picks[:, place]] for place, (_, costs) in enumerate(groups))
    return scores, costs


def best_within(scores, costs, limits):
    fits = (costs <= limits).all(axis=1)
    return scores[fits].max() if fits.any() else None


class TestSolve:
    @pytest.mark.parametrize("seed", range(5))
    def test_every_budget_of_two_costs_has_the_best_of_all_solutions(self, seed):
        groups = knapsack(seed)
        scores, costs = all_solutions(groups)
        assert len(scores) == 4**6
        _, found, totals = solve(groups)
        low, high = costs.min(axis=0), costs.max(axis=0)
        for limits in itertools.product(*map(range, low - 1, high + 2)):
            expected = best_within(scores, costs, limits)
            assert best_within(found, totals, limits) == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("limits", [(12, math.inf), (math.inf, 9), (12, 9), (-99, 0)])
    def test_limits_leave_the_best_within_them(self, limits):
        groups = knapsack(7)
        scores, costs = all_solutions(groups)
        picks, found, totals = solve(groups, limits)
        assert best_within(found, totals, limits) == best_within(scores, costs, limits)
        for pick, score, total in zip(picks, found, totals, strict=True):
            chosen = [
                (gains[one], costs[one]) for one, (gains, costs) in zip(pick, groups, strict=True)
            ]
            assert score == pytest.approx(sum(gain for gain, _ in chosen))
            assert total.tolist() == sum(cost for _, cost in chosen).tolist()
            assert (total <= limits).all()

    def test_no_solution_dominates_another(self):
        random = np.random.default_rng(0)
        scores, costs = random.integers(6, size=300), random.integers(6, size=[300, 2])
        kept = set(non_dominated(scores, costs).tolist())
        both = np.column_stack([-scores, costs])
        for place, own in enumerate(both):
            better = (both <= own).all(axis=1) & (both < own).any(axis=1)
            assert not (place in kept and better.any())
            if not better.any():
                assert any((both[other] == own).all() for other in kept)
        assert len({tuple(both[place]) for place in kept}) == len(kept)


class TestFront:
    OPERATIONS = ("skip_connect", "sep_conv_3x3")

    def test_it_is_what_counting_finds_where_few_edges_matter(self):
        """Of 28 edges 20 have one operation that is better and cheaper: 2^8 genotypes are left."""
        costs, estimate = made_up_costs(1), made_up_estimate(2, self.OPERATIONS)
        free = np.random.default_rng(3).choice(len(CHOICES), 8, replace=False)
        skip, convolution = map(OPERATIONS.index, self.OPERATIONS)
        settled = np.setdiff1d(np.arange(len(CHOICES)), free)
        estimate.values[settled, skip] = 1 + np.abs(estimate.values[settled, convolution])
        costs.choices[settled, skip] = 0
        scores, prices = [], []
        for places in itertools.product((skip, convolution), repeat=len(free)):
            choices = np.full(len(CHOICES), skip)
            choices[free] = places
            edges = np.arange(len(CHOICES))
            scores.append(0.5 + estimate.values[edges, choices].sum())
            prices.append(costs.trunk + costs.choices[edges, choices].sum(axis=0))
        scores, prices = np.array(scores), np.array(prices) / 1e6 / [1, 64]
        for most in (None, 1.0, 0.5):
            points = find_front(estimate, costs, max_mflops=most)
            fits = prices[:, 1] <= (most or math.inf)
            for budget in np.unique(prices[fits, 0]):
                expected = scores[fits & (prices[:, 0] <= budget)].max()
                found = max(point.score for point in points if point.mbit <= budget + 1e-9)
                assert found == pytest.approx(expected)
        assert [point.mbit for point in points] == sorted({point.mbit for point in points})
        assert [point.score for point in points] == sorted({point.score for point in points})

    def test_a_points_figures_are_its_genotypes(self):
        costs, estimate = made_up_costs(4), made_up_estimate(5, OPERATIONS[1:])
        points = find_front(estimate, costs)
        assert len(points) > 20
        for point in points:
            edges = range(len(CHOICES))
            assert set(point.genotype.choices) <= set(OPERATIONS[1:])
            chosen = point.genotype.indices
            score = 0.5 + sum(
                estimate.values[edge, one] for edge, one in zip(edges, chosen, strict=True)
            )
            bits, flops = costs.trunk + sum(
                costs.choices[edge, one] for edge, one in zip(edges, chosen, strict=True)
            )
            assert (point.score, point.mbit) == pytest.approx((score, bits / 1e6))
            assert point.mflops == pytest.approx(flops / 64e6)

    def test_the_last_point_is_the_best_operation_of_every_edge(self):
        estimate = made_up_estimate(6, OPERATIONS[1:])
        best = estimate.values[:, 1:].argmax(axis=1) + 1
        last = find_front(estimate, made_up_costs(7))[-1]
        assert last.genotype.indices == tuple(best)

    @pytest.mark.parametrize("inputs", [2, 4])
    def test_nodes_that_keep_some_edges(self, inputs):
        """Where edges to one node matter alone, what it can keep is all that there is to choose."""
        operations = ("skip_connect", "dil_conv_3x3")
        estimate = made_up_estimate(8, operations, inputs=inputs)
        edges = [number for number, (_, target) in enumerate(EDGES) if target == 5]
        others = np.setdiff1d(np.arange(len(CHOICES)), edges)
        estimate.values[others] = 0.0
        costs = made_up_costs(9)
        costs.choices[others] = 0
        points = find_front(estimate, costs)
        scores, bits = [], []
        for used in itertools.combinations(edges, inputs):
            for places in itertools.product(map(OPERATIONS.index, operations), repeat=inputs):
                choices = dict.fromkeys(edges, NONE) | dict(zip(used, places, strict=True))
                scores.append(0.5 + sum(estimate.values[pair] for pair in choices.items()))
                bits.append(sum(costs.choices[pair][0] for pair in choices.items()))
        for point in points:
            carried = [name != "none" for name in point.genotype.choices]
            for cell in (carried[:14], carried[14:]):
                targets = [target for (_, target), one in zip(EDGES, cell, strict=True) if one]
                assert [targets.count(node) for node in (2, 3, 4, 5)] == [
                    *(2, min(inputs, 3), min(inputs, 4), inputs)
                ]
            within = np.array(bits) <= round(1e6 * point.mbit) - costs.trunk[0]
            assert point.score == pytest.approx(np.array(scores)[within].max())
        assert points[-1].score == pytest.approx(max(scores))

    @pytest.mark.parametrize(
        "limits", [{"max_mbit": 0.01}, {"max_mflops": 0.01}, {"max_mbit": 0.01, "max_mflops": 9}]
    )
    def test_a_limit_below_all_genotypes_says_the_smallest_possible(self, limits):
        estimate, costs = made_up_estimate(10, OPERATIONS[1:]), made_up_costs(11)
        message = (
            "^max_m(bit|flops) must be at least ([0-9]+.[0-9]{6}), what the smallest genotype has, "
        )
        with pytest.raises(ValueError, match=message) as error:
            find_front(estimate, costs, **limits)
        (name, *_), needed = limits, float(str(error.value).split()[5].rstrip(","))
        least = costs.trunk + costs.choices[:, 1:].min(axis=1).sum(axis=0)
        assert needed == pytest.approx((least / [1e6, 64e6])[int(name == "max_mflops")], abs=2e-6)
        (first, *_) = find_front(estimate, costs, **{**limits, name: needed})
        assert getattr(first, name.removeprefix("max_")) <= needed + 1e-9

    def test_two_limits_that_no_genotype_meets_together(self):
        """The cheap operation in bits is the dear one in FLOPs."""
        costs = made_up_costs(0)
        costs.choices[:] = 0
        costs.choices[:, 1], costs.choices[:, 2] = [1_000, 0], [0, 64_000]
        estimate = made_up_estimate(12, OPERATIONS[1:3])
        limits = {"max_mbit": 0.15 + 0.010, "max_mflops": 0.07 + 0.010}
        message = r"max_mbit must be at least 0.168000, what the smallest genotype with max_mflops"
        with pytest.raises(ValueError, match=f"{message} = 0.08 has, received: 0.16"):
            find_front(estimate, costs, **limits)
        (point,) = find_front(estimate, costs, **limits | {"max_mbit": 0.168})
        assert (point.mbit, point.mflops) == pytest.approx((0.168, 0.08))

    @pytest.mark.parametrize("limit", [0, -1, math.nan, "1"])
    def test_impossible_limits(self, limit):
        with pytest.raises(ValueError, match="max_mbit must be a number > 0, or None, received"):
            find_front(made_up_estimate(0, OPERATIONS), made_up_costs(0), max_mbit=limit)


class TestEstimate:
    def rows(self, genotypes, z, stages=None):
        stages = stages or [0] * len(z)
        return [
            {"stage": stage, **dict(zip(CHOICES, genotype.choices, strict=True)), "z": score}
            for genotype, score, stage in zip(genotypes, z, stages, strict=True)
        ]

    def test_stages_are_compared_by_how_far_a_score_is_from_the_mean(self):
        genotypes = [random_genotype(seed, operations=OPERATIONS[1:4]) for seed in range(8)]
        z = np.random.default_rng(0).uniform(size=8)
        stages = [0] * 5 + [1] * 3
        raised = [score + 0.3 * stage for score, stage in zip(z, stages, strict=True)]
        one, other = (estimate_of(self.rows(genotypes, each, stages)) for each in (z, raised))
        np.testing.assert_allclose(one.values, other.values, atol=1e-12)
        assert one.operations == OPERATIONS[1:4]
        assert one.inputs == 5

    def kept_inputs(self, seed, inputs):
        """A genotype whose nodes keep so many edges."""
        random, cells = np.random.default_rng(seed), []
        for _ in range(2):
            names = ["none"] * len(EDGES)
            for node in range(2, 6):
                edges = [number for number, edge in enumerate(EDGES) if edge[1] == node]
                for edge in random.permutation(edges)[:inputs]:
                    names[edge] = OPERATIONS[random.integers(1, 3)]
            cells.append(names)
        return Genotype(*cells)

    @pytest.mark.parametrize("inputs", [2, 3])
    def test_none_is_not_for_choice_and_inputs_are_kept(self, inputs):
        genotypes = [self.kept_inputs(seed, inputs) for seed in range(6)]
        estimate = estimate_of(self.rows(genotypes, range(6)))
        assert estimate.inputs == inputs
        assert estimate.operations == OPERATIONS[1:3]
        other = estimate_of(self.rows([*genotypes, random_genotype(0)], range(7)))
        assert other.inputs == 5

    def test_of_nodes_with_one_input_costs_are_not_known(self):
        genotypes = [self.kept_inputs(seed, 1) for seed in range(6)]
        with pytest.raises(ValueError, match="two inputs per node or more"):
            estimate_of(self.rows(genotypes, range(6)))

    def test_of_a_guided_search_finalists_do_not_count(self):
        genotypes = [random_genotype(seed) for seed in range(6)]
        scores = [-2.0, -1.9, -1.7, -2.2, -2.1, -1.0]
        phases = ["random"] * 3 + ["guided"] * 2 + ["final"]
        rows = [
            {
                "training": number,
                "phase": phase,
                "score": score,
                **dict(zip(CHOICES, genotype.choices, strict=True)),
            }
            for number, (genotype, score, phase) in enumerate(
                zip(genotypes, scores, phases, strict=True)
            )
        ]
        estimate, model = estimate_of(rows), Surrogate(genotypes[:5], scores[:5])
        np.testing.assert_array_equal(estimate.values, model.estimates)
        assert estimate.intercept == model.intercept

    def test_pc_darts_scores_no_architectures(self):
        with pytest.raises(ValueError, match="^a search by PC-DARTS scores no architectures"):
            estimate_of([{"epoch": 1}])


class TestWrite:
    def points(self, count):
        genotypes = [random_genotype(seed, allow_none=False) for seed in range(count)]
        return [Point(one, 0.1 * n, 1.0 + 0.25 * n**2, 2.0) for n, one in enumerate(genotypes)]

    def test_kept_points_are_the_best_under_even_budgets(self):
        points = self.points(9)  # of 1 to 17 Mbit
        assert spread(points, 5) == [0, 4, 5, 6, 8]  # budgets of 1, 5, 9, 13 and 17
        assert spread(points, 1) == [8]
        assert spread(points[:1], 10) == [0]
        assert spread(points[:3], 99) == [0, 1, 2]

    def test_files(self, tmp_path):
        points = self.points(23)
        kept = write(tmp_path, points, max_mbit=200.0)
        with open(tmp_path / "front.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        places = spread(points, 10)
        assert [*kept.values()] == [points[place] for place in places]
        assert [row["file"] for row in rows if row["file"]] == [*kept]
        assert [rows[place]["file"] for place in places] == [*kept]
        assert {*kept} <= {f"genotype_{number:02d}.json" for number in range(1, 11)}
        for row, point in zip(rows, points, strict=True):
            assert Genotype.from_choices(row[name] for name in CHOICES) == point.genotype
            figures = [float(row[name]) for name in ("score", "mbit", "mflops")]
            assert figures == [*point[1:]]
            if row["file"]:
                assert Genotype.load(tmp_path / row["file"]) == point.genotype
        assert Genotype.load(tmp_path / "genotype.json") == points[-1].genotype
        others = {"front.csv", "front.png", "front.svg", "genotype.json"}
        assert {path.name for path in tmp_path.iterdir()} == {*kept, *others}
        assert "Mbit ≤ 200" in (tmp_path / "front.svg").read_text(encoding="utf-8")

    def test_the_figure_names_points_and_limits(self):
        points = self.points(4)
        figure = plot_front(points, named={0: "1", 3: "2"}, limits={"MFLOPs": 2.5, "Mbit": None})
        (axes,) = figure.axes
        step, every, kept = axes.lines
        assert every.get_xdata().tolist() == [point.mbit for point in points]
        assert step.get_ydata().tolist() == [point.score for point in points]
        assert kept.get_xdata().tolist() == [points[0].mbit, points[3].mbit]
        assert [text.get_text() for text in axes.texts] == ["1", "2"]
        (title,) = figure.texts
        assert title.get_text() == "Best genotype under every budget, MFLOPs ≤ 2.5"
