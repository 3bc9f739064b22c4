"""BONN's loss: its formulas and gradients against NumPy, and the callback in `fit`."""

import binarized
import numpy as np
import pytest
import small_training
import tensorflow as tf

from cpnas_tf.training import BONNLoss
from cpnas_tf.training.bonn import (
    LEAST_FEATURE_VARIANCE,
    feature_term,
    kernel_term,
    magnitudes,
)

RANDOM = np.random.default_rng(0)
KERNELS = [
    pytest.param([3, 3, 2, 4], False, id="convolution"),
    pytest.param([3, 3, 4, 1], True, id="depthwise"),
]


def filters(kernel, depthwise):
    """A kernel's filters, a row each."""
    count = kernel.shape[2] if depthwise else kernel.shape[3]
    return kernel.reshape(-1, count).T


def numpy_kernel_term(kernel, scale, means, variances, nu, depthwise):
    """BONN's sum over kernels, a kernel at a time, its positive elements and its negative ones."""
    total = 0.0
    vectors = np.broadcast_to(scale, kernel.shape)
    for row, vector, mu, variance in zip(
        filters(kernel, depthwise), filters(vectors, depthwise), means, variances, strict=True
    ):
        positive, negative = row[row >= 0], row[row < 0]
        total += np.sum((binarized.sign(row) - vector * row) ** 2)
        total += nu * np.sum((positive - mu) ** 2 / variance)
        total += nu * np.sum((negative + mu) ** 2 / variance)
        total += nu * len(row) * np.log(variance)  # log det of variance * I
    return total


@pytest.mark.parametrize(("shape", "depthwise"), KERNELS)
def test_the_kernels_term_and_its_gradients_equal_numpy(shape, depthwise):
    kernel = RANDOM.normal(size=shape)
    scale = RANDOM.uniform(1, 2, size=[*shape[:2], *([1, 1] if depthwise else [shape[2], 1])])
    means, variances = RANDOM.uniform(0.5, 1.5, size=(2, 4))
    variables = [tf.Variable(each, dtype=tf.float32) for each in (kernel, scale)]
    given = {"prior_weight": 0.3, "depthwise": depthwise}
    priors = [tf.Variable(each, dtype=tf.float32) for each in (means, variances)]
    with tf.GradientTape() as tape:
        value = kernel_term(
            variables[0], scale=variables[1], means=priors[0], variances=priors[1], **given
        )
    gradients = tape.gradient(value, [*variables, *priors])
    rest = (means, variances, 0.3, depthwise)
    expected = numpy_kernel_term(kernel, scale, *rest)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    by_kernel = binarized.numerical_gradient(lambda k: numpy_kernel_term(k, scale, *rest), kernel)
    by_scale = binarized.numerical_gradient(lambda w: numpy_kernel_term(kernel, w, *rest), scale)
    np.testing.assert_allclose(gradients[0], by_kernel, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradients[1], by_scale, rtol=1e-4, atol=1e-4)
    assert gradients[2:] == [None, None]


@pytest.mark.parametrize(("shape", "depthwise"), KERNELS)
def test_magnitudes_are_where_the_prior_is_smallest(shape, depthwise):
    kernel = RANDOM.normal(size=shape)
    means, variances = magnitudes(tf.constant(kernel), depthwise=depthwise)
    best = numpy_kernel_term(kernel, 0.0, means.numpy(), variances.numpy(), 1.0, depthwise)
    for shift in (-0.05, 0.05):
        for other in ((means + shift, variances), (means, variances + shift)):
            worse = numpy_kernel_term(kernel, 0.0, *(np.array(v) for v in other), 1.0, depthwise)
            assert worse > best


def numpy_feature_term(features, labels, centres, variances):
    total = 0.0
    for f, label in zip(features, labels, strict=True):
        c, variance = centres[label], variances[label]
        total += np.sum((f - c) ** 2) + np.sum((f - c) ** 2 / variance + np.log(variance))
    return total / len(features)


def test_the_features_term_and_its_gradient_equal_numpy():
    features, centres = RANDOM.normal(size=(6, 5)), RANDOM.normal(size=(3, 5))
    variances = RANDOM.uniform(0.5, 1.5, size=(3, 5))
    labels = binarized.LABELS
    given = [tf.Variable(each, dtype=tf.float32) for each in (features, centres, variances)]
    with tf.GradientTape() as tape:
        value = feature_term(given[0], labels=labels, centres=given[1], variances=given[2])
    gradient, *none = tape.gradient(value, given)
    expected = numpy_feature_term(features, labels, centres, variances)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    numerical = binarized.numerical_gradient(
        lambda f: numpy_feature_term(f, labels, centres, variances), features
    )
    np.testing.assert_allclose(gradient, numerical, rtol=1e-3, atol=1e-5)
    assert none == [None, None]


def test_an_empty_batch_has_no_features_term():
    empty = {"labels": tf.zeros([0], tf.int32), "centres": tf.ones([3, 2])}
    assert feature_term(tf.zeros([0, 2]), variances=tf.ones([3, 2]), **empty) == 0


def model_term(model, priors, nu):
    """The kernels' term of a model, by NumPy."""
    total, first = 0.0, 0
    for kernel, quantizer, free in binarized.kernels(model):
        depthwise = len(free) == 2
        last = first + len(filters(kernel, depthwise))
        means, variances = np.asarray(priors)[:, first:last]
        scale = quantizer.scale.numpy()
        total += numpy_kernel_term(kernel, scale, means, variances, nu, depthwise)
        first = last
    return total


def test_fit_adds_both_terms_and_moves_what_they_learn():
    model = binarized.network("bonn")
    weights = {"kernel_weight": 0.5, "prior_weight": 0.3, "feature_weight": 0.25}
    loss = BONNLoss(**weights, centre_rate=0.5)
    loss.build(model)
    assert set(loss.state) == {"priors", "centres", "variances"}
    priors = loss.state["priors"].numpy()
    rows = np.concatenate([filters(k, len(free) == 2) for k, _, free in binarized.kernels(model)])
    np.testing.assert_allclose(priors[0], np.abs(rows).mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(priors[1], np.abs(rows).var(axis=1), rtol=1e-4)
    features = tf.keras.Model(model.input, model.get_layer("pool").output)(binarized.IMAGES)
    kernels = model_term(model, priors, weights["prior_weight"])
    centres, variances = (loss.state[name].numpy() for name in ("centres", "variances"))
    np.testing.assert_array_equal(centres, 0.0)
    np.testing.assert_array_equal(variances, 1.0)
    labels = binarized.LABELS
    distance = numpy_feature_term(features.numpy(), labels, centres, variances)
    logs = binarized.fit(model, loss)
    np.testing.assert_allclose(logs["bonn_kernels"][0], kernels, rtol=1e-4)
    np.testing.assert_allclose(logs["bonn_features"][0], distance, rtol=1e-4)
    total = logs["cross_entropy"][0] + 0.25 * kernels + 0.125 * distance
    np.testing.assert_allclose(logs["loss"][0], total, rtol=1e-4)
    for label in range(binarized.CLASSES):
        own = features.numpy()[labels == label]
        share = 0.5 / (1 + len(own))
        moved = share * own.sum(axis=0)
        np.testing.assert_allclose(loss.state["centres"][label], moved, rtol=1e-4, atol=1e-6)
        moved = 1 + share * (own**2 - 1).sum(axis=0)
        moved = np.maximum(moved, LEAST_FEATURE_VARIANCE)
        np.testing.assert_allclose(loss.state["variances"][label], moved, rtol=1e-4)


def test_the_kernels_means_and_variances_follow_the_kernels():
    model, loss = binarized.network("bonn"), BONNLoss(centre_rate=1.0)
    loss.build(model)
    convolution = model.get_layer("conv")
    convolution.kernel.latent_variable.assign(0.5 * convolution.kernel.latent_variable)
    kernel = binarized.kernels(model)[0][0]
    binarized.fit(model, loss)
    rows = filters(kernel, depthwise=False)
    np.testing.assert_allclose(
        loss.state["priors"][0, : len(rows)], np.abs(rows).mean(axis=1), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("weights", "terms"),
    [
        ({"kernel_weight": 0}, {"bonn_features"}),
        ({"feature_weight": 0}, {"bonn_kernels"}),
        ({"kernel_weight": 0, "feature_weight": 0}, set()),
    ],
)
def test_a_term_without_a_weight_is_left_out(weights, terms):
    history = binarized.fit(binarized.network("bonn"), BONNLoss(**weights))
    assert set(history) == {"loss", "cross_entropy", *terms}


def test_another_network_is_refused():
    with pytest.raises(ValueError, match="has no kernel that BonnSign binarizes"):
        BONNLoss().build(binarized.network("pcnn"))


@pytest.mark.parametrize("name", ["kernel_weight", "prior_weight", "feature_weight"])
def test_a_negative_weight_is_refused(name):
    with pytest.raises(ValueError, match=f"^{name} must be a number >= 0, received: -0.5"):
        BONNLoss(**{name: -0.5})


@pytest.mark.usefixtures("deterministic")
def test_a_training_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch):
    def train(folder):
        model, loss = small_training.child_model(binarization="bonn"), BONNLoss()
        rows = small_training.train_child(model, tmp_path / folder, loss, epochs=2)
        state = [*model.variables, *loss.state.values()]  # Keras numbers some of their names
        return small_training.untimed(rows), [np.array(variable).tobytes() for variable in state]

    expected, final = train("whole")
    assert all(row["bonn_kernels"] > 0 for row in expected)
    with monkeypatch.context() as patch:
        stop = small_training.raising(KeyboardInterrupt())
        small_training.at_epoch(patch, "on_train_batch_end", 2, stop, call=2)
        with pytest.raises(KeyboardInterrupt):
            train("stopped")
    assert train("stopped") == (expected, final)
