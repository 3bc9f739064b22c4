"""Each formulation against the plain one that it stands for, in value and gradients."""

import larq as lq
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf.networks import formulations

SIZES = [(8, 8), (4, 12), (2, 2), (6, 10), (5, 8), (8, 5), (7, 9)]


def random(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


def value_and_gradients(function, *arguments):
    """A function's value, and its gradients for a random dy, by `tf.gradients` in a graph."""

    @tf.function(autograph=False)
    def compute(*arguments):
        y = function(*arguments)
        return [y, *tf.gradients(y, arguments, random(*y.shape, seed=1))]

    return [part.numpy() for part in compute(*arguments)]


def assert_equal(function, plain, *arguments):
    """Asserts that two functions are equal, in float64: rounding hides no difference."""
    wanted = value_and_gradients(plain, *arguments)
    for part, right in zip(value_and_gradients(function, *arguments), wanted, strict=True):
        np.testing.assert_allclose(part, right, rtol=1e-10, atol=1e-10)


def operations(function, *arguments):
    """The types of the operations in a function's graph."""
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph
    return {operation.type for operation in graph.get_operations()}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (1, 3)])
def test_depthwise(size, kernel, stride, dilation):
    def ours(x, kernel):
        return formulations.depthwise(x, kernel, stride=stride, dilation=dilation)

    def plain(x, kernel):
        strides = [1, stride, stride, 1]
        return tf.nn.depthwise_conv2d(x, kernel, strides, "SAME", dilations=[dilation] * 2)

    assert_equal(ours, plain, random(2, *size, 3), random(kernel, kernel, 3, 1))


def test_a_dilation_copies_no_pixels():
    def dilated(x):
        return formulations.depthwise(x, random(3, 3, 3, 1), dilation=2)

    assert not [name for name in operations(dilated, random(2, 8, 8, 3)) if "Batch" in name]
    assert "SpaceToBatchND" in operations(dilated, random(2, 8, 5, 3))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("first", [0, 1])
def test_every_other(size, first):
    def ours(x):
        return formulations.every_other(x, first=first)

    assert_equal(ours, lambda x: x[:, first::2, first::2], random(2, *size, 3))
    strided = "StridedSlice" in operations(ours, random(2, *size, 3))
    assert strided == any(length % 2 for length in size)


@pytest.mark.parametrize("size", SIZES)
def test_pointwise(size):
    def plain(x, kernel):
        return tf.nn.conv2d(x, kernel, 1, "SAME")

    arguments = random(2, *size, 3), random(1, 1, 3, 5)
    assert_equal(formulations.pointwise, plain, *arguments)
    assert "Conv2D" not in operations(formulations.pointwise, *arguments)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pool(size, stride):
    def ours(x):
        return formulations.max_pool(x, 3, stride=stride)

    assert_equal(ours, lambda x: tf.nn.max_pool2d(x, 3, stride, "SAME"), random(2, *size, 3))


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32])
@pytest.mark.parametrize("repeated", [1, 100_003])
def test_sign_is_larqs(dtype, repeated):
    limits = ml_dtypes.finfo(dtype.as_numpy_dtype)
    numbers = [limits.smallest_subnormal, limits.smallest_normal, limits.eps, 1, limits.max, np.inf]
    one_each = [0.0, *numbers, -0.0, *(-number for number in numbers)]
    values = tf.repeat(np.array(one_each, dtype.as_numpy_dtype), repeated)
    signs, larqs = (
        tf.cast(tf.function(sign, autograph=False)(values), tf.float32).numpy()
        for sign in (formulations.ste_sign, lq.math.sign)
    )
    np.testing.assert_array_equal(signs, larqs)
    assert {*signs} == {-1.0, 1.0}
    nan = tf.fill([repeated], tf.constant(np.nan, dtype))
    assert tf.reduce_all(tf.math.is_nan(tf.function(formulations.ste_sign)(nan)))
