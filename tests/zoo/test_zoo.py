import json

import numpy as np
import pytest
from exportable import CELL, CLASS_NAMES, IMAGES, REAL_INPUTS, make_network, normalized

import cpnas_tf
from cpnas_tf import zoo


def known(**network):
    return {
        "genotype": {"normal": CELL, "reduce": CELL},
        "network": {"cells": 1, "channels": 4, **network},
        "image_shape": [8, 8, 1],
        "classes": list(CLASS_NAMES),
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("network", [{}, {"real_inputs": list(REAL_INPUTS)}])
def test_a_packed_network_predicts_as_it_did(folder, network):
    settings = {name: tuple(value) for name, value in network.items()}
    child = make_network(**settings)
    np.savez(folder / "small.npz", **zoo.pack(child, known(**network)))
    loaded = zoo.load("small")
    expected = child(normalized(IMAGES), training=False).numpy()
    found = loaded(normalized(IMAGES), training=False).numpy()
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    one_bit = sum(kernel.signs.size for kernel in zoo.packable_kernels(child).values())
    with np.load(folder / "small.npz") as file:
        assert file["signs"].nbytes == (one_bit + 7) // 8
        real = child.count_params() - one_bit
        assert file["weights"].size == real


def test_other_classes_have_a_new_classifier_and_all_else(folder):
    child = make_network()
    np.savez(folder / "small.npz", **zoo.pack(child, known()))
    other = zoo.load("small", classes=5)
    assert other.output_shape == (None, 5)
    same = zoo.load("small")
    for layer, expected in zip(other.layers[:-1], same.layers[:-1], strict=True):
        for weight, value in zip(layer.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, value)


def test_an_unknown_name_is_refused_and_the_known_ones_are_said():
    with pytest.raises(ValueError, match="^the zoo has no 'lions', expected one of: .*digits"):
        zoo.load("lions")


def test_digits_has_the_accuracy_that_is_recorded(tmp_path):
    test = cpnas_tf.load("digits", "test", data_dir=tmp_path)
    found = cpnas_tf.evaluate(zoo.load("digits"), test)
    assert found["accuracy"] == zoo.record("digits")["accuracy"] > 0.97


@pytest.mark.parametrize("name", zoo.names())
def test_each_record_says_where_it_comes_from(name):
    record = zoo.record(name)
    assert record["command"].startswith("cpnas train ")
    assert "Apache 2.0" in record["licence"]
    assert json.loads(json.dumps(record)) == record
