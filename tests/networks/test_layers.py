"""The layers that Keras and Larq lack."""

import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf.networks.layers import DropPath


def images(count=3):
    return np.random.default_rng(0).normal(size=(count, 6, 8, 4)).astype("float32")


class TestDropPath:
    def test_drops_some_images_and_makes_up_for_it_in_the_others(self):
        tf.keras.utils.set_random_seed(0)
        layer, x = DropPath(0.25), tf.constant(images(4000))
        y = layer(x, training=True).numpy()
        kept = np.any(y != 0, axis=(1, 2, 3))
        assert 0.22 < 1 - kept.mean() < 0.28
        np.testing.assert_allclose(
            y, x / 0.75 * kept[:, np.newaxis, np.newaxis, np.newaxis], rtol=1e-6
        )

    def test_does_nothing_in_inference(self):
        layer, x = DropPath(0.9), tf.constant(images())
        for settings in ({}, {"training": False}):
            np.testing.assert_array_equal(layer(x, **settings), x)

    def test_its_rate_is_scaled_without_a_new_trace(self):
        tf.keras.utils.set_random_seed(0)
        layer, x, traces = DropPath(0.5), tf.ones([2000, 1, 1, 1]), []

        @tf.function
        def dropped():
            traces.append(None)
            return tf.reduce_mean(tf.cast(layer(x, training=True) == 0, tf.float32))

        for scale, rate in ((1, 0.5), (0.4, 0.2), (0, 0)):
            layer.scale.assign(scale)
            assert abs(float(dropped()) - rate) < 0.04
        assert len(traces) == 1
        np.testing.assert_array_equal(layer(x, training=True), x)

    def test_a_checkpoint_has_its_state_and_weights_have_not(self, tmp_path):
        x = tf.ones([64, 1, 1, 1])

        def make():
            inputs = tf.keras.Input([1, 1, 1])
            return tf.keras.Model(inputs, DropPath(0.5, name="drop_path")(inputs))

        model = make()
        assert model.weights == []
        model(x, training=True)
        model.get_layer("drop_path").scale.assign(0.75)
        path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
        expected = [model(x, training=True).numpy() for _ in range(3)]
        assert not np.array_equal(expected[0], expected[1])
        again = make()
        tf.train.Checkpoint(model=again).read(path).assert_consumed()
        for masks in expected:
            np.testing.assert_array_equal(again(x, training=True), masks)

    def test_keras_seed_decides(self):
        x, masks = tf.ones([64, 1, 1, 1]), []
        for seed in (0, 0, 1):
            tf.keras.utils.set_random_seed(seed)
            masks.append([DropPath(0.5)(x, training=True).numpy() for _ in range(2)])
        np.testing.assert_array_equal(masks[0], masks[1])
        assert not np.array_equal(masks[0], masks[2])
        assert not np.array_equal(*masks[0])

    @pytest.mark.parametrize("name", ["model.keras", "model.h5", "saved_model"])
    @pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")
    def test_keras_saves_and_loads_it(self, name, tmp_path):
        inputs = tf.keras.Input([2, 2, 1])
        model = tf.keras.Model(inputs, DropPath(0.25, name="drop")(inputs))
        model.save(tmp_path / name)
        layer = tf.keras.models.load_model(tmp_path / name).get_layer("drop")
        assert (type(layer), layer.rate) == (DropPath, 0.25)

    @pytest.mark.parametrize("rate", [1, 1.5, -0.1, "0.1", True, None, float("nan")])
    def test_an_impossible_rate_is_refused(self, rate):
        with pytest.raises(ValueError, match=r"drop_path must be a number in \[0, 1\), received: "):
            DropPath(rate)
