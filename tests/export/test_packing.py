import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from exportable import REAL_INPUTS, make_network, small_model

from cpnas_tf.export.packing import OneBitKernel, PackedKernels, packable_kernels
from cpnas_tf.networks.quantizers import binarizes_input
from cpnas_tf.networks.reference import birealnet18


def values(kernel):
    return np.where(kernel.signs, kernel.scales, -kernel.scales)


def random_kernel(*shape, scales=None, seed=0):
    random = np.random.default_rng(seed)
    scales = random.random(scales or [1] * len(shape)).astype(np.float32)
    return OneBitKernel(random.random(shape) < 0.5, scales)


class TestOneBitKernels:
    def test_are_those_that_a_child_binarizes(self):
        child = make_network()
        kernels = packable_kernels(child)
        assert "stem_convolution" not in kernels
        assert len(kernels) == 2 + 2 + 2 * 4 + 2 * 2  # inputs, skip, two sep_conv, two dil_conv
        for name, kernel in kernels.items():
            layer = child.get_layer(name)
            variable = layer.depthwise_kernel if "depthwise" in name else layer.kernel
            latent = variable.latent_variable.numpy()
            filters = (0, 1) if "depthwise" in name else (0, 1, 2)
            alpha = np.abs(latent).mean(axis=filters, keepdims=True)
            np.testing.assert_allclose(values(kernel), alpha * np.sign(latent), rtol=1e-6)

    def test_are_bit_for_bit_what_the_layer_convolves_with(self):
        child = make_network()
        for name, kernel in packable_kernels(child).items():
            layer = child.get_layer(name)
            quantizer, variable = (
                (layer.depthwise_quantizer, layer.depthwise_kernel)
                if "depthwise" in name
                else (layer.kernel_quantizer, layer.kernel)
            )
            expected = quantizer(variable.latent_variable).numpy()
            np.testing.assert_array_equal(values(kernel), expected)

    def test_are_the_same_where_inputs_are_real(self):
        real = make_network(real_inputs=REAL_INPUTS)
        kernels, expected = packable_kernels(real), packable_kernels(make_network())
        assert kernels.keys() == expected.keys()
        for name, kernel in kernels.items():
            np.testing.assert_array_equal(values(kernel), values(expected[name]))
        on_signs = {name for name in kernels if binarizes_input(real.get_layer(name))}
        marks = ("depthwise", "input0", "input1")
        assert on_signs == {name for name in kernels if not any(mark in name for mark in marks)}

    def test_are_the_same_behind_a_relu(self):
        real = make_network(activations=32)
        kernels, expected = packable_kernels(real), packable_kernels(make_network())
        assert kernels.keys() == expected.keys()
        for name, kernel in kernels.items():
            np.testing.assert_array_equal(values(kernel), values(expected[name]))
            assert not binarizes_input(real.get_layer(name))

    @pytest.mark.parametrize("binarization", ["xnor", "bireal_code", "pcnn", "bonn"])
    def test_are_those_of_other_papers_bit_for_bit(self, binarization):
        network = make_network(binarization=binarization)
        kernels = packable_kernels(network)
        assert kernels.keys() == packable_kernels(make_network()).keys()
        for name, kernel in kernels.items():
            layer = network.get_layer(name)
            depthwise = "depthwise" in name
            quantizer = layer.depthwise_quantizer if depthwise else layer.kernel_quantizer
            variable = layer.depthwise_kernel if depthwise else layer.kernel
            np.testing.assert_array_equal(values(kernel), quantizer(variable.latent_variable))

    def test_a_parent_and_a_plain_model_have_none(self):
        assert packable_kernels(make_network("parent")) == {}
        assert packable_kernels(small_model()) == {}

    def test_the_approximate_sign_of_bi_real_net_is_a_sign(self):
        network = birealnet18(input_shape=(32, 32, 3), classes=10)
        assert len(packable_kernels(network)) == 16

    @pytest.mark.parametrize(
        "settings",
        [
            {"use_bias": True},
            {"pad_values": 1.0},
            {"padding": "valid"},
            {"activation": "relu"},
            {"input_quantizer": "ste_heaviside"},
            {"kernel_quantizer": None},
            {"kernel_quantizer": "ste_tern"},
        ],
    )
    def test_what_does_more_or_less_is_none(self, settings):
        plain = {
            "input_quantizer": "ste_sign",
            "kernel_quantizer": "ste_sign",
            "padding": "same",
            "use_bias": False,
        }
        images = tf.keras.Input([8, 8, 4])
        for expected, arguments in ((1, plain), (0, {**plain, **settings})):
            x = lq.layers.QuantConv2D(16, 3, **arguments)(images)
            assert len(packable_kernels(tf.keras.Model(images, x))) == expected


KERNELS = {
    "pointwise": random_kernel(1, 1, 16, 8, scales=(1, 1, 1, 8)),
    "another": random_kernel(1, 1, 16, 8, scales=(1, 1, 1, 8), seed=1),
    "unscaled": OneBitKernel(
        random_kernel(1, 1, 16, 8, seed=2).signs, np.ones([1] * 4, np.float32)
    ),
    "depthwise": random_kernel(3, 3, 5, 1, scales=(1, 1, 5, 1)),
    "odd": random_kernel(5, 5, 3, 1, scales=(1, 1, 3, 1)),
}


def save(kernels, path):
    module = tf.Module()
    module.kernels = PackedKernels(kernels)
    module.bits, module.scales = module.kernels.bits, module.kernels.scales
    module.unpacked = tf.function(module.kernels.unpacked, input_signature=[])
    tf.saved_model.save(module, path)


class TestPackedKernels:
    def test_are_unpacked_when_a_saved_model_is_loaded(self, tmp_path):
        save(KERNELS, str(tmp_path))
        loaded = tf.saved_model.load(str(tmp_path))
        for _ in range(2):
            unpacked = loaded.unpacked()
            assert set(unpacked) == set(KERNELS)
            for name, kernel in KERNELS.items():
                np.testing.assert_array_equal(unpacked[name], values(kernel))

    def test_two_models_in_one_process_do_not_mix(self, tmp_path):
        loaded = []
        for seed in range(2):
            kernels = {"kernel": random_kernel(1, 1, 16, 8, scales=(1, 1, 1, 8), seed=seed)}
            save(kernels, str(tmp_path / str(seed)))
            loaded.append((kernels, tf.saved_model.load(str(tmp_path / str(seed)))))
        for kernels, model in loaded:
            np.testing.assert_array_equal(model.unpacked()["kernel"], values(kernels["kernel"]))

    @pytest.mark.parametrize(("name", "size"), [("pointwise", 16), ("depthwise", 6)])
    def test_take_one_bit_a_weight(self, name, size):
        kernel = KERNELS[name]
        packed = PackedKernels({"kernel": kernel})
        assert packed.bits.shape == [size]
        bits = np.unpackbits(packed.bits)[: kernel.signs.size]
        np.testing.assert_array_equal(bits, kernel.signs.ravel())
        np.testing.assert_array_equal(packed.scales, kernel.scales.ravel())
