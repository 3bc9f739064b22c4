"""The operations of the search space, each written once. Imports no TensorFlow.

An operation is a function `(units, x, stride)`. It takes maps `[batch, height, width, channels]`
and returns maps of as many channels, of 1/stride of the height and width. `units` are the parts it
is made of (`networks.units`): Keras layers in a derived network, plain operations over shared
weights in the supernets. So both run the same operations, kernel for kernel.

A new operation is a row of `OPERATION_FUNCTIONS`: the searches, networks, costs, exports, drawings
and reports follow from it. Rows are ordered: results are tables in this order, and of tied
operations CP-NAS drops the first. A row at the end leaves earlier results readable.

References:
    CP-NAS, section 2.2; DARTS (Liu et al., 2019) for the operations and their names.
"""

from collections.abc import Callable
from typing import Any

Operation = Callable[[Any, Any, int], Any]


def none(units: Any, x: Any, stride: int) -> Any:
    """Zeros: no connection. A network leaves the edge out."""
    return units.zeros_like(x[:, ::stride, ::stride])


def skip_connect(units: Any, x: Any, stride: int) -> Any:
    """The identity, or a factorized reduction where it has a stride."""
    return x if stride == 1 else units.factorized_reduction(x, x.shape[-1])


def pool(kind: str) -> Operation:
    """3x3 pooling, "max" or "avg", and BN."""
    return lambda units, x, stride: units.pool(x, kind, stride=stride)


def sep_conv(size: int) -> Operation:
    """Two separable convolutions, the first with the stride; depthwise kernels of size x size."""

    def apply(units, x, stride):
        for unit_stride in (stride, 1):
            x = units.depthwise(x, size, stride=unit_stride)
            x = units.pointwise(x, x.shape[-1])
        return x

    return apply


def dil_conv(size: int) -> Operation:
    """A separable convolution whose depthwise kernel, of size x size, has a dilation of 2."""

    def apply(units, x, stride):
        if stride == 1:
            x = units.depthwise(x, size, dilation=2)
        else:  # equals stride 2 with dilation 2, which Keras refuses, and is four times cheaper
            x = units.depthwise(units.every_other(x), size)
        return units.pointwise(x, x.shape[-1])

    return apply


OPERATION_FUNCTIONS: dict[str, Operation] = {
    "none": none,
    "skip_connect": skip_connect,
    "max_pool_3x3": pool("max"),
    "avg_pool_3x3": pool("avg"),
    "sep_conv_3x3": sep_conv(3),
    "sep_conv_5x5": sep_conv(5),
    "dil_conv_3x3": dil_conv(3),
    "dil_conv_5x5": dil_conv(5),
}
