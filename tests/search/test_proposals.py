"""What a guided search draws and proposes."""

import itertools

import numpy as np
import pytest

from cpnas_tf.genotypes import CELL_TYPES, EDGES, OPERATIONS, Genotype
from cpnas_tf.search import proposals
from cpnas_tf.search.proposals import Space, first_design, propose, standings
from cpnas_tf.search.surrogate import Surrogate

NONE = OPERATIONS.index("none")
NAMES = ("skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_5x5")
KNOWN = {OPERATIONS.index(name) for name in NAMES}


def differing(first, second):
    return sum(a != b for a, b in zip(first, second, strict=True))


def kept_inputs(choices):
    """How many edges with an operation each node has, 8 numbers."""
    return [
        sum(
            choices[cell * len(EDGES) + number] != NONE
            for number, (_, target) in enumerate(EDGES)
            if target == node
        )
        for cell in range(len(CELL_TYPES))
        for node in range(2, 6)
    ]


@pytest.fixture(params=[2, 5])
def inputs(request):
    return request.param


@pytest.fixture
def space(inputs):
    return Space(NAMES, inputs)


def check(choices, inputs):
    """Expects a genotype of the space."""
    assert kept_inputs(choices) == [min(inputs, edges) for edges in (2, 3, 4, 5)] * 2
    assert set(choices) <= KNOWN | ({NONE} if inputs < 5 else set())


def scored(space, count=24):
    """A first design with scores: the number of max poolings, and some noise."""
    genotypes = [
        Genotype.from_choices(OPERATIONS[index] for index in choices)
        for choices in first_design(space, count=count, seed=1)
    ]
    noise = np.random.default_rng(0).normal(0, 0.5, count)
    scores = [each.choices.count("max_pool_3x3") for each in genotypes] + noise
    return genotypes, scores.tolist(), Surrogate(genotypes, scores)


def test_the_first_design_is_drawn_uniformly_by_the_seed(space, inputs):
    drawn = first_design(space, count=400, seed=3)
    assert len(set(drawn)) == 400
    for choices in drawn:
        check(choices, inputs)
    counts = np.bincount(np.ravel(drawn), minlength=len(OPERATIONS))[sorted(KNOWN)]
    assert counts.min() > 0.9 * counts.mean()
    carried = (np.array(drawn) != NONE).mean(axis=0)
    expected = [min(inputs, target) / target for _, target in EDGES] * 2
    np.testing.assert_allclose(carried, expected, atol=0.1)
    assert first_design(space, count=400, seed=3) == drawn
    assert first_design(space, count=400, seed=4) != drawn
    assert first_design(space, count=10, seed=3) == drawn[:10]


def test_mutations_change_one_to_six_edges(space, inputs):
    generator = np.random.default_rng(0)
    parent = space.draw(generator)
    changed = []
    for _ in range(300):
        child = space.mutate(parent, generator)
        check(child, inputs)
        changed.append(differing(parent, child))
    # An operation that moves to another edge changes both.
    assert set(changed) >= set(range(1, 7))
    assert max(changed) <= (6 if inputs == 5 else 12)


def test_crossings_have_each_edge_of_one_of_two(space, inputs):
    generator = np.random.default_rng(0)
    first, second = space.draw(generator), space.draw(generator)
    children = [space.cross(first, second, generator) for _ in range(50)]
    for child in children:
        check(child, inputs)
        assert all(edge in pair for edge, *pair in zip(child, first, second, strict=True))
    assert len(set(children)) > 25


def test_proposals_are_new_differ_and_are_predicted_best(space, inputs):
    genotypes, scores, model = scored(space)
    found = propose(space, model, genotypes, scores, count=5, seed=[0, 1])
    for choices in found:
        check(choices, inputs)
    assert not {genotype.indices for genotype in genotypes} & set(found)
    assert min(differing(*pair) for pair in itertools.combinations(found, 2)) >= 3
    predictions = model.predict_indices(np.array(found))
    assert list(predictions) == sorted(predictions, reverse=True)
    assert predictions.min() > model.predict(genotypes).max()
    best = OPERATIONS.index("max_pool_3x3")
    assert np.mean(np.array(found) == best) > max(scores) / 28
    assert found == propose(space, model, genotypes, scores, count=5, seed=[0, 1])
    assert found != propose(space, model, genotypes, scores, count=5, seed=[0, 2])


def test_where_too_few_differ_enough_there_are_others(space, monkeypatch):
    monkeypatch.setattr(proposals, "DISTANCE", 29)
    genotypes, scores, model = scored(space)
    found = propose(space, model, genotypes, scores, count=4, seed=[0])
    assert len(set(found)) == 4


def test_standings_weigh_scores_and_predictions_alike(space):
    genotypes, scores, model = scored(space)
    predictions = model.predict(genotypes)
    expected = [
        ((own - np.mean(scores)) / np.std(scores) + (one - predictions.mean()) / predictions.std())
        / 2
        for own, one in zip(scores, predictions, strict=True)
    ]
    np.testing.assert_allclose(standings(model, genotypes, scores), expected, atol=1e-8)
    equal = Surrogate(genotypes, [1.0] * len(genotypes))
    assert standings(equal, genotypes, [1.0] * len(genotypes)) == [0.0] * len(genotypes)
