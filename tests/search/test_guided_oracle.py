"""The guided search's oracle, driven from create_trial to STOPPED without any network."""

import json
import math

import numpy as np
import pytest
from keras_tuner.errors import FatalError, FatalValueError

from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.search.guided_oracle import EPOCHS, NUMBER, GuidedOracle, left_out
from cpnas_tf.search.proposals import Space, first_design, propose, standings
from cpnas_tf.search.surrogate import Surrogate

SEARCH = {"first": 6, "rounds": 2, "proposals": 3, "finalists": 2, "seed": 5}
TRAININGS = 6 + 2 * 3 + 2


def make_oracle(folder, **settings):
    oracle = GuidedOracle(**{**SEARCH, **settings})
    oracle._set_project_dir(folder, "search")
    return oracle


def choices_of(trial):
    return tuple(trial.hyperparameters.values[name] for name in CHOICES)


def loss_of(choices, number):
    """A loss that poolings lower, with a little noise of the training's own."""
    noise = np.random.default_rng(number).normal(0, 0.01)
    return 2.0 - 0.03 * sum("pool" in name for name in choices) + noise


def measures_of(trial, *, parent=False):
    loss = loss_of(choices_of(trial), trial.hyperparameters.values[NUMBER])
    measures = {"child_loss": loss, "child_accuracy": 1 / (1 + loss)}
    if parent:
        measures |= {"parent_loss": loss / 3, "parent_accuracy": 1 / (1 + loss / 3)}
    return measures


def finish(oracle, trial, **settings):
    oracle.update_trial(trial.trial_id, measures_of(trial, **settings))
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def drive(oracle, trials=math.inf, **settings):
    """Runs the search as keras-tuner's `BaseTuner.search` does; returns the trials."""
    done = []
    while len(done) < trials:
        trial = oracle.create_trial("tuner0")
        if trial.status == "STOPPED":
            break
        finish(oracle, trial, **settings)
        done.append(trial)
    return done


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    oracle = make_oracle(tmp_path_factory.mktemp("whole"))
    return oracle, drive(oracle)


def test_its_trainings_in_order(whole):
    oracle, trials = whole
    assert oracle.trainings == len(trials) == TRAININGS
    values = [trial.hyperparameters.values for trial in trials]
    assert [one[NUMBER] for one in values] == list(range(TRAININGS))
    assert [one[EPOCHS] for one in values] == 12 * [2] + 2 * [4]
    places = [oracle.place(number) for number in range(TRAININGS)]
    assert places[:7] == 6 * [("random", 0)] + [("guided", 1)]
    assert places[8:] == [("guided", 1)] + 3 * [("guided", 2)] + 2 * [("final", 3)]
    assert [oracle.epochs_before(number) for number in (0, 5, 12, 13, 14)] == [0, 10, 24, 28, 32]
    assert all("none" not in choices_of(trial) for trial in trials)


def test_each_round_is_proposed_by_the_model_of_the_scores_before(whole):
    oracle, trials = whole
    genotypes = [Genotype.from_choices(choices_of(trial)) for trial in trials]
    scores = [-loss_of(one.choices, number) for number, one in enumerate(genotypes)]
    assert [result.score for result in oracle.results] == pytest.approx(scores)
    space = Space(OPERATIONS, 5)
    drawn = [genotype.indices for genotype in genotypes]
    assert drawn[:6] == first_design(space, count=6, seed=5)
    for round_index, done in ((1, 6), (2, 9)):
        known = genotypes[:done], scores[:done]
        model = Surrogate(*known)
        expected = propose(space, model, *known, count=3, seed=[5, round_index])
        assert drawn[done : done + 3] == expected
        predicted = [result.predicted for result in oracle.results[done : done + 3]]
        assert predicted == pytest.approx(model.predict(genotypes[done : done + 3]))
    assert [result.predicted for result in oracle.results[:6]] == [None] * 6
    place = standings(Surrogate(genotypes[:12], scores[:12]), genotypes[:12], scores[:12])
    best = sorted(range(12), key=lambda number: -place[number])[:2]
    assert drawn[12:] == [drawn[number] for number in best]
    assert (
        oracle.genotype()
        == max(zip(scores[12:], genotypes[12:], strict=True), key=lambda pair: pair[0])[1]
    )
    short = oracle.results[:12]
    assert left_out(short) == pytest.approx(Surrogate(genotypes[:12], scores[:12]).left_out)
    assert left_out(short[:2]) == [None, None]


def test_rounds_gain_what_the_scores_reward(whole):
    _, trials = whole
    poolings = [sum("pool" in name for name in choices_of(trial)) for trial in trials]
    assert np.mean(poolings[9:12]) > np.mean(poolings[:6]) + 2


@pytest.mark.parametrize(
    ("settings", "parent", "expected"),
    [
        ({}, False, lambda loss: -loss),
        ({"score": "accuracy"}, False, lambda loss: 1 / (1 + loss)),
        ({"beta": 0.5}, True, lambda loss: -loss + 0.5 * (loss - loss / 3)),
        (
            {"beta": -1.0, "score": "accuracy"},
            True,
            lambda loss: 1 / (1 + loss) - (1 / (1 + loss / 3) - 1 / (1 + loss)),
        ),
    ],
)
def test_the_score_is_eq_1(tmp_path, settings, parent, expected):
    oracle = make_oracle(tmp_path, **settings)
    assert oracle.precisions == (("child", "parent") if parent else ("child",))
    (trial,) = drive(oracle, 1, parent=parent)
    loss = loss_of(choices_of(trial), 0)
    assert trial.score == oracle.results[0].score == pytest.approx(expected(loss))


def test_without_proposals_it_is_the_best_of_n(tmp_path):
    oracle = make_oracle(tmp_path, proposals=0, finalists=0, score="accuracy")
    trials = drive(oracle)
    assert len(trials) == 6
    assert oracle.genotype().choices in {choices_of(trial) for trial in trials}
    single = make_oracle(tmp_path / "one", first=1, proposals=0, finalists=1)
    first, final = drive(single)
    assert choices_of(first) == choices_of(final) == single.genotype().choices


def test_two_inputs_per_node(tmp_path):
    trials = drive(make_oracle(tmp_path, inputs=2))
    assert {choices_of(trial).count("none") for trial in trials} == {2 * (14 - 8)}


class TestState:
    @pytest.mark.parametrize("done", [0, 3, 6, 7, 12, 13, 14])
    def test_a_search_that_was_stopped_goes_on_as_if_it_was_not(self, tmp_path, whole, done):
        oracle = make_oracle(tmp_path)
        drive(oracle, done)
        if not done:
            oracle.save()
        state = json.loads(json.dumps(oracle.get_state()))
        if 0 < done < TRAININGS:
            oracle.create_trial("killed")
        again = make_oracle(tmp_path)
        again.reload()
        drive(again)
        assert again.results == whole[0].results
        assert again.genotype() == whole[0].genotype()
        fresh = make_oracle(tmp_path / "fresh")
        fresh.set_state(state)
        assert fresh.get_state() == state
        assert len(fresh.trials) == done

    def test_several_tuners_at_once_train_the_same(self, tmp_path, whole):
        oracle = make_oracle(tmp_path)
        waited = False
        while True:
            trials = [oracle.create_trial(f"tuner{number}") for number in range(4)]
            running = [trial for trial in trials if trial.status == "RUNNING"]
            waited |= any(trial.status == "IDLE" for trial in trials)
            if not running:  # all is done
                break
            for trial in reversed(running[1:]):
                finish(oracle, trial)
            again = make_oracle(tmp_path)  # as after a kill, which leaves out the first
            again.reload()
            assert again.results == oracle.results
            finish(oracle, running[0])
        assert waited
        assert oracle.results == whole[0].results
        assert oracle.genotype() == whole[0].genotype()

    def test_other_settings_and_broken_states_are_refused(self, tmp_path):
        oracle = make_oracle(tmp_path)
        drive(oracle, 4)
        state = oracle.get_state()
        with pytest.raises(ValueError, match="has seed = 5, this one 6"):
            make_oracle(tmp_path, seed=6).set_state(state)
        first, *others = state["results"]
        for results, message in (
            ([first, first], "second or unknown training 0"),
            ([{**first, "number": TRAININGS}], f"unknown training {TRAININGS}"),
            ([first] * (TRAININGS + 1), f"at most {TRAININGS} results"),
            ([{**first, "choices": others[0]["choices"][1:]}], "14 operations"),
        ):
            with pytest.raises(ValueError, match=message):
                make_oracle(tmp_path).set_state({**state, "results": results})
        path = tmp_path / "search" / "oracle.json"
        path.write_text(path.read_text()[:-20])
        with pytest.raises(ValueError, match="cannot go on with the search in .*oracle.json"):
            make_oracle(tmp_path).reload()

    def test_it_has_no_genotype_before_its_end(self, tmp_path):
        oracle = make_oracle(tmp_path)
        drive(oracle, 13)
        with pytest.raises(ValueError, match="not finished: 13 of 14 trainings"):
            oracle.genotype()


class TestBadInput:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"finalists": 13}, "finalists must be at most the 12 trainings before, received: 13"),
            ({"first": 2}, "first must be at least the 3 trainings .* received: 2"),
            ({"first": 0}, "first must be a whole number >= 1, received: 0"),
            ({"rounds": 0}, "rounds must be a whole number >= 1, received: 0"),
            ({"proposals": -1}, "proposals must be a whole number >= 0, received: -1"),
            ({"proposals": 1001}, "proposals must be at most 1000, received: 1001"),
            ({"inputs": 6}, "inputs must be at most 5, received: 6"),
            ({"score": "z"}, "score must be one of loss, accuracy, received: 'z'"),
            ({"beta": math.inf}, "beta must be a finite number, received: inf"),
            ({"operations": ("none", "skip_connect")}, "operations must be 2 or more beside none"),
            ({"operations": ("conv",)}, "operations must be .*conv"),
        ],
    )
    def test_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            GuidedOracle(**{**SEARCH, **settings})

    @pytest.mark.parametrize(
        "measures",
        [
            {},
            {"child_loss": 1.0},
            {"child_loss": math.nan, "child_accuracy": 0.5},
            {"child_loss": -1.0, "child_accuracy": 0.5},
            {"child_loss": 1.0, "child_accuracy": 1.5},
        ],
    )
    def test_figures(self, tmp_path, measures):
        oracle = make_oracle(tmp_path)
        trial = oracle.create_trial("tuner0")
        with pytest.raises(FatalValueError, match="must report a child_"):
            oracle.update_trial(trial.trial_id, measures)

    def test_trials_that_failed_or_are_not_ongoing(self, tmp_path):
        oracle = make_oracle(tmp_path)
        trial = oracle.create_trial("tuner0")
        trial.status, trial.message = "FAILED", "no memory"
        with pytest.raises(FatalError, match="ended as FAILED: no memory"):
            oracle.end_trial(trial)
        done = make_oracle(tmp_path)
        (trial,) = drive(done, 1)
        with pytest.raises(FatalError, match="is not ongoing"):
            done.end_trial(trial)
