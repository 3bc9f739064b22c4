import dataclasses
import json
import re

import numpy as np
import pytest
from exportable import CELL, IMAGES

from cpnas_tf.data.augmentation import normalize
from cpnas_tf.export.model_card import write_model_card
from cpnas_tf.runs.trained import TrainedRun

SUMMARY = {
    "framing": {"share": 1.0, "antialias": True},
    "memory_mbit": 3.316,
    "packed_weight_bytes": 414524,
    "batchnorm_bytes": 200000,
    "graph_bytes": 100000,
    "saved_model_bytes": 714524,
    "largest_difference": 0.0,
    "changed_predictions": 0,
    "images_checked": 40,
    "milliseconds": 0.25,
    "litert_bytes": 3000000,
    "litert_largest_difference": 1e-6,
    "litert_changed_predictions": 1,
    "litert_images_checked": 35,
    "litert_images_decided": 33,
    "litert_milliseconds": 2.5,
    "tflite_bytes": 900000,
    "tflite_largest_difference": 0.5,
    "tflite_changed_predictions": 2,
    "tflite_images_checked": 30,
    "tflite_images_decided": 27,
    "tflite_milliseconds": 7.5,
}


@pytest.fixture
def workdir(tmp_path):
    workdir = tmp_path / "workdir"
    workdir.mkdir()
    config = {"data": {"name": "digits"}, "network": {"cells": 10, "channels": 56}}
    run = {"config": config, "precision": "child", "genotype": {"normal": CELL, "reduce": CELL}}
    (workdir / "config.json").write_text(json.dumps(run))
    (workdir / "metrics.json").write_text('{"val_accuracy": 0.5}')
    return workdir


def written(tmp_path, summary=SUMMARY, **settings):
    write_model_card(str(tmp_path), summary, IMAGES, **settings)
    return (tmp_path / "README.md").read_text()


class TestModelCard:
    def test_says_what_the_network_is_and_how_good(self, tmp_path, workdir):
        text = written(tmp_path, trained=TrainedRun(str(workdir)))
        assert "![Its cells](genotype.png)" in text
        assert (tmp_path / "genotype.png").read_bytes().startswith(b"\x89PNG")
        for part in ("1-bit", "`digits`", "CC BY 4.0", "50.00%", "cells 10, channels 56"):
            assert part in text
        assert "| test accuracy | 50.00% |" in text
        (workdir / "metrics.json").write_text('{"val_accuracy": 0.5, "validated_on": "validation"}')
        text = written(tmp_path, trained=TrainedRun(str(workdir)))
        assert "| validation accuracy | 50.00% |" in text
        evaluation = {"accuracy": 0.875, "examples": 360}
        (workdir / "evaluation.json").write_text(json.dumps(evaluation))
        assert "87.50% of 360 images" in written(tmp_path, trained=TrainedRun(str(workdir)))

    def test_says_where_activations_are_real(self, tmp_path, workdir):
        run = json.loads((workdir / "config.json").read_text())
        run["config"]["network"] |= {"binarization": "pcnn", "activations": 32}
        (workdir / "config.json").write_text(json.dumps(run))
        text = written(tmp_path, trained=TrainedRun(str(workdir)))
        assert "(CP-NAS): 1-bit weights; real are activations, stem," in text

    def test_of_a_reference_network(self, tmp_path, workdir):
        run = json.loads((workdir / "config.json").read_text())
        run |= {"genotype": None, "model": "wrn22_1bit"}
        (workdir / "config.json").write_text(json.dumps(run))
        text = written(tmp_path, trained=TrainedRun(str(workdir)))
        assert "`wrn22_1bit`: 1-bit weights and activations" in text
        assert "genotype" not in text
        assert not (tmp_path / "genotype.png").exists()

    def test_says_sizes_and_what_was_checked(self, tmp_path):
        text = written(tmp_path)
        for part in ("3.32 Mbit", "414,524 bytes", "200,000", "714,524", "900,000", "3,000,000"):
            assert part in text
        assert "0 of 40 predictions differ" in text
        assert "2 of 30 predictions differ, logits by at most 5.0e-01" in text
        assert "equal for the 27 images that rounding does not decide" in text
        assert "1 of 35 predictions differ, logits by at most 1.0e-06; 2.5 ms per image" in text

    def test_says_what_the_images_and_the_classes_are(self, tmp_path):
        text = written(tmp_path)
        assert "Images of 8 x 8 pixels and 1 channel, uint8." in text
        (names,) = re.findall(r"```json\n(.*)\n```", text)
        assert tuple(json.loads(names)) == IMAGES.class_names
        divisor, shift = re.search(r"divide by ([\d.]+) and subtract (\d+),", text).groups()
        expected = IMAGES.images / float(divisor) - float(shift)
        np.testing.assert_allclose(normalize(IMAGES.images), expected, atol=1e-6)

    @pytest.mark.parametrize(
        ("share", "antialias", "sentence"),
        [
            (1.0, True, "the largest window of these proportions, and resizes it bilinearly with"),
            (0.875, False, "87.5% of the largest window of these proportions, and resizes it bil"),
        ],
    )
    def test_says_how_photos_get_their_size(self, tmp_path, share, antialias, sentence):
        text = written(tmp_path, {**SUMMARY, "framing": {"share": share, "antialias": antialias}})
        assert sentence in " ".join(text.split())
        assert ("without aliasing" in text) == antialias

    def test_names_stay_in_their_block_whatever_they_hold(self, tmp_path):
        names = ("a`b``` c", "*d* | <e>", "é $x$")
        images = dataclasses.replace(IMAGES, class_names=names)
        write_model_card(str(tmp_path), SUMMARY, images)
        (found,) = re.findall(r"^```json\n(.*)\n```$", (tmp_path / "README.md").read_text(), re.M)
        assert tuple(json.loads(found)) == names

    def test_says_how_to_ask(self, tmp_path):
        text = written(tmp_path)
        assert "uint8 images `[batch, 8, 8, 1]`" in text
        assert "`[batch, 3]`" in text
        request = re.search(r"-d '(.*?)'\n```", text, re.DOTALL)[1]
        body = json.loads(request.replace("'$(base64 -w0 image.png)'", "aW1hZ2U="))
        assert body["signature_name"] == "serve_bytes"
        assert body["instances"] == [{"image_bytes": {"b64": "aW1hZ2U="}}]

    def test_says_what_made_it(self, tmp_path):
        text = written(tmp_path)
        assert re.search(r"cpnas_tf \d.*, tensorflow 2\.\d+.*, tf-keras 2.*, larq 0\.\d+", text)
        assert "Apache License 2.0" in text

    def test_of_a_network_that_is_no_1_bit_one(self, tmp_path):
        text = written(tmp_path, {**SUMMARY, "tflite_bytes": None})
        assert "`model.tflite`" not in text
        assert "`model_litert.tflite`" in text
        assert "genotype" not in text
        assert not (tmp_path / "genotype.png").exists()
