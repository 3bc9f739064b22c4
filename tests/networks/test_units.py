"""Each operation, stride and precision against an independent NumPy form of the paper's text."""

import itertools

import larq as lq
import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf.catalogue import PRECISIONS, Unit
from cpnas_tf.genotypes import OPERATIONS
from cpnas_tf.networks.quantizers import DepthwiseMagnitudeAwareSign
from cpnas_tf.networks.units import LarqUnits, further
from cpnas_tf.operations import OPERATION_FUNCTIONS

SHAPE = (6, 8, 4)
STRIDES = (1, 2)


def images(shape=SHAPE, *, seed=0, batch=3):
    """Normal noise with some exact zeros, of which the sign is +1."""
    x = np.random.default_rng(seed).normal(size=(batch, *shape)).astype("float32")
    x[:, 0, 0] = 0
    return x


def randomized(model, *, seed=1):
    """Gives a model random weights: as built, BN would be an identity and hide its place."""
    generator = np.random.default_rng(seed)
    for layer in model.layers:
        shapes = [weight.shape for weight in layer.get_weights()]
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            gamma, beta, mean = (generator.normal(size=shape) for shape in shapes[:3])
            layer.set_weights([gamma, beta, mean, generator.uniform(0.1, 2, size=shapes[3])])
        else:
            layer.set_weights([generator.normal(size=shape) for shape in shapes])
    return model


def built(apply, precision, *, shape=SHAPE, **settings):
    """The Keras model of a function of units and a tensor, with random weights."""
    x = tf.keras.Input(shape)
    units = LarqUnits(precision, **settings)
    return randomized(tf.keras.Model(x, apply(units, x)))


def operation_model(operation, stride, precision, **settings):
    def apply(units, x):
        return OPERATION_FUNCTIONS[operation](units, x, stride)

    return built(apply, precision, **settings)


def output_of(model, name, x):
    """What one layer of a model gives."""
    return tf.keras.Model(model.input, model.get_layer(name).output)(x).numpy()


def windows(x, size, *, stride, dilation=1, fill=0.0):
    """All positions of a window with "same" padding: `[tap, batch, height, width, channels]`."""
    reach = dilation * (size - 1) + 1
    padding = [(0, 0)]
    for length in x.shape[1:3]:
        total = max((-(-length // stride) - 1) * stride + reach - length, 0)
        padding.append((total // 2, total - total // 2))
    padded = np.pad(x, [*padding, (0, 0)], constant_values=fill)
    taps = [
        padded[:, row * dilation :, column * dilation :][
            :, : x.shape[1] : stride, : x.shape[2] : stride
        ]
        for row, column in itertools.product(range(size), repeat=2)
    ]
    return np.stack(taps)


def sign(x):
    return np.where(x < 0, -1.0, 1.0)


class NumpyUnits:
    """Convolutions, pooling and BN in float64, on the weights of a Keras model's layers."""

    def __init__(self, model, precision, *, real_inputs=()):
        self.model, self.child, self.real_inputs = model, precision == "child", real_inputs

    def weights(self, name):
        return [weight.astype("float64") for weight in self.model.get_layer(name).get_weights()]

    def kernel(self, name, *, axes):
        (kernel,) = self.weights(name)
        if not self.child:
            return kernel
        return np.abs(kernel).mean(axis=axes, keepdims=True) * sign(kernel)

    def activation(self, x, kind="pointwise"):
        if not self.child:
            return np.maximum(x, 0)
        return x if kind in self.real_inputs else sign(x)

    def batch_norm(self, name, x):
        gamma, beta, mean, variance = self.weights(name)
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta

    def pointwise(self, name, x):
        return x @ self.kernel(name, axes=(0, 1, 2))[0, 0]

    def depthwise(self, name, x, size, **window):
        kernel = self.kernel(name, axes=(0, 1)).reshape(size * size, -1)
        return np.einsum("tbhwc,tc->bhwc", windows(x, size, **window), kernel)

    def separable(self, number, x, size, *, stride=1, dilation=1):
        """Unit `number` of an operation: depthwise, BN, pointwise, BN, activated before each."""
        mark = "" if number == 1 else f"_{number}"
        bns = ("bn", "bn_2") if number == 1 else ("bn_3", "bn_4")
        window = {"size": size, "stride": stride, "dilation": dilation}
        x = self.depthwise(f"depthwise{mark}", self.activation(x, "depthwise"), **window)
        x = self.batch_norm(bns[0], x)
        return self.batch_norm(bns[1], self.pointwise(f"convolution{mark}", self.activation(x)))

    def factorized_reduction(self, x, kind="pointwise"):
        x = self.activation(x, kind)
        halves = [
            self.pointwise("convolution", x[:, ::2, ::2]),
            self.pointwise("convolution_2", x[:, 1::2, 1::2]),
        ]
        return self.batch_norm("bn", np.concatenate(halves, axis=-1))


class NumpyResidualUnits(NumpyUnits):
    """The same with a BN in front of each activation and a shortcut around each convolution."""

    def around(self, x, front, convolve, behind, kind="pointwise"):
        seen = self.shifted(self.batch_norm(front, x))
        y = self.batch_norm(behind, convolve(self.activation(seen, kind)))
        if y.shape[1] < x.shape[1]:
            x = (x[:, ::2] + x[:, 1::2])[:, :, ::2] / 4 + (x[:, ::2] + x[:, 1::2])[:, :, 1::2] / 4
        groups = x.shape[-1] // y.shape[-1]
        return self.rprelu(y + x.reshape(*x.shape[:3], groups, -1).mean(axis=3))

    def shifted(self, x):
        return x

    def rprelu(self, y):
        return y

    def separable(self, number, x, size, *, stride=1, dilation=1):
        mark = "" if number == 1 else f"_{number}"
        first = 4 * (number - 1) + 1
        names = ["bn" if place == 1 else f"bn_{place}" for place in range(first, first + 4)]
        window = {"size": size, "stride": stride, "dilation": dilation}

        def depthwise(x):
            return self.depthwise(f"depthwise{mark}", x, **window)

        def pointwise(x):
            return self.pointwise(f"convolution{mark}", x)

        x = self.around(x, names[0], depthwise, names[1], "depthwise")
        return self.around(x, names[2], pointwise, names[3])

    def factorized_reduction(self, x, kind="pointwise"):
        def halves(x):
            parts = {"convolution": x[:, ::2, ::2], "convolution_2": x[:, 1::2, 1::2]}
            return np.concatenate([self.pointwise(*part) for part in parts.items()], axis=-1)

        return self.around(x, "bn", halves, "bn_2", kind)


class NumpyLearnedUnits(NumpyResidualUnits):
    """The same with RSign and RPReLU, in the order of the units."""

    def __init__(self, model, precision):
        super().__init__(model, precision)
        self.marks = {name: iter(("", "_2", "_3", "_4")) for name in ("shift", "rprelu")}

    def learned(self, name):
        return self.weights(name + next(self.marks[name]))

    def shifted(self, x):
        (shift,) = self.learned("shift")
        return x + shift

    def rprelu(self, y):
        threshold, slope, offset = self.learned("rprelu")
        y = y - threshold
        return np.where(y > 0, y, slope * y) + offset


def average_without_padding(x, *, stride):
    counted = windows(np.ones_like(x), 3, stride=stride)
    return windows(x, 3, stride=stride).sum(axis=0) / counted.sum(axis=0)


def expected(operation, units, x, stride):
    """An operation as SPEC, sections 1 and 2, describes it."""
    if operation == "none":
        return np.zeros_like(x[:, ::stride, ::stride])
    if operation == "skip_connect":
        return x if stride == 1 else units.factorized_reduction(x)
    if operation == "max_pool_3x3":
        return units.batch_norm("bn", windows(x, 3, stride=stride, fill=-np.inf).max(axis=0))
    if operation == "avg_pool_3x3":
        return units.batch_norm("bn", average_without_padding(x, stride=stride))
    size = int(operation[-1])
    if operation.startswith("sep_conv"):
        return units.separable(2, units.separable(1, x, size, stride=stride), size)
    # The padded dilated convolution, at every second pixel if strided: all behind it is pointwise.
    return units.separable(1, x, size, dilation=2)[:, ::stride, ::stride]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_is_what_numpy_computes(operation, stride, precision):
    x = images()
    model = operation_model(operation, stride, precision)
    numpy_units = NumpyUnits(model, precision)
    result = expected(operation, numpy_units, x.astype("float64"), stride)
    assert result.shape == (3, 6 // stride, 8 // stride, 4)
    np.testing.assert_allclose(model(x), result, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_of_residual_units_is_what_numpy_computes(operation, stride, precision):
    x = images()
    model = operation_model(operation, stride, precision, unit="residual")
    numpy_units = NumpyResidualUnits(model, precision)
    result = expected(operation, numpy_units, x.astype("float64"), stride)
    np.testing.assert_allclose(model(x), result, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("operation", "stride"), [("skip_connect", 2), ("sep_conv_3x3", 2)])
def test_operation_of_units_with_learned_shifts_is_what_numpy_computes(
    operation, stride, precision
):
    x = images()
    model = operation_model(operation, stride, precision, unit="residual,rsign,rprelu,approx_sign")
    numpy_units = NumpyLearnedUnits(model, precision)
    result = expected(operation, numpy_units, x.astype("float64"), stride)
    np.testing.assert_allclose(model(x), result, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [3, 5])
def test_aligned_operations_of_stride_2_are_around_the_same_pixels(size):
    """Around 1, 3, ..., as TensorFlow's windows of padding "same" are in maps of even size."""
    x = images()
    model = operation_model(f"dil_conv_{size}x{size}", 2, "child", unit="aligned")
    result = NumpyUnits(model, "child").separable(1, x.astype("float64"), size, dilation=2)
    np.testing.assert_allclose(model(x), result[:, 1::2, 1::2], rtol=1e-4, atol=1e-4)
    centre = np.zeros([size, size, 4, 1])
    centre[size // 2, size // 2] = 1
    for kind in ("dil", "sep"):
        model = operation_model(f"{kind}_conv_{size}x{size}", 2, "parent", unit="aligned")
        model.get_layer("depthwise").set_weights([centre])
        found = output_of(model, "depthwise", x)
        np.testing.assert_array_equal(found, np.maximum(x, 0)[:, 1::2, 1::2])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("filters", [4, 2, 1, 3, 8])
def test_the_shortcut_around_fewer_filters_is_the_mean_of_groups(filters, precision):
    """Where the filters divide the channels; else there is none."""
    x = images()
    model = built(
        lambda units, x: units.pointwise(x, filters, kind="preprocessing"),
        precision,
        unit="residual",
    )
    units = NumpyResidualUnits(model, precision)
    wide = x.astype("float64")
    found = model(x)
    y = units.batch_norm(
        "bn_2", units.pointwise("convolution", units.activation(units.batch_norm("bn", wide)))
    )
    if 4 % filters == 0:
        y = units.around(wide, "bn", lambda x: units.pointwise("convolution", x), "bn_2")
    np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(("unit", "divided"), [("paper", False), ("residual", True)])
def test_a_node_is_the_sum_or_the_mean_of_its_edges(unit, divided, count):
    parts = [images() + number for number in range(count)]
    inputs = [tf.keras.Input(parts[0].shape[1:]) for _ in parts]
    node = LarqUnits("child", unit=unit).node(inputs, cell=0, target=2)
    total = np.sum(parts, axis=0) / (count if divided else 1)
    model = tf.keras.Model(inputs, node)
    np.testing.assert_allclose(model(parts), total, rtol=1e-5, atol=1e-5)


def test_parts_of_a_unit_can_be_chosen_and_unknown_ones_are_refused():
    assert LarqUnits("child", unit=Unit(shortcuts=True)).unit == Unit(shortcuts=True)
    for names in ("rsign,mean_nodes", "paper,mean_nodes,rsign"):
        assert LarqUnits("child", unit=names).unit == Unit(mean_nodes=True, rsign=True)
    residual = LarqUnits("child", unit="residual").unit
    assert LarqUnits("child", unit="residual,rprelu").unit == residual._replace(rprelu=True)
    with pytest.raises(ValueError, match="unit must be one or more of paper, .*: 'residual,best'"):
        LarqUnits("child", unit="residual,best")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("operation", ["skip_connect", "sep_conv_3x3", "dil_conv_5x5"])
def test_real_inputs_are_those_of_depthwise_kernels(operation, stride, precision):
    """The paper's *; the kernels stay 1-bit, and a parent has a ReLU on all its inputs."""
    x, real_inputs = images(), ("depthwise", "preprocessing")
    model = operation_model(operation, stride, precision, real_inputs=real_inputs)
    numpy_units = NumpyUnits(model, precision, real_inputs=real_inputs)
    result = expected(operation, numpy_units, x.astype("float64"), stride)
    np.testing.assert_allclose(model(x), result, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("real_inputs", [(), ("depthwise",), ["preprocessing"]])
def test_preprocessing_has_real_inputs_if_wanted(real_inputs, precision):
    x = images()
    for unit in ("pointwise", "factorized_reduction"):
        model = built(
            lambda units, x, unit=unit: getattr(units, unit)(x, 6, kind="preprocessing"),
            precision,
            real_inputs=real_inputs,
        )
        units = NumpyUnits(model, precision, real_inputs=real_inputs)
        if unit == "pointwise":
            activated = units.activation(x.astype("float64"), "preprocessing")
            result = units.batch_norm("bn", units.pointwise("convolution", activated))
        else:
            result = units.factorized_reduction(x.astype("float64"), "preprocessing")
        np.testing.assert_allclose(model(x), result, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "real_inputs", ["depthwise", ("stem",), ("depthwise", "pointwise"), None, (1,)]
)
def test_unknown_real_inputs_are_refused(real_inputs):
    with pytest.raises(
        ValueError, match="real_inputs must be a tuple of some of depthwise, preprocessing"
    ) as error:
        LarqUnits("child", real_inputs=real_inputs)
    assert str(error.value).endswith(f"received: {real_inputs!r}")


SEPARABLE = ("QuantDepthwiseConv2D", "BatchNormalization", "QuantConv2D", "BatchNormalization")
LAYERS = {
    ("skip_connect", 1): (),
    ("skip_connect", 2): (
        "TFOpLambda",  # further
        *("QuantConv2D", "QuantConv2D", "Concatenate", "BatchNormalization"),
    ),
    ("max_pool_3x3", 1): ("MaxPooling2D", "BatchNormalization"),
    ("avg_pool_3x3", 1): ("AveragePooling2D", "BatchNormalization"),
    ("sep_conv_3x3", 1): 2 * SEPARABLE,
    ("sep_conv_5x5", 1): 2 * SEPARABLE,
    ("dil_conv_3x3", 1): SEPARABLE,
    ("dil_conv_5x5", 1): SEPARABLE,
}
LAYERS |= {(operation, 2): LAYERS[operation, 1] for operation in OPERATIONS[2:]}


@pytest.mark.parametrize(("operation", "stride"), LAYERS)
def test_each_convolution_and_pooling_has_its_own_bn(operation, stride):
    for precision in PRECISIONS:
        layers = operation_model(operation, stride, precision).layers
        kinds = [type(layer).__name__ for layer in layers]
        assert [kind for kind in kinds if kind not in ("InputLayer", "SlicingOpLambda")] == [
            *LAYERS[operation, stride]
        ]


@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (2, 5, 3, 4, 3)])
def test_further_is_an_index_with_its_gradient(shape):
    x = tf.random.normal(shape)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        sliced, indexed = (tf.square(part) for part in (further(x), x[:, 1:, 1:]))
    np.testing.assert_array_equal(sliced, indexed)
    np.testing.assert_array_equal(tape.gradient(sliced, x), tape.gradient(indexed, x))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_skip_connect_adds_nothing(precision):
    x = tf.constant(images())
    assert OPERATION_FUNCTIONS["skip_connect"](LarqUnits(precision), x, 1) is x


@pytest.mark.parametrize("stride", STRIDES)
def test_none_gives_zeros_even_of_what_is_not_finite(stride):
    x = np.full((2, *SHAPE), np.inf, "float32")
    zeros = OPERATION_FUNCTIONS["none"](LarqUnits("child"), x, stride)
    np.testing.assert_array_equal(zeros, np.zeros((2, 6 // stride, 8 // stride, 4)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_factorized_reduction_sees_even_pixels_with_one_half_and_odd_ones_with_the_other(precision):
    model = operation_model("skip_connect", 2, precision)
    x = tf.constant(np.random.default_rng(0).uniform(0.1, 0.9, (1, *SHAPE)), tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        first, second = tf.split(model(x), 2, axis=-1)
    for half, offset in ((first, 0), (second, 1)):
        seen = np.zeros((6, 8), bool)
        seen[offset::2, offset::2] = True
        gradient = tape.gradient(half, x).numpy()
        np.testing.assert_array_equal(np.any(gradient[0] != 0, axis=-1), seen)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", [(8, 8, 4), (6, 10, 4), (7, 9, 4)])
@pytest.mark.parametrize("size", [3, 5])
def test_strided_dilated_convolution_is_the_dilated_one_subsampled(size, shape, precision):
    x = images(shape)
    model = operation_model(f"dil_conv_{size}x{size}", 2, precision, shape=shape)
    units = NumpyUnits(model, precision)
    dilated = tf.nn.depthwise_conv2d(
        units.activation(x).astype("float32"),
        units.kernel("depthwise", axes=(0, 1)).astype("float32"),
        strides=[1, 1, 1, 1],
        padding="SAME",
        dilations=[2, 2],
    )
    difference = np.abs(output_of(model, "depthwise", x) - dilated[:, ::2, ::2]).max()
    assert difference <= 1e-6 * np.abs(dilated).max()


@pytest.mark.parametrize("stride", STRIDES)
def test_average_pooling_does_not_count_the_padding(stride):
    model = operation_model("avg_pool_3x3", stride, "parent")
    ones = np.ones((1, *SHAPE), "float32")
    np.testing.assert_allclose(output_of(model, "avg_pool", ones), 1, rtol=1e-6)


@pytest.mark.parametrize("stride", STRIDES)
def test_max_pooling_does_not_see_the_padding(stride):
    model = operation_model("max_pool_3x3", stride, "child")
    negative = np.full((1, *SHAPE), -2, "float32")
    np.testing.assert_array_equal(output_of(model, "max_pool", negative), -2)


def test_stem_and_classifier_are_real_in_both_precisions():
    def apply(units, x):
        return units.classifier(units.stem(x, 5), 3)

    x = images()
    for precision in PRECISIONS:
        model = built(apply, precision)
        units = NumpyUnits(model, precision)
        (kernel,) = units.weights("convolution")
        taps = windows(x.astype("float64"), 3, stride=1)
        stem = np.einsum("tbhwc,tcf->bhwf", taps, kernel.reshape(9, 4, 5))
        dense, bias = units.weights("logits")
        logits = units.batch_norm("bn", stem).mean(axis=(1, 2)) @ dense + bias
        np.testing.assert_allclose(model(x), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("relu", [False, True])
def test_a_strided_stem_is_real_in_both_precisions(relu):
    x = images()
    for precision in PRECISIONS:
        model = built(lambda units, x: units.stem(x, 5, stride=2, relu=relu), precision)
        units = NumpyUnits(model, precision)
        (kernel,) = units.weights("convolution")
        seen = np.maximum(x, 0) if relu else x
        taps = windows(seen.astype("float64"), 3, stride=2)
        result = np.einsum("tbhwc,tcf->bhwf", taps, kernel.reshape(9, 4, 5))
        np.testing.assert_allclose(model(x), units.batch_norm("bn", result), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "window", "stride"), [(8, 5, 3), (7, 5, 2), (5, 4, 1), (2, 1, 1)])
def test_the_auxiliary_classifier_is_darts(size, window, stride):
    """In float64, for maps of CIFAR-10's (8x8), ImageNet's (7x7) and smaller sizes."""
    x = images((size, size, 4))
    model = built(lambda units, x: units.auxiliary_classifier(x, 3), "child", shape=x.shape[1:])
    units = NumpyUnits(model, "parent")
    starts = (0, stride)
    assert starts[1] + window == size
    pooled = np.stack(
        [
            [
                np.maximum(x, 0)[:, r : r + window, c : c + window].mean(axis=(1, 2), dtype=float)
                for c in starts
            ]
            for r in starts
        ]
    )
    y = units.batch_norm("bn", units.pointwise("convolution", pooled))
    (kernel,) = units.weights("convolution_2")
    assert kernel.shape == (2, 2, 128, 768)
    y = units.batch_norm("bn_2", np.einsum("rcbi,rcio->bo", np.maximum(y, 0), kernel))
    dense, bias = units.weights("logits")
    logits = np.maximum(y, 0) @ dense + bias
    np.testing.assert_allclose(model(x), logits, rtol=1e-4, atol=1e-3 * np.abs(logits).max())


def test_bn_moves_its_averages_by_a_tenth():
    model = operation_model("avg_pool_3x3", 2, "parent")
    x = images(batch=8)
    before = model.get_layer("bn").moving_mean.numpy()
    model(x, training=True)
    batch_mean = output_of(model, "avg_pool", x).mean(axis=(0, 1, 2))
    after = model.get_layer("bn").moving_mean.numpy()
    np.testing.assert_allclose(after, 0.9 * before + 0.1 * batch_mean, rtol=1e-5, atol=1e-6)


def test_depthwise_sign_scales_each_channel_by_its_mean_magnitude():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 1)).astype("float32")
    kernel *= np.array([0.1, 1, 3, 10], "float32").reshape(1, 1, 4, 1)
    kernel[0, 0] = 0
    quantized = DepthwiseMagnitudeAwareSign()(kernel).numpy()
    for channel in range(4):
        alpha = np.abs(kernel[:, :, channel]).mean()
        values = np.unique(quantized[:, :, channel])
        np.testing.assert_allclose(values, [-alpha, alpha], rtol=1e-6)
    np.testing.assert_array_equal(np.sign(quantized), sign(kernel))


@pytest.mark.parametrize("unit", ["paper", "approx_sign,unscaled_gradient"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_gradients_are_straight_through_where_the_magnitude_is_at_most_one(precision, unit):
    """By hand, of a pointwise unit without its BN: y = activation(x) kernel, loss = sum of r y."""
    model = built(lambda units, x: units.pointwise(x, 5), precision, unit=unit)
    layer = model.get_layer("convolution")
    x = images(batch=2) * 1.5
    r = np.random.default_rng(2).normal(size=(2, 6, 8, 5)).astype("float32")
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(r * layer(inputs))
    by_inputs, by_kernel = tape.gradient(loss, [inputs, layer.trainable_variables[0]])

    kernel = layer.get_weights()[0][0, 0]
    if precision == "child":
        alpha = np.abs(kernel).mean(axis=0)
        activated, seen = sign(x), alpha * sign(kernel)
        passes, kernel_gradient = np.abs(x) <= 1, alpha * (np.abs(kernel) <= 1)
        if unit != "paper":
            passes, kernel_gradient = 2 * np.maximum(1 - np.abs(x), 0), np.abs(kernel) <= 1
    else:
        activated, seen = np.maximum(x, 0), kernel
        passes, kernel_gradient = x > 0, 1
    assert 0 < (passes > 0).mean() < 1
    np.testing.assert_allclose(by_inputs, passes * (r @ seen.T), rtol=1e-4, atol=1e-5)
    outer = np.einsum("bhwi,bhwo->io", activated, r)
    np.testing.assert_allclose(by_kernel[0, 0], kernel_gradient * outer, rtol=1e-4, atol=1e-4)


def test_depthwise_gradient_is_straight_through_with_one_scale_a_channel():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 1)).astype("float32")
    dy = np.random.default_rng(1).normal(size=kernel.shape).astype("float32")
    quantizer, latent = DepthwiseMagnitudeAwareSign(), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch(latent)
        quantized = quantizer(latent)
    alpha = np.abs(kernel).mean(axis=(0, 1), keepdims=True)
    passes = np.abs(kernel) <= 1
    assert 0 < passes.mean() < 1
    gradient = tape.gradient(quantized, latent, output_gradients=tf.constant(dy))
    np.testing.assert_allclose(gradient, alpha * passes * dy, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("operation", ["skip_connect", "sep_conv_3x3", "dil_conv_5x5"])
def test_training_clips_the_latent_kernels_of_the_child_only(operation):
    largest = {}
    for precision in PRECISIONS:
        model = operation_model(operation, 2, precision)
        for layer in model.layers:
            layer.set_weights([0.5 * weight for weight in layer.get_weights()])
        model.compile(tf.keras.optimizers.SGD(1000.0), "mse", run_eagerly=True)
        model.train_on_batch(images(), images((3, 4, 4), seed=1))
        kernels = [w.numpy() for w in model.trainable_variables if "kernel" in w.name]
        largest[precision] = [np.abs(kernel).max() for kernel in kernels]
    assert largest["child"] == [1.0] * len(largest["child"])
    assert min(largest["parent"]) > 1


def test_names_tell_the_scope_and_count_the_kinds():
    units = LarqUnits("child")
    assert [units.name("bn"), units.name("bn"), units.name("convolution")] == [
        "bn",
        "bn_2",
        "convolution",
    ]
    units.scope = "cell0_1_3_sep_conv_3x3"
    assert units.name("bn") == "cell0_1_3_sep_conv_3x3_bn"
    assert units.name("bn") == "cell0_1_3_sep_conv_3x3_bn_2"


@pytest.mark.parametrize("precision", ["foo", "Child", "", None, 1])
def test_an_unknown_precision_is_refused(precision):
    with pytest.raises(ValueError, match="precision must be one of child, parent, received: ") as e:
        LarqUnits(precision)
    assert str(e.value).endswith(repr(precision))


def test_the_depthwise_sign_is_known_to_larq_and_survives_its_config():
    quantizer = DepthwiseMagnitudeAwareSign(clip_value=0.5)
    config = tf.keras.layers.serialize(quantizer)
    restored = lq.quantizers.get(config)
    assert isinstance(restored, DepthwiseMagnitudeAwareSign)
    assert restored.clip_value == 0.5
    assert restored.precision == 1
