import contextlib
import importlib.util
import json
import math
import os
import pathlib
import re
import resource
import sys
import types

import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from exportable import IMAGES, REAL_INPUTS, make_network, normalized, small_model

from cpnas_tf import export
from cpnas_tf.export import bundle
from cpnas_tf.export.packing import packable_kernels
from cpnas_tf.networks.costs import layer_costs, total

HAS_LCE = importlib.util.find_spec("larq_compute_engine") is not None


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def change_all(monkeypatch, change):
    """Lets the logits that LiteRT gives for all images go through a function."""
    timed = bundle._timed

    def timed_and_changed(run, images):
        logits, milliseconds = timed(run, images)
        return (change(logits) if len(images) == len(IMAGES) else logits), milliseconds

    monkeypatch.setattr(bundle, "_timed", timed_and_changed)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A child's export: the folder, the child and the summary."""
    folder, child = tmp_path_factory.mktemp("export") / "out", make_network()
    return folder, child, export.export(child, IMAGES, directory=folder)


@pytest.fixture
def small_export(tmp_path):
    export.export(small_model(), IMAGES, directory=tmp_path / "out")
    return tmp_path / "out"


class TestExport:
    def test_what_is_written(self, exported):
        folder, child, summary = exported
        written = {"README.md", "export.json", "model_litert.tflite", "predict.py", "saved_model"}
        assert set(os.listdir(folder)) == written | ({"model.tflite"} if HAS_LCE else set())
        assert os.listdir(folder.parent) == ["out"]
        assert json.loads((folder / "export.json").read_text()) == summary
        sizes = [len(content) for content in files(folder / "saved_model").values()]
        assert summary["saved_model_bytes"] == sum(sizes)
        assert summary["memory_mbit"] == total(layer_costs(child))["bits"] / 1e6
        assert summary["packed_weight_bytes"] <= 1.15 * 1e6 * summary["memory_mbit"] / 8
        assert summary["images_checked"] == 40
        assert summary["changed_predictions"] == 0
        assert summary["largest_difference"] == 0

    def test_of_a_child_with_real_inputs(self, tmp_path):
        child = make_network(real_inputs=REAL_INPUTS, drop_path=0.1)
        summary = export.export(child, IMAGES, directory=tmp_path / "out")
        bits = total(layer_costs(child))["bits"]
        assert summary["packed_weight_bytes"] == math.ceil(bits / 8)
        assert summary["largest_difference"] == summary["changed_predictions"] == 0
        assert not HAS_LCE or summary["tflite_changed_predictions"] == 0

    @pytest.mark.parametrize(
        "name",
        [
            *("export[1]", "a*b"),
            *(pytest.param(name, marks=pytest.mark.soak) for name in ("a?b", "a\\b")),
        ],
    )
    def test_a_folders_name_is_no_pattern(self, tmp_path, name):
        (tmp_path / name).mkdir()
        folder = tmp_path / name / name
        summary = export.export(small_model(), IMAGES, directory=folder)
        assert summary["images_checked"] == 40
        assert json.loads((folder / "export.json").read_text()) == summary
        export.export(small_model(), IMAGES, directory=folder, overwrite=True)
        assert os.listdir(tmp_path / name) == [name]

    @pytest.mark.parametrize(("name", "_", "prefix"), bundle.FLATBUFFERS)
    def test_the_flatbuffers(self, exported, name, _, prefix):
        folder, _, summary = exported
        if prefix == "tflite_" and not HAS_LCE:
            pytest.skip("needs Larq Compute Engine")
        assert summary[f"{prefix}bytes"] == (folder / name).stat().st_size
        assert summary[f"{prefix}images_checked"] == 40
        assert summary[f"{prefix}changed_predictions"] == 0
        assert 0 < summary[f"{prefix}largest_difference"] <= 1e-4
        assert 30 <= summary[f"{prefix}images_decided"] <= 40
        assert summary[f"{prefix}milliseconds"] > 0

    @pytest.mark.parametrize("package", ["tensorflow", "ai_edge_litert"])
    def test_the_scripts_of_the_model_card_run(self, exported, package, monkeypatch, capsys):
        pytest.importorskip(package)
        folder, child, _ = exported
        scripts = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
        (script,) = (script for script in scripts if f"{package}" in script)
        monkeypatch.chdir(folder)
        exec(script, {})
        (printed,) = re.findall(r"\[\[(.*?)\]\]", capsys.readouterr().out, re.DOTALL)
        logits = child(np.full([1, 8, 8, 1], -1.0, np.float32), training=False)
        expected = {"tensorflow": tf.nn.softmax(logits), "ai_edge_litert": logits}[package]
        np.testing.assert_allclose(np.float32(printed.split()), expected[0], atol=1e-4)

    def test_what_predict_needs_to_know(self, exported):
        _, _, summary = exported
        assert summary["image_shape"] == [8, 8, 1]
        assert summary["classes"] == list(IMAGES.class_names)
        assert summary["framing"] == {"share": 1.0, "antialias": True}

    def test_without_lce_there_is_litert_alone(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "larq_compute_engine", None)
        summary = export.export(make_network(), IMAGES, directory=tmp_path / "out")
        assert summary["tflite_bytes"] is None
        assert not any(name.startswith("tflite_") for name in summary.keys() - {"tflite_bytes"})
        assert not (tmp_path / "out" / "model.tflite").exists()
        assert summary["litert_bytes"] == (tmp_path / "out" / "model_litert.tflite").stat().st_size

    @pytest.mark.parametrize("binarization", ["pcnn", "xnor"])
    def test_1_bit_kernels_on_real_activations_are_int8(self, tmp_path, binarization):
        network = make_network(binarization=binarization, activations=32)
        summary = export.export(network, IMAGES, directory=tmp_path / "out")
        assert summary["tflite_bytes"] is None, "there is nothing for LCE"
        assert summary["largest_difference"] == 0.0
        one_bit = len(packable_kernels(network))
        counts = {name: summary[f"litert_{name}_kernels"] for name in ("int8", "float")}
        assert counts == {"int8": one_bit, "float": 1}, "the stem's is real"
        assert summary["litert_images_decided"] == len(IMAGES)

    def test_a_parents_kernels_are_floats(self, tmp_path):
        summary = export.export(make_network("parent"), IMAGES, directory=tmp_path / "out")
        assert summary["litert_int8_kernels"] == 0
        assert summary["litert_float_kernels"] == 1 + len(packable_kernels(make_network()))

    @pytest.mark.parametrize(("share", "accepted"), [(5e-5, True), (2e-4, False)])
    def test_large_logits_may_differ_by_more(self, tmp_path, monkeypatch, share, accepted):
        model = small_model()
        model.get_layer("logits").bias.assign([1000.0, 0.0, 0.0])
        change_all(monkeypatch, lambda logits: logits * (1 + share))
        error = pytest.raises(ValueError, match="for 40 of 40 images")
        with contextlib.nullcontext() if accepted else error:
            export.export(model, IMAGES, directory=tmp_path / "out")

    @pytest.fixture
    def confuse(self, monkeypatch):
        """Lets the answers of a signature go through a function: `confuse(signature, function)`."""
        load = tf.saved_model.load

        def confuse(confused, function):
            def load_confused(path):
                signatures = dict(load(path).signatures)
                serve = signatures[confused]
                signatures[confused] = lambda **request: function(serve(**request))
                return types.SimpleNamespace(signatures=signatures)

            monkeypatch.setattr(tf.saved_model, "load", load_confused)

        return confuse

    @pytest.mark.parametrize("signature", ["serving_default", "serve_bytes"])
    @pytest.mark.parametrize("change", [1e-3, math.nan])
    def test_other_logits_are_refused(self, tmp_path, confuse, signature, change):
        confuse(signature, lambda answer: {**answer, "logits": answer["logits"] + change})
        with pytest.raises(ValueError, match="^the SavedModel differs from Keras by ") as error:
            export.export(small_model(), IMAGES, directory=tmp_path / "out")
        assert len(str(error.value).splitlines()) == 1
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize("output", ["classes", "labels"])
    def test_other_predictions_are_refused(self, tmp_path, confuse, output):
        confuse("serving_default", lambda answer: {**answer, output: answer[output][::-1]})
        with pytest.raises(ValueError, match=r"by 0 and in \d+ of 40 predictions"):
            export.export(make_network(), IMAGES, directory=tmp_path / "out")
        assert os.listdir(tmp_path) == []

    def test_a_difference_in_any_batch_counts(self, tmp_path, confuse, monkeypatch):
        errors = iter([0.0, 0.5, 0.25, 0.0])
        monkeypatch.setattr(bundle, "_BATCH", 10)
        confuse(
            "serving_default",
            lambda answer: {**answer, "logits": answer["logits"] + next(errors)},
        )
        with pytest.raises(ValueError, match="by 0.5 and in 0 of 40 predictions"):
            export.export(small_model(), IMAGES, directory=tmp_path / "out")

    def test_a_network_of_nan_is_refused(self, tmp_path):
        model = small_model()
        model.get_layer("logits").bias.assign([math.nan] * 3)
        with pytest.raises(ValueError, match="differs from Keras by nan"):
            export.export(model, IMAGES, directory=tmp_path / "out")
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda logits: logits + 1e-3, "for 40 of 40 images .* and in 0 of 40 predictions"),
            (lambda logits: logits * math.nan, "for 40 of 40 images"),
            (lambda logits: np.vstack([logits[:1] + 1, logits[1:]]), "for 1 of 40 .* in 0 of 40"),
            (lambda logits: np.vstack([-logits[:5], logits[5:]]), "for 5 of 40 .* in 5 of 40"),
        ],
    )
    def test_another_flatbuffer_is_refused(self, tmp_path, monkeypatch, change, message):
        change_all(monkeypatch, change)
        with pytest.raises(ValueError, match=f"^model_litert.tflite differs from Keras {message}"):
            export.export(small_model(), IMAGES, directory=tmp_path / "out")
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(("changed", "refused"), [(4, False), (5, True)])
    def test_of_images_that_rounding_decides_few_may_differ(
        self, tmp_path, monkeypatch, changed, refused
    ):
        change_all(monkeypatch, lambda logits: np.vstack([-logits[:changed], logits[changed:]]))
        nearest = np.repeat([bundle.ROUNDING / 2, bundle.ROUNDING * 2], [changed, 40 - changed])
        monkeypatch.setattr(bundle, "nearest_to_zero", lambda *args: nearest)
        error = pytest.raises(ValueError, match=" 0 of 35 images .* and in 5 of 40 predictions")
        with error if refused else contextlib.nullcontext():
            summary = export.export(small_model(), IMAGES, directory=tmp_path / "out")
            assert summary["litert_changed_predictions"] == 4
            assert summary["litert_images_decided"] == 36

    def test_how_near_to_0_signs_come(self):
        x = tf.keras.Input([8, 8, 1])
        zeros = 0.0 * x  # whose sign is the same in whatever order one adds up
        y = [lq.layers.QuantConv2D(3, 1, input_quantizer="ste_sign")(part) for part in (x, zeros)]
        logits = tf.keras.layers.GlobalAveragePooling2D()(tf.keras.layers.add(y))
        sizes = np.abs(normalized(IMAGES)).reshape(40, -1)
        expected = sizes.min(axis=1) / np.sqrt(np.mean(sizes**2))
        nearest = bundle.nearest_to_zero(tf.keras.Model(x, logits), IMAGES.images)
        np.testing.assert_allclose(nearest, expected, atol=1e-6)
        assert set(bundle.nearest_to_zero(small_model(), IMAGES.images)) == {math.inf}

    def test_of_a_flatbuffer_the_first_images_are_checked(self, tmp_path, monkeypatch):
        monkeypatch.setattr(bundle, "FLATBUFFER_IMAGES", 7)
        summary = export.export(small_model(), IMAGES, directory=tmp_path / "out")
        assert (summary["images_checked"], summary["litert_images_checked"]) == (40, 7)

    def test_refuses_to_replace_without_being_told(self, small_export):
        before = files(small_export)
        with pytest.raises(ValueError, match=f"^{small_export} holds an export: .*overwrite=True$"):
            export.export(small_model(), IMAGES, directory=small_export)
        assert files(small_export) == before

    def test_overwrite_replaces_it_all(self, small_export):
        old = {"saved_model/variables/variables.data-00001-of-00002", "genotype.png"}
        for name in old:
            (small_export / name).write_text("old")
        before = files(small_export)
        summary = export.export(small_model(), IMAGES, directory=small_export, overwrite=True)
        after = files(small_export)
        assert after.keys() == before.keys() - old
        assert after != {name: before[name] for name in after}
        assert json.loads(after["export.json"]) == summary
        assert os.listdir(small_export.parent) == ["out"]

    @pytest.mark.parametrize("name", ["folder", "link"])
    def test_an_empty_folder_is_taken(self, tmp_path, name):
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("folder")
        summary = export.export(small_model(), IMAGES, directory=tmp_path / name)
        assert json.loads((tmp_path / "folder" / "export.json").read_text()) == summary
        assert os.readlink(tmp_path / "link") == "folder"

    def test_overwrite_keeps_files_of_others(self, small_export):
        names = {"notes.txt", ".DS_Store", "saved_model/assets.extra/warmup", "saved_model/a.md"}
        for name in names:
            (small_export / name).parent.mkdir(exist_ok=True)
            (small_export / name).write_text("mine")
        (small_export / "empty").mkdir()
        (small_export / "link").symlink_to("missing")
        summary = export.export(small_model(), IMAGES, directory=small_export, overwrite=True)
        assert {(small_export / name).read_text() for name in names} == {"mine"}
        assert os.listdir(small_export / "empty") == []
        assert os.readlink(small_export / "link") == "missing"
        assert json.loads((small_export / "export.json").read_text()) == summary
        assert os.listdir(small_export.parent) == ["out"]

    def test_overwrite_through_a_link_replaces_its_target(self, small_export, tmp_path):
        (tmp_path / "latest").symlink_to("out")
        (small_export / "predict.py").write_text("old")
        export.export(small_model(), IMAGES, directory=f"{tmp_path}/latest/", overwrite=True)
        assert os.readlink(tmp_path / "latest") == "out"
        assert (small_export / "predict.py").read_text() != "old"
        assert sorted(os.listdir(tmp_path)) == ["latest", "out"]

    @pytest.mark.parametrize(
        "text", ["{}", "[]", "null", '{"name": "other", "format": 1}', '{"saved_model_bytes": 1}']
    )
    def test_another_programs_record_makes_no_export(self, tmp_path, text):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "export.json").write_text(text)
        before = files(tmp_path)
        with pytest.raises(ValueError, match="is there and is no export: "):
            export.export(small_model(), IMAGES, directory=tmp_path / "out", overwrite=True)
        assert files(tmp_path) == before

    def test_an_export_of_version_0_1_is_replaced_and_a_newer_one_is_not(self, small_export):
        path = small_export / "export.json"
        summary = json.loads(path.read_text())
        assert summary.pop("format") == 2
        path.write_text(json.dumps(summary))
        bundle.check_output(small_export, overwrite=True)
        path.write_text(json.dumps({**summary, "format": 3}))
        with pytest.raises(ValueError, match="export.json has format 3, this version"):
            bundle.check_output(small_export, overwrite=True)

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
            with pytest.raises(
                ValueError, match=f"^{path} is there and is no export: choose another directory$"
            ):
                export.export(small_model(), IMAGES, directory=path, overwrite=overwrite)
        assert os.listdir(tmp_path) == ["out"]
        assert make == "link" or files(tmp_path)

    @pytest.mark.parametrize(
        "failing", ["_write_saved_model", "_write_flatbuffers", "write_json", "write_model_card"]
    )
    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_a_failure_midway_leaves_the_old_export(
        self, small_export, monkeypatch, failing, error
    ):
        def fail(*args, **kwargs):
            assert any(path.endswith(".partial") for path in os.listdir(small_export.parent))
            raise error

        before = files(small_export)
        monkeypatch.setattr(bundle, failing, fail)
        with pytest.raises(error):
            export.export(small_model(), IMAGES, directory=small_export, overwrite=True)
        assert files(small_export) == before
        assert os.listdir(small_export.parent) == ["out"]

    def test_a_failure_leaves_nothing_where_nothing_was(self, tmp_path, monkeypatch):
        def fail(*args):
            raise ValueError("differs")

        monkeypatch.setattr(bundle, "_write_saved_model", fail)
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

    def test_a_folder_below_a_file_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(ValueError, match=f"^{tmp_path}/file/out.* lies in a file"):
            export.export(small_model(), IMAGES, directory=tmp_path / "file" / "out")

    def test_makes_the_folders_above_and_takes_text_and_paths(self, tmp_path):
        directory = f"{tmp_path}/a/b/"
        export.export(small_model(), IMAGES, directory=directory)
        assert sorted(os.listdir(tmp_path / "a")) == ["b"]
        assert pathlib.Path(directory, "export.json").exists()
