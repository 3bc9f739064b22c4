"""Algorithm 1 of CP-NAS, driven from create_trial to STOPPED without any network."""

import collections
import hashlib
import json
import math

import keras_tuner
import numpy as np
import pytest

from cpnas_tf.catalogue import INDICATORS
from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.search.oracle import (
    ChildParentOracle,
    child_parent_score,
    evaluation_indicator,
    sampling_orders,
    worst_operation,
)
from cpnas_tf.search.surrogate import Surrogate

THREE_OPERATIONS = ("none", "skip_connect", "sep_conv_3x3")
PLACE = {name: place for place, name in enumerate(OPERATIONS)}

Step = collections.namedtuple("Step", "trial_id choices child_accuracy parent_accuracy score")


def constant(number, choices):
    return 0.5, 0.5


def noise(number, choices):
    """Accuracies that depend on the trial, never equal for two trials."""
    generator = np.random.default_rng([number, *map(PLACE.get, choices)])
    return tuple(generator.uniform(0.2, 0.9, size=2).tolist())


def make_oracle(folder, **settings):
    oracle = ChildParentOracle(**settings)
    oracle._set_project_dir(folder, "search")
    return oracle


def reloaded(folder, **settings):
    oracle = make_oracle(folder, **settings)
    oracle.reload()
    return oracle


def choices_of(trial):
    return tuple(trial.hyperparameters.values[name] for name in CHOICES)


def report(oracle, trial, accuracies):
    metrics = dict(zip(("child_accuracy", "parent_accuracy"), accuracies, strict=True))
    oracle.update_trial(trial.trial_id, metrics)


def end(oracle, trial):
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def run_trial(oracle, trial, scorer):
    accuracies = scorer(int(trial.trial_id), choices_of(trial))
    report(oracle, trial, accuracies)
    end(oracle, trial)
    return Step(trial.trial_id, choices_of(trial), *accuracies, trial.score)


def drive(oracle, scorer=noise, trials=math.inf):
    """Runs the search as keras-tuner's `BaseTuner.search` does, to its end or for some trials."""
    steps = []
    while len(steps) < trials:
        trial = oracle.create_trial("tuner0")
        if trial.status == "STOPPED":
            break
        steps.append(run_trial(oracle, trial, scorer))
    return steps


def split(steps, *, rounds):
    """The steps as stages of rounds of samples, cut by Algorithm 1's own three loops."""
    steps = iter(steps)
    stages = [
        [[next(steps) for _ in range(kept)] for _ in range(rounds)] for kept in range(8, 1, -1)
    ]
    assert next(steps, None) is None
    return stages


def operations_seen(stage):
    """The set of operations each edge was given in a stage."""
    return [
        set(column) for column in zip(*(s.choices for round_ in stage for s in round_), strict=True)
    ]


@pytest.fixture(scope="module")
def paper_search(tmp_path_factory):
    """A whole search with the paper's T = 3, K = 8 and beta_P = 2, and all its steps."""
    oracle = make_oracle(tmp_path_factory.mktemp("paper"))
    return oracle, drive(oracle)


def test_search_space_has_28_choices_of_8_operations():
    space = ChildParentOracle().get_space().space
    assert [hp.name for hp in space] == list(CHOICES)
    assert len(set(CHOICES)) == 28
    assert CHOICES[:3] == ("normal_0_2", "normal_1_2", "normal_0_3")
    assert CHOICES[14] == "reduce_0_2"
    assert CHOICES[-1] == "reduce_4_5"
    assert all(tuple(hp.values) == OPERATIONS for hp in space)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 105),
        ({"rounds": 1}, 35),
        ({"rounds": 2, "operations": THREE_OPERATIONS}, 2 * (3 + 2)),
        ({"rounds": 5, "operations": THREE_OPERATIONS[:2]}, 5 * 2),
    ],
)
def test_number_of_architectures(settings, expected):
    oracle = ChildParentOracle(**settings)
    assert oracle.architectures == oracle.max_trials == oracle.remaining_trials() == expected


@pytest.mark.parametrize("beta", [0, 0.33, 1, 2, -1.5])
def test_score_is_equation_1(beta):
    generator = np.random.default_rng(0)
    child, parent = generator.uniform(size=(2, 50))
    expected = (1 - beta) * child + beta * parent
    np.testing.assert_allclose(child_parent_score(child, parent, beta), expected, atol=1e-15)


def test_score_of_the_child_alone_and_of_the_parent_alone():
    assert child_parent_score(0.3, 0.7, 0) == 0.3
    assert child_parent_score(0.25, 0.75, 1) == 0.75
    assert child_parent_score(0.25, 0.75, 2) == 1.25


def test_indicator_is_equation_2():
    scores = np.random.default_rng(0).uniform(-1, 2, size=8)
    expected = [np.exp(score) / sum(np.exp(other) for other in scores) for score in scores]
    np.testing.assert_allclose(evaluation_indicator(scores), expected, rtol=1e-14)
    np.testing.assert_allclose(evaluation_indicator([math.log(1), math.log(3)]), [0.25, 0.75])


def test_indicator_of_large_scores_is_finite():
    indicator = evaluation_indicator([1000.0, 1000.0, -1000.0])
    np.testing.assert_array_equal(indicator, [0.5, 0.5, 0.0])


def test_position_counts_as_the_three_loops_do():
    oracle = ChildParentOracle(rounds=3)
    loops = [
        (8 - kept, round_, sample)
        for kept in range(8, 1, -1)
        for round_ in range(3)
        for sample in range(kept)
    ]
    assert [oracle.position(number) for number in range(105)] == loops


@pytest.mark.parametrize("number", [-1, 105])
def test_position_of_no_trial(number):
    with pytest.raises(ValueError, match=rf"0\.\.104, received: {number}"):
        ChildParentOracle().position(number)


def test_search_stops_after_all_architectures(paper_search):
    oracle, steps = paper_search
    assert [step.trial_id for step in steps] == [f"{number:03d}" for number in range(105)]
    assert oracle.remaining_trials() == 0
    assert oracle.create_trial("tuner0").status == "STOPPED"
    assert oracle.create_trial("tuner1").status == "STOPPED"
    assert not oracle.ongoing_trials


def test_every_round_gives_each_edge_each_remaining_operation_once(paper_search):
    _, steps = paper_search
    for stage, rounds in enumerate(split(steps, rounds=3)):
        for edge, alive in enumerate(operations_seen(rounds)):
            assert len(alive) == 8 - stage
            for samples in rounds:
                assert sorted(step.choices[edge] for step in samples) == sorted(alive)


def test_every_stage_drops_the_smallest_mean_score_of_each_edge(paper_search):
    oracle, steps = paper_search
    stages = split(steps, rounds=3)
    after = [*(operations_seen(stage) for stage in stages[1:])]
    after.append([{name} for name in oracle.genotype().choices])
    for stage, alive_after in zip(stages, after, strict=True):
        for edge, alive in enumerate(operations_seen(stage)):
            scores = collections.defaultdict(list)
            for samples in stage:
                for step in samples:
                    z = step.child_accuracy + 2 * (step.parent_accuracy - step.child_accuracy)
                    scores[step.choices[edge]].append(z)
            means = {name: np.mean(values) for name, values in scores.items()}
            assert all(len(values) == 3 for values in scores.values())
            assert alive - alive_after[edge] == {min(means, key=means.get)}


def test_history_holds_mean_scores_and_indicators(paper_search):
    oracle, steps = paper_search
    history = oracle.history
    assert len(history) == 7
    for stage, evaluations in zip(split(steps, rounds=3), history, strict=True):
        assert [set(evaluation) for evaluation in evaluations] == operations_seen(stage)
        for edge, evaluation in enumerate(evaluations):
            flat = [step for samples in stage for step in samples]
            for name, (mean_score, _) in evaluation.items():
                scores = [step.score for step in flat if step.choices[edge] == name]
                np.testing.assert_allclose(mean_score, np.mean(scores), rtol=1e-14)
            mean_scores, indicators = map(np.array, zip(*evaluation.values(), strict=True))
            expected = np.exp(mean_scores) / np.exp(mean_scores).sum()
            np.testing.assert_allclose(indicators, expected, rtol=1e-14)


def test_results_are_the_rows_of_search_csv(paper_search):
    oracle, steps = paper_search
    for number, (result, step) in enumerate(zip(oracle.results, steps, strict=True)):
        assert result[:3] == oracle.position(number)
        assert result[3:] == step[1:]


def test_trials_carry_score_and_metrics(paper_search):
    oracle, steps = paper_search
    for step in steps:
        trial = oracle.get_trial(step.trial_id)
        z = step.child_accuracy + 2 * (step.parent_accuracy - step.child_accuracy)
        assert trial.score == pytest.approx(z, abs=1e-15)
        assert trial.metrics.get_best_value("parent_accuracy") == step.parent_accuracy
    best = max(steps, key=lambda step: step.score)
    assert oracle.get_best_trials()[0].trial_id == best.trial_id


def table(number, choices):
    """Accuracies in thousandths, from whole numbers alone."""
    del number
    places = [(edge + 1) * (PLACE[name] + 1) ** 2 for edge, name in enumerate(choices)]
    return sum(places) % 600 / 1000, sum(places[::2]) % 700 / 1000


def test_the_papers_defaults_draw_and_drop_as_they_always_did(tmp_path):
    """Recorded before the Oracle had any option beside the paper's."""
    oracle = make_oracle(tmp_path)
    steps = drive(oracle, table)
    drawn = "".join(str(PLACE[name]) for step in steps for name in step.choices)
    assert len(drawn) == 105 * 28
    assert drawn[:28] == "2635241572326357242320756250"
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "a7628c896da2d1af"
    found = "".join(str(place) for place in oracle.genotype().indices)
    assert found == "4176243041717212775113501256"


class TestSamplingByStep:
    def test_k_steps_train_every_operation_left_on_every_edge_once(self, tmp_path):
        oracle = make_oracle(tmp_path, operations=OPERATIONS[:4], sampling="step", seed=5)
        for number in range(oracle.architectures):
            remaining = oracle.remaining()
            kept = len(remaining[0])
            drawn = [oracle.architecture_of_step(step).choices for step in range(2 * kept)]
            for group in (drawn[:kept], drawn[kept:]):
                for edge, names in enumerate(remaining):
                    assert sorted(choices[edge] for choices in group) == sorted(names)
            assert drawn[:kept] != drawn[kept:]
            assert [oracle.architecture_of_step(step).choices for step in range(kept)] == drawn[
                :kept
            ]
            trial = oracle.create_trial("tuner0")
            assert choices_of(trial) not in drawn
            run_trial(oracle, trial, noise)
            assert len(oracle.results) == number + 1

    def test_trials_are_those_of_epochs(self, tmp_path):
        settings = {"rounds": 1, "operations": THREE_OPERATIONS}
        by_step = drive(make_oracle(tmp_path / "step", **settings, sampling="step"))
        assert by_step == drive(make_oracle(tmp_path / "epoch", **settings))

    def test_epochs_train_the_trials_architecture(self, tmp_path):
        oracle = make_oracle(tmp_path)
        architectures = {oracle.architecture_of_step(step).choices for step in range(20)}
        assert architectures == {choices_of(oracle.create_trial("tuner0"))}


class TestAdditiveIndicator:
    def test_zbar_is_the_models_estimate_at_the_stages_level(self, tmp_path):
        oracle = make_oracle(tmp_path, rounds=2, operations=THREE_OPERATIONS, indicator="additive")
        drive(oracle)
        first = oracle.results[:6]
        level = np.mean([result.z for result in first])
        model = Surrogate(
            [Genotype.from_choices(result.choices) for result in first],
            [result.z - level for result in first],
        )
        for edge, evaluation in enumerate(oracle.history[0]):
            for name, (zbar, _) in evaluation.items():
                assert zbar == pytest.approx(level + model.estimates[edge, PLACE[name]])
        dropped = [min(each, key=lambda name: each[name][0]) for each in oracle.history[0]]
        left = [set(THREE_OPERATIONS) - {name} for name in dropped]
        assert [set(evaluation) for evaluation in oracle.history[1]] == left

    def test_with_one_round_it_credits_each_edge_where_means_cannot(self, tmp_path):
        """Every operation has one score: means drop all operations of the worst architecture."""
        worth = np.random.default_rng(3).uniform(0, 0.02, size=len(OPERATIONS))

        def sums(number, choices):
            return 0.1 + sum(worth[PLACE[name]] for name in choices), 0.5

        dropped = {}
        for indicator in INDICATORS:
            oracle = make_oracle(tmp_path / indicator, rounds=1, beta=0.0, indicator=indicator)
            drive(oracle, sums, trials=8)
            worst = min(oracle.results, key=lambda result: result.z)
            kept = zip(oracle.history[0], oracle.remaining(), strict=True)
            dropped[indicator] = [(set(all_) - set(left)).pop() for all_, left in kept]
            assert (tuple(dropped[indicator]) == worst.choices) == (indicator == "mean")
        mean_worth = {
            indicator: np.mean([worth[PLACE[name]] for name in names])
            for indicator, names in dropped.items()
        }
        assert mean_worth["additive"] < mean_worth["mean"]


def test_permutations_are_independent():
    orders = [
        order
        for stage in range(2)
        for round_index in range(3)
        for order in sampling_orders(
            (OPERATIONS,) * 28, seed=0, stage=stage, round_index=round_index
        )
    ]
    assert all(sorted(order) == sorted(OPERATIONS) for order in orders)
    assert len(set(orders)) > 0.98 * len(orders)  # 168 draws of 40320 permutations
    taken = [[order.index(name) for name in OPERATIONS] for order in orders]
    np.testing.assert_allclose(np.mean(taken, axis=0), 3.5, atol=4 * math.sqrt(63 / 12 / 168))


def test_seeds_differ_and_a_seed_repeats_itself(tmp_path):
    runs = [
        [step.choices for step in drive(make_oracle(tmp_path / str(run), seed=seed), trials=8)]
        for run, seed in enumerate([0, 0, 1, 7, 2**32 - 1])
    ]
    assert runs[0] == runs[1]
    assert len(set(map(tuple, runs))) == 4


def test_seed_0_is_kept():
    assert ChildParentOracle(seed=0).seed == 0


@pytest.mark.parametrize("seed", [0, pytest.param(3, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "settings",
    [
        {"rounds": 1},
        {"rounds": 3, "operations": THREE_OPERATIONS, "beta": 0.33},
        {"rounds": 1, "operations": THREE_OPERATIONS, "indicator": "additive"},
    ],
    ids=["all_operations", "three_rounds", "additive"],
)
def test_a_search_killed_at_every_point_ends_the_same(tmp_path, settings, seed):
    settings = {**settings, "seed": seed}
    straight = make_oracle(tmp_path / "straight", **settings)
    expected = drive(straight)

    killed = tmp_path / "killed"
    make_oracle(killed, **settings).save()
    steps = []
    for number in range(straight.architectures):
        before_create = reloaded(killed, **settings)
        first = before_create.create_trial("tuner0")
        after_create = reloaded(killed, **settings)
        second = after_create.create_trial("tuner0")
        assert (second.trial_id, choices_of(second)) == (first.trial_id, choices_of(first))
        report(after_create, second, noise(number, choices_of(second)))
        after_update = reloaded(killed, **settings)
        third = after_update.create_trial("tuner0")
        steps.append(run_trial(after_update, third, noise))
        after_end = reloaded(killed, **settings)
        assert after_end.results == straight.results[: number + 1]
        assert after_end.history == straight.history[: len(after_end.history)]
        assert after_end.remaining() == after_update.remaining()

    assert steps == expected
    finished = reloaded(killed, **settings)
    assert finished.create_trial("tuner0").status == "STOPPED"
    assert finished.genotype() == straight.genotype()


def test_reload_rebuilds_what_keras_tuner_keeps(tmp_path):
    settings = {"rounds": 2, "operations": THREE_OPERATIONS}
    oracle = make_oracle(tmp_path, **settings)
    drive(oracle, trials=7)
    again = reloaded(tmp_path, **settings)
    assert again.start_order == again.end_order == oracle.end_order
    assert again.remaining_trials() == oracle.remaining_trials() == 3
    assert [t.get_state() for t in again.trials.values()] == [
        t.get_state() for t in oracle.trials.values()
    ]
    assert again.get_state() == oracle.get_state()


def test_reload_goes_back_to_what_was_saved(tmp_path):
    oracle = make_oracle(tmp_path, rounds=1)
    drive(oracle, trials=9)
    state, history, remaining = oracle.get_state(), oracle.history, oracle.remaining()
    drive(oracle, trials=8)
    oracle.set_state(state)
    assert len(oracle.results) == len(oracle.trials) == len(oracle.end_order) == 9
    assert (oracle.history, oracle.remaining()) == (history, remaining)


def test_reload_reads_no_trial_file(tmp_path):
    oracle = make_oracle(tmp_path, rounds=1)
    drive(oracle, trials=10)
    files = list(tmp_path.glob("search/trial_*/trial.json"))
    assert len(files) == 10
    for file in files:
        file.write_text('{"trial_id": "0')
    assert reloaded(tmp_path, rounds=1).results == oracle.results


def test_an_ended_trial_counts_before_it_leaves_the_ongoing_ones(tmp_path):
    """keras-tuner saves within end_trial: that file alone must hold the result."""
    oracle = make_oracle(tmp_path, rounds=1)
    drive(oracle, trials=1)
    saved = json.loads((tmp_path / "search" / "oracle.json").read_text())
    result = oracle.results[0]
    assert saved["results"] == [[result.child_accuracy, result.parent_accuracy]]


def planted(edge, best_first, *, others=0.0, parent=None):
    """A noiseless additive scorer: `edge` prefers `best_first`, the 27 others share `others`.

    The operations of `edge` are worth 0.7, 0.6, ... 0 in the order given (and in the order `parent`
    for the parent model); those of each other edge fixed random values within `others` / 27.
    """
    weights = np.random.default_rng(edge).uniform(0, others / 27, size=(28, len(OPERATIONS)))
    places = {name: place for place, name in enumerate(best_first)}
    parent_places = {name: place for place, name in enumerate(parent or best_first)}

    def scorer(number, choices):
        rest = sum(weights[i, PLACE[name]] for i, name in enumerate(choices) if i != edge)
        worth = [(7 - order[choices[edge]]) / 10 for order in (places, parent_places)]
        return tuple(float(value + rest) for value in worth)

    return scorer


@pytest.mark.parametrize("edge", [0, 13, 27])
@pytest.mark.parametrize("seed", [0, 1])
def test_planted_operations_are_dropped_worst_first(tmp_path, edge, seed):
    """An edge whose gaps exceed the other edges' summed ranges is ranked exactly, for any seed.

    Let z = w(o) + r with r the sum over the 27 other edges. All r lie in an interval of width R, so
    do their means over t, hence |(zbar_a - zbar_b) - (w(a) - w(b))| <= R, and a is ranked above b
    whenever w(a) - w(b) > R. Here the gaps are 0.1 and R = 0.09.
    """
    best_first = tuple(np.random.default_rng(edge).permutation(OPERATIONS).tolist())
    oracle = make_oracle(tmp_path, rounds=1, beta=0.5, seed=seed)
    steps = drive(oracle, planted(edge, best_first, others=0.09))
    for stage, samples in enumerate(split(steps, rounds=1)):
        assert operations_seen(samples)[edge] == set(best_first[: 8 - stage])
    assert oracle.genotype().choices[edge] == best_first[0]


@pytest.mark.parametrize(("beta", "survivor"), [(0, "skip_connect"), (1, "none"), (2, "none")])
def test_beta_moves_the_choice_from_the_child_to_the_parent(tmp_path, beta, survivor):
    childs = ("skip_connect", "none", *OPERATIONS[2:])
    parents = ("none", "skip_connect", *OPERATIONS[2:])
    oracle = make_oracle(tmp_path, rounds=1, beta=beta)
    drive(oracle, planted(5, childs, parent=parents))
    assert oracle.genotype().choices[5] == survivor


def test_beta_changes_the_pruning_and_not_the_first_stage(tmp_path):
    runs = {}
    for beta in (0, 2):
        oracle = make_oracle(tmp_path / str(beta), rounds=1, beta=beta)
        runs[beta] = [step.choices for step in drive(oracle)]
    assert runs[0][:8] == runs[2][:8]
    assert runs[0][8:] != runs[2][8:]


def test_huge_beta_does_not_drown_the_order(tmp_path):
    """Where e of Eq. 2 underflows to 0 for most operations, the worst still goes first."""
    oracle = make_oracle(tmp_path, rounds=1, beta=1e5)
    steps = drive(oracle, planted(3, OPERATIONS[::-1], parent=OPERATIONS))
    indicators = [indicator for _, indicator in oracle.history[0][3].values()]
    assert indicators == [1.0] + [0.0] * 7
    for stage, samples in enumerate(split(steps, rounds=1)):
        assert operations_seen(samples)[3] == set(OPERATIONS[: 8 - stage])


class Parents(ChildParentOracle):
    """Scores by the parent's accuracy alone, and against it."""

    def score_trial(self, trial):
        trial.score = -10.0 * trial.metrics.get_last_value("parent_accuracy")


def test_an_overridden_score_decides(tmp_path):
    settings = {"rounds": 2, "operations": THREE_OPERATIONS}
    oracle = Parents(**settings)
    oracle._set_project_dir(tmp_path, "search")
    scorer = planted(5, OPERATIONS[::-1])
    steps = drive(oracle, scorer)
    assert [result.z for result in oracle.results] == [-10 * step.parent_accuracy for step in steps]
    assert [step.score for step in steps] == [result.z for result in oracle.results]
    by_equation_1 = make_oracle(tmp_path / "usual", **settings)
    drive(by_equation_1, scorer)
    assert by_equation_1.genotype().choices[5] == "sep_conv_3x3"
    assert oracle.genotype().choices[5] == "none"
    again = Parents(**settings)
    again.set_state(oracle.get_state())
    assert again.results == oracle.results
    assert again.history == oracle.history


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
def test_a_score_that_is_no_number_is_fatal(tmp_path, monkeypatch, score):
    def score_trial(self, trial):
        trial.score = score

    monkeypatch.setattr(ChildParentOracle, "score_trial", score_trial)
    oracle = make_oracle(tmp_path)
    with pytest.raises(
        keras_tuner.errors.FatalValueError, match=f"trial 000 .* finite score, received: {score}"
    ):
        run_trial(oracle, oracle.create_trial("tuner0"), noise)
    assert not oracle.results


def test_ties_drop_the_first_operation(tmp_path):
    oracle = make_oracle(tmp_path, rounds=2, operations=OPERATIONS[::-1])
    for stage in range(7):
        assert oracle.remaining() == (OPERATIONS[stage:],) * 28
        drive(oracle, constant, trials=2 * (8 - stage))
    assert oracle.genotype() == Genotype(("dil_conv_5x5",) * 14, ("dil_conv_5x5",) * 14)


@pytest.mark.parametrize(
    ("mean_scores", "allow_none", "dropped"),
    [
        ({"none": 0.9, "skip_connect": 0.1}, True, "skip_connect"),
        ({"none": 0.9, "skip_connect": 0.1}, False, "none"),
        ({"none": 0.1, "skip_connect": 0.9}, False, "none"),
        ({"none": 0.9, "skip_connect": 0.1, "sep_conv_3x3": 0.5}, False, "skip_connect"),
        ({"skip_connect": 0.1, "sep_conv_3x3": 0.5}, False, "skip_connect"),
        ({"none": 0.5, "skip_connect": 0.7, "sep_conv_3x3": 0.5}, True, "none"),
        ({"skip_connect": 0.7, "max_pool_3x3": 0.5, "sep_conv_3x3": 0.5}, True, "max_pool_3x3"),
    ],
)
def test_worst_operation(mean_scores, allow_none, dropped):
    assert worst_operation(mean_scores, allow_none=allow_none) == dropped


def test_forbidding_none_changes_only_edges_that_would_end_with_it(tmp_path):
    free = make_oracle(tmp_path / "free", rounds=1, seed=4)
    strict = make_oracle(tmp_path / "strict", rounds=1, seed=4, allow_none=False)
    assert drive(free) == drive(strict)
    pairs = list(zip(free.genotype().choices, strict.genotype().choices, strict=True))
    assert ("none", "none") not in pairs
    changed = [(before, after) for before, after in pairs if before != after]
    assert changed
    assert all(before == "none" for before, _ in changed)


def test_one_trial_at_a_time(tmp_path):
    oracle = make_oracle(tmp_path, rounds=1)
    trial = oracle.create_trial("tuner0")
    for _ in range(2):
        assert oracle.create_trial("tuner1").status == "IDLE"
    assert oracle.create_trial("tuner0") is trial
    run_trial(oracle, trial, noise)
    following = oracle.create_trial("tuner1")
    assert (following.status, following.trial_id) == ("RUNNING", "01")
    assert oracle.create_trial("tuner0").status == "IDLE"


def test_equal_architectures_are_not_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr("cpnas_tf.search.oracle.sampling_orders", lambda remaining, **_: remaining)
    oracle = make_oracle(tmp_path, rounds=3, operations=THREE_OPERATIONS[:2])
    steps = drive(oracle)
    assert [step.choices[0] for step in steps] == ["none", "skip_connect"] * 3
    assert len({step.choices for step in steps}) == 2


@pytest.mark.parametrize("name", ["child_accuracy", "parent_accuracy"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.01, 1.01, None])
def test_a_wrong_accuracy_is_fatal(tmp_path, name, value):
    oracle = make_oracle(tmp_path, rounds=1)
    trial = oracle.create_trial("tuner0")
    metrics = {"child_accuracy": 0.5, "parent_accuracy": 0.5, name: value}
    message = rf"^trial 00 must report a {name} in \[0, 1\], received: {value}$"
    with pytest.raises(keras_tuner.errors.FatalValueError, match=message):
        oracle.update_trial(trial.trial_id, metrics)
    trial.status = "COMPLETED"
    with pytest.raises(keras_tuner.errors.FatalValueError, match="must report a child_accuracy"):
        oracle.end_trial(trial)
    assert oracle.results == ()


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.01])
def test_a_wrong_accuracy_is_fatal_however_it_was_reported(tmp_path, value):
    oracle = make_oracle(tmp_path, rounds=1)
    trial = oracle.create_trial("tuner0")
    report(oracle, trial, (0.5, 0.5))
    trial.metrics.metrics["parent_accuracy"].update(value, step=1)
    trial.status = "COMPLETED"
    with pytest.raises(keras_tuner.errors.FatalValueError, match="must report a parent_accuracy"):
        oracle.end_trial(trial)
    assert oracle.results == ()
    assert reloaded(tmp_path, rounds=1).results == ()


def test_without_beta_there_need_be_no_parent(tmp_path):
    oracle = make_oracle(tmp_path, rounds=1, beta=0)
    steps = drive(oracle, lambda number, choices: (noise(number, choices)[0], None))
    assert [step.score for step in steps] == [step.child_accuracy for step in steps]
    assert {result.parent_accuracy for result in oracle.results} == {None}
    with_parents = ChildParentOracle(rounds=1, beta=0)
    with_parents._set_project_dir(tmp_path, "with_parents")
    assert [step.choices for step in drive(with_parents)] == [step.choices for step in steps]
    assert reloaded(tmp_path, rounds=1, beta=0).results == oracle.results


@pytest.mark.parametrize("status", ["INVALID", "FAILED", "RUNNING"])
def test_a_trial_that_did_not_complete_is_fatal(tmp_path, status):
    oracle = make_oracle(tmp_path, rounds=1)
    trial = oracle.create_trial("tuner0")
    report(oracle, trial, (0.5, 0.5))
    trial.status = status
    trial.message = "Traceback (most recent call last):\n  ...\nOSError: disk full\n"
    message = f"^trial 00 ended as {status}: OSError: disk full$"
    with pytest.raises(keras_tuner.errors.FatalRuntimeError, match=message):
        oracle.end_trial(trial)
    assert reloaded(tmp_path, rounds=1).create_trial("tuner0").trial_id == "00"


def test_a_trial_cannot_end_twice(tmp_path):
    oracle = make_oracle(tmp_path, rounds=1)
    trial = oracle.create_trial("tuner0")
    run_trial(oracle, trial, noise)
    with pytest.raises(keras_tuner.errors.FatalValueError, match="trial 00 is not ongoing"):
        oracle.end_trial(trial)
    assert len(oracle.results) == 1


def test_no_genotype_before_the_end(tmp_path):
    oracle = make_oracle(tmp_path, rounds=1)
    drive(oracle, trials=34)
    with pytest.raises(ValueError, match="not finished: 34 of 35 trials"):
        oracle.genotype()
    drive(oracle)
    assert isinstance(oracle.genotype(), Genotype)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rounds", 2),
        ("beta", 0.0),
        ("seed", 1),
        ("operations", THREE_OPERATIONS),
        ("allow_none", False),
        ("sampling", "step"),
        ("indicator", "additive"),
    ],
)
def test_reload_with_other_settings_is_refused(tmp_path, name, value):
    oracle = make_oracle(tmp_path, rounds=1)
    drive(oracle, trials=3)
    with pytest.raises(ValueError, match=f"the saved search has {name} = ") as error:
        reloaded(tmp_path, **{"rounds": 1, name: value})
    assert "\n" not in str(error.value)
    saved, current = oracle.get_state()[name], value
    assert repr(saved) in str(error.value)
    assert repr(list(current) if name == "operations" else current) in str(error.value)


@pytest.mark.parametrize(
    "results",
    [None, [[0.5, 0.5]] * 36, [[0.5, 1.5]], [[0.5]], [0.5], [["a", "b"]], [[0.5, math.nan]]],
)
def test_reload_of_damaged_results_is_refused(tmp_path, results):
    oracle = make_oracle(tmp_path, rounds=1)
    oracle.save()
    path = tmp_path / "search" / "oracle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "results": results}))
    with pytest.raises(ValueError, match="^cannot go on with the search in .*oracle.json: .+$"):
        oracle.reload()


@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", "{}"])
def test_reload_of_a_damaged_file_is_refused(tmp_path, text):
    oracle = make_oracle(tmp_path, rounds=1)
    if text is not None:
        oracle.save()
        (tmp_path / "search" / "oracle.json").write_text(text)
    with pytest.raises(ValueError, match="^cannot go on with the search in .*oracle.json: .+$"):
        oracle.reload()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds must be a whole number >= 1, received: 0"),
        ({"rounds": 1.5}, "received: 1.5"),
        ({"beta": math.nan}, "beta must be a finite number, received: nan"),
        ({"beta": "2"}, "received: '2'"),
        ({"seed": -1}, "seed must be a whole number >= 0, received: -1"),
        ({"seed": None}, "received: None"),
        ({"operations": ("none",)}, "operations must be 2 or more"),
        ({"operations": ("none", "none")}, "operations must be one or more different ones of"),
        ({"operations": ("none", "conv")}, "'conv'"),
        ({"sampling": "batch"}, "sampling must be one of epoch, step, received: 'batch'"),
        ({"indicator": "median"}, "indicator must be one of mean, additive, received: 'median'"),
        (
            {"indicator": "additive", "rounds": 1, "operations": THREE_OPERATIONS[:2]},
            "indicator must be mean for fewer than 3 architectures .*'additive' for 2",
        ),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        ChildParentOracle(**settings)
    assert "\n" not in str(error.value)


def test_the_oracle_prints_nothing(tmp_path, capfd):
    drive(make_oracle(tmp_path, rounds=1), trials=3)
    assert capfd.readouterr().out == ""


def test_a_base_tuner_runs_the_search(tmp_path):
    """The Oracle serves keras-tuner's own loop, which takes the accuracies from run_trial."""

    class Tuner(keras_tuner.engine.base_tuner.BaseTuner):
        def run_trial(self, trial):
            child_accuracy, parent_accuracy = noise(int(trial.trial_id), choices_of(trial))
            return {"child_accuracy": child_accuracy, "parent_accuracy": parent_accuracy}

    settings = {"rounds": 2, "operations": THREE_OPERATIONS}
    tuner = Tuner(ChildParentOracle(**settings), directory=tmp_path, project_name="tuner")
    tuner.search()
    assert tuner.remaining_trials == 0
    alone = make_oracle(tmp_path / "alone", **settings)
    drive(alone)
    assert tuner.oracle.results == alone.results


def test_a_crash_in_a_base_tuner_ends_the_search(tmp_path):
    class Tuner(keras_tuner.engine.base_tuner.BaseTuner):
        def run_trial(self, trial):
            raise ArithmeticError("loss is not finite")

    tuner = Tuner(ChildParentOracle(rounds=1), directory=tmp_path, project_name="tuner")
    message = "^trial 00 ended as INVALID: ArithmeticError: loss is not finite$"
    with pytest.raises(keras_tuner.errors.FatalRuntimeError, match=message):
        tuner.search()
