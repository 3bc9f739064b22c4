import math

import cpnas_tf  # noqa: F401, isort: skip
import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf.catalogue import OPTIMIZERS
from cpnas_tf.training.optimizers import Bop, make_optimizer


class TestOptimizer:
    STEPS = 5

    def gradients(self):
        random = np.random.default_rng(0)
        return [[random.normal(size=(3, 2)), random.normal(size=2)] for _ in range(self.STEPS)]

    def start(self):
        random = np.random.default_rng(1)
        return [random.normal(size=(3, 2)), random.normal(size=2)]

    def expected(self, rule, *, clip, l2):
        """The weights after the steps: clipped by the global norm, then L2 added, then `rule`."""
        weights = self.start()
        slots = [{} for _ in weights]
        for step, gradients in enumerate(self.gradients()):
            norm = math.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
            scale = min(1, clip / norm) if clip else 1
            learning_rate = 0.1 * 0.5 * (1 + math.cos(math.pi * step / self.STEPS))
            for number, gradient in enumerate(gradients):
                gradient = gradient * scale + l2 * weights[number]
                weights[number] = weights[number] + rule(
                    gradient, slots[number], learning_rate, step + 1
                )
        return weights

    def found(self, name, *, clip, l2, **settings):
        optimizer = make_optimizer(
            name,
            learning_rate=0.1,
            steps=self.STEPS,
            weight_decay=l2,
            gradient_clip=clip,
            **settings,
        )
        variables = [tf.Variable(weights, dtype=tf.float32) for weights in self.start()]
        for gradients in self.gradients():
            gradients = [tf.constant(gradient, tf.float32) for gradient in gradients]
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return [variable.numpy() for variable in variables]

    @pytest.mark.parametrize("clip", [0, 0.5, 1e6])
    @pytest.mark.parametrize("l2", [0.0, 0.3])
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_sgd(self, clip, l2, momentum):
        def rule(gradient, slot, learning_rate, step):
            slot["v"] = momentum * slot.get("v", 0) - learning_rate * gradient
            return slot["v"]

        found = self.found("sgd", clip=clip, l2=l2, momentum=momentum)
        for value, expected in zip(found, self.expected(rule, clip=clip, l2=l2), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("clip", [0, 0.5])
    @pytest.mark.parametrize("l2", [0.0, 0.3])
    def test_adam(self, clip, l2):
        def rule(gradient, slot, learning_rate, step):
            slot["m"] = 0.9 * slot.get("m", 0) + 0.1 * gradient
            slot["v"] = 0.999 * slot.get("v", 0) + 0.001 * gradient**2
            rate = learning_rate * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            return -rate * slot["m"] / (np.sqrt(slot["v"]) + 1e-7)

        found = self.found("adam", clip=clip, l2=l2)
        for value, expected in zip(found, self.expected(rule, clip=clip, l2=l2), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("clip", [0, 0.5])
    def test_bop_turns_signs_where_the_mean_gradient_has_them(self, clip):
        """The first variable is a 1-bit kernel, the second has Adam's rule; see Bop's equations."""
        gamma_share, threshold = 2.0, 0.05
        weights, biases = self.start()
        mean, turned = np.zeros_like(weights), 0
        for step, gradients in enumerate(self.gradients()):
            norm = math.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
            gradient = gradients[0] * (min(1, clip / norm) if clip else 1)
            gamma = gamma_share * 0.1 * 0.5 * (1 + math.cos(math.pi * step / self.STEPS))
            mean = (1 - gamma) * mean + gamma * gradient
            turns = (np.sign(mean) == np.sign(weights)) & (np.abs(mean) > threshold)
            weights, turned = np.where(turns, -weights, weights), turned + turns.sum()
        assert 0 < turned < weights.size * self.STEPS / 2

        variables = [tf.Variable(start, dtype=tf.float32) for start in self.start()]
        optimizer = Bop(
            tf.keras.optimizers.schedules.CosineDecay(0.1, self.STEPS),
            binary_kernels=variables[:1],
            threshold=threshold,
            gamma_share=gamma_share,
            l2=0.3,
            global_clipnorm=clip or None,
        )
        for gradients in self.gradients():
            gradients = [tf.constant(gradient, tf.float32) for gradient in gradients]
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        np.testing.assert_allclose(variables[0], weights, rtol=1e-6)
        adam = self.found("adam", clip=clip, l2=0.3)
        np.testing.assert_allclose(variables[1], adam[1], rtol=1e-6)

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_some_variables_have_no_decay(self, name):
        def found(l2, *, kept=()):
            optimizer = make_optimizer(
                name, learning_rate=0.1, steps=2, weight_decay=l2, without_decay=kept
            )
            optimizer.apply_gradients([(tf.constant([-0.5]), variable) for variable in variables])
            return [float(variable[0]) for variable in variables]

        variables = [tf.Variable([2.0]), tf.Variable([3.0])]
        plain = found(0.0)
        for variable, value in zip(variables, (2.0, 3.0), strict=True):
            variable.assign([value])
        decayed = found(3.0, kept=variables[:1])
        assert decayed[0] == plain[0]
        expected = 3.0 - 0.1 * (3.0 * 3.0 - 0.5) if name == "sgd" else 3.0 - 0.1
        assert decayed[1] == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_keras_can_rebuild_it(self, name):
        optimizer = make_optimizer(
            name, learning_rate=0.1, steps=7, weight_decay=0.3, gradient_clip=0.5
        )
        again = tf.keras.optimizers.deserialize(tf.keras.optimizers.serialize(optimizer))
        assert type(again) is type(optimizer)
        assert again.get_config() == optimizer.get_config()
        assert again.get_config()["l2"] == 0.3

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"name": "lamb"}, "optimizer must be one of sgd, adam, bop, received: 'lamb'"),
            ({"learning_rate": 0}, "learning_rate must be a number > 0, received: 0"),
            ({"learning_rate": math.nan}, "learning_rate must be .* received: nan"),
            ({"learning_rate": math.inf}, "learning_rate must be .* received: inf"),
            ({"momentum": 1.0}, r"momentum must be a number in \[0, 1\), received: 1.0"),
            ({"momentum": -0.1}, "momentum must be .* received: -0.1"),
            ({"weight_decay": -1e-4}, "weight_decay must be a number >= 0, received: -0.0001"),
            ({"weight_decay": math.nan}, "weight_decay must be .* received: nan"),
            ({"gradient_clip": -1}, "gradient_clip must be a number >= 0, received: -1"),
        ],
    )
    def test_refuses(self, settings, message):
        with pytest.raises(ValueError, match=f"^{message}$"):
            make_optimizer(**{"name": "sgd", "learning_rate": 1, "steps": 1, **settings})


def test_the_learning_rate_rises_over_the_warm_up_and_follows_a_cosine_to_0():
    optimizer = make_optimizer("sgd", learning_rate=0.2, momentum=0.0, steps=10, warmup_steps=4)
    variable, found = tf.Variable(0.0), []
    for _ in range(11):
        before = float(variable)
        optimizer.apply_gradients([(tf.constant(1.0), variable)])
        found.append(before - float(variable))
    rising = [0.2 * step / 4 for step in range(4)]
    falling = [0.1 * (1 + math.cos(math.pi * step / 6)) for step in range(7)]
    np.testing.assert_allclose(found, [*rising, *falling], atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_are_added_in_pairs_whose_order_does_not_matter(name):
    """Of three tensors or more `AddN` adds the one first whose buffer is free, which differs."""
    x = tf.keras.Input([2])
    y = tf.keras.layers.Dense(2, name="used_often")(x)
    parts = [tf.keras.layers.Dense(1)(y) for _ in range(5)]
    model = tf.keras.Model(x, tf.keras.layers.add(parts))
    model.compile(make_optimizer(name, learning_rate=0.1, steps=5), "mse")
    batch = tf.ones([4, 2]), tf.ones([4, 1])
    graph = tf.function(model.train_step).get_concrete_function(batch).graph
    sums = [len(op.inputs) for op in graph.get_operations() if op.type == "AddN"]
    assert sums
    assert set(sums) == {2}
