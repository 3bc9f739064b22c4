import numpy as np
import pytest
import tensorflow as tf
from exportable import make_network
from larq.quantizers import SteSign

from cpnas_tf.export.folding import fold
from cpnas_tf.export.packing import packable_kernels
from cpnas_tf.networks.units import LarqUnits


def two_units(*, gamma, beta, mean, variance, inputs=24):
    """Pointwise, BN, pointwise, BN: a model of which the first BN can be folded."""
    images = tf.keras.Input([8, 8, inputs])
    units = LarqUnits("child")
    model = tf.keras.Model(images, units.pointwise(units.pointwise(images, len(gamma)), 4))
    model.get_layer("bn").set_weights(list(map(np.array, (gamma, beta, mean, variance))))
    return model


def random_statistics(filters, seed=0):
    random = np.random.default_rng(seed)
    gamma, beta, mean = random.normal(size=(3, filters))
    return {"gamma": gamma, "beta": beta, "mean": mean, "variance": random.random(filters)}


def folded_of(vectors):
    return {name for name, group in vectors.items() if len(group) == 1}


def seers(layer):
    """The layers behind a layer, those behind a slice as well."""
    for node in layer.outbound_nodes:
        if hasattr(node.layer, "input_quantizer"):
            yield node.layer
        elif "slice" in node.layer.name:
            yield from seers(node.layer)


class TestFold:
    def test_gives_the_signs_of_batch_normalization_for_every_sum(self):
        statistics = random_statistics(64)
        model = two_units(**statistics)
        kernels, vectors, _ = fold(model)
        (threshold,) = vectors["bn"]
        before, after = packable_kernels(model)["convolution"], kernels["convolution"]
        assert after.scales == 1
        flipped = statistics["gamma"] < 0
        np.testing.assert_array_equal(
            before.signs ^ after.signs, np.broadcast_to(flipped, (1, 1, 24, 64))
        )
        n = np.arange(-24, 25)[:, np.newaxis]
        scale = statistics["gamma"] / np.sqrt(statistics["variance"] + 1e-5)
        normalized = scale * (before.scales.ravel() * n - statistics["mean"]) + statistics["beta"]
        folded = np.where(flipped, -n, n) - threshold
        np.testing.assert_array_equal(folded > 0, normalized >= 0)
        assert (folded != 0).all()

    def test_leaves_the_model_and_the_last_normalization_as_they_are(self):
        model = two_units(**random_statistics(8))
        before = model.get_weights()
        kernels, vectors, weights = fold(model)
        assert len(vectors["bn"]) == 1
        for vector, weight in zip(vectors["bn_2"], model.get_layer("bn_2").weights, strict=True):
            np.testing.assert_array_equal(vector, weight)
        expected = packable_kernels(model)["convolution_2"]
        np.testing.assert_array_equal(kernels["convolution_2"].scales, expected.scales)
        assert weights == []
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_a_threshold_at_a_whole_number_is_for_keras_to_round(self):
        # As before training: the threshold is 0, and n = 0 may come out as -1e-8.
        model = two_units(gamma=[1.0] * 8, beta=[0.0] * 8, mean=[0.0] * 8, variance=[1.0] * 8)
        kernels, vectors, _ = fold(model)
        np.testing.assert_allclose(vectors["bn"], [[0.0] * 8], atol=1e-37)  # 0 or almost
        alpha = packable_kernels(model)["convolution"].scales
        np.testing.assert_array_equal(kernels["convolution"].scales, alpha)
        kernels, vectors, _ = fold(model, exact=False)
        np.testing.assert_array_equal(vectors["bn"], [[-0.5] * 8])
        assert kernels["convolution"].scales == 1

    @pytest.mark.parametrize(("beta", "threshold"), [(1.0, -24.5), (-1.0, 24.5)])
    def test_a_gamma_of_0_leaves_the_sign_of_beta(self, beta, threshold):
        model = two_units(gamma=[0.0], beta=[beta], mean=[0.5], variance=[1.0])
        _, vectors, _ = fold(model)
        np.testing.assert_array_equal(vectors["bn"], [[threshold]])

    def test_folds_where_nothing_but_signs_look(self):
        _, vectors, _ = fold(make_network())
        folded = folded_of(vectors)
        separable = ("cell0_2_3_sep_conv_3x3", "cell0_0_4_sep_conv_5x5")
        dilated = ("cell0_1_4_dil_conv_3x3", "cell0_2_4_dil_conv_5x5")
        assert folded == {
            "stem_bn",
            *(f"{edge}_bn{number}" for edge in separable for number in ("", "_2", "_3")),
            *(f"{edge}_bn" for edge in dilated),
        }

    @pytest.mark.parametrize("real_inputs", [("depthwise",), ("preprocessing",)])
    def test_folds_nothing_that_convolutions_of_real_inputs_see(self, real_inputs):
        _, vectors, _ = fold(make_network(real_inputs=real_inputs))
        _, plain, _ = fold(make_network())
        separable = ("cell0_2_3_sep_conv_3x3", "cell0_0_4_sep_conv_5x5")
        seen = {f"{edge}_bn_2" for edge in separable} if "depthwise" in real_inputs else {"stem_bn"}
        assert folded_of(vectors) == folded_of(plain) - seen

    def test_in_residual_units_folds_what_is_in_front_of_the_signs(self):
        network = make_network(unit="residual")
        kernels, vectors, _ = fold(network)
        front = {
            layer.name
            for layer in network.layers
            if isinstance(layer, tf.keras.layers.BatchNormalization)
            and any(isinstance(seer.input_quantizer, SteSign) for seer in seers(layer))
        }
        assert folded_of(vectors) == front
        assert len(front) == len(kernels) - 1  # the two halves of the skip share one

    def test_thresholds_give_the_signs_of_batch_normalization_for_every_float(self):
        """Those beside a threshold, too, and where gamma is 0 or the threshold is far away."""
        random = np.random.default_rng(0)
        gamma = np.concatenate([random.normal(size=60), [0.0, 0.0, 1e-38, -1e-38]])
        beta, mean = random.normal(size=(2, 64))
        beta[-4:] = 1, -1, 1, -1
        images = tf.keras.Input([4, 4, 64])
        model = tf.keras.Model(images, LarqUnits("child", unit="norm_first").pointwise(images, 4))
        norm = model.get_layer("bn")
        norm.set_weights([gamma, beta, mean, random.uniform(0.1, 2, 64)])
        kernels, vectors, _ = fold(model)
        (thresholds,) = vectors["bn"]
        before = packable_kernels(model)["convolution"].signs
        negated = (before ^ kernels["convolution"].signs).all(axis=(0, 1, 3))
        beside = [np.nextafter(thresholds, np.float32(way)) for way in (-1e30, 1e30)]
        near = [thresholds + np.float32(1e-6) * random.normal(size=64).astype("float32")] * 5
        noise = random.normal(size=[2000, 64]).astype("float32")
        x = np.stack([thresholds, *beside, *near, *noise]).clip(-1e30, 1e30)
        y = norm(np.broadcast_to(x[:, np.newaxis, np.newaxis], [len(x), 4, 4, 64])).numpy()
        signs = np.where((x - thresholds >= 0) != negated, 1, -1)
        for row, column in ((0, 0), (3, 2)):
            np.testing.assert_array_equal(signs, np.where(y[:, row, column] >= 0, 1, -1))
        assert 0 < np.mean(negated[:60]) < 1

    def test_a_parent_keeps_all(self):
        parent = make_network("parent")
        kernels, vectors, weights = fold(parent)
        assert kernels == {}
        assert {len(group) for group in vectors.values()} == {4}
        assert len(weights) + 4 * len(vectors) == len(parent.weights)
