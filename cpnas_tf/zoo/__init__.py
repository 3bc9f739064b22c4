"""Trained 1-bit networks that come with the package, each in a file of some 10 to 400 kB.

A file `NAME.npz` holds the signs of the 1-bit kernels, eight per byte, their scales, all other
weights, and a record in JSON: the genotype, the network's settings, the classes, the test accuracy,
and the command that trained it.
"""

import json
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from cpnas_tf.export.packing import flat, packable_kernels
from cpnas_tf.genotypes import Genotype
from cpnas_tf.networks.cells import build_network
from cpnas_tf.networks.quantizers import is_depthwise

FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
    """The names of the networks, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.npz"))


def record(name: str) -> dict[str, Any]:
    """What is known of a network.

    Args:
        name: one of `names`.

    Returns:
        A dict: `genotype`, `network` (settings of `build_network`), `image_shape`, `classes` (their
        names), `data`, `accuracy` (of the test images), `command`, and `licence`.

    Raises:
        ValueError: if the name is unknown.
    """
    return json.loads(_arrays(name)["record"].tobytes())


def load(name: str, *, classes: int | None = None) -> tf.keras.Model:
    """Loads a network, as a Keras model that can be used, trained further and exported.

    Latent weights are not stored. Decision: each starts at alpha * sign, which predicts as what was
    trained did; to fine-tune, all weights of a filter are then equally far from a change of sign.

    Args:
        name: one of `names`.
        classes: number of classes, if it is to be another one; the classifier is then a new one.

    Returns:
        A Keras model from images in [-1, 1] to logits.

    Raises:
        ValueError: if the name is unknown.

    Examples:
        >>> import cpnas_tf.zoo
        >>> child = cpnas_tf.zoo.load("digits")
        >>> child.output_shape
        (None, 10)
        >>> cpnas_tf.zoo.load("digits", classes=3).output_shape
        (None, 3)
    """
    known = record(name)
    model = _build(known, len(known["classes"]))
    _unpack(model, _arrays(name))
    if classes in (None, len(known["classes"])):
        return model
    other = _build(known, classes)
    for layer, new in zip(model.layers, other.layers, strict=True):
        if layer.output_shape == new.output_shape:
            new.set_weights(layer.get_weights())
    return other


def pack(model: tf.keras.Model, known: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a network's file; see `record` for what has to be known of it."""
    kernels = packable_kernels(model)
    return {
        "record": np.frombuffer(json.dumps(known, ensure_ascii=False).encode(), np.uint8),
        "signs": np.packbits(flat(kernel.signs for kernel in kernels.values())),
        "scales": flat(kernel.scales for kernel in kernels.values()),
        "weights": flat(weight.numpy() for weight in _others(model, kernels)),
    }


def _arrays(name):
    if name not in names():
        raise ValueError(f"the zoo has no {name!r}, expected one of: {', '.join(names())}")
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def _build(known, classes):
    shape = known["image_shape"]
    genotype = Genotype(**known["genotype"])
    return build_network(genotype, input_shape=shape, classes=classes, **known["network"])


def _unpack(model, arrays):
    kernels = packable_kernels(model)
    signs, scales, weights = (
        iter(np.split(values, np.cumsum(sizes)))
        for values, sizes in (
            (np.unpackbits(arrays["signs"]), [kernel.signs.size for kernel in kernels.values()]),
            (arrays["scales"], [kernel.scales.size for kernel in kernels.values()]),
            (arrays["weights"], [int(np.size(weight)) for weight in _others(model, kernels)]),
        )
    )
    for name, kernel in kernels.items():
        sign = 2.0 * next(signs).reshape(kernel.signs.shape) - 1.0
        _latent(model.get_layer(name)).assign(sign * next(scales).reshape(kernel.scales.shape))
    for weight in _others(model, kernels):
        weight.assign(next(weights).reshape(weight.shape))


def _latent(layer):
    kernel = layer.depthwise_kernel if is_depthwise(layer) else layer.kernel
    return getattr(kernel, "latent_variable", kernel)


def _others(model, kernels):
    """The weights that are no 1-bit kernels, in the order of the layers."""
    return [
        getattr(weight, "latent_variable", weight)
        for layer in model.layers
        if layer.name not in kernels
        for weight in layer.weights
    ]
