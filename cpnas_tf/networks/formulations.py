"""Convolutions, slices, pooling and a sign in the forms that TensorFlow computes fastest on a CPU.

Each function equals a plain one, which its docstring names, in value and gradient up to rounding.
Where its form does not fit it calls the plain one.

A graph that dispatches on an operation is differentiated from its stored form, where a
`tf.custom_gradient` closure is lost (see `search.supernet`). So the gradients here are *registered*
ones: call the functions inside a `tf.function`, and differentiate with `tf.gradients`.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf


@contextlib.contextmanager
def without_grappler() -> Iterator[None]:
    """Keeps Grappler from rewriting functions that are traced or called meanwhile."""
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options(before)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A `tf.function` that runs as it is traced on a CPU.

    Grappler takes longer than the trace, and these formulations leave it nothing to gain. For a GPU
    it chooses the maps' layout.
    """
    traced = tf.function(function, autograph=False)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        on_gpu = tf.config.list_logical_devices("GPU")
        with contextlib.nullcontext() if on_gpu else without_grappler():
            return traced(*args)

    return call


def _with_gradient(op_type: str, gradient: str) -> AbstractContextManager[None]:
    return tf.compat.v1.get_default_graph().gradient_override_map({op_type: gradient})


def ste_sign(x: tf.Tensor) -> tf.Tensor:
    """Larq's `ste_sign`: -1 where x < 0, else +1; the gradient passes where |x| <= 1."""
    return _sign(x, "CpnasSteSign")


def approx_sign(x: tf.Tensor) -> tf.Tensor:
    """Larq's `approx_sign`: the same with the gradient 2 (1 - |x|) where |x| <= 1."""
    return _sign(x, "CpnasApproxSign")


def _sign(x, gradient):
    with _with_gradient("Sign", gradient):
        signs = tf.sign(x)
    with _with_gradient("Sign", "CpnasIdentity"):
        return tf.sign(signs + 0.5)  # sign(0) = +1


@tf.RegisterGradient("CpnasSteSign")
def _ste_sign_gradient(op, dy):
    # Rounding to -1, 0 and 1 has this gradient exactly, in one pass over memory, in float32 alone.
    gradient = tf.raw_ops.FakeQuantWithMinMaxArgsGradient(
        gradients=tf.cast(dy, tf.float32),
        inputs=tf.cast(op.inputs[0], tf.float32),
        min=-1,
        max=1,
        num_bits=2,
        narrow_range=True,
    )
    return tf.cast(gradient, dy.dtype)


@tf.RegisterGradient("CpnasApproxSign")
def _approx_sign_gradient(op, dy):
    return dy * 2 * tf.nn.relu(1 - tf.abs(op.inputs[0]))


@tf.RegisterGradient("CpnasIdentity")
def _identity_gradient(op, dy):
    del op
    return dy


def max_pool(x: tf.Tensor, size: int, *, stride: int) -> tf.Tensor:
    """`tf.nn.max_pool2d` with "SAME" padding.

    Its gradient repeats the forward pass beside the backward one: oneDNN's fast kernel needs both
    in one graph, and is six times faster on a CPU.
    """
    with _with_gradient("MaxPool", "CpnasMaxPool"):
        return tf.nn.max_pool2d(x, size, stride, "SAME")


@tf.RegisterGradient("CpnasMaxPool")
def _max_pool_gradient(op, dy):
    window = {name: op.get_attr(name) for name in ("ksize", "strides", "padding")}
    x = op.inputs[0]
    y = tf.raw_ops.MaxPool(input=x, **window)
    return tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=y, grad=dy, **window)


def every_other(x: tf.Tensor, *, first: int = 0) -> tf.Tensor:
    """`x[:, first::2, first::2]`, of maps whose height and width are static.

    With pairs of rows side by side and pairs of columns in one pixel's channels, what is kept is
    one block: no copy with strides. Maps of odd size are indexed as usual.
    """
    height, width, channels = x.shape[1:]
    if height % 2 or width % 2:
        return x[:, first::2, first::2]
    pairs = tf.reshape(x, [-1, width, 2 * channels])  # the even row's pairs, then the odd row's
    block = tf.slice(pairs, [0, first * width // 2, first * channels], [-1, width // 2, channels])
    return tf.reshape(block, [-1, height // 2, width // 2, channels])


def pointwise(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`tf.nn.conv2d` of a kernel `[1, 1, in, out]`: the product of all pixels with the kernel."""
    channels, filters = kernel.shape[2:]
    y = tf.matmul(tf.reshape(x, [-1, channels]), tf.reshape(kernel, [channels, filters]))
    return tf.reshape(y, [-1, *x.shape[1:3], filters])


def depthwise(x: tf.Tensor, kernel: tf.Tensor, *, stride: int = 1, dilation: int = 1) -> tf.Tensor:
    """`tf.nn.depthwise_conv2d` with "SAME" padding.

    A dilation of 2 joins only rows, and only columns, of one parity. So it is none where even and
    odd columns have channels of their own, a view of the maps, and even and odd rows images of
    their own, a copy of whole rows. TensorFlow copies pixels instead. Left to it are maps of odd
    size, and those that are smaller than the dilated kernel.

    Args:
        x: `[batch, height, width, channels]`, all but the batch static.
        kernel: `[size, size, channels, 1]`.
        stride, dilation: of rows and of columns; one of them is 1.

    Returns:
        `[batch, height / stride, width / stride, channels]`.
    """
    _, height, width, channels = x.shape
    even = height % 2 == width % 2 == 0
    if dilation != 2 or not even or 2 * kernel.shape[1] > width:
        return _depthwise(x, kernel, stride=stride, dilation=dilation)
    rows = _swap(tf.reshape(x, [-1, height // 2, 2, width * channels]))
    maps = tf.reshape(rows, [-1, height // 2, width // 2, 2 * channels])
    y = _depthwise(maps, tf.concat([kernel, kernel], axis=2))
    y = _swap(tf.reshape(y, [-1, 2, height // 2, width * channels]))
    return tf.reshape(y, [-1, height, width, channels])


def _swap(rows):
    return tf.transpose(rows, [0, 2, 1, 3])


def _depthwise(x, kernel, *, stride=1, dilation=1):
    with _with_gradient("DepthwiseConv2dNative", "CpnasDepthwise"):
        return tf.nn.depthwise_conv2d(
            x, kernel, [1, stride, stride, 1], "SAME", dilations=[dilation] * 2
        )


@tf.RegisterGradient("CpnasDepthwise")
def _depthwise_gradient(op, dy):
    x, kernel = op.inputs
    settings = {name: op.get_attr(name) for name in ("strides", "padding", "dilations")}
    dx = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, **settings
    )
    height, width = kernel.shape[:2]
    plain = x.shape[1:] == dy.shape[1:]  # no stride, and "SAME" padding
    if width == 5 and plain and x.shape[2] % 2 == 0:
        return dx, _wide_filter_gradient(x, dy, height)
    return dx, _filter_gradient(x, dy, [height, width], **settings)


def _filter_gradient(x, dy, size, **settings):
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=x, filter_sizes=[*size, x.shape[-1], 1], out_backprop=dy, **settings
    )


def _wide_filter_gradient(x, dy, height):
    """The gradient of a filter 5 wide, of two 3 wide, which oneDNN has a fast kernel for.

    The three inner columns are those of a filter 3 wide. The outer ones reach two columns to a
    side, which is one pair of columns: of pairs of columns, with the two columns' channels in one
    pixel, they are the outer columns of a filter 3 wide.
    """
    settings = {"strides": [1] * 4, "padding": "SAME"}
    inner = _filter_gradient(x, dy, [height, 3], **settings)
    channels = x.shape[-1]
    outer = _filter_gradient(_column_pairs(x), _column_pairs(dy), [height, 3], **settings)
    left, _, right = tf.split(
        tf.reduce_sum(tf.reshape(outer, [height, 3, 2, channels, 1]), axis=2), 3, axis=1
    )
    return tf.concat([left, inner, right], axis=1)


def _column_pairs(x):
    _, height, width, channels = x.shape
    return tf.reshape(x, [-1, height, width // 2, 2 * channels])
