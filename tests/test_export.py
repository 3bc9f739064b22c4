import json
import math
import os
import pathlib
import resource
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf import data, export
from cpnas_tf.genotypes import OPERATIONS, Genotype
from cpnas_tf.networks import build_network

CLASS_NAMES = ("zero", "one", "two")

# What a user without Larq, Keras 2 and this package does with an export.
SERVE = """
import json, sys

for name in ("cpnas_tf", "larq", "tf_keras", "keras_tuner"):
    sys.modules[name] = None
import numpy as np
import tensorflow as tf

folder, requests, answers = sys.argv[1:]
serve = tf.saved_model.load(folder).signatures["serving_default"]
images = np.load(requests)
whole = {name: output.numpy() for name, output in serve(images=tf.constant(images)).items()}
errors = []
for wrong in (
    tf.cast(images[:1], tf.float32),
    tf.constant(images[:1].astype(np.int32)),
    tf.constant(images[:1, 1:]),
    tf.constant(images[0]),
    tf.zeros([1, 8, 8, 3], tf.uint8),
):
    try:
        serve(images=wrong)
    except tf.errors.InvalidArgumentError as error:
        errors.append(str(error))
one = {f"one_{name}": out.numpy() for name, out in serve(images=tf.constant(images[:1])).items()}
np.savez(answers, **whole, **one)
args, kwargs = serve.structured_input_signature
spec = lambda tensor: [tensor.dtype.name, tensor.shape.as_list()]
print(json.dumps({
    "inputs": {name: spec(tensor) for name, tensor in kwargs.items()},
    "outputs": {name: spec(tensor) for name, tensor in serve.structured_outputs.items()},
    "errors": errors,
    "keras": tf.keras.__version__[:2],
}))
"""


def make_images(count):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, size=(count, 8, 8, 1)).astype(np.uint8)
    return data.Images(images, random.integers(len(CLASS_NAMES), size=count), CLASS_NAMES)


IMAGES = make_images(40)
NORMALIZED = IMAGES.images.astype(np.float32) / 127.5 - 1


def make_child():
    """A 1-bit network with each operation, whose BN layers have seen images."""
    tf.keras.utils.set_random_seed(0)
    cell = OPERATIONS + ("none",) * 6
    network = build_network(
        Genotype(cell, cell), input_shape=(8, 8, 1), classes=3, cells=1, channels=2
    )
    for _ in range(5):
        network(NORMALIZED, training=True)
    return network


def small_model():
    images = tf.keras.Input([8, 8, 1])
    x = tf.keras.layers.Flatten()(images)
    return tf.keras.Model(images, tf.keras.layers.Dense(3, name="logits")(x))


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A child's export: the folder, the child and the summary."""
    folder, child = tmp_path_factory.mktemp("export") / "out", make_child()
    return folder, child, export.export(child, IMAGES, directory=folder)


@pytest.fixture
def small_export(tmp_path):
    export.export(small_model(), IMAGES, directory=tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def served(exported, tmp_path_factory):
    """What the export gives in a process with TensorFlow alone: its report and its answers."""
    folder = tmp_path_factory.mktemp("served")
    np.save(folder / "images.npy", IMAGES.images)
    hidden = ("TF_USE_LEGACY_KERAS", "PYTHONPATH")
    process = subprocess.run(
        [sys.executable, "-c", SERVE]
        + [str(exported[0] / "saved_model"), folder / "images.npy", folder / "answers.npz"],
        env={name: value for name, value in os.environ.items() if name not in hidden},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    with np.load(folder / "answers.npz") as answers:
        return json.loads(process.stdout), dict(answers)


class TestServing:
    def test_the_signature(self, served):
        report, _ = served
        assert report["inputs"] == {"images": ["uint8", [None, 8, 8, 1]]}
        assert report["outputs"] == {
            "logits": ["float32", [None, 3]],
            "probabilities": ["float32", [None, 3]],
            "classes": ["int64", [None]],
        }

    def test_predicts_as_keras_does_with_tensorflow_alone(self, served, exported):
        report, answers = served
        _, child, _ = exported
        assert report["keras"] == "3."
        expected = child.predict(NORMALIZED, verbose=0)
        np.testing.assert_allclose(answers["logits"], expected, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(answers["classes"], expected.argmax(axis=1))
        assert len(set(answers["classes"])) > 1
        exponentials = np.exp(expected - expected.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(answers["probabilities"], probabilities, atol=1e-4)

    def test_an_image_alone_gives_what_it_gives_in_a_batch(self, served):
        _, answers = served
        for name in ("logits", "probabilities", "classes"):
            np.testing.assert_allclose(answers[f"one_{name}"], answers[name][:1], atol=1e-5)

    def test_a_wrong_request_is_an_error_and_the_next_one_is_served(self, served):
        report, answers = served
        types, shapes = report["errors"][:2], report["errors"][2:]
        for message, received in zip(types, ("float", "int32"), strict=True):
            assert f"expected to be a uint8 tensor but is a {received} tensor" in message
        for message, received in zip(shapes, ("1,7,8,1", "8,8,1", "1,8,8,3"), strict=True):
            expected = f"[{received}] is not compatible with expected shape [?,8,8,1]"
            assert expected in message
        assert "one_logits" in answers  # asked for after the errors


class TestExport:
    def test_what_is_written(self, exported):
        folder, _, summary = exported
        assert sorted(os.listdir(folder)) == ["export.json", "saved_model"]
        assert os.listdir(folder.parent) == ["out"]
        assert json.loads((folder / "export.json").read_text()) == summary
        sizes = [len(content) for content in files(folder / "saved_model").values()]
        assert summary["saved_model_bytes"] == sum(sizes)
        assert summary["images_checked"] == 40
        assert summary["changed_predictions"] == 0
        assert 0 <= summary["largest_difference"] <= 1e-4

    def test_holds_each_weight_once_and_no_keras_layers(self, exported):
        folder, child, _ = exported
        reader = tf.train.load_checkpoint(str(folder / "saved_model" / "variables" / "variables"))
        shapes = reader.get_variable_to_shape_map()
        weights = {name: shape for name, shape in shapes.items() if name.startswith("weights/")}
        assert len(weights) == len(child.weights)
        assert sum(map(math.prod, weights.values())) == child.count_params()
        assert not (folder / "saved_model" / "keras_metadata.pb").exists()

    def test_compares_all_images_in_batches(self, exported):
        folder, child, _ = exported
        saved_model = str(folder / "saved_model")
        for count, batch_size in ((7, 3), (40, 256)):
            images = IMAGES.take(np.arange(count))
            assert export._compare(child, saved_model, images, batch_size) == {
                "largest_difference": pytest.approx(0, abs=1e-4),
                "changed_predictions": 0,
                "images_checked": count,
            }

    @pytest.mark.parametrize("change", [1e-3, math.nan])
    def test_a_saved_model_that_differs_is_refused(self, exported, change):
        folder, child, _ = exported
        bias = child.get_layer("classifier_logits").bias
        before = bias.numpy()
        bias.assign_add([change, change, change])
        try:
            with pytest.raises(ValueError, match="^the SavedModel differs from Keras by ") as error:
                export._compare(child, str(folder / "saved_model"), IMAGES)
        finally:
            bias.assign(before)
        assert len(str(error.value).splitlines()) == 1

    @pytest.fixture
    def confuse(self, monkeypatch):
        """Lets what a loaded SavedModel serves go through a function: `confuse(function)`."""
        load = tf.saved_model.load

        def confuse(function):
            def load_confused(path):
                serve = load(path).signatures["serving_default"]
                confused = {"serving_default": lambda images: function(serve(images=images))}
                return types.SimpleNamespace(signatures=confused)

            monkeypatch.setattr(tf.saved_model, "load", load_confused)

        return confuse

    def test_a_changed_prediction_is_refused(self, exported, confuse):
        folder, child, _ = exported
        confuse(lambda served: {**served, "classes": tf.maximum(served["classes"], 1)})
        changed = np.sum(child(NORMALIZED).numpy().argmax(axis=1) == 0)
        assert changed > 0
        with pytest.raises(ValueError, match=f"in {changed} of 40 predictions"):
            export._compare(child, str(folder / "saved_model"), IMAGES)

    def test_a_difference_in_any_batch_counts(self, exported, confuse):
        folder, child, _ = exported
        errors = iter([0.0, 0.5, 0.25, 0.0])
        confuse(lambda served: {**served, "logits": served["logits"] + next(errors)})
        with pytest.raises(ValueError, match="by 0.5 and in 0 of 40 predictions"):
            export._compare(child, str(folder / "saved_model"), IMAGES, batch_size=10)

    def test_a_network_of_nan_is_refused(self, tmp_path):
        model = small_model()
        model.get_layer("logits").bias.assign([math.nan] * 3)
        with pytest.raises(ValueError, match="differs from Keras by nan"):
            export.export(model, IMAGES, directory=tmp_path / "out")
        assert os.listdir(tmp_path) == []

    def test_refuses_to_replace_without_being_told(self, small_export):
        before = files(small_export)
        with pytest.raises(ValueError, match=f"^{small_export} holds an export: .*--overwrite$"):
            export.export(small_model(), IMAGES, directory=small_export)
        assert files(small_export) == before

    def test_overwrite_replaces_it_all(self, small_export):
        (small_export / "saved_model" / "old").write_text("old")
        before = files(small_export)
        summary = export.export(small_model(), IMAGES, directory=small_export, overwrite=True)
        after = files(small_export)
        assert after.keys() == before.keys() - {"saved_model/old"}
        assert after != {name: before[name] for name in after}
        assert json.loads(after["export.json"]) == summary
        assert os.listdir(small_export.parent) == ["out"]

    @pytest.mark.parametrize("make", ["folder", "file", "link"])
    def test_never_replaces_what_is_no_export(self, tmp_path, make):
        path = tmp_path / "out"
        if make == "folder":
            path.mkdir()
            (path / "mine.txt").write_text("mine")
        elif make == "file":
            path.write_text("mine")
        else:
            path.symlink_to(tmp_path / "missing")
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=f"^{path} is there and is no export: .*--output$"):
                export.export(small_model(), IMAGES, directory=path, overwrite=overwrite)
        assert os.listdir(tmp_path) == ["out"]
        assert make == "link" or files(tmp_path)

    @pytest.mark.parametrize("failing", ["_compare", "write_json"])
    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_a_failure_midway_leaves_the_old_export(
        self, small_export, monkeypatch, failing, error
    ):
        def fail(*args):
            assert any(path.endswith(".partial") for path in os.listdir(small_export.parent))
            raise error

        before = files(small_export)
        monkeypatch.setattr(export, failing, fail)
        with pytest.raises(error):
            export.export(small_model(), IMAGES, directory=small_export, overwrite=True)
        assert files(small_export) == before
        assert os.listdir(small_export.parent) == ["out"]

    def test_a_failure_leaves_nothing_where_nothing_was(self, tmp_path, monkeypatch):
        def fail(*args):
            raise ValueError("differs")

        monkeypatch.setattr(export, "_compare", fail)
        with pytest.raises(ValueError, match="^differs$"):
            export.export(small_model(), IMAGES, directory=tmp_path / "out")
        assert os.listdir(tmp_path) == []

    def test_a_full_disk_leaves_the_old_export(self, small_export):
        before = files(small_export)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
        try:
            with pytest.raises(OSError, match="^cannot write .*: .*File too large.*$") as error:
                export.export(small_model(), IMAGES, directory=small_export, overwrite=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(str(error.value).splitlines()) == 1
        assert files(small_export) == before
        assert os.listdir(small_export.parent) == ["out"]

    def test_a_folder_below_a_file_is_an_error_of_the_system(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(NotADirectoryError):
            export.export(small_model(), IMAGES, directory=tmp_path / "file" / "out")

    def test_makes_the_folders_above_and_takes_text_and_paths(self, tmp_path):
        directory = f"{tmp_path}/a/b/"
        export.export(small_model(), IMAGES, directory=directory)
        assert sorted(os.listdir(tmp_path / "a")) == ["b"]
        assert pathlib.Path(directory, "export.json").exists()
