"""PCNN's loss: its formula and gradients against NumPy, and the callback in `fit`."""

import binarized
import numpy as np
import pytest
import small_training
import tensorflow as tf

from cpnas_tf.training import ChildParentLoss, PCNNLoss
from cpnas_tf.training.pcnn import projection_error

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("shape", "filter_shape"), [([3, 3, 2, 4], [3, 3, 2, 1]), ([3, 3, 4, 1], [3, 3, 1, 1])]
)
def test_the_error_and_its_gradients_equal_the_formulas(shape, filter_shape):
    kernel, projection = RANDOM.normal(size=shape), RANDOM.normal(1, 0.3, size=filter_shape)
    variables = [tf.Variable(each, dtype=tf.float32) for each in (kernel, projection)]
    with tf.GradientTape() as tape:
        value = projection_error(*variables)
    gradients = tape.gradient(value, variables)
    one_bit = np.abs(kernel).mean() * binarized.sign(projection.mean() * kernel)
    error = projection * kernel - one_bit
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, np.sum(error**2), rtol=1e-5)
    # lambda / 2 of the value has lambda [W C - C^] W and lambda sum [W C - C^] C.
    np.testing.assert_allclose(gradients[0] / 2, error * projection, rtol=1e-4, atol=1e-5)
    free = tuple(axis for axis, size in enumerate(filter_shape) if size != shape[axis])
    expected = (error * kernel).sum(axis=free, keepdims=True)
    np.testing.assert_allclose(gradients[1] / 2, expected, rtol=1e-4, atol=1e-4)


def errors(model):
    """The sum over the kernels of || C^ - W C ||^2, of a model."""
    total = 0.0
    for kernel, quantizer, _ in binarized.kernels(model):
        projection = quantizer.projection.numpy()
        one_bit = np.abs(kernel).mean() * binarized.sign(projection.mean() * kernel)
        total += np.sum((one_bit - projection * kernel) ** 2)
    return total


def test_fit_adds_the_term_and_learns_the_projections():
    model, weight = binarized.network("pcnn"), 0.5
    before = errors(model)
    logs = binarized.fit(model, PCNNLoss(kernel_weight=weight))
    np.testing.assert_allclose(logs["projection_error"][0], before, rtol=1e-5)
    total = logs["cross_entropy"][0] + weight / 2 * before
    np.testing.assert_allclose(logs["loss"][0], total, rtol=1e-5)
    for _, quantizer, _ in binarized.kernels(model):
        assert np.ptp(quantizer.projection.numpy()) > 0, "its elements were all 1"


def test_the_step_is_along_the_gradient_of_both_parts():
    """One step of SGD moves W by that much more as the term's weight says."""
    moved = {}
    for weight in (0.0, 0.25):
        model = binarized.network("pcnn")
        (kernel, quantizer, free), _ = binarized.kernels(model)
        projection = quantizer.projection.numpy()
        binarized.fit(model, PCNNLoss(kernel_weight=weight))
        moved[weight] = quantizer.projection.numpy() - projection
    error = projection * kernel - np.abs(kernel).mean() * binarized.sign(kernel)
    gradient = 0.25 * (error * kernel).sum(axis=free, keepdims=True)
    np.testing.assert_allclose(moved[0.25] - moved[0.0], -0.1 * gradient, atol=1e-6)


def test_without_a_weight_there_is_no_term():
    history = binarized.fit(binarized.network("pcnn"), PCNNLoss(kernel_weight=0))
    assert set(history) == {"loss", "cross_entropy"}


def test_another_network_is_refused():
    with pytest.raises(ValueError, match="has no kernel that PcnnSign binarizes"):
        PCNNLoss().build(binarized.network("xnor"))


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="^kernel_weight must be a number >= 0, received: -1"):
        PCNNLoss(kernel_weight=-1)


def test_fit_takes_one_loss():
    with pytest.raises(ValueError, match="fit takes one PCNNLoss, received more"):
        binarized.fit(binarized.network("pcnn"), ChildParentLoss(), PCNNLoss())


@pytest.mark.usefixtures("deterministic")
def test_a_training_that_was_stopped_ends_as_one_that_was_not(tmp_path, monkeypatch):
    def train(folder):
        model, loss = small_training.child_model(binarization="pcnn", activations=32), PCNNLoss()
        rows = small_training.train_child(model, tmp_path / folder, loss, epochs=2)
        state = model.variables  # Keras numbers some of their names
        return small_training.untimed(rows), [np.array(variable).tobytes() for variable in state]

    expected, final = train("whole")
    assert all(row["projection_error"] > 0 for row in expected)
    with monkeypatch.context() as patch:
        stop = small_training.raising(KeyboardInterrupt())
        small_training.at_epoch(patch, "on_train_batch_end", 2, stop, call=2)
        with pytest.raises(KeyboardInterrupt):
            train("stopped")
    assert train("stopped") == (expected, final)
