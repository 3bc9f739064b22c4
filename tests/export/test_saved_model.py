import json
import math
import os
import pathlib
import subprocess
import sys

import client
import numpy as np
import pytest
import tensorflow as tf
from exportable import CLASS_NAMES, IMAGES, make_images, make_network, normalized, small_model

from cpnas_tf.export import saved_model
from cpnas_tf.networks.costs import layer_costs, total


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A child's SavedModel."""
    folder = tmp_path_factory.mktemp("serving") / "saved_model"
    saved_model.save(make_network(), CLASS_NAMES, str(folder))
    return folder


@pytest.fixture(scope="module")
def served(folder, tmp_path_factory):
    """What the SavedModel does in a process with TensorFlow alone: its report and its answers."""
    files = tmp_path_factory.mktemp("served")
    np.save(files / "images.npy", IMAGES.images)
    hidden = ("TF_USE_LEGACY_KERAS", "PYTHONPATH")
    process = subprocess.run(
        [sys.executable, client.__file__, folder, files / "images.npy", files / "answers.npz"],
        env={name: value for name, value in os.environ.items() if name not in hidden},
        cwd=files,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    with np.load(files / "answers.npz") as answers:
        return json.loads(process.stdout), dict(answers)


class TestSignatures:
    def test_inputs_and_outputs(self, served):
        report, _ = served
        assert report["keras"] == "3."
        assert report["inputs"] == {
            "serving_default": {"images": ["uint8", [None, 8, 8, 1]]},
            "serve_bytes": {"image_bytes": ["string", [None]]},
        }
        assert report["outputs"] == {
            "logits": ["float32", [None, 3]],
            "probabilities": ["float32", [None, 3]],
            "classes": ["int64", [None]],
            "labels": ["string", [None]],
        }

    def test_predict_what_keras_does(self, served):
        _, answers = served
        expected = make_network()(normalized(IMAGES), training=False).numpy()
        np.testing.assert_array_equal(answers["images logits"], expected)
        classes = expected.argmax(axis=1)
        assert len(set(classes)) > 1
        np.testing.assert_array_equal(answers["images classes"], classes)
        np.testing.assert_array_equal(answers["images labels"], np.array(CLASS_NAMES, "S")[classes])
        exponentials = np.exp(expected - expected.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(answers["images probabilities"], probabilities, atol=1e-6)

    @pytest.mark.parametrize("output", ["logits", "probabilities", "classes", "labels"])
    def test_give_the_same_for_files_and_in_a_session(self, served, output):
        _, answers = served
        images = answers[f"images {output}"]
        np.testing.assert_array_equal(answers[f"session {output}"], images)
        np.testing.assert_array_equal(answers[f"png {output}"], images)
        np.testing.assert_array_equal(answers[f"jpeg {output}"], answers[f"decoded {output}"])
        if images.dtype.kind == "f":  # a single image's sums may be in another order
            np.testing.assert_allclose(answers[f"one {output}"], images[:1], atol=1e-5)
        else:
            np.testing.assert_array_equal(answers[f"one {output}"], images[:1])

    def test_a_photo_of_another_size_is_resized(self, served):
        _, answers = served
        logits = answers["photo logits"]
        np.testing.assert_allclose(logits[0], answers["images logits"][0], atol=1e-5)
        assert np.isfinite(logits[1]).all()
        assert (logits[1] != logits[0]).any()

    def test_a_wrong_request_is_an_error_that_says_what_is_wrong(self, served):
        report, answers = served  # the answers came after the errors
        errors = report["image errors"]
        for received in ("float", "int32"):
            expected = f"expected to be a uint8 tensor but is a {received} tensor"
            assert expected in errors.pop(received)
        for wrong, shape in (("smaller", "1,7,8,1"), ("one image", "8,8,1"), ("colour", "1,8,8,3")):
            expected = f"[{shape}] is not compatible with expected shape [?,8,8,1]"
            assert expected in errors.pop(wrong)
        assert "the batch is empty" in errors.pop("empty")
        assert not errors
        assert len(answers["images logits"]) == len(IMAGES)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ("vast PNG", "an image must have 1 to 178956970 pixels"),
            ("broken JPEG", "Invalid JPEG data"),
            ("broken PNG", "Invalid PNG data"),
            ("header of a JPEG", "Invalid JPEG data"),
            ("header of a PNG", "an image must have 1 to 178956970 pixels"),
            ("BMP", "an image is no JPEG or PNG"),
            ("text", "an image is no JPEG or PNG"),
            ("nothing", "an image is no JPEG or PNG"),
            ("empty", "the batch is empty"),
        ],
    )
    def test_a_wrong_file_is_an_error_that_says_what_is_wrong(self, served, wrong, message):
        assert message in served[0]["file errors"][wrong]

    def test_mutated_files_are_answered_or_refused(self, served):
        fuzz = served[0]["fuzz"]
        assert sum(fuzz.values()) == client.FUZZED >= 1000
        assert min(fuzz.values()) > 50

    def test_a_file_that_is_no_batch_is_an_error(self, served):
        assert "shape" in served[0]["one file"]


class TestSave:
    def test_files(self, folder):
        assert (folder / "assets" / "labels.txt").read_text() == "zero\none\ntwo\n"
        assert not (folder / "keras_metadata.pb").exists()
        assert sum(1 for path in folder.rglob("*") if path.is_file()) == 5

    def test_sizes(self, folder):
        sizes = saved_model.sizes(str(folder))
        assert sizes["saved_model_bytes"] == sum(
            path.stat().st_size for path in folder.rglob("*") if path.is_file()
        )
        bits = total(layer_costs(make_network()))["bits"]
        assert sizes["packed_weight_bytes"] == math.ceil(bits / 8)
        parts = ("packed_weight_bytes", "batchnorm_bytes", "graph_bytes")
        assert sum(sizes[part] for part in parts) == sizes["saved_model_bytes"]

    def test_names_no_files_of_the_one_who_saved_it(self, folder):
        root = str(pathlib.Path(__file__).parents[2]).encode()
        assert root not in (folder / "saved_model.pb").read_bytes()

    def test_a_plain_model(self, tmp_path):
        model = small_model()
        saved_model.save(model, CLASS_NAMES, str(tmp_path))
        serve = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
        logits = serve(images=tf.constant(IMAGES.images))["logits"]
        np.testing.assert_allclose(logits, model(normalized(IMAGES)), atol=1e-5)
        assert saved_model.sizes(str(tmp_path))["packed_weight_bytes"] == 4 * (64 * 3 + 3)
        assert saved_model.sizes(str(tmp_path))["batchnorm_bytes"] == 0

    def test_images_of_two_channels_have_no_files(self, tmp_path):
        images = tf.keras.Input([8, 8, 2])
        x = tf.keras.layers.GlobalAveragePooling2D()(images)
        saved_model.save(tf.keras.Model(images, x), CLASS_NAMES[:2], str(tmp_path))
        signatures = tf.saved_model.load(str(tmp_path)).signatures
        assert set(signatures) == {"serving_default"}
        images = tf.constant(make_images(2, (8, 8, 2)).images)
        assert signatures["serving_default"](images=images)["logits"].shape == [2, 2]

    def test_leaves_grappler_as_it_was(self, tmp_path):
        before = tf.config.optimizer.get_experimental_options()
        saved_model.save(small_model(), CLASS_NAMES, str(tmp_path))
        assert tf.config.optimizer.get_experimental_options() == before
