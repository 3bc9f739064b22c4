"""The supernet against Larq, TensorFlow's own gradients, and the Keras networks it stands for."""

import functools
import random

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf.catalogue import PRECISIONS
from cpnas_tf.genotypes import EDGES, OPERATIONS, Genotype
from cpnas_tf.networks.formulations import approx_sign, ste_sign
from cpnas_tf.networks.quantizers import binarizes_input
from cpnas_tf.search import supernet as supernet_module
from cpnas_tf.search.supernet import Supernet

SETTINGS = {"input_shape": (8, 8, 1), "classes": 3, "cells": 3, "channels": 4}
REDUCTIONS = (1, 2)  # of the three cells
BATCH = 8


def rotated(start):
    """A genotype whose edges count through the operations: `rotated(0..7)` samples each once."""
    return Genotype.from_choices(OPERATIONS[(start + edge) % 8] for edge in range(28))


def without(unwanted):
    """A genotype with `none` on some of a cell's edges and convolutions on the others."""
    cell = tuple("none" if unwanted(*edge) else "sep_conv_3x3" for edge in EDGES)
    return Genotype(cell, cell)


GENOTYPES = {
    "random 0": Genotype.from_choices(random.Random(0).choices(OPERATIONS, k=28)),
    "random 1": Genotype.from_choices(random.Random(1).choices(OPERATIONS, k=28)),
    "random 2": Genotype.from_choices(random.Random(2).choices(OPERATIONS, k=28)),
    "node 3 of none": without(lambda source, target: target == 3),
    "input 1 unused": without(lambda source, target: source == 1),
}


def batch(seed, input_shape=SETTINGS["input_shape"]):
    """Images in [-1, 1] and labels."""
    generator = np.random.default_rng(seed)
    images = generator.uniform(-1, 1, (BATCH, *input_shape))
    return images.astype("float32"), generator.integers(SETTINGS["classes"], size=BATCH)


class Engine:
    """A supernet with its two compiled functions."""

    def __init__(self, precision, **settings):
        settings = {**SETTINGS, **settings}
        self.batch = functools.partial(batch, input_shape=settings["input_shape"])
        self.supernet = Supernet(precision=precision, **settings)
        self.functions = [
            tf.function(function, autograph=False)
            for function in (self.supernet.logits, self.supernet.train_step)
        ]

    def logits(self, genotype, *, seed=0):
        images, _ = self.batch(seed)
        return self.functions[0](images, tf.constant(genotype.indices)).numpy()

    def train(self, genotype, *, seed=0, learning_rate, momentum=0.0, weight_decay=0.0):
        settings = {
            "learning_rate": learning_rate,
            "momentum": momentum,
            "weight_decay": weight_decay,
        }
        settings = {name: tf.constant(value, tf.float32) for name, value in settings.items()}
        images, labels = self.batch(seed)
        choices = tf.constant(genotype.indices)
        return float(self.functions[1](images, labels, choices, **settings))

    def state(self):
        return {variable.name: variable.numpy() for variable in self.supernet.variables}

    def restore(self, state):
        for variable in self.supernet.variables:
            variable.assign(state[variable.name])

    def rows(self, state):
        """Each operation of each edge: `(cell, edge number), name, weights, momentum`."""
        for edge, ((width, stride), row) in self.supernet._edge_rows.items():
            for index, operation in enumerate(OPERATIONS):
                name = f"bank_{width}_{stride}"
                weights, momentum = state[f"{name}:0"], state[f"{name}_momentum:0"]
                yield edge, operation, weights[row, index], momentum[row, index]


@pytest.fixture(scope="module", params=PRECISIONS)
def trained(request):
    """An engine and its state after each operation of each edge was trained once.

    So no BN is an identity, and no binary convolution's sums lie exactly on a threshold, where
    rounding would decide a sign.
    """
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(supernet_module.build_network)
        patch.setattr(supernet_module, "build_network", once)  # `derive` then sets weights only
        engine = Engine(request.param)
        for step in range(8):
            engine.train(
                rotated(step), seed=step, learning_rate=0.1, momentum=0.9, weight_decay=1e-3
            )
        yield engine, engine.state()


@pytest.fixture
def engine(trained):
    engine, state = trained
    engine.restore(state)
    return engine


def chosen(genotype, edge):
    """The operation of an edge, by the definition of the 28 choices."""
    cell, number = edge
    return (genotype.reduce if cell in REDUCTIONS else genotype.normal)[number]


def stride_of(edge):
    cell, number = edge
    return 2 if cell in REDUCTIONS and EDGES[number][0] < 2 else 1


def parameters(operation, edge):
    """How many parameters an operation has, by hand: kernels, and scale and offset of each BN."""
    width = {0: 4, 1: 8, 2: 16}[edge[0]]
    if operation == "none" or (operation == "skip_connect" and stride_of(edge) == 1):
        return 0
    if operation == "skip_connect":
        return width * width + 2 * width
    if operation.endswith("pool_3x3"):
        return 2 * width
    separable = int(operation[-1]) ** 2 * width + width * width + 2 * 2 * width
    return 2 * separable if operation.startswith("sep_conv") else separable


def in_a_dispatch(function):
    """The function as one branch of a `switch_case` in a function that is not inlined."""

    def dispatch(index, x):
        return tf.switch_case(index, [lambda: function(x), lambda: 2 * x])

    outlined = tf.function(dispatch, autograph=False, experimental_attributes={"_noinline": True})
    return functools.partial(outlined, tf.constant(0))


def value_and_gradient(function, x, dy):
    """A function's value and `tf.gradients`' gradient, traced in a `tf.function`."""

    @tf.function(autograph=False)
    def traced(x, dy):
        y = function(x)
        return y, tf.gradients(y, x, grad_ys=dy)[0]

    return traced(tf.constant(x), tf.constant(dy))


def eager_value_and_gradient(function, x, dy):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return y, tape.gradient(y, x, output_gradients=tf.constant(dy))


@pytest.mark.parametrize("place", [lambda function: function, in_a_dispatch])
@pytest.mark.parametrize(
    ("ours", "larqs"),
    [(ste_sign, lq.quantizers.SteSign()), (approx_sign, lq.quantizers.ApproxSign())],
)
def test_signs_are_larqs(ours, larqs, place):
    thresholds = np.float32([0.0, -0.0, 1, -1, 2, -2, 1e-20, -1e-20, 1e6, -1e6])
    beyond = np.nextafter(np.float32([1, -1]), np.float32([2, -2]))
    within = np.nextafter(np.float32([1, -1]), np.float32(0))
    noise = np.random.default_rng(0).normal(size=50).astype("float32")
    x = np.concatenate([thresholds, beyond, within, noise])
    dy = np.random.default_rng(1).normal(size=x.shape).astype("float32")
    wanted = eager_value_and_gradient(larqs, x, dy)
    for found, expected in zip(value_and_gradient(place(ours), x, dy), wanted, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert set(np.unique(wanted[0])) == {-1, 1}
    assert 0 < np.count_nonzero(wanted[1]) < x.size


@pytest.mark.parametrize("place", [lambda function: function, in_a_dispatch])
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pooling_has_tensorflows_gradient(stride, place):
    def plain(x):
        return tf.nn.max_pool2d(x, 3, stride, "SAME")

    def ours(x):
        override = {"MaxPool": "CpnasMaxPool"}
        with tf.compat.v1.get_default_graph().gradient_override_map(override):
            return plain(x)

    generator = np.random.default_rng(0)
    noise = generator.normal(size=(2, 6, 8, 4)).astype("float32")
    ties = generator.integers(3, size=noise.shape).astype("float32")
    for x in (noise, ties):
        dy = generator.normal(size=plain(x).shape).astype("float32")
        wanted = eager_value_and_gradient(plain, x, dy)
        result = value_and_gradient(place(ours), x, dy)
        np.testing.assert_array_equal(result[0], wanted[0])
        np.testing.assert_allclose(result[1], wanted[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("genotype", GENOTYPES.values(), ids=GENOTYPES)
def test_an_architecture_is_its_derived_network(engine, trained, genotype):
    """Logits, loss and gradients. A gradient g is seen as (w - w') / 1000 after a plain step.

    The supernet's formulations round otherwise. In a parent rounding grows from one BN to the next:
    over 300 networks and batches its logits were up to 5e-5 apart. And where rounding decides on
    which side of 0 the input of a ReLU lies, a parent's gradients jump (by 15% if the weights are
    moved by 1e-7, in one batch of twelve): of three batches one must have the same gradients
    throughout. Where a node is zero for all images, the gradients behind it are rounding, 1 /
    sqrt(epsilon) = 316 times larger per BN: there logits and loss alone are compared.
    """
    errors = []
    for seed in range(3):
        engine.restore(trained[1])
        errors.append(gradient_error(engine, genotype, seed=seed))
        if errors[-1] < 1e-3:
            return
        if genotype == GENOTYPES["node 3 of none"]:
            return
    pytest.fail(f"the gradients differ by {errors} of their largest value")


def gradient_error(engine, genotype, *, seed):
    """Compares logits and loss; returns the gradients' largest difference, relative to each."""
    images, labels = engine.batch(seed)
    network = engine.supernet.derive(genotype)
    with tf.GradientTape() as tape:
        logits = network(images, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, network.trainable_variables)
    before = [variable.numpy() for variable in network.trainable_variables]
    scales = [np.abs(gradient).max() for gradient in gradients]
    assert np.mean(np.greater(scales, 0)) > 0.9  # all but those of kernels that see only zeros

    np.testing.assert_allclose(engine.logits(genotype, seed=seed), logits, rtol=1e-5, atol=2e-4)
    stepped = engine.train(genotype, seed=seed, learning_rate=1000.0)
    assert stepped == pytest.approx(float(loss), rel=1e-4)
    after = engine.supernet.derive(genotype).trainable_variables
    return max(
        np.abs((old - new.numpy()) / 1000 - gradient).max() / (scale + 1e-5)
        for old, new, gradient, scale in zip(before, after, gradients, scales, strict=True)
    )


def test_the_stem_for_imagenet_and_real_inputs_are_the_derived_networks_too():
    """Where inputs are real, sums round, and move a sign behind them: seen, 0.3 to 0.8%."""
    engine = Engine(
        "child",
        input_shape=(64, 64, 3),
        cells=2,
        stem="imagenet",
        real_inputs=("depthwise", "preprocessing"),
    )
    for step in range(8):
        engine.train(rotated(step), seed=step, learning_rate=0.1)
    state, errors = engine.state(), []
    for seed in range(3):
        engine.restore(state)
        errors.append(gradient_error(engine, GENOTYPES["random 0"], seed=seed))
    assert min(errors) < 0.02


def test_bfloat16_is_nearly_the_same():
    """Every edge computes in bfloat16, logits and loss are close to float32's, and it learns."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        engine = Engine("parent", dtype=dtype, cells=1)
        images, _ = engine.batch(0)
        graph = engine.functions[0].get_concrete_function(images, tf.constant([0] * 28)).graph
        calls = [op for op in graph.get_operations() if op.type.endswith("PartitionedCall")]
        assert {call.outputs[0].dtype for call in calls} == {tf.as_dtype(dtype)}
        assert len(calls) == len(EDGES)
        logits = engine.logits(rotated(0))
        found[dtype] = logits, [engine.train(rotated(0), learning_rate=0.01) for _ in range(4)]
    (wanted, losses), (logits, other_losses) = found.values()
    assert 0 < np.abs(logits - wanted).max() < 0.1 * np.abs(wanted).max()
    assert other_losses[0] == pytest.approx(losses[0], abs=0.05)
    assert max(losses[-1], other_losses[-1]) < 0.5 * losses[0]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_supernet_of_residual_units_is_what_it_derives(precision):
    """Nodes are the means of the edges that carry an operation."""
    engine = Engine(precision, unit="residual", cells=1)
    for seed in range(3):
        engine.train(rotated(seed), seed=seed, learning_rate=0.1)
    some = without(lambda source, target: target == 3 or source == 0)
    for genotype in (rotated(3), some):
        images, _ = engine.batch(1)
        derived = engine.supernet.derive(genotype)(images, training=True)
        np.testing.assert_allclose(engine.logits(genotype, seed=1), derived, atol=1e-4)


def test_a_supernet_with_real_activations_is_what_it_derives():
    engine = Engine("child", activations=32, cells=1)
    engine.train(rotated(0), learning_rate=0.1)
    images, _ = engine.batch(1)
    network = engine.supernet.derive(rotated(0))
    assert not any(map(binarizes_input, network.layers))
    derived = network(images, training=True)
    np.testing.assert_allclose(engine.logits(rotated(0), seed=1), derived, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("operation", ["skip_connect", "max_pool_3x3", "dil_conv_3x3"])
def test_a_part_of_the_channels_goes_through_an_operation(operation, stride):
    """That of a supernet of so many channels; the others are shuffled among its outputs."""
    settings = {**SETTINGS, "cells": 1, "precision": "child"}
    partial, whole = (
        Supernet(**{**settings, "channels": channels, "partial": part})
        for channels, part in ((8, 2), (4, 1))
    )
    # The only cell is a reduction: its inputs have stride 2, its nodes 1, at twice the channels.
    x = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 16)).astype("float32")
    index = tf.constant(OPERATIONS.index(operation))
    row = partial._banks[16, stride][0, OPERATIONS.index(operation)]

    @tf.function
    def through(function, x):
        return function(index, row, x)

    y = through(partial._edge_functions[16, stride], x).numpy()
    part = through(whole._edge_functions[8, stride], x[..., :8]).numpy()
    rest = x[..., 8:]
    if stride == 2:
        rest = rest.reshape(2, 4, 2, 4, 2, 8).max(axis=(2, 4))
    np.testing.assert_allclose(y[..., ::2], part, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(y[..., 1::2], rest)


def test_a_part_of_the_channels_cannot_be_derived_nor_cut():
    supernet = Supernet(precision="child", **{**SETTINGS, "cells": 1}, partial=2)
    with pytest.raises(ValueError, match="operations have all channels, the supernet's 1/2"):
        supernet.derive(rotated(0))
    with pytest.raises(ValueError, match="channels must be a multiple of partial = 3, .*: 4"):
        Supernet(precision="child", **SETTINGS, partial=3)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_supernet_of_units_with_all_parts_is_what_it_derives(precision):
    engine = Engine(
        precision,
        unit="residual,rsign,rprelu,approx_sign,aligned",
        operations=("none", "skip_connect", "dil_conv_3x3"),
        cells=1,
    )
    genotype = Genotype.from_choices(["skip_connect", "dil_conv_3x3"] * 14)
    for seed in range(3):
        engine.train(genotype, seed=seed, learning_rate=0.1)
    state, errors = engine.state(), []
    for seed in range(3):
        engine.restore(state)
        errors.append(gradient_error(engine, genotype, seed=seed))
    assert min(errors) < 0.02


def test_a_supernet_of_some_operations_has_no_others():
    operations = ("none", "avg_pool_3x3", "dil_conv_3x3")
    engine = Engine("parent", operations=operations, cells=1)
    genotype = Genotype.from_choices(random.Random(0).choices(operations, k=28))
    engine.train(genotype, learning_rate=0.1)
    images, _ = engine.batch(1)
    derived = engine.supernet.derive(genotype)(images, training=True)
    np.testing.assert_allclose(engine.logits(genotype, seed=1), derived, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="-1"):
        engine.logits(rotated(0))


def test_operations_without_parameters_train_what_is_around_them():
    engine = Engine("child", operations=("none", "skip_connect"), cells=1)
    before = {key: bank.numpy() for key, bank in engine.supernet._banks.items()}
    skips = Genotype.from_choices(["skip_connect"] * 28)
    losses = [engine.train(skips, learning_rate=0.1) for _ in range(3)]
    assert losses[2] < losses[0]
    for key, bank in engine.supernet._banks.items():
        has_parameters = key == "trunk" or key[1] == 2  # strides that a skip has convolutions for
        assert np.array_equal(bank.numpy(), before[key]) == (not has_parameters)


def test_choices_change_the_logits(engine):
    """Each edge's choice reaches the logits, of normal and reduction cells."""
    choices = list(rotated(2).choices)
    usual = engine.logits(rotated(2))
    for edge, operation in enumerate(choices):
        other = "sep_conv_5x5" if operation != "sep_conv_5x5" else "none"
        changed = [*choices[:edge], other, *choices[edge + 1 :]]
        logits = engine.logits(Genotype.from_choices(changed))
        assert np.abs(logits - usual).max() > 1e-4, edge


def test_the_loss_is_the_mean_cross_entropy_before_the_step(engine):
    logits = engine.logits(rotated(0)).astype("float64")
    _, labels = batch(0)
    log_sums = np.log(np.exp(logits).sum(axis=1))
    wanted = np.mean(log_sums - logits[np.arange(BATCH), labels])
    assert engine.train(rotated(0), learning_rate=0.1) == pytest.approx(wanted, rel=1e-5)


def test_a_step_is_the_original_frameworks_sgd(engine):
    """That is v = momentum v + g + weight_decay w; w = w - learning_rate v.

    The gradient g is the v of a step without momentum and weight decay.
    """
    genotype, old = rotated(3), engine.state()
    engine.train(genotype, learning_rate=0.0)
    gradient = engine.state()
    engine.restore(old)
    engine.train(genotype, learning_rate=0.05, momentum=0.9, weight_decay=0.01)
    new = engine.state()

    def check(weights, velocity, gradient, new_weights, new_velocity):
        wanted = 0.9 * velocity + gradient + 0.01 * weights
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(new_velocity, wanted, rtol=1e-5, atol=1e-5 * scale)
        np.testing.assert_allclose(new_weights, weights - 0.05 * new_velocity, rtol=1e-6, atol=1e-7)
        assert np.abs(velocity).max() > 0
        assert np.abs(gradient).max() > 0

    name, velocity_name = "trunk:0", "trunk_momentum:0"
    check(old[name], old[velocity_name], gradient[velocity_name], new[name], new[velocity_name])
    checked = 0
    for (edge, operation, *before), plain, after in zip(
        engine.rows(old), engine.rows(gradient), engine.rows(new), strict=True
    ):
        if operation == chosen(genotype, edge) and parameters(operation, edge):
            check(*before, plain[-1], *after[-2:])
            checked += 1
    assert checked > 25


def test_what_was_not_sampled_is_unchanged_bit_for_bit(engine):
    genotypes = rotated(0), rotated(1), rotated(0)
    old = engine.state()
    for seed, genotype in enumerate(genotypes):
        engine.train(genotype, seed=seed, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    new = engine.state()
    kept = 0
    for before, after in zip(engine.rows(old), engine.rows(new), strict=True):
        edge, operation = before[:2]
        sampled = operation in [chosen(genotype, edge) for genotype in genotypes]
        for old_values, new_values in zip(before[2:], after[2:], strict=True):
            if sampled and parameters(operation, edge):
                assert np.any(old_values != new_values), (edge, operation)
            else:
                assert old_values.tobytes() == new_values.tobytes(), (edge, operation)
                kept += 1
    assert kept >= 2 * 42 * 6  # of 42 edges, six operations' weights and momentum
    for name in ("trunk:0", "trunk_momentum:0"):
        assert np.mean(old[name] != new[name]) > 0.99


def test_momentum_accumulates_over_the_steps_that_sample_an_operation(engine):
    """With learning rate 0 the weights stay, and the gradients of a batch with them.

    An operation of the first genotype has three steps, (v, v + g, untouched, again), one of the
    second a single one, and the trunk all three.
    """
    first, second, old = rotated(0), rotated(4), engine.state()
    gradients = []
    for genotype in (first, second):
        engine.restore(old)
        engine.train(genotype, learning_rate=0.0)
        gradients.append(engine.state())
    engine.restore(old)
    for genotype in (first, second, first):
        engine.train(genotype, learning_rate=0.0, momentum=0.5)
    new = engine.state()

    def check(value, velocity, *steps):
        for gradient in steps:
            velocity = 0.5 * velocity + gradient
        np.testing.assert_allclose(
            value, velocity, rtol=1e-5, atol=1e-5 * np.abs(velocity).max(initial=0)
        )

    rows = zip(*map(engine.rows, (old, *gradients, new)), strict=True)
    for (edge, operation, _, velocity), by_first, by_second, result in rows:
        if operation == chosen(first, edge):
            check(result[-1], velocity, by_first[-1], by_first[-1])
        elif operation == chosen(second, edge):
            check(result[-1], velocity, by_second[-1])
    name = "trunk_momentum:0"
    check(new[name], old[name], gradients[0][name], gradients[1][name], gradients[0][name])
    for name in old:
        if "momentum" not in name:
            np.testing.assert_array_equal(new[name], old[name])


@pytest.mark.usefixtures("deterministic")
def test_adam_is_keras_adam_with_a_step_count_per_row():
    """Against NumPy, over architectures that share the operations of every other edge.

    The gradients are the momentum of an SGD step without momentum and weight decay, from the same
    weights.
    """
    settings = {"learning_rate": 0.01, "momentum": 0.5, "weight_decay": 0.02}
    adam, sgd = Engine("child", cells=1, optimizer="adam"), Engine("child", cells=1)
    first = rotated(0)
    second = Genotype.from_choices(
        OPERATIONS[(edge + edge % 2) % 8] for edge in range(len(first.choices))
    )
    start = adam.state()
    names = [variable.name for variable in sgd.supernet._banks.values()]
    wanted = {name: start[name].astype("float64") for name in names}
    mean, square, count = ({name: np.zeros(wanted[name].shape) for name in names} for _ in "123")
    for seed, genotype in enumerate((first, second, first, first)):
        weights = adam.state()
        sgd.restore({v.name: weights.get(v.name, 0 * v) for v in sgd.supernet.variables})
        sgd.train(genotype, seed=seed, learning_rate=0.0)
        adam.train(genotype, seed=seed, **settings)
        for name, rows in sampled_rows(sgd, genotype).items():
            slope = sgd.state()[name.replace(":", "_momentum:")][rows] + 0.02 * wanted[name][rows]
            count[name][rows] += 1
            mean[name][rows] = 0.9 * mean[name][rows] + 0.1 * slope
            square[name][rows] = 0.999 * square[name][rows] + 0.001 * slope**2
            first_moment = mean[name][rows] / (1 - 0.9 ** count[name][rows])
            correction = np.sqrt(1 - 0.999 ** count[name][rows])
            second_moment = np.sqrt(square[name][rows]) / correction
            wanted[name][rows] -= 0.01 * first_moment / (second_moment + 1e-7 / correction)
    new, counts = adam.state(), set()
    for name in names:
        np.testing.assert_allclose(new[name], wanted[name], rtol=1e-6, atol=1e-4 * 0.01)
        np.testing.assert_array_equal(new[name.replace(":", "_count:")], count[name][..., :1])
        untouched = count[name][..., 0] == 0
        assert new[name][untouched].tobytes() == start[name][untouched].tobytes()
        for slot in ("mean", "square"):
            assert not new[name.replace(":", f"_{slot}:")][untouched].any()
        counts |= {*count[name][..., 0].ravel()}
    assert counts == {0, 1, 3, 4}
    assert len(new) == 4 * len(names)


def sampled_rows(engine, genotype):
    """The index of an architecture's rows in each bank, by the bank's name."""
    supernet = engine.supernet
    rows = {variable.name: ([], []) for key, variable in supernet._banks.items() if key != "trunk"}
    for edge, ((width, stride), row) in supernet._edge_rows.items():
        edges, operations = rows[f"bank_{width}_{stride}:0"]
        edges.append(row)
        operations.append(OPERATIONS.index(genotype.choices[supernet._edge_choice(*edge)]))
    return {"trunk:0": ([0], [0]), **rows}


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_reset_gives_all_variables_of_a_new_supernet(optimizer):
    """Bit for bit; the graph that was traced before trains them as it did the first ones."""
    settings = {"cells": 1, "operations": OPERATIONS[:4], "optimizer": optimizer}
    genotype = Genotype.from_choices(OPERATIONS[edge % 4] for edge in range(28))
    engine = Engine("parent", seed=1, **settings)

    def train():
        losses = [
            engine.train(genotype, seed=seed, learning_rate=0.1, momentum=0.9) for seed in range(3)
        ]
        return losses, {name: value.tobytes() for name, value in engine.state().items()}

    trained = train()
    for seed in (2, 1):
        engine.supernet.reset(seed)
        new = Supernet(precision="parent", **{**SETTINGS, **settings}, seed=seed)
        for variable, fresh in zip(engine.supernet.variables, new.variables, strict=True):
            assert variable.name == fresh.name
            assert variable.numpy().tobytes() == fresh.numpy().tobytes()
    assert train() == trained
    assert engine.functions[1].experimental_get_tracing_count() == 1


def test_one_graph_serves_all_architectures(engine):
    for seed, genotype in enumerate(GENOTYPES.values()):
        engine.train(genotype, seed=seed, learning_rate=0.01 * seed, momentum=0.1 * seed)
        engine.logits(genotype, seed=seed)
    assert [function.experimental_get_tracing_count() for function in engine.functions] == [1, 1]


def test_banks_hold_the_parameters_and_zeros_behind_them(engine):
    """After each operation was trained with momentum and weight decay on."""
    for edge, operation, weights, momentum in engine.rows(engine.state()):
        size = parameters(operation, edge)
        for values in (weights, momentum):
            assert np.count_nonzero(values[:size]) >= 0.9 * size
            assert not values[size:].any()
    edges = [edge for edge, *_ in engine.rows(engine.state())]
    assert len(set(edges)) == 3 * 14
    assert len(edges) == 3 * 14 * 8


def test_the_variables_are_all_that_training_changes(engine):
    """From the same variables, the same steps lead to the same ones."""
    states = []
    start = engine.state()
    for _ in range(2):
        engine.restore(start)
        losses = [
            engine.train(rotated(step), seed=step, learning_rate=0.1, momentum=0.9)
            for step in (2, 5)
        ]
        states.append((losses, engine.state()))
    assert states[0][0] == pytest.approx(states[1][0], rel=1e-6)
    for name, values in states[0][1].items():
        np.testing.assert_allclose(values, states[1][1][name], rtol=1e-4, atol=1e-5)
    assert len(start) == len(engine.supernet.variables) == 2 * (1 + 5)


def weights_of(supernet):
    return [variable.numpy() for variable in supernet.variables]


def test_the_seed_decides_the_weights_for_both_precisions():
    child, again, parent = (
        weights_of(Supernet(precision=precision, seed=3, **SETTINGS))
        for precision in ("child", "child", "parent")
    )
    other = weights_of(Supernet(precision="child", seed=4, **SETTINGS))
    for values, repeated, real in zip(child, again, parent, strict=True):
        np.testing.assert_array_equal(values, repeated)
        np.testing.assert_array_equal(values, real)
    assert [np.any(values != others) for values, others in zip(child, other, strict=True)] == [
        np.any(values != 0) for values in child
    ]


def test_initial_weights_are_those_of_keras_layers():
    """Glorot's uniform kernels: divided by their limits, they are spread as Keras's own are."""
    network = Supernet(precision="parent", seed=0, **SETTINGS).derive(rotated(0))
    ours, kerass = [], []
    for weight in (weight for layer in network.layers for weight in layer.weights):
        name = weight.name.split("/")[-1]
        if "kernel" in name:
            *field, inputs, outputs = weight.shape
            limit = np.sqrt(6 / (np.prod(field) * (inputs + outputs)))
            ours.append(weight.numpy().ravel() / limit)
            kerass.append(
                tf.keras.initializers.GlorotUniform()(weight.shape).numpy().ravel() / limit
            )
        else:
            constant = 1 if name in ("gamma:0", "moving_variance:0") else 0
            np.testing.assert_array_equal(weight, constant)
    for values in map(np.concatenate, (ours, kerass)):
        assert 0.99 < np.abs(values).max() <= 1
        assert np.mean(values) == pytest.approx(0, abs=0.03)
        assert np.std(values) == pytest.approx(1 / np.sqrt(3), abs=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "foo"}, "precision must be one of child, parent, received: 'foo'"),
        ({"input_shape": (10, 10, 3)}, "cannot halve images of 10x10 pixels"),
        ({"classes": 1}, "classes must be a whole number >= 2, received: 1"),
        ({"cells": 0}, "cells must be a whole number >= 1, received: 0"),
        ({"channels": 0}, "channels must be a whole number >= 1, received: 0"),
        ({"optimizer": "foo"}, "optimizer must be one of sgd, adam, received: 'foo'"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        Supernet(**{**SETTINGS, **settings})
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
