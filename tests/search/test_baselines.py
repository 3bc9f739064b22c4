"""What a guided search is compared with, driven without any network."""

import numpy as np
import pytest
from keras_tuner.engine.trial import TrialStatus

from cpnas_tf.catalogue import METHODS
from cpnas_tf.genotypes import CHOICES, Genotype
from cpnas_tf.search.baselines import EvolutionOracle, RandomOracle
from cpnas_tf.search.guided import GuidedSearch
from cpnas_tf.search.guided_oracle import GuidedOracle

SEARCH = {"first": 8, "rounds": 6, "proposals": 4, "finalists": 3, "seed": 5}
CANDIDATES = 8 + 6 * 4


def make(kind, folder, **settings):
    oracle = kind(**{**SEARCH, **settings})
    oracle._set_project_dir(folder, "search")
    return oracle


def poolings(genotype):
    return sum("pool" in name for name in genotype.choices)


def drive(oracle, trials=1000):
    """Runs a search whose losses poolings lower, with noise; returns what it trained."""
    trained = []
    while len(trained) < trials:
        trial = oracle.create_trial("tuner0")
        if trial.status == TrialStatus.STOPPED:
            break
        genotype = Genotype.from_choices(trial.hyperparameters.values[name] for name in CHOICES)
        noise = np.random.default_rng(len(oracle.results)).normal(0, 0.01)
        measures = {"child_loss": 2 - 0.05 * poolings(genotype) + noise, "child_accuracy": 0.5}
        oracle.update_trial(trial.trial_id, measures)
        trial.status = TrialStatus.COMPLETED
        oracle.end_trial(trial)
        trained.append(genotype)
    return trained


def best_finalist(oracle):
    return max(oracle.results[CANDIDATES:], key=lambda result: result.score).genotype


@pytest.mark.parametrize("kind", [RandomOracle, EvolutionOracle])
def test_they_cost_what_a_guided_search_costs(tmp_path, kind):
    oracle, guided = make(kind, tmp_path), GuidedOracle(**SEARCH)
    assert (oracle.trainings, oracle.epochs_before(oracle.trainings)) == (
        guided.trainings,
        guided.epochs_before(guided.trainings),
    )
    trained = drive(oracle)
    assert trained[:8] == [result.genotype for result in oracle.results[:8]]
    scores = [result.score for result in oracle.results[:CANDIDATES]]
    best = np.argsort(scores)[::-1][:3]
    assert trained[CANDIDATES:] == [trained[place] for place in best]  # by the scores alone
    assert oracle.genotype() == best_finalist(oracle)
    assert oracle.model() is None
    assert all(result.predicted is None for result in oracle.results)


def test_random_draws_do_not_see_the_scores(tmp_path):
    class Reversed(RandomOracle):
        def score_trial(self, trial):
            super().score_trial(trial)
            trial.score *= -1

    usual = drive(make(RandomOracle, tmp_path / "usual"), CANDIDATES)
    assert drive(make(Reversed, tmp_path / "reversed"), CANDIDATES) == usual
    assert len(set(usual)) == CANDIDATES
    assert drive(make(RandomOracle, tmp_path / "other", seed=6), CANDIDATES) != usual


def test_evolution_changes_an_edge_of_a_good_one_among_the_youngest(tmp_path):
    oracle = make(EvolutionOracle, tmp_path)
    trained = drive(oracle, CANDIDATES)
    scores = [result.score for result in oracle.results]
    for number in range(8, CANDIDATES):
        round_start = 8 + (number - 8) // 4 * 4
        youngest = range(round_start - 8, round_start)
        changed = {
            place: sum(map(str.__ne__, trained[place].choices, trained[number].choices))
            for place in youngest
        }
        parents = [place for place, count in changed.items() if count == 1]
        assert parents
        # The best of two is never the worst of all.
        assert max(scores[place] for place in parents) > min(scores[place] for place in youngest)
    assert np.mean([*map(poolings, trained[-8:])]) > np.mean([*map(poolings, trained[:8])]) + 1


@pytest.mark.parametrize("kind", [RandomOracle, EvolutionOracle])
def test_a_search_that_goes_on_ends_the_same(tmp_path, kind):
    whole = drive(make(kind, tmp_path / "whole"))
    oracle = make(kind, tmp_path / "stopped")
    drive(oracle, 15)
    oracle.save()
    again = make(kind, tmp_path / "stopped")
    again.reload()
    assert drive(again) == whole[15:]


@pytest.mark.parametrize(
    ("name", "kind"), [("best_of_n", RandomOracle), ("evolution", EvolutionOracle)]
)
def test_they_are_methods_with_the_settings_of_the_guided_search(name, kind):
    method = METHODS[name]
    assert method.section == METHODS["guided"].section
    assert issubclass(method.load(), GuidedSearch)
    assert method.load().oracle is kind
