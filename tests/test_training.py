import contextlib
import csv
import gc
import json
import math
import os
import resource
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from cpnas_tf import data, training
from cpnas_tf.child_parent import ChildParentLoss
from cpnas_tf.genotypes import EDGES, Genotype
from cpnas_tf.networks import build_network

EPOCHS, STEPS, BATCH = 4, 3, 8
CLASS_NAMES = ("zero", "one", "two")
GENOTYPE = Genotype(
    normal=("none",) * len(EDGES),
    reduce=("skip_connect", "max_pool_3x3", *["none"] * (len(EDGES) - 3), "dil_conv_3x3"),
)
NETWORK = {"cells": 1, "channels": 2}
AUGMENTATION = {"crop_padding": 1, "flip": True, "cutout": 2}
TRUNCATIONS = [(".index", 0), (".index", -1), (".data-00000-of-00001", 0.5)]


class StopError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module", autouse=True)
def deterministic():
    tf.keras.utils.set_random_seed(0)
    tf.config.experimental.enable_op_determinism()
    yield
    disable_op_determinism()


def make_images(count, *, seed):
    """Images whose brighter third tells the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(len(CLASS_NAMES), size=count)
    images = random.integers(0, 200, size=(count, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        image[:, 2 * label : 2 * label + 3] += 55
    return data.Images(images.astype(np.uint8), labels, CLASS_NAMES)


IMAGES = make_images(STEPS * BATCH + 2, seed=1)
VALIDATION = make_images(11, seed=2)


def small_model(*, filters=2):
    tf.keras.utils.set_random_seed(0)
    images = tf.keras.Input([8, 8, 1])
    x = tf.keras.layers.Conv2D(filters, 3, name="convolution")(images)
    x = tf.keras.layers.BatchNormalization(name="bn")(x)
    x = tf.keras.layers.Flatten()(x)
    return tf.keras.Model(images, tf.keras.layers.Dense(len(CLASS_NAMES), name="logits")(x))


def child_model():
    tf.keras.utils.set_random_seed(0)
    return build_network(GENOTYPE, input_shape=(8, 8, 1), classes=len(CLASS_NAMES), **NETWORK)


def child_loss():
    return ChildParentLoss(filter_weight=0.5, centre_weight=0.25)


def train(model, folder, **settings):
    settings = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": 0.05, **settings}
    return training.train(model, IMAGES, validation=VALIDATION, directory=folder, **settings)


def train_child(model, folder, loss=None):
    return train(
        model,
        folder,
        optimizer="adam",
        augmentation=AUGMENTATION,
        child_parent=loss or child_loss(),
    )


def values(variables):
    return {variable.name: np.array(variable) for variable in variables}


def assert_same(found, expected):
    """Compares dicts of arrays bit by bit."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].tobytes() == value.tobytes(), name


def state(model, loss=None):
    """All that a training step changes: weights, BN averages, optimizer and class centres."""
    variables = values([*model.variables, *model.optimizer.variables])
    return {**variables, "centres": loss.centres.numpy()} if loss else variables


def checkpoint_files(folder):
    return {
        path.name: path.read_bytes()
        for path in (folder / "checkpoints").iterdir()
        if path.is_file()
    }


def truncate(path, size):
    """Cuts a file to a share of its size, or by a number of bytes if negative."""
    total = os.path.getsize(path)
    os.truncate(path, total + size if size < 0 else int(total * size))


def broken_lines(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if "broken" in line]


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


def limited_files(function, *args, size=3000):
    """Calls a function while no file can grow beyond a size, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        return function(*args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def at_epoch(monkeypatch, hook, epoch, action):
    """Lets a callback of the training do `action(model)` when `hook` is called in an epoch."""
    callback = training._StopOnDivergence
    original = getattr(callback, hook)
    current = [0]

    def begin(self, epoch, logs=None):
        current[0] = epoch + 1

    def act(self, *args, **kwargs):
        if current[0] == epoch:
            action(self.model)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(callback, "on_epoch_begin", begin)
    monkeypatch.setattr(callback, hook, act)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small model's whole training, with no TensorBoard to import: folder, model, history."""
    folder, model = tmp_path_factory.mktemp("finished"), small_model()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard", None)
        history = train(model, folder)
    return folder, model, history


@pytest.fixture(scope="module")
def finished_child(tmp_path_factory):
    """A child's whole training with the Child-Parent loss: folder, model, loss, history."""
    folder, model, loss = tmp_path_factory.mktemp("child"), child_model(), child_loss()
    return folder, model, loss, train_child(model, folder, loss)


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory):
    """The folder of a small model's training that was stopped in its fourth epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(StopError):
        at_epoch(patch, "on_train_batch_end", EPOCHS, raising(StopError))
        train(small_model(), folder)
    return folder


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A copy of `stopped_once`: three epochs are done, checkpoints 2 and 3 are there."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


class TestOptimizer:
    STEPS = 5

    def gradients(self):
        random = np.random.default_rng(0)
        return [[random.normal(size=(3, 2)), random.normal(size=2)] for _ in range(self.STEPS)]

    def start(self):
        random = np.random.default_rng(1)
        return [random.normal(size=(3, 2)), random.normal(size=2)]

    def expected(self, rule, *, clip, l2):
        """The weights after the steps: clipped by the global norm, then L2 added, then `rule`."""
        weights = self.start()
        slots = [{} for _ in weights]
        for step, gradients in enumerate(self.gradients()):
            norm = math.sqrt(sum(np.sum(gradient**2) for gradient in gradients))
            scale = min(1, clip / norm) if clip else 1
            learning_rate = 0.1 * 0.5 * (1 + math.cos(math.pi * step / self.STEPS))
            for number, gradient in enumerate(gradients):
                gradient = gradient * scale + l2 * weights[number]
                weights[number] = weights[number] + rule(
                    gradient, slots[number], learning_rate, step + 1
                )
        return weights

    def found(self, name, *, clip, l2, **settings):
        optimizer = training.make_optimizer(
            name,
            learning_rate=0.1,
            steps=self.STEPS,
            weight_decay=l2,
            gradient_clip=clip,
            **settings,
        )
        variables = [tf.Variable(weights, dtype=tf.float32) for weights in self.start()]
        for gradients in self.gradients():
            gradients = [tf.constant(gradient, tf.float32) for gradient in gradients]
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return [variable.numpy() for variable in variables]

    @pytest.mark.parametrize("clip", [None, 0.5, 1e6])
    @pytest.mark.parametrize("l2", [0.0, 0.3])
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_sgd(self, clip, l2, momentum):
        def rule(gradient, slot, learning_rate, step):
            slot["v"] = momentum * slot.get("v", 0) - learning_rate * gradient
            return slot["v"]

        found = self.found("sgd", clip=clip, l2=l2, momentum=momentum)
        for value, expected in zip(found, self.expected(rule, clip=clip, l2=l2), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("clip", [None, 0.5])
    @pytest.mark.parametrize("l2", [0.0, 0.3])
    def test_adam(self, clip, l2):
        def rule(gradient, slot, learning_rate, step):
            slot["m"] = 0.9 * slot.get("m", 0) + 0.1 * gradient
            slot["v"] = 0.999 * slot.get("v", 0) + 0.001 * gradient**2
            rate = learning_rate * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            return -rate * slot["m"] / (np.sqrt(slot["v"]) + 1e-7)

        found = self.found("adam", clip=clip, l2=l2)
        for value, expected in zip(found, self.expected(rule, clip=clip, l2=l2), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("name", training.OPTIMIZERS)
    def test_keras_can_rebuild_it(self, name):
        optimizer = training.make_optimizer(
            name, learning_rate=0.1, steps=7, weight_decay=0.3, gradient_clip=0.5
        )
        again = tf.keras.optimizers.deserialize(tf.keras.optimizers.serialize(optimizer))
        assert type(again) is type(optimizer)
        assert again.get_config() == optimizer.get_config()
        assert again.get_config()["l2"] == 0.3

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"name": "lamb"}, "optimizer must be one of sgd, adam, received: 'lamb'"),
            ({"learning_rate": 0}, "learning_rate must be a number > 0, received: 0"),
            ({"learning_rate": math.nan}, "learning_rate must be .* received: nan"),
            ({"learning_rate": math.inf}, "learning_rate must be .* received: inf"),
            ({"momentum": 1.0}, r"momentum must be in \[0, 1\), received: 1.0"),
            ({"momentum": -0.1}, "momentum must be .* received: -0.1"),
            ({"weight_decay": -1e-4}, "weight_decay must be a number >= 0, received: -0.0001"),
            ({"weight_decay": math.nan}, "weight_decay must be .* received: nan"),
            ({"gradient_clip": 0}, "gradient_clip must be a number > 0 or None, received: 0"),
        ],
    )
    def test_refuses(self, settings, message):
        with pytest.raises(ValueError, match=f"^{message}$"):
            training.make_optimizer(**{"name": "sgd", "learning_rate": 1, "steps": 1, **settings})


class TestTrain:
    def test_a_row_an_epoch_returned_and_written(self, finished):
        folder, _, history = finished
        columns = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
        assert [list(row) for row in history] == [columns] * EPOCHS
        assert [row["epoch"] for row in history] == list(range(1, EPOCHS + 1))
        with open(folder / "history.csv", newline="") as file:
            rows = [
                {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)
            ]
        assert rows == history
        assert training.read_history(folder / "history.csv") == history

    def test_it_learns_and_the_last_row_is_the_final_weights(self, finished):
        _, model, history = finished
        assert history[-1]["loss"] < history[0]["loss"]
        evaluation = training.evaluate(model, VALIDATION)
        assert history[-1]["val_accuracy"] == pytest.approx(evaluation["accuracy"], abs=1e-6)
        assert history[-1]["val_loss"] == pytest.approx(evaluation["loss"], rel=1e-5)

    def test_the_learning_rate_falls_to_0_by_a_cosine_over_all_steps(self, finished):
        _, model, history = finished
        cosine = [
            0.05 * 0.5 * (1 + math.cos(math.pi * step / (EPOCHS * STEPS)))
            for step in range(EPOCHS * STEPS + 1)
        ]
        last_steps = cosine[STEPS - 1 :: STEPS]
        assert [row["learning_rate"] for row in history] == pytest.approx(last_steps, rel=1e-4)
        optimizer = model.optimizer
        assert int(optimizer.iterations) == EPOCHS * STEPS  # what is less than a batch is dropped
        assert float(optimizer._learning_rate(optimizer.iterations)) == pytest.approx(0, abs=1e-9)

    def test_tensorboard_finds_every_number_of_the_history(self, finished):
        folder, _, history = finished
        found = {}
        for path in (folder / "logs").iterdir():
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                event = tf.compat.v1.Event.FromString(record)
                for value in event.summary.value:
                    assert value.metadata.plugin_data.plugin_name == "scalars"
                    found[event.step, value.tag] = float(tf.make_ndarray(value.tensor))
        assert found == {
            (row["epoch"], name): pytest.approx(value)
            for row in history
            for name, value in row.items()
            if name not in ("epoch", "learning_rate")
        }

    def test_the_last_two_checkpoints_are_kept(self, finished):
        folder, _, _ = finished
        assert {name.split(".")[0] for name in checkpoint_files(folder)} == {
            "ckpt-00003",
            "ckpt-00004",
        }

    def test_a_finished_training_is_not_trained_again(self, finished, monkeypatch):
        folder, model, history = finished
        monkeypatch.setattr(tf.keras.Model, "fit", raising(AssertionError("trains")))
        again = small_model()
        assert train(again, folder) == history
        assert_same(values(again.variables), values(model.variables))

    def test_the_childs_terms_are_in_the_history(self, finished_child):
        _, _, _, history = finished_child
        for row in history:
            total = row["cross_entropy"] + 0.5 * row["filter_mse"] + 0.125 * row["class_centre"]
            assert row["loss"] == pytest.approx(total, rel=1e-5)
            assert row["filter_mse"] > 0
            assert row["class_centre"] > 0

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"epochs": 0}, "epochs must be at least 1, received: 0"),
            ({"batch_size": 0}, "batch_size must be at least 1, received: 0"),
            ({"batch_size": 27}, "a batch of 27 images needs at least as many, .* 26 images"),
            ({"learning_rate": -1}, "learning_rate must be a number > 0, received: -1"),
            ({"optimizer": "lamb"}, "optimizer must be one of .*"),
            ({"augmentation": {"cutout": -1}}, "cutout must be at least 0, received: -1"),
        ],
    )
    def test_refuses_before_anything_is_written(self, tmp_path, settings, message):
        with pytest.raises(ValueError, match=f"^{message}$"):
            train(small_model(), tmp_path, **settings)
        assert os.listdir(tmp_path) == []


class TestStoppedTraining:
    def test_a_child_goes_on_bit_by_bit(self, finished_child, tmp_path, monkeypatch):
        folder, model, loss, history = finished_child
        stops = [("on_train_batch_end", 2), ("on_epoch_end", 4)]
        for hook, epoch in stops:
            with monkeypatch.context() as patch:
                at_epoch(patch, hook, epoch, raising(StopError))
                with pytest.raises(StopError):
                    train_child(child_model(), tmp_path)
            assert len(training.read_history(tmp_path / "history.csv")) == epoch - 1
        again, again_loss = child_model(), child_loss()
        assert train_child(again, tmp_path, again_loss) == history
        assert_same(state(again, again_loss), state(model, loss))
        assert np.any(loss.centres.numpy())
        expected = (folder / "history.csv").read_bytes()
        assert (tmp_path / "history.csv").read_bytes() == expected

    def test_a_row_without_its_checkpoint_is_done_again(self, finished, tmp_path, monkeypatch):
        _, model, history = finished
        with monkeypatch.context() as patch:
            patch.setattr(tf.train.Checkpoint, "write", raising(StopError))
            with pytest.raises(StopError):
                train(small_model(), tmp_path)
        assert len(training.read_history(tmp_path / "history.csv")) == 1
        again = small_model()
        assert train(again, tmp_path) == history
        assert_same(state(again), state(model))

    def test_a_full_disk_keeps_the_checkpoints_before(self, stopped, finished):
        before = checkpoint_files(stopped)
        with pytest.raises(
            OSError, match="^cannot write the checkpoint .*; File too large$"
        ) as error:
            limited_files(train, small_model(), stopped)
        assert len(str(error.value).splitlines()) == 1
        assert checkpoint_files(stopped) == before
        assert train(small_model(), stopped) == finished[2]

    @pytest.mark.parametrize(("suffix", "size"), TRUNCATIONS)
    def test_a_truncated_checkpoint_is_noticed_and_the_one_before_used(
        self, stopped, finished, capsys, suffix, size
    ):
        _, model, history = finished
        truncate(f"{stopped}/checkpoints/ckpt-00003{suffix}", size)
        again = small_model()
        assert train(again, stopped) == history
        assert_same(state(again), state(model))
        (line,) = broken_lines(capsys)
        assert f"the checkpoint {stopped}/checkpoints/ckpt-00003 is broken (" in line
        assert line.endswith("): trying the one before")

    def test_a_checkpoint_without_its_data_is_noticed(self, stopped, finished, capsys):
        os.unlink(f"{stopped}/checkpoints/ckpt-00003.data-00000-of-00001")
        assert train(small_model(), stopped) == finished[2]
        assert len(broken_lines(capsys)) == 1

    def test_without_a_whole_checkpoint_it_does_not_start_over(self, stopped, capsys):
        for epoch in (2, 3):
            truncate(f"{stopped}/checkpoints/ckpt-0000{epoch}.index", -1)
        before = checkpoint_files(stopped)
        with pytest.raises(ValueError, match="^no checkpoint in .* can be read: .*--overwrite$"):
            train(small_model(), stopped)
        assert len(broken_lines(capsys)) == 2
        assert checkpoint_files(stopped) == before

    def test_another_models_checkpoints_are_refused(self, stopped):
        with pytest.raises(ValueError, match="^no checkpoint in .* can be read: .*--overwrite$"):
            train(small_model(filters=3), stopped)

    def test_every_truncation_and_every_changed_byte_of_data_is_noticed(self, tmp_path):
        variable = tf.Variable(np.arange(20, dtype=np.float32))
        checkpoint = tf.train.Checkpoint(variable=variable, number=tf.Variable(3))
        path = checkpoint.write(str(tmp_path / "ckpt-00001"))
        training._read(checkpoint, path).assert_consumed()
        for suffix in (".index", ".data-00000-of-00001"):
            with open(path + suffix, "rb") as file:
                whole = file.read()
            broken = [whole[:size] for size in range(len(whole))]
            if suffix != ".index":
                broken += [
                    whole[:place] + bytes([byte ^ 1]) + whole[place + 1 :]
                    for place, byte in enumerate(whole)
                ]
            for content in broken:
                with open(path + suffix, "wb") as file:
                    file.write(content)
                with pytest.raises(training._BROKEN):
                    training._read(checkpoint, path)
            with open(path + suffix, "wb") as file:
                file.write(whole)

    def test_a_part_that_loading_does_not_need_is_checked_too(self, tmp_path):
        path = tf.train.Checkpoint(a=tf.Variable([1.0, 2.0]), b=tf.Variable([3.0, 4.0])).write(
            str(tmp_path / "ckpt-00001")
        )
        file = f"{path}.data-00000-of-00001"
        with open(file, "rb") as content:
            raw = content.read()
        for part, needed in (("b", "a"), ("a", "b")):
            place = raw.index(np.array({"a": 1.0, "b": 3.0}[part], np.float32).tobytes())
            with open(file, "wb") as content:
                content.write(raw[:place] + b"\xff" + raw[place + 1 :])
            with pytest.raises(training._BROKEN):
                training._read(tf.train.Checkpoint(**{needed: tf.Variable([0.0, 0.0])}), path)


class TestDivergence:
    def poison(self, model):
        kernel = model.get_layer("convolution").kernel
        kernel.assign(tf.fill(kernel.shape, math.nan))

    def test_a_learning_rate_far_too_high_is_one_line(self, tmp_path):
        with pytest.raises(ValueError, match="^the (val_)?loss is (nan|inf) in epoch 1: .*$"):
            train(small_model(), tmp_path, learning_rate=1e30, gradient_clip=None)
        assert not (tmp_path / "history.csv").exists()
        assert not (tmp_path / "checkpoints").exists()

    @pytest.mark.parametrize(
        ("hook", "name"), [("on_train_batch_begin", "loss"), ("on_test_begin", "val_loss")]
    )
    def test_keeps_the_checkpoints_before(self, stopped, finished, monkeypatch, hook, name):
        before = checkpoint_files(stopped)
        message = f"^the {name} is nan in epoch 4: try a lower learning_rate; .* is kept$"
        with monkeypatch.context() as patch:
            at_epoch(patch, hook, 4, self.poison)
            with pytest.raises(ValueError, match=message):
                train(small_model(), stopped)
        assert checkpoint_files(stopped) == before
        assert len(training.read_history(stopped / "history.csv")) == 3
        assert train(small_model(), stopped) == finished[2]


class TestEvaluate:
    """On images whose pixels are the logits."""

    def images(self, classes, *, count=60, missing=None):
        random = np.random.default_rng(classes)
        pixels = np.stack([random.permutation(256)[:classes] for _ in range(count)])
        labels = random.integers(classes, size=count)
        labels[labels == missing] = 0
        images = pixels.astype(np.uint8).reshape(count, 1, 1, classes)
        return data.Images(images, labels, tuple("abcdefghij"[:classes]))

    def model(self, classes):
        images = tf.keras.Input([1, 1, classes])
        return tf.keras.Model(images, tf.keras.layers.Flatten()(images))

    @pytest.mark.parametrize("classes", [3, 5, 7, 10])
    @pytest.mark.parametrize("batch_size", [1, 7, 60, 256])
    def test_equals_numpy(self, classes, batch_size):
        images = self.images(classes, missing=1)
        logits = images.images.reshape(-1, classes).astype(np.float64) / 127.5 - 1
        rows = np.arange(len(images))
        own = logits[rows, images.labels]
        ranks = np.sum(logits > own[:, np.newaxis], axis=1)
        losses = np.log(np.sum(np.exp(logits), axis=1)) - own
        evaluation = training.evaluate(self.model(classes), images, batch_size=batch_size)
        assert evaluation == {
            "accuracy": pytest.approx(np.mean(ranks == 0)),
            "accuracy_top5": pytest.approx(np.mean(ranks < 5)),
            "loss": pytest.approx(np.mean(losses), rel=1e-6),
            "examples": 60,
            "per_class": {
                name: pytest.approx(np.mean(ranks[images.labels == label] == 0))
                if label != 1
                else None
                for label, name in enumerate(images.class_names)
            },
        }
        assert 0 < evaluation["accuracy"] < 1
        assert (evaluation["accuracy_top5"] == 1) == (classes <= 5)
        json.dumps(evaluation)

    def test_uses_the_moving_averages(self, finished):
        _, model, _ = finished
        one_by_one = training.evaluate(model, VALIDATION, batch_size=1)
        together = training.evaluate(model, VALIDATION)
        assert one_by_one["loss"] == pytest.approx(together["loss"], rel=1e-5)
        assert one_by_one["per_class"] == together["per_class"]


class TestLoadTrained:
    @pytest.fixture
    def trained(self, finished_child, tmp_path, monkeypatch):
        """A copy of the child's training, with what `bin/train.py` writes beside it."""
        folder = shutil.copytree(finished_child[0], tmp_path / "trained")
        config = {"data": {"name": "shapes"}, "network": NETWORK}
        genotype = {"normal": GENOTYPE.normal, "reduce": GENOTYPE.reduce}
        run = {"config": config, "data_dir": "/data", "genotype": genotype, "precision": "child"}
        (folder / "config.json").write_text(json.dumps(run))
        (folder / "metrics.json").write_text("{}")

        def load(name, split, *, data_dir):
            self.loaded = name, split, data_dir
            return VALIDATION

        monkeypatch.setattr(data, "load", load)
        return folder

    def refusal(self, folder):
        with pytest.raises(ValueError, match=str(folder)) as error:
            training.load_trained(folder)
        (line,) = str(error.value).splitlines()
        return line

    def test_the_final_weights_the_test_images_and_the_run(self, trained, finished_child):
        model, test, run = training.load_trained(trained)
        assert_same(values(model.variables), values(finished_child[1].variables))
        assert self.loaded == ("shapes", "test", "/data")
        assert test is VALIDATION
        assert run["precision"] == "child"
        evaluation = training.evaluate(model, test)
        assert evaluation["accuracy"] == pytest.approx(finished_child[3][-1]["val_accuracy"])

    def test_the_data_may_lie_elsewhere(self, trained):
        training.load_trained(trained, data_dir="/elsewhere")
        assert self.loaded == ("shapes", "test", "/elsewhere")

    def test_an_unfinished_training(self, trained):
        (trained / "metrics.json").unlink()
        assert "holds no finished training" in self.refusal(trained)

    def test_a_folder_that_is_not_there(self, tmp_path):
        assert "holds no finished training" in self.refusal(tmp_path / "missing")

    def test_without_a_checkpoint(self, trained):
        shutil.rmtree(trained / "checkpoints")
        assert "has no checkpoint: train again with --overwrite" in self.refusal(trained)

    @pytest.mark.parametrize(("suffix", "size"), TRUNCATIONS)
    def test_a_truncated_checkpoint(self, trained, suffix, size):
        path = f"{trained}/checkpoints/ckpt-00004"
        truncate(path + suffix, size)
        assert self.refusal(trained).startswith(f"the checkpoint {path} is broken: ")

    def test_the_checkpoint_of_another_network(self, trained):
        run = json.loads((trained / "config.json").read_text())
        run["genotype"]["reduce"][2] = "sep_conv_3x3"
        (trained / "config.json").write_text(json.dumps(run))
        assert "ckpt-00004 is broken: " in self.refusal(trained)
        gc.collect()  # TensorFlow logs what it did not restore: here, not when pytest ends
