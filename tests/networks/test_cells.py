"""The networks of genotypes: their wiring, precision and sizes."""

import larq as lq
import numpy as np
import pytest
import rotated
import tensorflow as tf
from one_line import assert_one_line

from cpnas_tf.catalogue import PRECISIONS
from cpnas_tf.genotypes import EDGES, OPERATIONS, Genotype
from cpnas_tf.networks import reference
from cpnas_tf.networks.cells import (
    add_auxiliary_tower,
    build_network,
    reduction_cells,
    scale_drop_path,
)
from cpnas_tf.networks.layers import DropPath
from cpnas_tf.networks.units import LarqUnits

SETTINGS = {"input_shape": (8, 8, 1), "classes": 3, "cells": 3, "channels": 4}
# Each cell has each operation, on edges of both strides.
ALL_OPERATIONS = Genotype(OPERATIONS + OPERATIONS[2:], OPERATIONS[4:] + OPERATIONS + ("none",) * 2)
CONVOLUTIONS = (lq.layers.QuantConv2D, lq.layers.QuantDepthwiseConv2D)


def everywhere(operation):
    return Genotype((operation,) * 14, (operation,) * 14)


def network(genotype, precision="child", **settings):
    tf.keras.utils.set_random_seed(0)
    return build_network(genotype, precision=precision, **{**SETTINGS, **settings})


def randomized(model, *, seed=0):
    """Gives BN random weights.

    As built it is an identity that would hide its place, and where a binary convolution's sum is
    exactly 0 it would leave the sign to rounding.
    """
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            width = layer.gamma.shape
            gamma, variance = generator.uniform(0.5, 2, size=(2, *width))
            beta, mean = generator.normal(scale=0.1, size=(2, *width))
            layer.set_weights([gamma, beta, mean, variance])
    return model


def images(input_shape=(8, 8, 1), *, batch=4, seed=0):
    shape = (batch, *input_shape)
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype("float32")


@pytest.fixture(scope="module", params=PRECISIONS)
def tested(request):
    """A network with all operations and random weights, in each precision."""
    return randomized(network(ALL_OPERATIONS, request.param))


def cell_outputs(model):
    """The shapes of the concatenations of four nodes, one a cell, without the batch."""
    return [
        layer.output_shape[1:]
        for layer in model.layers
        if isinstance(layer, tf.keras.layers.Concatenate) and len(layer.input) == 4
    ]


@pytest.mark.parametrize(
    ("cells", "positions"), [(3, {1, 2}), (6, {2, 4}), (10, {3, 6}), (20, {6, 13})]
)
def test_reductions_are_at_one_and_two_thirds(cells, positions):
    assert reduction_cells(cells) == positions


def test_reductions_halve_the_size_and_double_the_channels():
    model = network(everywhere("skip_connect"), cells=6, channels=2)
    assert cell_outputs(model) == 2 * [(8, 8, 8)] + 2 * [(4, 4, 16)] + 2 * [(2, 2, 32)]


def test_images_of_28x28_can_be_halved_twice():
    model = network(everywhere("avg_pool_3x3"), input_shape=(28, 28, 1))
    assert cell_outputs(model) == [(28, 28, 16), (14, 14, 32), (7, 7, 64)]
    logits = model(images((28, 28, 1))).numpy()
    assert np.isfinite(logits).all()
    assert np.ptp(logits, axis=0).min() > 0


def forward(model, genotype, x, *, cells, stem="cifar"):
    """The network as SPEC, section 1, describes its wiring, from a model's layers by their names.

    The stem for ImageNet is DARTS': three times half the size, the last two for the first cell.

    Returns:
        The last cell's output and the logits.
    """

    def chain(prefix, x):
        for layer in model.layers:
            if layer.name.startswith(prefix):
                x = layer(x)
        return x

    def factorized_reduction(prefix, x):
        first = model.get_layer(f"{prefix}_convolution")(x)
        second = model.get_layer(f"{prefix}_convolution_2")(x[:, 1:, 1:])
        return model.get_layer(f"{prefix}_bn")(tf.concat([first, second], axis=-1))

    def apply(cell, source, target, operation, x, stride):
        prefix = f"cell{cell}_{source}_{target}_{operation}"
        if operation == "skip_connect":
            return x if stride == 1 else factorized_reduction(prefix, x)
        if operation.startswith("dil_conv"):
            x = x[:, ::stride, ::stride]
        return chain(f"{prefix}_", x)

    if stem == "cifar":
        s0 = s1 = chain("stem_", x)
    else:
        s1 = x
        for number in ("", "_2", "_3"):
            y = model.get_layer(f"stem_convolution{number}")(s1)
            s0, s1 = s1, model.get_layer(f"stem_bn{number}")(y)
    reductions = (cells // 3, 2 * cells // 3)
    for cell in range(cells):
        operations = genotype.reduce if cell in reductions else genotype.normal
        halve = cell - 1 in reductions or (stem == "imagenet" and cell == 0)
        preprocess = factorized_reduction if halve else chain
        nodes = [preprocess(f"cell{cell}_input0", s0), chain(f"cell{cell}_input1_", s1)]
        for target in range(2, 6):
            terms = []
            for (source, edge_target), operation in zip(EDGES, operations, strict=True):
                if edge_target == target and operation != "none":
                    stride = 2 if cell in reductions and source < 2 else 1
                    terms.append(apply(cell, source, target, operation, nodes[source], stride))
            nodes.append(sum(terms[1:], terms[0]))
        s0, s1 = s1, tf.concat(nodes[2:], axis=-1)
    return s1, chain("classifier_", s1)


@pytest.mark.parametrize(
    ("precision", "cells", "stem"),
    [("child", 3, "cifar"), ("parent", 5, "cifar"), ("child", 2, "imagenet")],
)
def test_wiring_is_that_of_the_cells_graph(precision, cells, stem):
    genotype = Genotype(("sep_conv_3x3", *ALL_OPERATIONS.normal[1:]), ALL_OPERATIONS.reduce)
    input_shape = (64, 64, 3) if stem == "imagenet" else (8, 8, 1)
    settings = {"cells": cells, "channels": 2, "stem": stem, "input_shape": input_shape}
    model = randomized(network(genotype, precision, **settings))
    x = images(input_shape)
    last_maps = [layer.output for layer in model.layers if len(layer.output_shape) == 4][-1]
    outputs = tf.keras.Model(model.input, [last_maps, model.output])(x)
    expected = forward(model, genotype, x, cells=cells, stem=stem)
    for output, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, wanted, rtol=1e-5, atol=1e-5)


def test_the_stem_for_imagenet_leaves_an_eighth_of_the_size():
    settings = {"stem": "imagenet", "input_shape": (224, 224, 3), "channels": 6, "cells": 3}
    model = network(everywhere("avg_pool_3x3"), **settings)
    stem = [model.get_layer(f"stem_bn{number}").output_shape[1:] for number in ("", "_2", "_3")]
    assert stem == [(112, 112, 3), (56, 56, 6), (28, 28, 6)]
    assert cell_outputs(model) == [(28, 28, 24), (14, 14, 48), (7, 7, 96)]
    # In the child too: its first cell is the first to have signs.
    kernels = [layer for layer in model.layers if layer.name.startswith("stem_convolution")]
    assert [layer.kernel_quantizer for layer in kernels] == 3 * [None]
    assert [type(layer.input_quantizer).__name__ for layer in kernels] == [
        "NoneType",
        "Relu",
        "Relu",
    ]


def settings_of(layer):
    """A layer's configuration without what makes it binary."""
    binary = ("quantizer", "kernel_constraint", "depthwise_constraint")
    return {key: value for key, value in layer.get_config().items() if not key.endswith(binary)}


@pytest.mark.parametrize("number", range(2))
def test_child_and_parent_differ_in_precision_only(number):
    """Also, and first of all, the pairing of kernels that the Child-Parent loss relies on."""
    child, parent = (network(rotated.genotype(number), precision) for precision in PRECISIONS)
    for weights in ("trainable_weights", "weights"):
        names_and_shapes = [
            [(weight.name, weight.shape) for weight in getattr(model, weights)]
            for model in (child, parent)
        ]
        assert names_and_shapes[0] == names_and_shapes[1]
    for ours, theirs in zip(child.layers, parent.layers, strict=True):
        assert type(ours) is type(theirs)
        if ours.weights:
            assert settings_of(ours) == settings_of(theirs)


def test_these_two_have_each_operation_with_each_stride():
    found = set()
    for number in range(2):
        found |= rotated.places(rotated.genotype(number), (False, True, True))
    assert {place[:2] for place in found} == {(name, n) for name in OPERATIONS for n in (1, 2)}


def seen_by_convolutions(model, x):
    """What each convolution of a model's TensorFlow graph is given: `{layer: (input, kernel)}`."""
    traced = tf.compat.v1.wrap_function(lambda x: model(x, training=True), [tf.TensorSpec(x.shape)])
    tensors = {}
    for op in traced.graph.get_operations():
        if op.type in ("Conv2D", "DepthwiseConv2dNative"):
            inputs, kernel = op.inputs
            if inputs.op.type == "SpaceToBatchND":  # how TensorFlow dilates: it adds the padding
                inputs = inputs.op.inputs[0]
            tensors[op.name.split("/")[1]] = inputs, kernel
    values = traced.prune(traced.inputs[0], tensors)(tf.constant(x))
    return tf.nest.map_structure(lambda value: value.numpy(), values)


@pytest.mark.parametrize(
    ("real_inputs", "marks"),
    [
        ((), ()),
        (("depthwise",), ("_depthwise",)),
        (("depthwise", "preprocessing"), ("_depthwise", "_input0_", "_input1_")),
    ],
)
def test_child_convolutions_see_two_values_and_parent_ones_do_not(tested, real_inputs, marks):
    """But for the inputs that the paper's * and ** leave real."""
    if real_inputs:
        if tested.name == "parent":
            pytest.skip("all its inputs are real")
        tested = randomized(network(ALL_OPERATIONS, real_inputs=real_inputs))
    seen = seen_by_convolutions(tested, images())
    layers = [layer for layer in tested.layers if isinstance(layer, CONVOLUTIONS)]
    assert set(seen) == {layer.name for layer in layers}
    assert len(seen) > 40
    for layer in layers:
        (latent,) = layer.get_weights()
        inputs, kernel = seen[layer.name]
        if tested.name == "parent" or layer.name == "stem_convolution":
            np.testing.assert_array_equal(kernel, latent)
            assert len(np.unique(kernel)) == kernel.size > 2
            assert len(np.unique(inputs)) > 2
        else:
            axes = (0, 1) if kernel.shape[-1] == 1 else (0, 1, 2)
            alpha = np.broadcast_to(np.abs(latent).mean(axis=axes, keepdims=True), kernel.shape)
            np.testing.assert_allclose(kernel, np.where(latent < 0, -alpha, alpha), rtol=1e-6)
            assert len(np.unique(alpha)) == kernel.size // np.prod([kernel.shape[a] for a in axes])
            if any(mark in layer.name for mark in marks):
                assert len(np.unique(inputs)) > 2
                assert inputs.min() < 0  # no ReLU has taken the sign's place
            else:
                np.testing.assert_array_equal(np.unique(inputs), [-1, 1])


def test_the_gradient_reaches_every_trainable_variable(tested):
    with tf.GradientTape() as tape:
        logits = tested(images(batch=16), training=True)
        labels = np.arange(16) % 3
        loss = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    gradients = tape.gradient(loss, tested.trainable_variables)
    for variable, gradient in zip(tested.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.name
        assert np.isfinite(gradient).all(), variable.name
        assert np.any(gradient != 0), variable.name


def test_a_saved_network_predicts_the_same(tested, tmp_path):
    tested.save(tmp_path / "network.keras")
    loaded = tf.keras.models.load_model(tmp_path / "network.keras")
    for old, new in zip(tested.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_allclose(loaded(images()), tested(images()), rtol=1e-5, atol=1e-5)


def test_larq_summarizes_a_network(tested, capsys):
    lq.models.summary(tested)
    printed = capsys.readouterr().out
    assert ("Ratio of MACs that are binarized" in printed) == (tested.name == "child")
    assert f"{9 * 1 * 12 * 64}" in printed  # the stem's


def test_none_leaves_no_layers(tested):
    names = [layer.name for layer in tested.layers]
    edges = zip(EDGES, ALL_OPERATIONS.normal, strict=True)
    for (source, target), operation in edges:
        layers = [name for name in names if name.startswith(f"cell0_{source}_{target}_")]
        assert bool(layers) == (operation not in ("none", "skip_connect"))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_network_of_none_gives_its_bias(precision):
    model = randomized(network(everywhere("none"), precision))
    bias = np.array([0.5, -1.0, 2.0], "float32")
    kernel, _ = model.get_layer("classifier_logits").get_weights()
    model.get_layer("classifier_logits").set_weights([kernel, bias])
    np.testing.assert_array_equal(model(images()), np.tile(bias, (4, 1)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_node_without_operations_is_zero(precision):
    """Node 3 of each cell; what it gives is the second quarter of the cell's output."""
    operations = tuple("none" if target == 3 else "max_pool_3x3" for _, target in EDGES)
    model = randomized(network(Genotype(operations, operations), precision))
    last = [layer for layer in model.layers if len(layer.output_shape) == 4][-1]
    nodes = np.split(tf.keras.Model(model.input, last.output)(images()).numpy(), 4, axis=-1)
    assert not nodes[1].any()
    assert all(nodes[index].any() for index in (0, 2, 3))


def test_a_network_whose_edges_leave_one_input_only_runs():
    for unused in (0, 1):
        operations = tuple("none" if source == unused else "skip_connect" for source, _ in EDGES)
        logits = network(Genotype(operations, operations))(images()).numpy()
        assert np.ptp(logits, axis=0).min() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"input_shape": (10, 10, 3)},
            "2 reductions cannot halve images of 10x10 pixels: height and width must be multiples "
            "of 4",
        ),
        ({"input_shape": (8, 6, 3)}, "2 reductions cannot halve images of 8x6 pixels"),
        ({"input_shape": (9, 9, 3), "cells": 1}, "1 reductions cannot halve images of 9x9 pixels"),
        ({"input_shape": (8, 8)}, "input_shape must be three whole numbers"),
        ({"input_shape": (8, 8, 0)}, "input_shape must be three whole numbers"),
        ({"input_shape": (0, 8, 1)}, "input_shape must be three whole numbers"),
        ({"input_shape": (8.0, 8, 1)}, "input_shape must be three whole numbers"),
        ({"input_shape": (None, None, 3)}, "input_shape must be three whole numbers"),
        ({"classes": 1}, "classes must be a whole number >= 2, received: 1"),
        ({"classes": 10.0}, "classes must be a whole number >= 2, received: 10.0"),
        ({"cells": 0}, "cells must be a whole number >= 1, received: 0"),
        ({"cells": True}, "cells must be a whole number >= 1, received: True"),
        ({"cells": "6"}, "cells must be a whole number >= 1, received: '6'"),
        ({"channels": 0}, "channels must be a whole number >= 1, received: 0"),
        ({"channels": -16}, "channels must be a whole number >= 1, received: -16"),
        ({"channels": 1.5}, "channels must be a whole number >= 1, received: 1.5"),
        ({"precision": "foo"}, "precision must be one of child, parent, received: 'foo'"),
        ({"stem": "foo"}, "stem must be one of cifar, imagenet, received: 'foo'"),
        (
            {"stem": "imagenet", "input_shape": (48, 48, 3)},
            "the stem and 2 reductions cannot halve images of 48x48 pixels: height and width must "
            "be multiples of 32",
        ),
        ({"stem": "imagenet", "channels": 3}, "channels must be even for the stem imagenet"),
        ({"real_inputs": ("pointwise",)}, "real_inputs must be a tuple of some of depthwise"),
        ({"drop_path": 1.0}, "drop_path must be a number in [0, 1), received: 1.0"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        network(ALL_OPERATIONS, **settings)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("genotype", ["darts", None, {"normal": ("none",) * 14}])
def test_what_is_no_genotype_is_refused(genotype):
    with pytest.raises(ValueError, match="^genotype must be a Genotype, received: "):
        build_network(genotype, input_shape=(8, 8, 1), classes=2)


def test_drop_path_is_on_every_edge_but_where_a_skip_passes_its_input_on():
    plain = network(ALL_OPERATIONS)
    model = network(ALL_OPERATIONS, drop_path=0.5)
    dropped = [layer for layer in model.layers if isinstance(layer, DropPath)]
    edges = set()
    for cell, operations in enumerate((ALL_OPERATIONS.normal, *[ALL_OPERATIONS.reduce] * 2)):
        for (source, target), operation in zip(EDGES, operations, strict=True):
            strided = cell > 0 and source < 2
            if operation not in ("none", *([] if strided else ["skip_connect"])):
                edges.add(f"cell{cell}_{source}_{target}_{operation}_drop_path")
    assert {layer.name for layer in dropped} == edges
    for layer in plain.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())
    x = images()
    np.testing.assert_array_equal(model(x), plain(x))
    scale_drop_path(model, 0.0)
    np.testing.assert_array_equal(model(x, training=True), plain(x, training=True))
    scale_drop_path(model, 0.5)
    assert {float(layer.scale) for layer in dropped} == {0.5}
    outputs = tf.keras.Model(model.input, [(drop.input, drop.output) for drop in dropped])
    for before, after in outputs(images(batch=16), training=True):
        kept = np.any(after != 0, axis=(1, 2, 3))
        assert 0 < kept.sum() < 16
        np.testing.assert_allclose(after[kept], before[kept] / 0.75, rtol=1e-5)


@pytest.fixture(scope="module", params=PRECISIONS)
def deep(request):
    """A network of 6 cells, the second reduction being cell 4."""
    genotype = Genotype(("skip_connect",) * 14, ("sep_conv_3x3",) * 14)
    return randomized(network(genotype, request.param, cells=6))


class TestAuxiliaryTower:
    def test_is_behind_the_second_reduction_cell(self, deep):
        x = images()
        tower = add_auxiliary_tower(deep)
        assert tower.output_names == ["classifier_logits", "auxiliary_logits"]
        (maps,) = [
            layer.output
            for layer in deep.layers
            if layer.name.startswith("cell4_")
            and isinstance(layer, tf.keras.layers.Concatenate)
            and layer.output_shape[1:] == (2, 2, 64)
        ]
        logits, auxiliary = tower(x)
        np.testing.assert_array_equal(logits, deep(x))
        y = tf.keras.Model(deep.input, maps)(x)
        layers = [layer for layer in tower.layers if layer.name.startswith("auxiliary_")]
        assert len(layers) == 9
        for layer in layers:
            y = layer(y)
        np.testing.assert_allclose(auxiliary, y, rtol=1e-5, atol=1e-5)
        assert np.ptp(auxiliary, axis=0).min() > 0

    def test_leaves_the_model_as_it_was(self, deep):
        before = [layer.name for layer in deep.layers], len(deep.weights)
        calls = [len(layer.inbound_nodes) for layer in deep.layers]
        tower = add_auxiliary_tower(deep)
        assert ([layer.name for layer in deep.layers], len(deep.weights)) == before
        assert [len(layer.inbound_nodes) for layer in deep.layers] == calls
        own = {weight.ref() for weight in tower.weights} - {w.ref() for w in deep.weights}
        assert len(own) == len(tower.weights) - len(deep.weights) == 1 + 4 + 1 + 4 + 2

    def test_is_real_and_its_gradient_reaches_the_cells_before_it(self, deep):
        tower = add_auxiliary_tower(deep)
        x = images(batch=16)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tower(x, training=True)[1][:, 0])
        for weight, gradient in zip(
            tower.trainable_weights, tape.gradient(loss, tower.trainable_weights), strict=True
        ):
            after = weight.name.startswith(("cell5_", "classifier_"))
            assert (gradient is None) == after, weight.name
        quantized = [
            layer
            for layer in tower.layers
            if layer.name.startswith("auxiliary_") and getattr(layer, "kernel_quantizer", None)
        ]
        assert not quantized

    def test_what_has_no_place_for_it_is_refused(self):
        images = tf.keras.Input([8, 8, 1])
        plain = tf.keras.Model(images, LarqUnits("child").classifier(images, 3), name="plain")
        with pytest.raises(ValueError, match="the model 'plain' has no reduction cell"):
            add_auxiliary_tower(plain)
        small = network(everywhere("skip_connect"), input_shape=(4, 4, 1), channels=2)
        with pytest.raises(ValueError, match="maps of at least 2x2 pixels .* received: 1x1"):
            add_auxiliary_tower(small)


def test_logits_are_float32_under_mixed_precision():
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = network(everywhere("dil_conv_3x3"), cells=1, drop_path=0.1)
        logits, auxiliary = add_auxiliary_tower(model)(images(), training=True)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    assert model.get_layer("cell0_4_5_dil_conv_3x3_bn").output.dtype == tf.bfloat16
    assert logits.dtype == auxiliary.dtype == tf.float32
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("name", "value"), [("floatx", "float64"), ("image_data_format", "channels_first")]
)
def test_settings_of_keras_that_change_networks_are_refused_in_one_line(monkeypatch, name, value):
    monkeypatch.setattr(tf.keras.backend, name, lambda: value)
    for build in (lambda: network(ALL_OPERATIONS), lambda: reference.build("wrn22")):
        with pytest.raises(ValueError, match=f"received: .*{value}.*: call .*set_{name}") as error:
            build()
        assert_one_line(error)
