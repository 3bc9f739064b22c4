"""What a finished training left in its workdir. Only networks and images load TensorFlow."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cpnas_tf.catalogue import FOLDER, binary_settings
from cpnas_tf.files import local_path, read_json
from cpnas_tf.genotypes import Genotype
from cpnas_tf.runs import images
from cpnas_tf.runs.workdir import check_format

if TYPE_CHECKING:
    import tensorflow as tf

    from cpnas_tf.data import AnyImages


class TrainedRun:
    """A training of `cpnas train`, finished; each part is read when it is asked for.

    Args:
        directory: the training's workdir.
        data_dir: TFDS data directory, where the training's is not right any more; it is also where
            a relative folder of images begins.

    Attributes:
        directory: the workdir.
        record: the contents of `config.json`.

    Raises:
        ValueError: if the training did not finish, or its record cannot be read.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, data_dir: str | os.PathLike[str] | None = None
    ) -> None:
        directory = local_path(directory)
        if not os.path.exists(os.path.join(directory, "metrics.json")):
            raise ValueError(_what_is_missing(directory))
        self.directory = directory
        self.record = _read_record(directory)
        self._data_dir = data_dir

    @property
    def config(self) -> dict[str, Any]:
        """The training's --config, a dict by section."""
        return self.record["config"]

    @property
    def precision(self) -> str:
        """Of the network: "child" or "parent"."""
        return self.record["precision"]

    @property
    def model(self) -> str | None:
        """The reference network's name; None of a genotype's network."""
        return self.record.get("model")

    @property
    def genotype(self) -> Genotype | None:
        """The `Genotype`; None of a reference network."""
        return None if self.model else Genotype(**self.record["genotype"])

    @functools.cached_property
    def metrics(self) -> dict[str, Any]:
        """The contents of `metrics.json`."""
        return read_json(os.path.join(self.directory, "metrics.json"))

    @functools.cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """The contents of `evaluation.json`; None before `cpnas evaluate`."""
        path = os.path.join(self.directory, "evaluation.json")
        return read_json(path) if os.path.exists(path) else None

    @property
    def class_names(self) -> Sequence[str]:
        """The classes' names, in the order of the logits."""
        recorded = self.record.get("images")
        return tuple(recorded["classes"]) if recorded else self.test_images().class_names

    def network(self) -> tf.keras.Model:
        """Builds the network, with its final weights.

        Returns:
            A Keras model from images in [-1, 1] to logits.

        Raises:
            ValueError: if the last checkpoint is broken or of another network.
        """
        from cpnas_tf.networks import cells, reference
        from cpnas_tf.runs.checkpoints import load_weights

        input_shape, classes = self._shape()
        shape = {"input_shape": input_shape, "classes": classes}
        if self.model:
            model = reference.build(self.model, **shape, **binary_settings(self.config["network"]))
        else:
            network = {"precision": self.precision, **self.config["network"]}
            model = cells.build_network(self.genotype, **shape, **network)  # type: ignore[arg-type]
        load_weights(model, self.directory)
        return model

    def test_images(self) -> AnyImages:
        """The test images of the training's data set, `Images` or `StoredImages`.

        Raises:
            ValueError: if they cannot be read or are others than those of the training.
        """
        return self._test_images

    @functools.cached_property
    def _test_images(self):
        from cpnas_tf.data import datasets

        section = {**self.config["data"], "split": "test"}
        if section.get("largest_size") and section["name"].startswith(FOLDER):
            section["image_size"] = self._shape()[0][0]  # chosen from the images to train on
        test = datasets.load(**section, data_dir=self._place(section["name"]))
        difference = images.difference(self.record.get("images"), images.record(test))
        if difference:
            raise ValueError(
                f"{self.directory} was trained on other images ({difference}): "
                "restore them, or name the data_dir that holds them"
            )
        return test

    def _place(self, name):
        """Where the data set lies: as told, now or then.

        A relative folder of which nothing was told begins here or, if it is not here, where the
        training ran.
        """
        told = self._data_dir or self.record.get("data_dir")
        if told or not name.startswith(FOLDER):
            return told
        folder = local_path(name.removeprefix(FOLDER))
        return None if os.path.isdir(folder) else self.record.get("cwd")

    def _shape(self):
        """`((height, width, channels), classes)` of the images that the network takes."""
        recorded = self.record.get("images")
        if recorded:
            return tuple(recorded["shape"]), len(recorded["classes"])
        return self.test_images().image_shape, self.test_images().classes


def check_classes(directory: str | os.PathLike[str], class_names: Sequence[str]) -> None:
    """Refuses the weights of a training on other classes.

    Args:
        directory: the training's workdir, finished or not.
        class_names: what the logits are to mean.

    Raises:
        ValueError: if its record names other classes; one without a record is taken.
    """
    if not os.path.exists(os.path.join(directory, "config.json")):
        return
    recorded = _read_record(directory).get("images")
    other = recorded and images.other_classes(recorded["classes"], list(class_names))
    if other:
        raise ValueError(f"{directory} was trained on other classes: {other}")


def _what_is_missing(directory):
    """Why a folder without metrics is no finished training."""
    names = ("history.csv", "config.json")
    has_history, has_record = (os.path.exists(os.path.join(directory, name)) for name in names)
    if has_history and not has_record:
        return (
            f"{directory} has weights and no record of their network and images, as cpnas_tf.train "
            "leaves it: build the network and load them with "
            "cpnas_tf.runs.checkpoints.load_weights(model, directory)"
        )
    return f"{directory} holds no finished training: run `cpnas train` first"


def _read_record(directory):
    path = os.path.join(directory, "config.json")
    record = read_json(path)
    if not isinstance(record, dict) or "config" not in record:
        raise ValueError(f"{path} is not that of a training")
    check_format(record, path)
    return record
