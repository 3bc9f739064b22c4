"""The networks of a stack against those of `build_network`, one by one."""

import itertools
import json
import math

import numpy as np
import pytest
import tabular
import tabular_training
import tensorflow as tf

from cpnas_tf import data
from cpnas_tf.catalogue import PRECISIONS
from cpnas_tf.genotypes import EDGES
from cpnas_tf.networks.cells import build_network
from cpnas_tf.training.optimizers import make_optimizer

NONE, POOL, CONVOLUTION = tabular.OPERATIONS
SKIP = "skip_connect"
OPTIONS = [(CONVOLUTION, POOL), (SKIP, NONE), (POOL, CONVOLUTION)]
CELLS = list(itertools.product(*OPTIONS))
NETWORK = {"input_shape": (8, 8, 1), "classes": 3, "cells": 2, "channels": 4}


def build(precision):
    tf.keras.utils.set_random_seed(0)
    return tabular_training.build_stack(OPTIONS, precision=precision, **NETWORK)


def images(count):
    random = np.random.default_rng(count)
    pixels = random.integers(256, size=[count, *NETWORK["input_shape"]], dtype=np.uint8)
    return data.Images(pixels, random.integers(3, size=count), ("a", "b", "c"))


def weights_of(stack, cell):
    """The weights of one network of a stack, by the names of its own layers."""
    network = build_network(tabular.genotype(cell), precision=stack.name, **NETWORK)
    return network, {
        layer.name: [
            one_of(weight.numpy(), like.shape, layer.name, cell)
            for weight, like in zip(stack.get_layer(layer.name).weights, layer.weights, strict=True)
        ]
        for layer in network.layers
        if layer.weights
    }


def one_of(values, shape, layer, cell):
    """A network's part of a weight, where networks are the first axis or lie side by side."""
    sharing = list(filter(lambda other: shares(layer, cell, other), CELLS))
    axis = 2 if "depthwise" in layer else -1
    if layer == "classifier_logits":
        return values[sharing.index(cell)]
    return np.split(values, len(sharing), axis)[sharing.index(cell)].reshape(shape)


def shares(layer, cell, other):
    """Whether two cells' networks have a layer together: all do, but for those of an edge."""
    return all(
        own == others or not layer.startswith(tuple(f"cell{i}_{a}_{b}_{own}" for i in range(2)))
        for (a, b), own, others in zip(EDGES, cell, other, strict=False)
    )


def alone(stack, cell):
    """The Keras network of one cell, with its weights in the stack."""
    network, weights = weights_of(stack, cell)
    for name, values in weights.items():
        network.get_layer(name).set_weights(values)
    return network


@pytest.mark.parametrize(("precision", "steps"), [("child", 1), ("parent", 3)])
def test_a_network_of_a_stack_trains_as_it_would_alone(precision, steps):
    """Logits before and after, accuracies, and what all weights became, BN's averages too.

    A child is compared for one step: then some sign falls the other way by rounding.
    """
    number, epochs = CELLS.index((POOL, SKIP, CONVOLUTION)), steps
    stack, train, test = build(precision), images(8 * steps), images(50)
    network = alone(stack, CELLS[number])
    pixels = test.images / 127.5 - 1
    before = stack(pixels).numpy()
    np.testing.assert_allclose(before[:, number], network(pixels), rtol=1e-4, atol=1e-5)
    assert np.abs(before[:, number] - before[:, 1]).max() > 0.1

    settings = {"epochs": epochs, "batch_size": 8, "learning_rate": 0.01, "seed": 3}
    rows = tabular_training.train_stack(stack, (train, test), test, **settings)
    network.compile(
        make_optimizer("adam", learning_rate=0.01, steps=epochs * steps),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = network.fit(
        data.batches(train, batch_size=8, seed=3, epochs=epochs),
        validation_data=data.evaluation_batches(test, batch_size=50),
        epochs=epochs,
        steps_per_epoch=steps,
        verbose=0,
    ).history
    accuracies = history["val_accuracy"]
    assert rows[number] == pytest.approx([*accuracies, accuracies[-1]], abs=1e-4)
    assert len({tuple(row) for row in rows}) > 1
    after = stack(pixels).numpy()
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(after[:, number], network(pixels), rtol=1e-3, atol=1e-3)
    for name, values in weights_of(stack, CELLS[number])[1].items():
        for ours, theirs in zip(values, network.get_layer(name).get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3, err_msg=name)


def test_initial_weights_are_those_of_keras_layers():
    """Glorot's uniform kernels, others in each network, and the same for child and parent."""
    child, parent = map(build, PRECISIONS)
    for ours, theirs in zip(child.get_weights(), parent.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    kernels = []
    for cell in CELLS:
        scaled = []
        for name, (kernel, *_) in weights_of(child, cell)[1].items():
            if "_bn" in name:
                continue
            *field, inputs, outputs = kernel.shape
            limit = math.sqrt(6 / (math.prod(field) * (inputs + outputs)))
            assert 0.5 < np.abs(kernel / limit).max() <= 1, name
            scaled.append(kernel.ravel() / limit)
        kernels.append(np.concatenate(scaled))
        assert kernels[-1].std() == pytest.approx(1 / math.sqrt(3), abs=0.03)
    stems = {kernel[0] for kernel in kernels}
    assert len(stems) == len(CELLS)


@pytest.fixture
def trained(monkeypatch):
    """Trainings without training: a share's rows, and the shares asked for."""
    asked = []

    def train_share(images, test, *, precision, seed, first):
        asked.append((precision, seed, first))
        cells = [cell for cell in tabular.CELLS if cell[0] == first]
        accuracies = (
            np.random.default_rng(len(first) + seed).uniform(size=[len(cells), 13]).round(4)
        )
        return [
            [*cell, precision, seed, *row]
            for cell, row in zip(cells, accuracies.tolist(), strict=True)
        ]

    monkeypatch.setattr(tabular_training, "train_share", train_share)
    return asked


def test_a_stopped_run_goes_on_and_ends_with_the_same_table(tmp_path, trained, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    tabular_training.train_table(whole, seeds=2)
    shares = list(trained)
    assert len(set(shares)) == len(shares) == 2 * 2 * 3
    trained.clear()

    train_share = tabular_training.train_share

    def stop_at_the_fifth(*args, **share):
        if len(trained) == 4:
            raise KeyboardInterrupt
        return train_share(*args, **share)

    monkeypatch.setattr(tabular_training, "train_share", stop_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        tabular_training.train_table(stopped, seeds=2)
    assert not (stopped / "tabular.csv").exists()
    monkeypatch.setattr(tabular_training, "train_share", train_share)
    tabular_training.train_table(stopped, seeds=2)
    assert trained == shares
    assert (stopped / "tabular.csv").read_bytes() == (whole / "tabular.csv").read_bytes()

    table = tabular.read_table(whole / "tabular.csv")
    share = json.loads((whole / "shares" / "1_parent_max_pool_3x3.json").read_text())
    position = tabular.CELLS.index(tuple(share[7][:5]))
    assert table.validation["parent"][position, 1].tolist() == share[7][7:-1]
    assert table.test["parent"][position, 1] == share[7][-1]
