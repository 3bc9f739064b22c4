"""The model of scores, against NumPy's least squares and fits that leave one genotype out."""

import numpy as np
import pytest
from scipy import stats

from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.search.random_draw import random_genotype
from cpnas_tf.search.surrogate import Surrogate, features

GENOTYPES = [random_genotype(seed, allow_none=False) for seed in range(12)]
SCORES = np.random.default_rng(0).normal(1.5, 0.2, len(GENOTYPES))
OTHERS = [random_genotype(seed) for seed in range(100, 120)]


def least_squares(genotypes, scores, penalty):
    """Intercept and coefficients of the ridge, as an ordinary least-squares problem.

    The penalty is a row sqrt(penalty) per coefficient with the target 0, and none of the intercept.
    """
    inputs = features(genotypes)
    ones, zeros = np.ones([len(inputs), 1]), np.zeros([inputs.shape[1], 1])
    rows = np.block([[ones, inputs], [zeros, np.sqrt(penalty) * np.eye(inputs.shape[1])]])
    targets = np.concatenate([scores, np.zeros(inputs.shape[1])])
    return np.linalg.lstsq(rows, targets, rcond=None)[0]


@pytest.mark.parametrize("penalty", [10.0, 0.3])
def test_it_is_the_ridge_of_numpys_least_squares(penalty):
    model = Surrogate(GENOTYPES, SCORES, penalty=penalty)
    intercept, *coefficients = least_squares(GENOTYPES, SCORES, penalty)
    np.testing.assert_allclose(model.intercept, intercept, rtol=1e-9)
    expected = intercept + features(OTHERS) @ coefficients
    np.testing.assert_allclose(model.predict(OTHERS), expected, rtol=1e-9)


def test_features_are_counts_and_choices():
    (row,) = features([Genotype(["skip_connect"] * 14, ["none", "sep_conv_3x3"] * 7)])
    counts, choices = row[: 2 * len(OPERATIONS)].reshape(2, -1), row[2 * len(OPERATIONS) :]
    assert dict(zip(OPERATIONS, counts[0], strict=True))["skip_connect"] == 7.0
    assert dict(zip(OPERATIONS, counts[1], strict=True))["sep_conv_3x3"] == 3.5
    assert counts.sum() == 14
    choices = choices.reshape(len(CHOICES), -1)
    assert choices.sum(axis=1).tolist() == [1] * len(CHOICES)
    assert choices[14].argmax() == OPERATIONS.index("none")


def test_left_out_is_each_genotypes_prediction_by_the_others():
    model = Surrogate(GENOTYPES, SCORES)
    for place, genotype in enumerate(GENOTYPES):
        others = [*GENOTYPES[:place], *GENOTYPES[place + 1 :]]
        alone = Surrogate(others, np.delete(SCORES, place)).predict([genotype])
        np.testing.assert_allclose(model.left_out[place], alone[0], rtol=1e-9)


def test_estimates_add_up_to_predictions():
    model = Surrogate(GENOTYPES, SCORES)
    for genotype, predicted in zip(OTHERS, model.predict(OTHERS), strict=True):
        added = sum(model.estimates[edge, index] for edge, index in enumerate(genotype.indices))
        np.testing.assert_allclose(model.intercept + added, predicted, rtol=1e-9)


def test_it_finds_what_an_operation_is_worth_from_fewer_genotypes_than_choices():
    worth = dict(zip(OPERATIONS, [0, 0.1, 0.2, -0.1, 0.05, -0.2, 0.15, -0.05], strict=True))
    genotypes = [random_genotype(seed, allow_none=False) for seed in range(60)]
    true = [sum(map(worth.get, genotype.choices)) for genotype in genotypes]
    noise = np.random.default_rng(1).normal(0, np.std(true) / 2, len(true))
    model = Surrogate(genotypes[:30], (true + noise)[:30])
    assert stats.kendalltau(model.predict(genotypes[30:]), true[30:]).statistic > 0.4
    never = OPERATIONS.index("none")
    assert not model.estimates[:, never].any()


@pytest.mark.parametrize(
    ("genotypes", "scores", "penalty", "message"),
    [
        (GENOTYPES[:2], [1.0, 2.0], 10.0, "3 genotypes or more, received: 2"),
        (GENOTYPES[:3], [1.0, 2.0], 10.0, r"scores must be 3 finite numbers.*received: \[1.0, 2"),
        (GENOTYPES[:3], [1.0, 2.0, np.nan], 10.0, "scores must be 3 finite numbers"),
        (GENOTYPES[:3], [1.0, 2.0, 3.0], 0.0, "penalty must be a number > 0, received: 0.0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(genotypes, scores, penalty, message):
    with pytest.raises(ValueError, match=message):
        Surrogate(genotypes, scores, penalty=penalty)
