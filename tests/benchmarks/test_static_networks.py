"""The frozen peer of the search engine against the library's networks."""

import ast
import pathlib
import random

import numpy as np
import pytest
import static_networks
import tensorflow as tf

from cpnas_tf.catalogue import PRECISIONS
from cpnas_tf.genotypes import OPERATIONS, Genotype
from cpnas_tf.networks.cells import build_network

NETWORK = {"input_shape": (8, 8, 1), "classes": 3, "cells": 3, "channels": 4}
NONE = Genotype(["none"] * 14, ["none"] * 14)


def value_and_gradients(model):
    images = np.random.default_rng(0).uniform(-1, 1, [4, 8, 8, 1]).astype("float32")
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = tf.reduce_sum(logits**2)
    return [logits, *tape.gradient(loss, model.trainable_variables)]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("seed", range(2))
def test_its_networks_are_the_librarys(precision, seed):
    choices = random.Random(seed).choices(OPERATIONS, k=28)
    genotype = Genotype.from_choices([*OPERATIONS, *choices][:28])
    library = build_network(genotype, precision=precision, **NETWORK)
    static = static_networks.build(genotype.normal, genotype.reduce, precision=precision, **NETWORK)
    static.set_weights(library.get_weights())
    for found, wanted in zip(*map(value_and_gradients, (static, library)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_a_network_of_nothing_is_the_librarys():
    counts = [
        static_networks.build(NONE.normal, NONE.reduce, precision="child", **NETWORK),
        build_network(NONE, **NETWORK),
    ]
    assert len({model.count_params() for model in counts}) == 1


def test_it_imports_nothing_of_the_library():
    tree = ast.parse(pathlib.Path(static_networks.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in imports for alias in node.names}
    assert names == {"larq", "tensorflow"}


def test_its_step_is_sgd_with_weight_decay():
    genotype = Genotype(["skip_connect"] * 14, ["max_pool_3x3"] * 14)
    model = static_networks.build(genotype.normal, genotype.reduce, precision="parent", **NETWORK)
    images = np.random.default_rng(0).uniform(-1, 1, [6, 8, 8, 1]).astype("float32")
    labels, variables = np.arange(6) % 3, model.trainable_variables
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        loss = tf.reduce_mean(losses) + 0.5 * sum(tf.reduce_sum(v**2) for v in variables) / 2
    gradients = tape.gradient(loss, variables)
    wanted = [
        (v - 0.25 * gradient).numpy() for v, gradient in zip(variables, gradients, strict=True)
    ]
    settings = {"learning_rate": 0.25, "momentum": 0.9, "weight_decay": 0.5}
    static_networks.make_step([model], images, labels, **settings)()
    for found, right in zip(variables, wanted, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
