"""Costs in plain arithmetic, in which a weight is used once for every pixel that it helps give."""

import csv
import random

import larq as lq
import pytest
import rotated
import tensorflow as tf

from cpnas_tf.genotypes import CHOICES, EDGES, OPERATIONS, PUBLISHED, Genotype
from cpnas_tf.networks import costs
from cpnas_tf.networks.cells import build_network
from cpnas_tf.networks.quantizers import Relu
from cpnas_tf.networks.reference import wrn22, wrn22_1bit
from cpnas_tf.networks.units import LarqUnits
from cpnas_tf.reports.paper_tables import TABLE_3

layers = tf.keras.layers
WIDTHS = (56, 72, 112)


def model_of(layer, input_shape=(9, 9, 6)):
    images = tf.keras.Input(input_shape)
    return tf.keras.Model(images, layer(images))


def only_row(layer, input_shape=(9, 9, 6)):
    (row,) = costs.layer_costs(model_of(layer, input_shape))
    return row


def totals(model):
    """Binary and real parameters, and binary and real MACs."""
    total = costs.total(costs.layer_costs(model))
    return tuple(
        total[f"{precision}_{count}"]
        for count in ("parameters", "macs")
        for precision in ("binary", "real")
    )


def random_genotype(seed):
    return Genotype.from_choices(random.Random(seed).choices(OPERATIONS, k=28))


class TestLayers:
    @pytest.mark.parametrize(
        ("layer", "kind", "shape", "parameters", "macs"),
        [
            (layers.Conv2D(4, 3), "convolution", [7, 7, 4], 9 * 6 * 4 + 4, 9 * 6 * 4 * 49),
            (
                layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
                *("convolution", [5, 5, 4], 9 * 6 * 4, 9 * 6 * 4 * 25),
            ),
            (
                layers.Conv2D(4, (3, 2), dilation_rate=2, use_bias=False),
                *("convolution", [5, 7, 4], 6 * 6 * 4, 6 * 6 * 4 * 35),
            ),
            (
                layers.Conv2D(4, 1, groups=2, use_bias=False),
                *("convolution", [9, 9, 4], 3 * 4, 3 * 4 * 81),
            ),
            (
                layers.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False),
                *("depthwise", [5, 5, 6], 9 * 6, 9 * 6 * 25),
            ),
            (
                layers.DepthwiseConv2D(5, dilation_rate=2, padding="same"),
                *("depthwise", [9, 9, 6], 25 * 6 + 6, 25 * 6 * 81),
            ),
        ],
    )
    def test_real_ones(self, layer, kind, shape, parameters, macs):
        assert only_row(layer) == {
            "name": layer.name,
            "kind": kind,
            "output_shape": shape,
            "real_parameters": parameters,
            "binary_parameters": 0,
            "real_macs": macs,
            "binary_macs": 0,
            "bits": 32 * parameters,
            "flops": macs,
        }

    def test_a_dense_one(self):
        row = only_row(layers.Dense(7), (12,))
        assert (row["kind"], row["output_shape"]) == ("dense", [7])
        assert (row["real_parameters"], row["real_macs"]) == (12 * 7 + 7, 12 * 7)

    @pytest.mark.parametrize(
        ("input_quantizer", "kernel_quantizer", "binary_parameters", "binary_macs"),
        [
            ("ste_sign", "magnitude_aware_sign", True, True),
            ("approx_sign", "ste_sign", True, True),
            (None, "ste_sign", True, False),  # the paper's * and **
            (Relu(), "ste_sign", True, False),
            ("ste_sign", None, False, False),
            (Relu(), None, False, False),  # the parent's
            (None, None, False, False),
        ],
    )
    def test_a_mac_is_binary_where_both_its_factors_are(
        self, input_quantizer, kernel_quantizer, binary_parameters, binary_macs
    ):
        quantizers = {"input_quantizer": input_quantizer, "kernel_quantizer": kernel_quantizer}
        row = only_row(lq.layers.QuantConv2D(4, 1, **quantizers))
        weights, biases, macs = 6 * 4, 4, 6 * 4 * 81
        if binary_parameters:
            assert (row["binary_parameters"], row["real_parameters"]) == (weights, biases)
            assert row["bits"] == weights + 32 * biases
        else:
            assert (row["binary_parameters"], row["real_parameters"]) == (0, weights + biases)
            assert row["bits"] == 32 * (weights + biases)
        assert (row["binary_macs"], row["real_macs"]) == ((macs, 0) if binary_macs else (0, macs))
        assert row["flops"] == (macs / 64 if binary_macs else macs)

    def test_1_bit_depthwise_and_dense_ones(self):
        signs = {"input_quantizer": "ste_sign", "use_bias": False}
        depthwise = lq.layers.QuantDepthwiseConv2D(3, depthwise_quantizer="ste_sign", **signs)
        row = only_row(depthwise)
        assert (row["kind"], row["bits"], row["binary_macs"]) == ("depthwise", 9 * 6, 9 * 6 * 49)
        row = only_row(lq.layers.QuantDense(7, kernel_quantizer="ste_sign", **signs), (12,))
        assert (row["kind"], row["bits"], row["binary_macs"]) == ("dense", 12 * 7, 12 * 7)

    def test_a_factorized_reduction_costs_a_pointwise_convolution_of_a_quarter_of_the_pixels(self):
        model = model_of(lambda x: LarqUnits("child").factorized_reduction(x, 10), (8, 8, 6))
        assert totals(model) == (6 * 10, 0, 6 * 10 * 16, 0)
        assert [row["output_shape"] for row in costs.layer_costs(model)] == 2 * [[4, 4, 5]]

    def test_batch_norm_pooling_and_the_like_are_left_out(self):
        def network(x):
            x = layers.Conv2D(6, 3, padding="same", name="convolution")(x)
            y = layers.ReLU()(layers.BatchNormalization()(x))
            x = layers.MaxPooling2D()(layers.add([x, y]))
            return layers.Dense(2, name="logits")(layers.Flatten()(tf.zeros_like(x)))

        names = [row["name"] for row in costs.layer_costs(model_of(network))]
        assert names == ["convolution", "logits"]

    @pytest.mark.parametrize(
        "layer",
        [
            layers.PReLU(name="odd"),
            layers.Conv2DTranspose(4, 3, name="odd"),
            layers.SeparableConv2D(4, 3, name="odd"),
            tf.keras.Sequential([layers.Conv2D(4, 3)], name="odd"),
        ],
    )
    def test_what_cannot_be_counted_is_refused(self, layer):
        with pytest.raises(ValueError, match=f"cannot count the {type(layer).__name__} .*'odd'"):
            costs.layer_costs(model_of(layer))

    def test_images_of_any_size_are_refused(self):
        with pytest.raises(ValueError, match=r"known size, received: \(None, None, 6\)"):
            costs.layer_costs(model_of(layers.Conv2D(4, 3), (None, None, 6)))


def weights_per_pixel(operation, channels, stride):
    """How many weights of depthwise and of other kernels an operation has."""
    if operation == "skip_connect":
        return 0, channels * channels if stride == 2 else 0
    if not operation.startswith(("sep_conv", "dil_conv")):
        return 0, 0
    units = 2 if operation.startswith("sep_conv") else 1
    return units * int(operation[-1]) ** 2 * channels, units * channels * channels


def count(genotype, *, cells, channels, side, depth, classes, stem="cifar", real_inputs=()):
    """Binary and real parameters, and binary and real MACs, of a child of square images."""
    if stem == "cifar":
        stages, widths = [(depth, 3 * channels, side)], (3 * channels, 3 * channels)
    else:
        half = channels // 2
        stages = [(depth, half, side // 2), (half, channels, side // 4)]
        stages.append((channels, channels, side // 8))
        widths, side = (channels, channels), side // 8
    real = sum(9 * inputs * outputs for inputs, outputs, _ in stages)
    real_macs = sum(9 * inputs * outputs * size**2 for inputs, outputs, size in stages)
    binary = binary_macs = 0
    for cell in range(cells):
        reduction = cell in (cells // 3, 2 * cells // 3)
        channels *= 1 + reduction
        preprocessing = sum(widths) * channels
        binary += preprocessing
        if "preprocessing" in real_inputs:
            real_macs += preprocessing * side**2
        else:
            binary_macs += preprocessing * side**2
        side //= 1 + reduction
        operations = genotype.reduce if reduction else genotype.normal
        for (source, _), operation in zip(EDGES, operations, strict=True):
            stride = 2 if reduction and source < 2 else 1
            depthwise, others = weights_per_pixel(operation, channels, stride)
            binary += depthwise + others
            binary_macs += others * side**2
            if "depthwise" in real_inputs:
                real_macs += depthwise * side**2
            else:
                binary_macs += depthwise * side**2
        widths = widths[1], 4 * channels
    dense = 4 * channels * classes
    return binary, real + dense + classes, binary_macs, real_macs + dense


class TestChoiceCosts:
    """What the choices of an architecture and the trunk cost adds up to what its network costs."""

    SETTINGS = {"input_shape": (8, 8, 1), "classes": 3, "cells": 4, "channels": 4}
    OTHERS = {"input_shape": (32, 32, 3), "stem": "imagenet", "real_inputs": ("depthwise",)}

    def check(self, genotypes, **settings):
        def build(genotype):
            return build_network(genotype, **settings)

        found = costs.choice_costs(build, OPERATIONS)
        edges = range(len(CHOICES))
        for genotype in genotypes:
            total = costs.total(costs.layer_costs(build(genotype)))
            bits, parts = found.trunk + found.choices[edges, genotype.indices].sum(axis=0)
            assert (bits, parts / costs.COST_UNITS[1]) == (total["bits"], total["flops"])
        return found

    def test_of_any_genotype_without_none(self):
        genotypes = [
            Genotype.from_choices(random.Random(seed).choices(OPERATIONS[1:], k=28))
            for seed in range(3)
        ]
        found = self.check(genotypes, **self.SETTINGS)
        skip, convolution = map(OPERATIONS.index, ("skip_connect", "sep_conv_3x3"))
        first, last = CHOICES.index("reduce_0_2"), CHOICES.index("reduce_4_5")
        # Reductions are cells 1 and 2, with 8 and 16 channels on 4x4 and 2x2 pixels.
        assert found.choices[first, skip].tolist() == [8**2 + 16**2, 8**2 * 16 + 16**2 * 4]
        assert not found.choices[last, skip].any()
        unit = [2 * (9 * width + width**2) for width in (8, 16)]
        assert found.choices[last, convolution].tolist() == [sum(unit), unit[0] * 16 + unit[1] * 4]
        assert not found.choices[:, OPERATIONS.index("none")].any()

    def test_of_two_inputs_per_node(self):
        self.check([PUBLISHED["darts"]], **self.SETTINGS)

    def test_for_imagenet_with_real_inputs(self):
        genotype = Genotype.from_choices(random.Random(5).choices(OPERATIONS[1:], k=28))
        self.check([genotype], **self.SETTINGS | self.OTHERS)


class TestNetworks:
    @pytest.mark.parametrize(
        ("genotype", "cells", "channels"),
        [
            *((random_genotype(seed), 10, channels) for seed, channels in enumerate(WIDTHS)),
            *((rotated.genotype(number), 3, WIDTHS[number % 3]) for number in range(4)),
        ],
        ids=[f"random {seed}" for seed in range(3)] + [f"rotated {number}" for number in range(4)],
    )
    def test_children(self, genotype, cells, channels):
        """The real parameters of a Small, 13,506, explain the 3.32 Mbit of the paper's Table 3."""
        settings = {"cells": cells, "channels": channels, "classes": 10}
        counted = totals(build_network(genotype, input_shape=(32, 32, 3), **settings))
        assert counted[1] == 27 * 3 * channels + (16 * channels + 1) * 10
        assert counted == count(genotype, side=32, depth=3, **settings)

    def test_the_rotated_ones_have_each_operation_with_each_stride_at_each_width(self):
        found = set()
        for number in range(4):
            found |= rotated.places(rotated.genotype(number), (False, True, True))
        strides_and_widths = {(1, 1), (1, 2), (1, 4), (2, 2), (2, 4)}
        assert found == {(name, *place) for name in OPERATIONS for place in strides_and_widths}

    def test_a_parent_costs_the_same_in_real(self):
        settings = {"cells": 3, "channels": 4, "classes": 3}
        operations = OPERATIONS + OPERATIONS[2:]
        genotype = Genotype(operations, operations[::-1])
        parent = build_network(genotype, precision="parent", input_shape=(8, 8, 1), **settings)
        binary, real, binary_macs, real_macs = count(genotype, side=8, depth=1, **settings)
        assert totals(parent) == (0, binary + real, 0, binary_macs + real_macs)

    @pytest.mark.parametrize(
        "real_inputs", [(), ("depthwise",), ("depthwise", "preprocessing")], ids=len
    )
    def test_children_for_imagenet(self, real_inputs):
        """Their 1-bit weights are as many; what they multiply with real inputs is not binary."""
        genotype = random_genotype(0)
        settings = {"cells": 3, "channels": 10, "classes": 7, "stem": "imagenet"}
        settings["real_inputs"] = real_inputs
        model = build_network(genotype, input_shape=(224, 224, 3), **settings)
        counted = count(genotype, side=224, depth=3, **settings)
        assert totals(model) == counted
        plain = count(genotype, side=224, depth=3, **{**settings, "real_inputs": ()})
        assert counted[:2] == plain[:2]
        assert sum(counted[2:]) == sum(plain[2:])
        assert (counted == plain) == (real_inputs == ())

    def test_drop_path_costs_nothing(self):
        settings = {"input_shape": (8, 8, 1), "classes": 3, "cells": 2, "channels": 4}
        with_and_without = (
            totals(build_network(random_genotype(0), drop_path=rate, **settings))
            for rate in (0.0, 0.2)
        )
        assert len(set(with_and_without)) == 1

    def test_a_tiny_child_in_plain_arithmetic(self):
        """One reduction cell, C = 2 doubled to 4, images of 8x8: each kind of convolution, a skip.

        The stem gives 6 channels of 8x8; both preprocessings bring them to 4.
        """
        edges = dict.fromkeys(EDGES, "none")
        edges |= {(0, 2): "sep_conv_5x5", (1, 3): "skip_connect", (2, 4): "dil_conv_3x3"}
        genotype = Genotype(("none",) * 14, tuple(edges.values()))
        model = build_network(genotype, input_shape=(8, 8, 1), classes=3, cells=1, channels=2)
        stem, preprocess = 3 * 3 * 1 * 6, 1 * 1 * 6 * 4
        sep_conv, skip, dil_conv = 2 * (25 * 4 + 4 * 4), 2 * (4 * 2), 9 * 4 + 4 * 4
        assert totals(model) == (
            2 * preprocess + sep_conv + skip + dil_conv,
            stem + (16 * 3 + 3),
            2 * preprocess * 64 + (sep_conv + skip + dil_conv) * 16,
            stem * 64 + 16 * 3,
        )


def units_of(*calls, unit, precision="child"):
    """A model of units of 8x8x6 maps, each a name of a method and its arguments."""

    def apply(x):
        units = LarqUnits(precision, unit=unit)
        for name, *arguments, settings in calls:
            x = getattr(units, name)(x, *arguments, **settings)
        return x

    return model_of(apply, (8, 8, 6))


class TestUncounted:
    """What the paper's rule leaves out."""

    POINTWISE, FEWER = ("pointwise", 6, {}), ("pointwise", 3, {})
    HALVED, REDUCED = ("depthwise", 3, {"stride": 2}), ("factorized_reduction", 6, {})

    @pytest.mark.parametrize(
        ("calls", "unit", "numbers", "operations"),
        [
            ([POINTWISE], "paper", 2 * 6, 384),
            ([POINTWISE, POINTWISE], "paper", 6 + 2 * 6, 384),  # a threshold, a BN
            # A threshold in front, a BN behind, which the addition of the shortcut sees.
            ([POINTWISE], "norm_first", 6 + 2 * 6, 384),
            ([POINTWISE], "residual", 6 + 2 * 6, 2 * 384),
            ([FEWER], "residual", 6 + 2 * 3, 192 + 384 + 192),  # with means over two groups
            ([HALVED], "residual", 6 + 2 * 6, 96 + 4 * 96 + 96),
            ([REDUCED], "residual", 6 + 2 * 6, 96 + 4 * 96 + 96),
            ([POINTWISE], "rsign,rprelu", 6 + 2 * 6 + 3 * 6, 384 + 3 * 384),
        ],
    )
    def test_of_children(self, calls, unit, numbers, operations):
        assert costs.uncounted(units_of(*calls, unit=unit)) == (numbers, operations)

    def test_a_parent_has_no_thresholds(self):
        model = units_of(self.POINTWISE, unit="residual", precision="parent")
        assert costs.uncounted(model) == (4 * 6, 3 * 384)

    def test_nodes_and_pools(self):
        def network(x):
            means = layers.average([x, layers.AveragePooling2D(3, 1, "same")(x)])
            return layers.GlobalAveragePooling2D()(layers.add([x, means, layers.ReLU()(x)]))

        assert costs.uncounted(model_of(network)) == (0, (9 + 2 + 2 + 1) * 81 * 6)


class TestProfile:
    def test_wrn22_has_the_papers_costs(self):
        profile = costs.profile(wrn22())
        memory, flops, saving, speedup = TABLE_3["WRN-22"]
        assert profile["memory_mbit"] == pytest.approx(memory, rel=2e-4)
        assert profile["flops_m"] == pytest.approx(flops, rel=2e-4)
        assert (profile["memory_saving"], profile["speedup"]) == (saving, speedup) == (1, 1)

    def test_a_small_network_in_plain_arithmetic(self):
        def network(x):
            x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
            signs = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign"}
            x = lq.layers.QuantConv2D(16, 1, use_bias=False, name="binary", **signs)(x)
            x = layers.BatchNormalization()(x)
            return layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D()(x))

        profile = costs.profile(model_of(network, (32, 32, 3)))
        stem, binary, dense = 27 * 8, 8 * 16, 16 * 10
        bits = 32 * (stem + dense + 10) + binary
        flops = 1024 * stem + 1024 * binary / 64 + dense
        # WRN-22's BN, of which each stage's first is as wide as the stage before; its three
        # additions per stage, and its last pooling.
        norms = 2 * (7 * 64 + 6 * 128 + 6 * 256)
        others = 7 * 64 * 1024 + 6 * 128 * 256 + 6 * 256 * 64
        others += 3 * (64 * 1024 + 128 * 256 + 256 * 64) + 256 * 64
        rows = profile.pop("layers")
        assert [row["name"] for row in rows] == ["stem", "binary", "logits"]
        assert profile == {
            "parameters": stem + binary + dense + 10,
            "binary_parameters": binary,
            "memory_mbit": bits / 1e6,
            "real_macs_m": (1024 * stem + dense) / 1e6,
            "binary_macs_m": 1024 * binary / 1e6,
            "flops_m": flops / 1e6,
            "memory_saving": pytest.approx(32 * 4_321_482 / bits),
            "speedup": pytest.approx(647_694_848 / flops),
            "whole_memory_mbit": pytest.approx((bits + 32 * 2 * 16) / 1e6),
            "whole_flops_m": pytest.approx((flops + 2 * 1024 * 16) / 1e6),
            "whole_memory_saving": pytest.approx(
                (32 * 4_321_482 + 32 * norms) / (bits + 32 * 2 * 16)
            ),
            "whole_speedup": pytest.approx(
                (647_694_848 + others) / (flops + 2 * 1024 * 16), rel=1e-9
            ),
        }

    def test_the_layers_as_csv(self, tmp_path):
        rows = costs.layer_costs(wrn22_1bit())
        costs.write_csv(tmp_path / "layers.csv", rows)
        with open(tmp_path / "layers.csv", newline="", encoding="utf-8") as file:
            written = list(csv.DictReader(file))
        assert [row["name"] for row in written] == [row["name"] for row in rows]
        assert written[1] == {
            "name": "stage1_block1_conv1",
            "kind": "convolution",
            "output_shape": "32x32x64",
            "real_parameters": "0",
            "binary_parameters": str(9 * 64 * 64),
            "real_macs": "0",
            "binary_macs": str(9 * 64 * 64 * 1024),
            "bits": str(9 * 64 * 64),
            "flops": str(9 * 64 * 64 * 1024 / 64),
        }
