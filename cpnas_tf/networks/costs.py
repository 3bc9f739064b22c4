"""What a network costs: parameters, bits, MACs and FLOPs, a layer and in total.

The accounting is the one that gives the paper's figures of WRN-22: a real parameter has 32 bits and
a binary one 1 bit; a multiply-accumulate (MAC) is binary where input and kernel are both 1-bit, and
64 binary MACs are one FLOP, as a real MAC is. Convolutions and dense layers count, with their
biases; batch normalization and the scales of 1-bit kernels do not.

Decision: a 1-bit kernel on real inputs, as in the paper's `*` and `**` networks, has 1 bit per
weight and real MACs, since no XNOR does 64 of them. That is how Table 3's bounds for BNAS (PCNN),
1-bit weights and at least 300 MFLOPs, can be.

A residual unit has more of what this rule leaves out: batch normalizations in front of the signs,
and real additions around the convolutions. `uncounted` counts it, and `profile` has the figures by
the paper's rule and "whole" ones with it, for the network and for WRN-22 alike.

References:
    CP-NAS, section 3.4 and Table 3; XNOR-Net (Rastegari et al., 2016) for the 64.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import larq as lq
import numpy as np
import tensorflow as tf

from cpnas_tf import files
from cpnas_tf.genotypes import CHOICES, EDGES, OPERATIONS, Genotype
from cpnas_tf.networks.binarizations import learned_scales
from cpnas_tf.networks.cells import layer_choices
from cpnas_tf.networks.layers import ChannelMeans, ChannelShift, RPReLU
from cpnas_tf.networks.quantizers import binarizes_input, readers
from cpnas_tf.networks.reference import wrn22

BINARY_MACS_A_FLOP = 64
REAL_BITS = 32
COST_UNITS = (1, BINARY_MACS_A_FLOP)  # of `ChoiceCosts`: to a bit, and to a FLOP
# Exact classes: MACs of a layer derived from them may be others, as `Conv2DTranspose`'s are.
KINDS = {
    tf.keras.layers.Conv2D: "convolution",
    lq.layers.QuantConv2D: "convolution",
    tf.keras.layers.DepthwiseConv2D: "depthwise",
    lq.layers.QuantDepthwiseConv2D: "depthwise",
    tf.keras.layers.Dense: "dense",
    lq.layers.QuantDense: "dense",
}


UNCOUNTED_WITH_WEIGHTS = (tf.keras.layers.BatchNormalization, ChannelShift, RPReLU)
COUNTS = ("real_parameters", "binary_parameters", "real_macs", "binary_macs", "bits", "flops")


def layer_costs(model: tf.keras.Model) -> list[dict[str, Any]]:
    """Counts each convolution and dense layer of a model.

    Args:
        model: a functional Keras model of Keras and Larq layers, for images of one size.

    Returns:
        A list with a dict per layer: `name`, `kind`, `output_shape` without the batch, and the
        `COUNTS` for one image.

    Raises:
        ValueError: if the size of the images is open, or if a layer has weights and is neither a
            convolution, dense nor of `UNCOUNTED_WITH_WEIGHTS`.
    """
    if None in model.input_shape[1:]:
        raise ValueError(f"MACs need images of a known size, received: {model.input_shape[1:]}")
    return [_count(layer) for layer in model.layers if _is_counted(layer)]


def _is_counted(layer):
    if type(layer) in KINDS:
        return True
    if layer.weights and not isinstance(layer, UNCOUNTED_WITH_WEIGHTS):
        raise ValueError(f"cannot count the {type(layer).__name__} layer {layer.name!r}")
    return False


def _count(layer):
    # Larq is right for the layers of KINDS. For those it does not know, it says 0 MACs.
    profile = lq.models.LayerProfile(layer)
    binary_parameters, binary_macs = profile.weight_count(1), profile.op_count("mac", 1)
    # Larq takes what a quantizer learns for another real kernel; it is a scale.
    scales = sum(math.prod(scale.shape) for scale in learned_scales(layer))
    real_parameters = profile.weight_count() - binary_parameters - scales
    real_macs = profile.op_count("mac") - binary_macs - scales * profile.output_pixels
    return {
        "name": layer.name,
        "kind": KINDS[type(layer)],
        "output_shape": list(layer.output_shape[1:]),
        "real_parameters": real_parameters,
        "binary_parameters": binary_parameters,
        "real_macs": real_macs,
        "binary_macs": binary_macs,
        "bits": REAL_BITS * real_parameters + binary_parameters,
        "flops": real_macs + binary_macs / BINARY_MACS_A_FLOP,
    }


def uncounted(model: tf.keras.Model) -> tuple[int, int]:
    """Counts what the paper's rule leaves out, as far as it is arithmetic on real numbers.

    A batch normalization has two numbers per channel and a multiply-add per pixel, but where signs
    alone see it: there it is a threshold, one number per channel, to compare with. An addition or a
    multiply-add is one operation. Comparisons are none: those of signs, ReLU and max pooling.

    Args:
        model: as for `layer_costs`.

    Returns:
        How many numbers there are, and how many operations for one image.
    """
    counts = [_uncounted(layer) for layer in model.layers]
    numbers, operations = (sum(column) for column in zip(*counts, strict=True))
    return numbers, operations


def _uncounted(layer):
    layers, channels = tf.keras.layers, layer.output_shape[-1]
    if isinstance(layer, layers.InputLayer):
        return 0, 0
    size = math.prod(layer.output_shape[1:])
    is_threshold = layer.outbound_nodes and all(map(binarizes_input, readers(layer)))
    match layer:
        case layers.BatchNormalization() | ChannelShift() if is_threshold:
            return channels, 0
        case layers.BatchNormalization():
            return 2 * channels, size
        case ChannelShift():
            return channels, size
        case RPReLU():
            return 3 * channels, 3 * size
        case layers.Add():
            return 0, (len(layer.input_shape) - 1) * size
        case layers.Average():
            return 0, len(layer.input_shape) * size
        case layers.AveragePooling2D():
            return 0, math.prod(layer.pool_size) * size
        case ChannelMeans() | layers.GlobalAveragePooling2D():
            return 0, math.prod(layer.input_shape[1:])
    return 0, 0


def total(layers: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The sums of the `COUNTS` over layers, as `layer_costs` gives them."""
    return {name: sum(layer[name] for layer in layers) for name in COUNTS}


def profile(model: tf.keras.Model) -> dict[str, Any]:
    """Counts a model and compares it with WRN-22 in full precision on CIFAR-10.

    Args:
        model: as for `layer_costs`.

    Returns:
        A dict: `parameters`, of which `binary_parameters`; `memory_mbit`, in 10^6 bits;
        `real_macs_m`, `binary_macs_m` and `flops_m`, in millions an image; `memory_saving` and
        `speedup`, how many times WRN-22 needs the bits and the FLOPs; `whole_memory_mbit`,
        `whole_flops_m`, `whole_memory_saving` and `whole_speedup`, the same with what is
        `uncounted`, of both networks; `layers`, as `layer_costs` gives them.

    Raises:
        ValueError: as `layer_costs`.
    """
    layers, others = layer_costs(model), wrn22()
    costs, reference = total(layers), total(layer_costs(others))
    whole, whole_reference = _whole(costs, model), _whole(reference, others)
    return {
        "parameters": costs["real_parameters"] + costs["binary_parameters"],
        "binary_parameters": costs["binary_parameters"],
        "memory_mbit": costs["bits"] / 1e6,
        "real_macs_m": costs["real_macs"] / 1e6,
        "binary_macs_m": costs["binary_macs"] / 1e6,
        "flops_m": costs["flops"] / 1e6,
        "memory_saving": reference["bits"] / costs["bits"],
        "speedup": reference["flops"] / costs["flops"],
        "whole_memory_mbit": whole["bits"] / 1e6,
        "whole_flops_m": whole["flops"] / 1e6,
        "whole_memory_saving": whole_reference["bits"] / whole["bits"],
        "whole_speedup": whole_reference["flops"] / whole["flops"],
        "layers": layers,
    }


def _whole(costs, model):
    numbers, operations = uncounted(model)
    return {
        "bits": costs["bits"] + REAL_BITS * numbers,
        "flops": costs["flops"] + operations,
    }


class ChoiceCosts(NamedTuple):
    """What each operation costs on each edge, in all cells of a network together.

    A network costs the trunk and its 28 choices, as long as every cell uses both of its inputs:
    the preprocessing of an input whose edges are all `none` is left out of a network. The costs are
    two whole numbers, bits and parts of FLOPs, see `COST_UNITS`.

    Attributes:
        trunk: integers `[2]`, what is no edge's: stem, preprocessing, classifier.
        choices: integers `[28, operations, 2]`; edges as in `CHOICES`, operations as in
            `OPERATIONS`. What was not asked for costs 0, as `none` does.
    """

    trunk: np.ndarray
    choices: np.ndarray


def choice_costs(
    build: Callable[[Genotype], tf.keras.Model], operations: Sequence[str]
) -> ChoiceCosts:
    """Counts what operations cost on every edge.

    Args:
        build: function of a genotype that gives its network, as `cells.build_network`.
        operations: those to count.

    Returns:
        `ChoiceCosts`.

    Raises:
        ValueError: as `layer_costs`.
    """
    choices = np.zeros([len(CHOICES), len(OPERATIONS), 2], np.int64)
    trunk = np.zeros(2, np.int64)
    for name in operations:
        if name == "none":
            continue
        everywhere = (name,) * len(EDGES)
        model = build(Genotype(everywhere, everywhere))
        edges = layer_choices(model)
        trunk[:] = 0
        for layer in layer_costs(model):
            edge = edges.get(layer["name"])
            where = trunk if edge is None else choices[edge, OPERATIONS.index(name)]
            where += [layer["bits"], round(layer["flops"] * BINARY_MACS_A_FLOP)]
    return ChoiceCosts(trunk, choices)


def write_csv(path: str | os.PathLike[str], layers: Sequence[Mapping[str, Any]]) -> None:
    """Writes layers, as `layer_costs` gives them, a row each; atomically.

    Raises:
        OSError: if the file cannot be written.
    """
    files.write_csv(path, [{**layer, "output_shape": shape_text(layer)} for layer in layers])


def shape_text(layer: Mapping[str, Any]) -> str:
    """A layer's output shape as text, such as `32x32x64`."""
    return "x".join(map(str, layer["output_shape"]))
