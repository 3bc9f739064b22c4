import cpnas_tf  # noqa: F401, isort: skip
import numpy as np
import pytest
import tensorflow as tf
from small_training import (
    BATCH,
    EPOCHS,
    IMAGES,
    assert_same,
    at_epoch,
    child_loss,
    child_model,
    raising,
    small_model,
    train,
    train_child,
    untimed,
    values,
)

from cpnas_tf.training import Training
from cpnas_tf.training.distillation import distillation_loss

RANDOM = np.random.default_rng(0)


def softmax(x):
    x = np.asarray(x)
    shifted = np.exp(x - x.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def make_teacher():
    teacher = small_model(filters=3)
    teacher.set_weights([RANDOM.normal(size=weight.shape) for weight in teacher.get_weights()])
    teacher.get_layer("bn").moving_variance.assign(tf.ones(3))
    return teacher


@pytest.fixture(scope="module")
def teacher():
    return make_teacher()


class TestLoss:
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
    def test_it_and_its_gradient_equal_numpy(self, temperature):
        logits, taught = RANDOM.normal(size=(2, 5, 3)) * 3
        own, other = softmax(logits / temperature), softmax(taught / temperature)
        expected = temperature**2 * np.mean(np.sum(other * np.log(other / own), axis=1))
        variable = tf.Variable(logits, dtype=tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(target := tf.constant(taught, tf.float32))
            loss = distillation_loss(variable, target, temperature=temperature)
        gradient, none = tape.gradient(loss, [variable, target])
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        np.testing.assert_allclose(gradient, temperature * (own - other) / 5, rtol=1e-4, atol=1e-6)
        assert none is None

    def test_it_is_0_where_both_agree(self):
        logits = tf.constant(RANDOM.normal(size=(4, 3)), tf.float32)
        np.testing.assert_allclose(distillation_loss(logits, logits, temperature=2.0), 0, atol=1e-6)


def one_step(model, teacher, **settings):
    """The logs of one training step on all images of a batch."""
    planned = Training(
        model, IMAGES, validation=IMAGES, epochs=1, batch_size=BATCH, teacher=teacher, **settings
    )
    images, labels = next(iter(planned._stream()))
    before = model(images, training=True)
    logs = planned._trained.train_on_batch(images, labels, return_dict=True)
    return logs, images, labels, before


@pytest.mark.parametrize(("weight", "temperature"), [(0.0, 1.0), (0.25, 4.0), (1.0, 1.0)])
def test_the_loss_of_a_step_is_the_weighted_sum(teacher, weight, temperature):
    model = small_model()
    settings = {"teacher_weight": weight, "temperature": temperature}
    logs, images, labels, before = one_step(model, teacher, **settings)
    own, other = softmax(before / temperature), softmax(teacher(images) / temperature)
    taught = temperature**2 * np.mean(np.sum(other * np.log(other / own), axis=1))
    probabilities = softmax(before)
    labelled = -np.mean(np.log(probabilities[np.arange(BATCH), labels.numpy()]))
    np.testing.assert_allclose(logs["distillation"], taught, rtol=1e-4)
    np.testing.assert_allclose(logs["loss"], (1 - weight) * labelled + weight * taught, rtol=1e-4)


def test_without_labels_they_change_nothing(teacher, tmp_path):
    """With a weight of 1 a network learns the same from wrong labels."""
    weights = []
    for number, labels in enumerate((IMAGES.labels, (IMAGES.labels + 1) % 3)):
        model = small_model()
        images = type(IMAGES)(IMAGES.images, labels, IMAGES.class_names)
        settings = {"epochs": 1, "batch_size": BATCH, "teacher": teacher}
        Training(model, images, validation=IMAGES, **settings).run(tmp_path / str(number))
        weights.append(dict(enumerate(model.get_weights())))
    assert_same(*weights)


def test_the_teacher_stays_as_it_is_and_is_in_no_checkpoint(teacher, tmp_path):
    before = [weight.copy() for weight in teacher.get_weights()]
    model = child_model()
    history = train_child(model, tmp_path, teacher=teacher)
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert all("distillation" in row for row in history)
    newest = sorted((tmp_path / "checkpoints").glob("*.index"))[-1]
    saved = tf.train.load_checkpoint(str(newest).removesuffix(".index"))
    sizes = [np.prod(shape) for shape in saved.get_variable_to_shape_map().values()]
    kernel = teacher.get_layer("convolution").kernel
    assert kernel.shape.num_elements() not in sizes or kernel.shape.as_list() not in [
        list(shape) for shape in saved.get_variable_to_shape_map().values()
    ]


@pytest.mark.usefixtures("deterministic")
def test_one_that_was_stopped_ends_as_one_that_was_not(teacher, tmp_path, monkeypatch):
    whole, loss = child_model(), child_loss()
    expected = train_child(whole, tmp_path / "whole", loss, teacher=teacher)
    assert len(expected) == EPOCHS
    final = {**values(whole.variables), "centres": loss.centres.numpy()}
    with monkeypatch.context() as patch:
        at_epoch(patch, "on_train_batch_end", 2, raising(KeyboardInterrupt()), call=2)
        with pytest.raises(KeyboardInterrupt):
            train_child(child_model(), tmp_path / "stopped", teacher=teacher)
    model, loss = child_model(), child_loss()
    found = train_child(model, tmp_path / "stopped", loss, teacher=teacher)
    assert untimed(found) == untimed(expected)
    assert_same({**values(model.variables), "centres": loss.centres.numpy()}, final)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_weight": -0.1}, r"teacher_weight must be a number in \[0, 1\], received: -0.1"),
        ({"teacher_weight": 1.5}, "teacher_weight must be .* received: 1.5"),
        ({"teacher_weight": float("nan")}, "teacher_weight must be .* received: nan"),
        ({"temperature": 0}, "temperature must be a number > 0, received: 0"),
        ({"temperature": float("inf")}, "temperature must be .* received: inf"),
    ],
)
def test_bad_settings(teacher, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        train(small_model(), tmp_path / "run", teacher=teacher, **settings)
    assert not (tmp_path / "run").exists()


def test_bad_teachers(tmp_path):
    model = small_model()
    with pytest.raises(ValueError, match="cannot be its own teacher"):
        train(model, tmp_path, teacher=model)
    with pytest.raises(ValueError, match=r"teacher's output_shape is \(4,\) .* \(3,\): train the"):
        train(model, tmp_path, teacher=small_model(classes=4))
    images = tf.keras.Input([9, 9, 1])
    logits = tf.keras.layers.Dense(3)(tf.keras.layers.Flatten()(images))
    larger = tf.keras.Model(images, logits)
    with pytest.raises(ValueError, match=r"teacher's input_shape is \(9, 9, 1\)"):
        train(model, tmp_path, teacher=larger)
