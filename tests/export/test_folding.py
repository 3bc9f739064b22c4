import numpy as np
import pytest
import tensorflow as tf
from exportable import make_network

from cpnas_tf.export.inference import fold
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
        _, vectors, _ = fold(model)
        assert len(vectors["bn"]) == 4
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
        folded = {name for name, group in vectors.items() if len(group) == 1}
        separable = ("cell0_2_3_sep_conv_3x3", "cell0_0_4_sep_conv_5x5")
        dilated = ("cell0_1_4_dil_conv_3x3", "cell0_2_4_dil_conv_5x5")
        assert folded == {
            *(f"{edge}_bn{number}" for edge in separable for number in ("", "_2", "_3")),
            *(f"{edge}_bn" for edge in dilated),
        }

    @pytest.mark.parametrize("real_inputs", [("depthwise",), ("preprocessing",)])
    def test_folds_no_sums_of_real_inputs_nor_what_such_convolutions_see(self, real_inputs):
        _, vectors, _ = fold(make_network(real_inputs=real_inputs))
        folded = {name for name, group in vectors.items() if len(group) == 1}
        if "depthwise" in real_inputs:  # each BN lies before or behind one of them
            assert not folded
        else:
            _, plain, _ = fold(make_network())
            assert folded == {name for name, group in plain.items() if len(group) == 1}

    def test_a_parent_keeps_all(self):
        parent = make_network("parent")
        kernels, vectors, weights = fold(parent)
        assert kernels == {}
        assert {len(group) for group in vectors.values()} == {4}
        assert len(weights) + 4 * len(vectors) == len(parent.weights)
