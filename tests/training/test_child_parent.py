"""Tests of the Child-Parent loss: its equations against NumPy, and the callback against Keras."""

import os
import pathlib
import subprocess
import sys
import textwrap

import cpnas_tf  # noqa: F401, isort: skip
import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf.networks.quantizers import reconstruct
from cpnas_tf.training.child_parent import ChildParentLoss, filter_mse
from cpnas_tf.training.features import class_centre_distance, updated_centres

CLASSES = 3
IMAGES = np.random.default_rng(0).normal(size=(24, 8, 8, 1)).astype("float32")
LABELS = np.random.default_rng(1).integers(CLASSES, size=24)
FAILURE = "this callback fails"


def numpy_mse(kernel, *, depthwise=False):
    """Equation 3's first term for one kernel, a filter at a time, alpha found by least squares."""
    kernel = np.asarray(kernel, np.float64)
    filters = kernel.shape[-2] * kernel.shape[-1] if depthwise else kernel.shape[-1]
    total = 0.0
    for column in kernel.reshape(-1, filters).T:
        signs = np.where(column >= 0, 1.0, -1.0)
        alpha = np.linalg.lstsq(signs[:, None], column, rcond=None)[0][0]
        total += np.mean((column - alpha * signs) ** 2)
    return total


def numpy_distance(maps, labels, centres):
    """Equation 3's second term, a sample at a time."""
    squares = [np.sum((f - centres[j]) ** 2) / f.size for f, j in zip(maps, labels, strict=True)]
    return np.mean(squares)


def numpy_centres(maps, labels, centres, rate):
    """Wen et al.'s update, a class at a time."""
    moved = np.array(centres)
    for j in range(len(centres)):
        own = maps[labels == j]
        moved[j] -= rate * np.sum(centres[j] - own, axis=0) / (1 + len(own))
    return moved


def numerical_gradient(function, x, step=1e-6):
    x = np.asarray(x, np.float64)
    gradient = np.zeros_like(x)
    for position in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[position] = step
        gradient[position] = (function(x + shift) - function(x - shift)) / (2 * step)
    return gradient


def binary_layers():
    """A 1-bit convolution and a 1-bit depthwise one; odd filters, so that no sum of signs is 0."""
    return [
        lq.layers.QuantConv2D(
            6,
            3,
            input_quantizer="ste_sign",
            kernel_quantizer="magnitude_aware_sign",
            kernel_constraint="weight_clip",
            use_bias=False,
            name="conv",
        ),
        lq.layers.QuantDepthwiseConv2D(
            3,
            input_quantizer="ste_sign",
            depthwise_quantizer="ste_sign",
            depthwise_constraint="weight_clip",
            use_bias=False,
            name="maps",
        ),
    ]


def larq_model(*, seed=0, loss=None, optimizer=None, model_class=tf.keras.Model, **compile_options):
    """A Larq classifier of 8x8 images, compiled, with nothing of cpnas_tf in it."""
    tf.keras.utils.set_random_seed(seed)
    images = tf.keras.Input([8, 8, 1], name="images")
    x = tf.keras.layers.Conv2D(3, 3, use_bias=False, name="stem")(images)
    for layer in binary_layers():
        x = layer(x)
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    logits = tf.keras.layers.Dense(CLASSES, dtype="float32", name="logits")(x)
    model = model_class(images, logits)
    model.compile(
        optimizer or tf.keras.optimizers.SGD(0.1),
        loss or tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **compile_options,
    )
    return model


def fit(model, *callbacks, images=IMAGES, labels=LABELS, batch_size=8, **options):
    options = {"shuffle": False, "verbose": 0, **options}
    return model.fit(images, labels, batch_size=batch_size, callbacks=[*callbacks], **options)


def features_of(model, name="maps", images=IMAGES):
    return tf.keras.Model(model.input, model.get_layer(name).output)(images).numpy()


def cross_entropy(logits, labels):
    logits = np.asarray(logits, np.float64)
    log_sums = np.log(np.sum(np.exp(logits), axis=1))
    return np.mean(log_sums - logits[np.arange(len(labels)), labels])


def filter_term(model):
    return numpy_mse(model.get_layer("conv").kernel.numpy()) + numpy_mse(
        model.get_layer("maps").depthwise_kernel.numpy(), depthwise=True
    )


def traces(model):
    """Everything that a callback might leave on a model or in its checkpoints."""
    return {
        "attributes": [sorted(vars(owner)) for owner in (model, *model.layers)],
        "layers": [layer.name for layer in model.layers],
        "variables": [variable.name for variable in model.variables],
        "metrics": [metric.name for metric in model.metrics],
        "losses": len(model.losses),
        "checkpoint": tracked(model),
    }


def tracked(root):
    """The paths and types of all objects that a checkpoint of `root` would hold."""
    found, queue = {}, [("", root)]
    while queue:
        path, item = queue.pop()
        if id(item) not in found:
            found[id(item)] = item, f"{path}: {type(item).__name__}"
            children = item._trackable_children()
            queue += [(f"{path}/{name}", children[name]) for name in sorted(children)]
    return {entry for _, entry in found.values()}


class Fails(tf.keras.callbacks.Callback):
    """Fails once, in the named hook."""

    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self.fail)

    def fail(self, *args, **kwargs):
        raise RuntimeError(FAILURE)

    # Keras calls the hooks of batches only where a class has them.
    def on_train_batch_begin(self, batch, logs=None): ...

    def on_train_batch_end(self, batch, logs=None): ...

    def on_test_batch_begin(self, batch, logs=None): ...


KERNELS = [
    pytest.param([3, 3, 2, 4], False, id="convolution"),
    pytest.param([1, 1, 5, 3], False, id="pointwise"),
    pytest.param([7, 4], False, id="dense"),
    pytest.param([3, 3, 4, 1], True, id="depthwise"),
    pytest.param([3, 3, 4, 2], True, id="depthwise-multiplier"),
]


@pytest.mark.parametrize(("shape", "depthwise"), KERNELS)
def test_reconstruct_is_the_best_scaled_sign_of_each_filter(shape, depthwise):
    kernel = np.random.default_rng(2).normal(size=shape)
    kernel.flat[0] = 0.0
    result = reconstruct(kernel, depthwise=depthwise).numpy()
    filters = shape[-2] * shape[-1] if depthwise else shape[-1]
    for column, best in zip(
        kernel.reshape(-1, filters).T, result.reshape(-1, filters).T, strict=True
    ):
        signs = np.where(column >= 0, 1.0, -1.0)
        alpha = np.linalg.lstsq(signs[:, None], column, rcond=None)[0][0]
        np.testing.assert_allclose(best, alpha * signs)


def test_reconstruct_is_larqs_magnitude_aware_sign_of_a_convolution_kernel():
    kernel = tf.random.stateless_normal([3, 3, 5, 4], [1, 2])
    np.testing.assert_allclose(
        reconstruct(kernel), lq.quantizers.MagnitudeAwareSign()(kernel), rtol=1e-6
    )


@pytest.mark.parametrize(("shape", "depthwise"), KERNELS)
def test_filter_mse_and_its_gradient_equal_numpy(shape, depthwise):
    kernel = np.random.default_rng(3).normal(size=shape)
    variable = tf.Variable(kernel, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = filter_mse(variable, depthwise=depthwise)
    assert value.dtype == tf.float32
    np.testing.assert_allclose(value, numpy_mse(kernel, depthwise=depthwise), rtol=1e-5)
    # The numerical gradient goes through alpha as well: leaving that out must not change it.
    expected = numerical_gradient(lambda k: numpy_mse(k, depthwise=depthwise), kernel)
    np.testing.assert_allclose(tape.gradient(value, variable), expected, rtol=1e-4, atol=1e-6)


def test_filter_mse_is_zero_exactly_for_filters_of_one_magnitude():
    signs = np.sign(np.random.default_rng(4).normal(size=[3, 3, 2, 4])).astype("float32")
    magnitudes = np.array([0.5, 1, 2, 4], "float32")
    assert filter_mse(signs * magnitudes) == 0
    assert filter_mse(signs * magnitudes[:2, None]) > 0
    assert filter_mse(signs * magnitudes[:2, None], depthwise=True) == 0


@pytest.mark.parametrize("shape", [[2, 4, 5], [6]])
def test_class_centre_distance_and_its_gradient_equal_numpy(shape):
    generator = np.random.default_rng(5)
    maps, centres = generator.normal(size=[7, *shape]), generator.normal(size=[CLASSES, *shape])
    labels = np.array([0, 2, 2, 1, 0, 2, 2])
    variable = tf.Variable(maps, dtype=tf.float32)
    centre_variable = tf.Variable(centres, dtype=tf.float32)
    with tf.GradientTape() as tape:
        value = class_centre_distance(variable, labels=labels, centres=centre_variable)
    np.testing.assert_allclose(value, numpy_distance(maps, labels, centres), rtol=1e-5)
    gradient, centre_gradient = tape.gradient(value, [variable, centre_variable])
    expected = numerical_gradient(lambda f: numpy_distance(f, labels, centres), maps)
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-7)
    assert centre_gradient is None


def test_class_centre_distance_of_an_empty_batch_is_zero():
    value = class_centre_distance(
        tf.zeros([0, 2]), labels=tf.zeros([0], tf.int32), centres=tf.ones([CLASSES, 2])
    )
    assert value == 0


def test_updated_centres_equal_numpy_and_leave_absent_classes():
    generator = np.random.default_rng(6)
    maps, centres = generator.normal(size=[5, 2, 2, 4]), generator.normal(size=[CLASSES, 2, 2, 4])
    labels = np.array([0, 2, 2, 0, 2])
    sums = np.stack([maps[labels == j].sum(axis=0) for j in range(CLASSES)])
    result = updated_centres(
        tf.constant(centres), sums=sums, counts=np.array([2.0, 0.0, 3.0]), rate=0.3
    )
    np.testing.assert_allclose(result, numpy_centres(maps, labels, centres, 0.3))
    np.testing.assert_array_equal(result[1], centres[1])


def test_updated_centres_converge_to_the_class_mean():
    centres = tf.zeros([1, 1])
    for _ in range(60):
        centres = updated_centres(centres, sums=[[4 * 7.0]], counts=[4.0], rate=0.5)
    np.testing.assert_allclose(centres, [[7.0]], rtol=1e-6)


@pytest.mark.parametrize("pooled", [False, True])
def test_first_step_adds_both_terms_and_moves_the_centres(pooled):
    model = larq_model()
    loss = ChildParentLoss(filter_weight=3.0, centre_weight=0.4, centre_rate=0.25, pooled=pooled)
    loss.build(model)
    centres = np.random.default_rng(7).normal(size=loss.centres.shape)
    loss.centres.assign(centres)
    maps, filters, logits = features_of(model), filter_term(model), model(IMAGES)
    if pooled:
        maps = maps.mean(axis=(1, 2))
    distance = numpy_distance(maps, LABELS, centres)

    logs = fit(model, loss, batch_size=24).history

    np.testing.assert_allclose(logs["cross_entropy"][0], cross_entropy(logits, LABELS), rtol=1e-5)
    np.testing.assert_allclose(logs["filter_mse"][0], filters, rtol=1e-5)
    np.testing.assert_allclose(logs["class_centre"][0], distance, rtol=1e-5)
    total = cross_entropy(logits, LABELS) + 3.0 * filters + 0.4 / 2 * distance
    np.testing.assert_allclose(logs["loss"][0], total, rtol=1e-5)
    np.testing.assert_allclose(
        loss.centres, numpy_centres(maps, LABELS, centres, 0.25), rtol=1e-4, atol=1e-6
    )


def test_filter_term_moves_latent_kernels_by_its_gradient():
    plain, trained = larq_model(), larq_model()
    kernels = [trained.get_layer("conv").kernel, trained.get_layer("maps").depthwise_kernel]
    before = [kernel.numpy() for kernel in kernels]
    fit(plain, batch_size=24)
    fit(trained, ChildParentLoss(filter_weight=2.0, centre_weight=0), batch_size=24)
    plain_kernels = [plain.get_layer("conv").kernel, plain.get_layer("maps").depthwise_kernel]
    for kernel, other, start, depthwise in zip(
        kernels, plain_kernels, before, [False, True], strict=True
    ):
        gradient = numerical_gradient(lambda k, d=depthwise: numpy_mse(k, depthwise=d), start)
        np.testing.assert_allclose(
            kernel.numpy() - other.numpy(), -0.1 * 2.0 * gradient, rtol=1e-3, atol=1e-6
        )
    np.testing.assert_array_equal(plain.get_layer("stem").kernel, trained.get_layer("stem").kernel)


def test_centre_term_moves_the_weights_before_the_features_by_its_gradient():
    def embedding_model():
        tf.keras.utils.set_random_seed(0)
        model = tf.keras.Sequential(
            [
                tf.keras.Input([6]),
                tf.keras.layers.Dense(5, use_bias=False, name="embedding"),
                lq.layers.QuantDense(
                    CLASSES, kernel_quantizer="ste_sign", kernel_constraint="weight_clip"
                ),
            ]
        )
        model.compile(
            tf.keras.optimizers.SGD(0.1), tf.keras.losses.SparseCategoricalCrossentropy(True)
        )
        return model

    inputs = IMAGES.reshape(24, -1)[:, :6]
    plain, trained = embedding_model(), embedding_model()
    start = plain.get_layer("embedding").kernel.numpy()
    loss = ChildParentLoss(filter_weight=0, centre_weight=0.6, features="embedding")
    loss.build(trained)
    centres = np.random.default_rng(8).normal(size=[CLASSES, 5])
    loss.centres.assign(centres)
    fit(plain, images=inputs, batch_size=24)
    fit(trained, loss, images=inputs, batch_size=24)

    gradient = numerical_gradient(lambda w: numpy_distance(inputs @ w, LABELS, centres), start)
    moved = trained.get_layer("embedding").kernel.numpy() - plain.get_layer("embedding").kernel
    np.testing.assert_allclose(moved, -0.1 * 0.3 * gradient, rtol=1e-3, atol=1e-7)


def test_logs_add_up_and_validation_stays_plain():
    model = larq_model(metrics=["accuracy"])
    model.get_layer("stem").kernel_regularizer = tf.keras.regularizers.L2(1e-2)
    loss = ChildParentLoss(filter_weight=2.0, centre_weight=0.5)
    data = (IMAGES[:20], LABELS[:20])  # the last batch is half a batch
    logs = fit(model, loss, images=data[0], labels=data[1], epochs=2, validation_data=data).history
    terms = {"filter_mse", "class_centre", "cross_entropy"}
    assert set(logs) == {"loss", "accuracy", "val_loss", "val_accuracy"} | terms
    total = np.add(logs["cross_entropy"], 2.0 * np.array(logs["filter_mse"]))
    total += 0.5 / 2 * np.array(logs["class_centre"])
    np.testing.assert_allclose(logs["loss"], total, rtol=1e-6)
    assert logs["val_loss"][-1] == pytest.approx(model.evaluate(*data, verbose=0)[0], rel=1e-5)


def test_means_of_an_epoch_count_each_sample_once():
    model = larq_model(optimizer=tf.keras.optimizers.SGD(0.0))
    loss = ChildParentLoss(centre_rate=1e-9)
    logs = fit(model, loss, images=IMAGES[:20], labels=LABELS[:20], epochs=2).history
    distance = numpy_distance(features_of(model, images=IMAGES[:20]), LABELS[:20], [0] * CLASSES)
    np.testing.assert_allclose(logs["class_centre"], [distance] * 2, rtol=1e-5)


def test_term_without_weight_is_left_out():
    model = larq_model()
    assert set(fit(model, ChildParentLoss(filter_weight=0)).history) == {
        "loss",
        "cross_entropy",
        "class_centre",
    }
    without_centres = ChildParentLoss(centre_weight=0)
    assert set(fit(model, without_centres).history) == {"loss", "cross_entropy", "filter_mse"}
    assert without_centres.centres is None


def test_the_weights_rise_over_the_first_epochs():
    twin, model = larq_model(), larq_model()
    expected = fit(twin, epochs=1).history
    loss = ChildParentLoss(filter_weight=0.5, centre_weight=0.25, warmup_epochs=2)
    logs = fit(model, loss, epochs=4).history
    np.testing.assert_allclose(logs["loss"][0], expected["loss"][0], rtol=1e-6)
    terms = 0.5 * np.array(logs["filter_mse"]) + 0.125 * np.array(logs["class_centre"])
    shares = (np.array(logs["loss"]) - logs["cross_entropy"]) / terms
    np.testing.assert_allclose(shares, [0, 0.5, 1, 1], atol=1e-4)


def test_every_one_bit_kernel_counts_and_no_other():
    inner = tf.keras.Sequential([tf.keras.Input([8, 8, 2]), *binary_layers()], name="inner")
    model = tf.keras.Sequential(
        [
            tf.keras.Input([8, 8, 1]),
            lq.layers.QuantSeparableConv2D(
                2,
                3,
                padding="same",
                depthwise_quantizer="ste_sign",
                pointwise_quantizer="ste_sign",
                depthwise_constraint="weight_clip",
                pointwise_constraint="weight_clip",
            ),
            lq.layers.QuantConv2D(2, 1, kernel_quantizer=lq.quantizers.NoOp(precision=1)),
            lq.layers.QuantConv2D(2, 1, kernel_quantizer="ste_tern"),
            lq.layers.QuantConv2D(2, 1),
            inner,
            tf.keras.layers.Flatten(),
            lq.layers.QuantDense(
                CLASSES, kernel_quantizer="ste_sign", kernel_constraint="weight_clip"
            ),
        ]
    )
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(True))
    separable, dense = model.layers[0], model.layers[-1]
    expected = (
        numpy_mse(separable.depthwise_kernel.numpy(), depthwise=True)
        + numpy_mse(separable.pointwise_kernel.numpy())
        + filter_term(inner)
        + numpy_mse(dense.kernel.numpy())
    )
    loss = ChildParentLoss()
    logs = fit(model, loss, batch_size=24).history
    np.testing.assert_allclose(logs["filter_mse"][0], expected, rtol=1e-5)
    assert loss.centres.shape == [CLASSES, 4, 4, 6]  # of the nested model's output


def test_features_may_be_a_layer_of_a_nested_model():
    inner = tf.keras.Sequential([tf.keras.Input([8, 8, 1]), *binary_layers()], name="inner")
    model = tf.keras.Sequential(
        [
            tf.keras.Input([8, 8, 1]),
            inner,
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(CLASSES),
        ]
    )
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(True))
    loss = ChildParentLoss(features="conv", centre_rate=1.0)
    maps = features_of(inner, "conv")
    fit(model, loss, batch_size=24)
    expected = numpy_centres(maps, LABELS, np.zeros([CLASSES, 6, 6, 6]), 1.0)
    np.testing.assert_allclose(loss.centres, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("encode", [np.eye(CLASSES)[LABELS].astype, LABELS[:, None].astype])
def test_labels_may_be_one_hot_or_a_column(encode):
    labels = encode("float32")
    one_hot = labels.shape[1] > 1
    entropy = tf.keras.losses.CategoricalCrossentropy if one_hot else None
    model, twin = larq_model(loss=entropy and entropy(from_logits=True)), larq_model()
    loss, twin_loss = ChildParentLoss(), ChildParentLoss()
    logs, twin_logs = fit(model, loss, labels=labels).history, fit(twin, twin_loss).history
    np.testing.assert_allclose(logs["loss"], twin_logs["loss"], rtol=1e-5)
    np.testing.assert_allclose(loss.centres, twin_loss.centres, rtol=1e-4, atol=1e-6)


MODES = [
    pytest.param({"run_eagerly": True}, id="eager"),
    pytest.param({"jit_compile": True}, id="xla"),
    pytest.param({"steps_per_execution": 3}, id="steps_per_execution"),
]


@pytest.mark.parametrize("mode", MODES)
def test_every_way_to_run_a_step_gives_the_same(mode):
    model, twin = larq_model(**mode), larq_model()
    loss, twin_loss = (ChildParentLoss(warmup_epochs=1) for _ in range(2))
    logs, twin_logs = fit(model, loss, epochs=2).history, fit(twin, twin_loss, epochs=2).history
    for name, values in twin_logs.items():
        np.testing.assert_allclose(logs[name], values, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(loss.centres, twin_loss.centres, rtol=1e-3, atol=1e-5)
    for weight, twin_weight in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(weight, twin_weight, rtol=1e-3, atol=1e-5)


def test_gradient_clipping_sees_the_total_gradient():
    model = larq_model(optimizer=tf.keras.optimizers.SGD(1.0, global_clipnorm=1e-3))
    for layer in model.layers[2:4]:
        layer.kernel_constraint = layer.depthwise_constraint = None
    before = model.get_weights()
    fit(model, ChildParentLoss(filter_weight=1e3), batch_size=24)
    moved = np.concatenate(
        [np.ravel(a - b) for a, b in zip(model.get_weights(), before, strict=True)]
    )
    np.testing.assert_allclose(np.linalg.norm(moved), 1e-3, rtol=1e-2)


@pytest.fixture
def mixed_precision():
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    tf.keras.mixed_precision.set_global_policy("float32")


@pytest.mark.usefixtures("mixed_precision")
def test_mixed_precision_computes_the_terms_in_float32():
    model = larq_model()
    assert isinstance(model.optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
    assert features_of(model).dtype == np.float16
    kernel = model.get_layer("conv").kernel
    # Beyond float16's range when squared: in float16 the filter term would be infinite.
    kernel.assign(kernel * 3000)
    filters, before = filter_term(model), kernel.numpy()
    loss = ChildParentLoss(filter_weight=0.01)
    logs = fit(model, loss, batch_size=24).history
    np.testing.assert_allclose(logs["filter_mse"][0], filters, rtol=1e-5)
    assert loss.centres.dtype == tf.float32
    assert np.all(np.isfinite(loss.centres))
    assert np.any(kernel.numpy() != before)  # no overflow made the optimizer skip the step


def test_unknown_data_size_and_many_epochs():
    def batches():
        for start in range(0, 24, 8):
            yield IMAGES[start : start + 8], LABELS[start : start + 8]

    signature = (tf.TensorSpec([None, 8, 8, 1]), tf.TensorSpec([None], tf.int32))
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    model, twin = larq_model(), larq_model()
    logs = model.fit(data, epochs=2, verbose=0, callbacks=[ChildParentLoss()]).history
    twin_logs = fit(twin, ChildParentLoss(), epochs=2).history
    np.testing.assert_allclose(logs["loss"], twin_logs["loss"], rtol=1e-5)


def test_nothing_is_left_on_the_model():
    model, twin = larq_model(), larq_model()
    validation = {"validation_data": (IMAGES, LABELS)}
    fit(twin, **validation)
    fit(model, ChildParentLoss(), **validation)
    assert traces(model) == traces(twin)
    twin.set_weights(model.get_weights())
    assert fit(model).history == fit(twin).history
    for weight, twin_weight in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, twin_weight)


def test_model_is_plain_between_steps():
    class Looks(tf.keras.callbacks.Callback):
        found = []

        def on_train_batch_end(self, batch, logs=None):
            self.found.append(traces(self.model))

    plain, model, looks = larq_model(), larq_model(), Looks()
    fit(plain, looks)
    fit(model, ChildParentLoss(), looks)
    assert len(looks.found) == 6
    assert looks.found[:3] == looks.found[3:]


@pytest.mark.parametrize(
    "hook",
    ["on_train_begin", "on_train_batch_begin", "on_train_batch_end", "on_test_batch_begin"],
)
def test_nothing_is_left_after_a_failure_outside_a_step(hook):
    model, twin = larq_model(), larq_model()
    loss, validation = ChildParentLoss(), {"validation_data": (IMAGES, LABELS)}
    with pytest.raises(RuntimeError, match=FAILURE):
        fit(model, loss, Fails(hook), **validation)
    twin.set_weights(model.get_weights())
    assert fit(model, **validation).history == fit(twin, **validation).history
    assert traces(model) == traces(twin)
    for callback in (loss, ChildParentLoss()):
        with pytest.raises(RuntimeError, match=FAILURE):
            fit(model, loss, Fails(hook), **validation)
        assert "cross_entropy" in fit(model, callback).history
        assert type(model.train_function) is type(twin.train_function)
    assert "cross_entropy" not in fit(model).history


def test_nothing_is_left_after_a_failure_in_a_step():
    def fails_late():
        yield IMAGES[:8], LABELS[:8]
        raise RuntimeError(FAILURE)

    signature = (tf.TensorSpec([8, 8, 8, 1]), tf.TensorSpec([8], tf.int32))
    data = tf.data.Dataset.from_generator(fails_late, output_signature=signature)
    model, twin = larq_model(), larq_model()
    fit(model)
    kept = dict(vars(model))
    with pytest.raises(tf.errors.UnknownError, match=FAILURE):
        model.fit(data, verbose=0, callbacks=[ChildParentLoss()])
    changed = {name for name, value in vars(model).items() if value is not kept.get(name)}
    assert changed == {"history", "train_function", "train_tf_function"}
    twin.set_weights(model.get_weights())
    assert fit(model).history == fit(twin).history


def test_second_fit_goes_on_with_the_centres_and_traces_nothing_anew():
    calls = []

    def counted(labels, logits):
        calls.append(1)
        return tf.keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)

    model, twin = larq_model(loss=counted), larq_model()
    loss, twin_loss = ChildParentLoss(centre_weight=0.5), ChildParentLoss(centre_weight=0.5)
    fit(model, loss)
    traced = len(calls)
    fit(model, loss, initial_epoch=1, epochs=2)
    assert len(calls) == traced
    fit(twin, twin_loss, epochs=2)
    np.testing.assert_array_equal(loss.centres, twin_loss.centres)
    for weight, twin_weight in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, twin_weight)
    model.compile("sgd", counted)
    assert "class_centre" in fit(model, loss).history
    assert len(calls) > traced


def test_another_model_starts_with_its_own_centres():
    loss = ChildParentLoss()
    fit(larq_model(), loss)
    fresh, twin_loss = larq_model(seed=1), ChildParentLoss()
    logs, twin_logs = fit(fresh, loss).history, fit(larq_model(seed=1), twin_loss).history
    assert logs == twin_logs
    np.testing.assert_array_equal(loss.centres, twin_loss.centres)


def test_centres_go_through_a_checkpoint(tmp_path):
    loss = ChildParentLoss()
    fit(larq_model(), loss)
    path = tf.train.Checkpoint(centres=loss.centres).save(tmp_path / "centres")
    restored, model = ChildParentLoss(), larq_model()
    restored.build(model)
    assert not np.array_equal(restored.centres, loss.centres)
    tf.train.Checkpoint(centres=restored.centres).restore(path).assert_consumed()
    np.testing.assert_array_equal(restored.centres, loss.centres)
    continued = restored.centres
    fit(model, restored)
    assert restored.centres is continued


def test_tensorboard_never_sees_a_step_that_was_not_traced():
    class Looks(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.drawn = self.model.train_tf_function

    model, looks = larq_model(), Looks()
    drawn = []
    for callbacks in ([ChildParentLoss()], [], [ChildParentLoss()]):
        fit(model, looks, *callbacks)
        drawn.append(looks.drawn)
        assert looks.drawn.experimental_get_tracing_count() > 0
    assert len(set(drawn)) == 3


def test_own_train_step_works_if_it_calls_compute_loss():
    class Own(tf.keras.Model):
        def train_step(self, data):
            images, labels = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(images, labels, self(images, training=True))
            self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
            return {metric.name: metric.result() for metric in self.metrics}

    model, twin = larq_model(model_class=Own), larq_model()
    logs, twin_logs = fit(model, ChildParentLoss()).history, fit(twin, ChildParentLoss()).history
    assert logs == twin_logs


def test_own_train_step_that_ignores_compute_loss_is_an_error():
    class Own(tf.keras.Model):
        def train_step(self, data):
            images, labels = data
            with tf.GradientTape() as tape:
                loss = self.compiled_loss(labels, self(images, training=True))
            self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
            return {"loss": loss}

    with pytest.raises(ValueError, match="must call compute_loss"):
        fit(larq_model(model_class=Own), ChildParentLoss())


def test_after_a_failure_the_model_is_plain_from_the_next_fit_on():
    model, twin = larq_model(), larq_model()
    with pytest.raises(RuntimeError, match=FAILURE):
        fit(model, ChildParentLoss(), Fails("on_train_batch_end"))
    twin.set_weights(model.get_weights())
    fit(twin)
    fit(model)
    batch = IMAGES[:8], LABELS[:8]
    assert model.train_on_batch(*batch) == twin.train_on_batch(*batch)
    assert traces(model) == traces(twin)


PROBABILITIES = [
    pytest.param("sparse_categorical_crossentropy", id="name"),
    pytest.param(tf.keras.losses.sparse_categorical_crossentropy, id="function"),
    pytest.param(tf.keras.losses.SparseCategoricalCrossentropy(), id="object"),
    pytest.param(["sparse_categorical_crossentropy"], id="list"),
    pytest.param({"logits": "sparse_categorical_crossentropy"}, id="dict"),
]


@pytest.mark.parametrize("loss", PROBABILITIES)
def test_a_loss_on_probabilities_is_refused_for_logits(loss):
    model = larq_model(loss=loss)
    with pytest.raises(ValueError, match=r"expects probabilities.*from_logits=True") as error:
        fit(model, ChildParentLoss())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loss", PROBABILITIES[:3])
def test_a_loss_on_probabilities_goes_with_a_softmax(loss):
    logits = larq_model()
    model = tf.keras.Model(logits.input, tf.nn.softmax(logits.output))
    model.compile(tf.keras.optimizers.SGD(0.1), loss)
    expected = cross_entropy(logits(IMAGES[:8]), LABELS[:8])
    logs = fit(model, ChildParentLoss(), images=IMAGES[:8], labels=LABELS[:8]).history
    np.testing.assert_allclose(logs["cross_entropy"], [expected], rtol=1e-4)


class _Subclassed(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.parts = tf.keras.Sequential(
            [*binary_layers(), tf.keras.layers.Flatten(), tf.keras.layers.Dense(CLASSES)]
        )

    def call(self, images):
        return self.parts(images)


@pytest.mark.parametrize("features", [None, "maps"])
def test_subclassed_models_have_no_centres(features):
    model = _Subclassed()
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.build([None, 8, 8, 1])
    with pytest.raises(
        ValueError, match=r"must be a built functional one .* shapes: \[\]"
    ) as error:
        fit(model, ChildParentLoss(features=features))
    assert "\n" not in str(error.value)
    assert "filter_mse" in fit(model, ChildParentLoss(centre_weight=0)).history


def test_filter_term_makes_the_magnitudes_of_a_filter_uniform():
    model = larq_model()
    start = filter_term(model)
    magnitudes = np.abs(model.get_layer("conv").kernel.numpy())
    fit(model, ChildParentLoss(filter_weight=30.0, centre_weight=0), epochs=15)
    assert filter_term(model) < 0.1 * start
    uniform = np.abs(model.get_layer("conv").kernel.numpy())
    spread, start_spread = (
        np.max(np.std(m, axis=(0, 1, 2)) / np.mean(m, axis=(0, 1, 2)))
        for m in (uniform, magnitudes)
    )
    assert spread < 0.5 * start_spread


def test_centre_term_draws_the_samples_of_a_class_together():
    def spread(weight):
        tf.keras.utils.set_random_seed(0)
        model = tf.keras.Sequential(
            [
                tf.keras.Input([8, 8, 1]),
                *binary_layers(),
                tf.keras.layers.BatchNormalization(scale=False, name="features"),
                tf.keras.layers.GlobalAveragePooling2D(),
                tf.keras.layers.Dense(8, name="embedding"),
                tf.keras.layers.Dense(CLASSES),
            ]
        )
        model.compile(
            tf.keras.optimizers.SGD(0.05), tf.keras.losses.SparseCategoricalCrossentropy(True)
        )
        loss = ChildParentLoss(filter_weight=0, centre_weight=weight, features="embedding")
        return fit(model, loss, epochs=10).history["class_centre"][-1]

    assert spread(10.0) < 0.5 * spread(1e-6)


MIRRORED = """
    import sys
    import cpnas_tf
    import numpy as np
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    sys.path.insert(0, sys.argv[1])
    from test_child_parent import IMAGES, LABELS, ChildParentLoss, fit, larq_model

    def train(strategy, **mode):
        with strategy.scope():
            model = larq_model(metrics=["accuracy"], **mode)
        loss = ChildParentLoss(filter_weight=2.0, centre_weight=0.5, warmup_epochs=1)
        logs = fit(model, loss, images=IMAGES[:22], labels=LABELS[:22], epochs=3).history
        return logs, [loss.centres.numpy(), *model.get_weights()]

    logs, state = train(tf.distribute.get_strategy())
    for mode in ({}, {"steps_per_execution": 3}):
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        assert strategy.num_replicas_in_sync == 2
        mirrored_logs, mirrored_state = train(strategy, **mode)
        assert set(mirrored_logs) == set(logs)
        for name, values in logs.items():
            np.testing.assert_allclose(mirrored_logs[name], values, rtol=1e-4, err_msg=name)
        for one, two in zip(state, mirrored_state, strict=True):
            np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-5)
    print("equal")
"""


def test_two_mirrored_devices_equal_one():
    here = pathlib.Path(__file__).resolve().parent
    paths = [
        str(here.parents[1]),
        str(here.parent / "helpers"),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MIRRORED), str(here)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == "equal", result.stderr[-3000:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filter_weight": -1}, "filter_weight must be a number >= 0, received: -1"),
        ({"centre_weight": -0.5}, "centre_weight must be a number >= 0, received: -0.5"),
        ({"centre_weight": float("nan")}, "centre_weight must be .* received: nan"),
        ({"centre_rate": 0}, r"centre_rate must be a number in \(0, 1\], received: 0"),
        ({"centre_rate": 1.5}, r"centre_rate must be a number in \(0, 1\], received: 1.5"),
        ({"warmup_epochs": -1}, "warmup_epochs must be a whole number >= 0, received: -1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChildParentLoss(**arguments)


def _dense(*shape):
    return tf.keras.Sequential(
        [tf.keras.Input(shape), tf.keras.layers.Flatten(), tf.keras.layers.Dense(CLASSES)]
    )


def _maps_first():
    model = larq_model()
    return tf.keras.Model(model.input, [model.get_layer("maps").output, model.output])


def _any_size():
    return tf.keras.Sequential(
        [
            tf.keras.Input([None, None, 1]),
            *binary_layers(),
            tf.keras.layers.GlobalAveragePooling2D(),
            tf.keras.layers.Dense(CLASSES),
        ]
    )


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (lambda: _dense(8, 8, 1), {}, "has no Larq layer with 1-bit kernels"),
        (
            lambda: _dense(8),
            {"filter_weight": 0},
            r"no layer with an output \[batch, height, width, channels\]",
        ),
        (larq_model, {"features": "nowhere"}, "received: 'nowhere', the name of 0"),
        (larq_model, {"features": "logits", "pooled": True}, r"received the shape: \(None, 3\)"),
        (
            _maps_first,
            {},
            r"a first output \[batch, classes\] .* \[\(None, 2, 2, 6\), \(None, 3\)\]",
        ),
        (_any_size, {}, r"pooled=True, received the shape: \(None, None, None, 6\)"),
    ],
)
def test_models_that_do_not_fit(make, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        ChildParentLoss(**arguments).build(make())
    assert "\n" not in str(error.value)


def test_maps_of_any_size_can_be_pooled():
    model, loss = _any_size(), ChildParentLoss(pooled=True)
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(True))
    fit(model, loss)
    assert loss.centres.shape == [CLASSES, 6]


def test_two_callbacks_in_one_fit_are_an_error():
    model = larq_model()
    with pytest.raises(ValueError, match="takes one ChildParentLoss"):
        fit(model, ChildParentLoss(), ChildParentLoss())
    assert set(fit(model).history) == {"loss"}


def test_of_several_outputs_the_first_counts():
    plain = larq_model()
    start = plain.get_weights()
    late = tf.keras.layers.Conv2D(2, 1, name="late")(plain.get_layer("maps").output)
    other = tf.keras.layers.Dense(CLASSES, name="other")(tf.keras.layers.Flatten()(late))
    model = tf.keras.Model(plain.input, [plain.output, other])
    entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.1), [entropy, entropy], loss_weights=[1.0, 0.25])
    loss, twin_loss = ChildParentLoss(centre_rate=1.0), ChildParentLoss(centre_rate=1.0)
    logs = fit(model, loss, batch_size=24).history
    plain.set_weights(start)
    twin_logs = fit(plain, twin_loss, batch_size=24).history
    np.testing.assert_allclose(loss.centres, twin_loss.centres, rtol=1e-4, atol=1e-6)
    for name in ("filter_mse", "class_centre"):
        np.testing.assert_allclose(logs[name], twin_logs[name], rtol=1e-5)
    both = twin_logs["cross_entropy"][0] + 0.25 * logs["other_loss"][0]
    np.testing.assert_allclose(logs["cross_entropy"], both, rtol=1e-5)


def test_labels_of_another_shape_are_an_error():
    model = larq_model(loss="mse")
    with pytest.raises(ValueError, match=r"labels must have the shape \[batch\] or \[batch, 3\]"):
        fit(model, ChildParentLoss(), labels=np.zeros([24, 1, 3], "float32"))
