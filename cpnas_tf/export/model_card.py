"""The model card of an export: what the network is, how good and how large, and how to ask it."""

import contextlib
import importlib.metadata
import json
import os
from collections.abc import Mapping
from typing import Any

import cpnas_tf
from cpnas_tf.catalogue import DATASETS, shown_name
from cpnas_tf.data import AnyImages
from cpnas_tf.files import write_atomically
from cpnas_tf.plots.cells import plot_genotype
from cpnas_tf.plots.figures import render
from cpnas_tf.runs.trained import TrainedRun

_PRECISIONS = {
    "child": "1-bit weights and activations; real are stem, classifier and batch normalization",
    "parent": "full precision",
}
_ONE_BIT_WEIGHTS = "1-bit weights; real are activations, stem, classifier and batch normalization"


_IMAGES = """\
## Images and classes

Images of {height} x {width} pixels and {channels} channel{plural}, uint8. The networks here take
them as they are, divide by 127.5 and subtract 1, which makes [-1, 1] of 0..255. Of a photo of
another size the training's reader takes the middle, {window} of these proportions, and
resizes it bilinearly{antialias}. So do `predict.py` and `serve_bytes`.

The classes in the order of the logits:

```json
{classes}
```
"""


_USE = """\
## Use

`python predict.py PHOTO...` says what photos show, with `model_litert.tflite`. It needs no
TensorFlow: `pip install ai-edge-litert pillow`. `saved_model` needs TensorFlow and nothing else:

```python
import tensorflow as tf

signatures = tf.saved_model.load("saved_model").signatures
answer = signatures["serving_default"](images=tf.zeros([1, {shape}], tf.uint8))
print(answer["labels"], answer["probabilities"])
```

It takes uint8 images `[batch, {shape}]` and gives `logits` and `probabilities`, float32
`[batch, {classes}]`, `classes`, int64 `[batch]`, and `labels`, their names
(`saved_model/assets/labels.txt`). The signature `serve_bytes` takes JPEG and PNG files of any size
as `image_bytes`, string `[batch]`, and turns them upright by their EXIF orientation; in the REST
form of TensorFlow Serving:

```
curl localhost:8501/v1/models/NAME:predict -d '{{"signature_name": "serve_bytes",
  "instances": [{{"image_bytes": {{"b64": "'$(base64 -w0 image.png)'"}}}}]}}'
```

`model_litert.tflite` is for LiteRT, which runs on Linux, macOS, Windows, Android and iOS. It takes
one image, uint8 `[1, {shape}]`, and gives its `logits`:

```python
import numpy as np
from ai_edge_litert.interpreter import Interpreter

network = Interpreter("model_litert.tflite").get_signature_runner()
print(network(images=np.zeros([1, {shape}], np.uint8))["logits"])
```
"""


_ONE_BIT = """\

`model.tflite` does the same in the interpreter of Larq Compute Engine, which computes 1-bit
convolutions on bits. These interpreters add up in another order than Keras; where a number is
within rounding of 0, its sign and all after it may be another.
"""


def write_model_card(
    directory: str | os.PathLike[str],
    summary: Mapping[str, Any],
    images: AnyImages,
    *,
    trained: TrainedRun | None = None,
) -> None:
    """Writes `README.md` and, if the training and its genotype are known, `genotype.png`.

    Args:
        directory: the export's folder.
        summary: the contents of `export.json`.
        images: the `Images` that were checked.
        trained: the network's `TrainedRun`.

    Raises:
        ValueError: if the training's files cannot be read.
        OSError: if the folder cannot be written.
    """
    training, facts = "", []
    if trained is not None:
        if trained.genotype:
            picture = render(plot_genotype(trained.genotype), "png")
            write_atomically(os.path.join(directory, "genotype.png"), picture)
        training, facts = _training(trained)
    shape = ", ".join(map(str, images.image_shape))
    height, width, channels = images.image_shape
    described = _IMAGES.format(
        height=height,
        width=width,
        channels=channels,
        plural="" if channels == 1 else "s",
        **_framing(**summary["framing"]),
        classes=json.dumps(list(images.class_names), ensure_ascii=False),
    )
    use = _USE + (_ONE_BIT if summary["tflite_bytes"] else "")
    text = [
        f"# Classifier of {images.classes} classes\n{training}",
        _table([*facts, *_facts(summary)]),
        described,
        use.format(shape=shape, classes=images.classes),
        f"## Made with\n\n{_versions()}. The code is under the Apache License 2.0.",
    ]
    write_atomically(os.path.join(directory, "README.md"), "\n".join(text) + "\n")


def _training(trained):
    """The sentences and the rows of the table that tell of the training."""
    if trained.genotype:
        pictured = "![Its cells](genotype.png)\n\n"
        what = f"{pictured}The {trained.precision} of the genotype above (CP-NAS)"
    else:
        what = f"`{trained.model}`"
    name = trained.config["data"]["name"]
    source = name in DATASETS and DATASETS[name].source
    text = f"""
{what}: {_precision(trained)}.
Trained on `{shown_name(name)}`: {source or "see its source for its terms"}.
"""
    part = "test"
    if trained.evaluation:
        accuracy = "{accuracy:.2%} of {examples} images".format(**trained.evaluation)
    else:
        accuracy = "{val_accuracy:.2%}".format(**trained.metrics)
        part = trained.metrics.get("validated_on", part)
    sizes = ", ".join(f"{name} {value}" for name, value in trained.config["network"].items())
    return text, [(f"{part} accuracy", accuracy), ("network", sizes)]


def _precision(trained):
    settings = trained.config["network"]
    if trained.precision == "child" and settings.get("activations", 1) != 1:
        return _ONE_BIT_WEIGHTS
    return _PRECISIONS[trained.precision]


def _framing(share, antialias):
    """The words for a `Framing`."""
    return {
        "window": "the largest window" if share == 1 else f"{share:.1%} of the largest window",
        "antialias": " without aliasing" if antialias else "",
    }


def _facts(summary):
    rows = [
        ("paper's count of memory", f"{summary['memory_mbit']:.2f} Mbit"),
        ("1-bit kernels and real stem and classifier", f"{summary['packed_weight_bytes']:,} bytes"),
        ("batch normalization and scales", f"{summary['batchnorm_bytes']:,} bytes"),
        ("`saved_model`, with its graph", f"{summary['saved_model_bytes']:,} bytes"),
        ("`saved_model` against Keras", _agreement(summary, "")),
    ]
    for file, prefix in (("model_litert.tflite", "litert_"), ("model.tflite", "tflite_")):
        if summary[f"{prefix}bytes"]:
            rows += [
                (f"`{file}`", f"{summary[f'{prefix}bytes']:,} bytes"),
                (
                    f"`{file}` against Keras",
                    f"{_agreement(summary, prefix)}; equal for the "
                    f"{summary[f'{prefix}images_decided']} images that rounding does not decide",
                ),
            ]
    return rows


def _agreement(summary, prefix):
    return (
        f"{summary[f'{prefix}changed_predictions']} of {summary[f'{prefix}images_checked']} "
        f"predictions differ, logits by at most {summary[f'{prefix}largest_difference']:.1e}; "
        f"{summary[f'{prefix}milliseconds']:.1f} ms per image"
    )


def _table(rows):
    return "\n".join(
        ["| | |", "| --- | --- |", *(f"| {name} | {what} |" for name, what in rows), ""]
    )


def _versions():
    versions = [f"cpnas_tf {cpnas_tf.__version__}"]
    for package in ("tensorflow", "tf-keras", "larq", "larq-compute-engine"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(versions)
