import gc
import json
import math
import os
import shutil

import cpnas_tf  # noqa: F401, isort: skip
import numpy as np
import pytest
import tensorflow as tf
from small_training import (
    BATCH,
    CLASS_NAMES,
    EPOCHS,
    GENOTYPE,
    IMAGES,
    NETWORK,
    STEPS,
    VALIDATION,
    assert_same,
    child_loss,
    child_model,
    raising,
    small_model,
    state,
    train,
    train_child,
    truncate,
    untimed,
    values,
)

from cpnas_tf import data, devices, training
from cpnas_tf.data import datasets
from cpnas_tf.networks.layers import DropPath
from cpnas_tf.networks.quantizers import one_bit_kernels
from cpnas_tf.runs.history import TIMES, read
from cpnas_tf.training import loop

pytestmark = pytest.mark.usefixtures("deterministic")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small model's whole training: folder, model, history."""
    folder, model = tmp_path_factory.mktemp("finished"), small_model()
    return folder, model, train(model, folder)


@pytest.fixture(scope="module")
def finished_child(tmp_path_factory):
    """A child's whole training with the Child-Parent loss: folder, model, loss, history."""
    folder, model, loss = tmp_path_factory.mktemp("child"), child_model(), child_loss()
    return folder, model, loss, train_child(model, folder, loss)


def first_epoch(model, folder, **settings):
    """The history's first row of a training whose weights hardly move."""
    return train(model, folder, epochs=1, learning_rate=1e-9, weight_decay=0.0, **settings)[0]


def epoch_logits(model, images=IMAGES):
    """What the model gives in training for the batches of the first epoch, and their labels.

    It moves the averages of the model's batch normalization.
    """
    stream = data.batches(images, batch_size=BATCH, seed=0)
    pairs = [(model(batch, training=True), labels) for batch, labels in stream]
    return [tf.concat(parts, axis=0) for parts in zip(*pairs, strict=True)]


class TestTrain:
    def test_a_row_an_epoch_returned_and_written(self, finished):
        folder, _, history = finished
        columns = ["epoch", "loss", "accuracy", "learning_rate", "val_loss", "val_accuracy"]
        assert [list(row) for row in history] == [[*columns, *TIMES]] * EPOCHS
        assert [row["epoch"] for row in history] == list(range(1, EPOCHS + 1))
        assert read(folder / "history.csv") == history

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
            ({"epochs": 0}, "epochs must be a whole number >= 1, received: 0"),
            ({"batch_size": 0}, "batch_size must be a whole number >= 1, received: 0"),
            ({"batch_size": 27}, "batch_size must be at most the 26 images .* received: 27"),
            ({"learning_rate": -1}, "learning_rate must be a number > 0, received: -1"),
            ({"optimizer": "lamb"}, "optimizer must be one of .*"),
            (
                {"augmentation": {"cutout": -1}},
                "augmentation.cutout must be a whole number >= 0, .*: -1",
            ),
            (
                {"label_smoothing": 1.0},
                r"label_smoothing must be a number in \[0, 1\), received: 1.0",
            ),
            ({"auxiliary_weight": -0.4}, "auxiliary_weight must be a number >= 0, .*: -0.4"),
            (
                {"auxiliary_weight": 0.4},
                "the model .* has no reduction cell .*",
            ),
            ({"early_stopping": 0}, "early_stopping must be a whole number >= 1, or None, .*: 0"),
            (
                {"steps_per_execution": 0},
                "steps_per_execution must be a whole number >= 1, received: 0",
            ),
            ({"gradient_clip": -1}, "gradient_clip must be a number >= 0, received: -1"),
            ({"warm_start": "/missing"}, "/missing has no checkpoint of a training"),
        ],
    )
    def test_refuses_before_anything_is_trained_or_written(
        self, tmp_path, monkeypatch, settings, message
    ):
        monkeypatch.setattr(loop, "make_optimizer", raising(AssertionError("builds")))
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ValueError, match=f"^{message}$"):
            train(small_model(), tmp_path, **settings)
        with pytest.raises(ValueError, match=f"^{message}$"):
            training.Training(
                small_model(),
                IMAGES,
                validation=VALIDATION,
                **{"epochs": EPOCHS, "batch_size": BATCH, **settings},
            )
        assert os.listdir(tmp_path) == []


class TestOptions:
    def test_label_smoothing_is_keras_s_and_validation_is_plain(self, tmp_path):
        model = small_model()
        row = first_epoch(model, tmp_path, label_smoothing=0.2)
        plain = training.evaluate(model, VALIDATION)["loss"]
        logits, labels = epoch_logits(model)
        smoothed = tf.keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
        expected = float(smoothed(tf.one_hot(labels, len(CLASS_NAMES)), logits))
        assert row["loss"] == pytest.approx(expected, rel=1e-4)
        assert row["val_loss"] == pytest.approx(plain, rel=1e-4)

    def test_class_weights_have_all_classes_count_the_same(self, tmp_path):
        few = data.Images(IMAGES.images[:16], np.array([0] * 12 + [2] * 4), CLASS_NAMES)
        model = small_model()
        row = first_epoch(model, tmp_path, images=few, class_weights=True)
        plain = training.evaluate(model, VALIDATION)["loss"]
        logits, labels = epoch_logits(model, few)
        losses = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        means = [tf.reduce_mean(losses[labels == label]) for label in (0, 2)]
        # Of three classes one has no image: the others weigh 12 and 4 thirds of 16 images.
        assert row["loss"] == pytest.approx(float(sum(means)) / 3, rel=1e-4)
        assert row["val_loss"] == pytest.approx(plain, rel=1e-4)

    def test_the_auxiliary_tower_is_trained_and_left_out_of_the_rest(self, tmp_path):
        model, loss = child_model(cells=2), child_loss()
        weights = [variable.name for variable in model.variables]
        row = first_epoch(model, tmp_path, auxiliary_weight=0.4, child_parent=loss)
        plain = training.evaluate(model, VALIDATION)
        logits, labels = epoch_logits(model)
        entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
        weighted = float(entropy) + 0.4 * row["auxiliary_loss"]
        assert row["cross_entropy"] == pytest.approx(weighted, rel=1e-4)
        total = row["cross_entropy"] + 0.5 * row["filter_mse"] + 0.125 * row["class_centre"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)
        assert not [name for name in row if "logits" in name]
        assert [variable.name for variable in model.variables] == weights
        assert loss.centres.shape[1:] == model.layers[-3].output_shape[1:]
        assert row["val_loss"] == pytest.approx(plain["loss"], rel=1e-4)
        assert row["val_accuracy"] == pytest.approx(plain["accuracy"], abs=1e-6)

    @pytest.mark.parametrize("decay", [True, False])
    def test_weight_decay_may_leave_batch_normalization_out(self, tmp_path, decay):
        models = [small_model(), small_model()]
        for model, weight_decay in zip(models, (0.0, 0.1), strict=True):
            settings = {"weight_decay": weight_decay, "decay_batch_norm": decay}
            train(model, tmp_path / str(weight_decay), epochs=1, gradient_clip=1e-9, **settings)
        plain, decayed = ({v.name: v.numpy() for v in m.trainable_variables} for m in models)
        assert np.abs(decayed["convolution/kernel:0"] - plain["convolution/kernel:0"]).min() > 0
        assert np.array_equal(decayed["bn/gamma:0"], plain["bn/gamma:0"]) is not decay

    @pytest.mark.parametrize("decay", [True, False])
    def test_weight_decay_may_leave_1_bit_kernels_out(self, tmp_path, decay):
        models = [child_model(), child_model()]
        for model, weight_decay in zip(models, (0.0, 0.1), strict=True):
            settings = {"weight_decay": weight_decay, "decay_binary_kernels": decay}
            train(model, tmp_path / str(weight_decay), epochs=1, gradient_clip=1e-9, **settings)
        plain, decayed = (
            {v.name: v.numpy() for v in model.trainable_variables} for model in models
        )
        assert (
            np.abs(decayed["stem_convolution/kernel:0"] - plain["stem_convolution/kernel:0"]).min()
            > 0
        )
        one_bit = [kernel.name for kernel, _ in one_bit_kernels(models[0])]
        assert one_bit
        for name in one_bit:
            assert np.array_equal(decayed[name], plain[name]) is not decay

    def test_a_child_that_hardly_trains_is_warned_of(self, tmp_path, caplog):
        rows = train(child_model(), tmp_path / "still", epochs=1, learning_rate=1e-9)
        assert rows[-1]["total_flip_ratio"] < 0.01
        assert "only 0% of the 1-bit weights changed their sign since the start" in caplog.text
        caplog.clear()
        rows = train(child_model(), tmp_path / "moving", optimizer="adam", learning_rate=0.5)
        assert rows[-1]["total_flip_ratio"] > 0.01
        assert "changed their sign" not in caplog.text

    def test_steps_per_execution_change_nothing(self, tmp_path, finished_child):
        model, loss = child_model(), child_loss()
        history = train_child(model, tmp_path, loss, steps_per_execution=2)
        assert untimed(history) == untimed(finished_child[3])
        assert_same(state(model, loss), state(*finished_child[1:3]))

    def test_xla_gives_nearly_the_same(self, tmp_path, finished):
        model = small_model()
        history = train(model, tmp_path, jit_compile=True)
        for row, expected in zip(untimed(history), untimed(finished[2]), strict=True):
            assert row == pytest.approx(expected, rel=1e-4)
        weights, expected = values(model.variables), values(finished[1].variables)
        for name, value in expected.items():
            np.testing.assert_allclose(weights[name], value, rtol=1e-3, atol=1e-5)

    def test_mixed_precision_gives_nearly_the_same(self, tmp_path):
        """But for the maps of a 1-bit network: rounding turns signs in it."""
        with devices.scope(tf.distribute.get_strategy(), policy="mixed_float16"):
            model = child_model()
        plain_loss, loss = child_loss(), child_loss()
        expected = first_epoch(child_model(), tmp_path / "plain", child_parent=plain_loss)
        found = first_epoch(model, tmp_path / "mixed", child_parent=loss)
        assert found["filter_mse"] == pytest.approx(expected["filter_mse"], rel=1e-6)
        for name in ("loss", "cross_entropy", "val_loss"):
            assert found[name] == pytest.approx(expected[name], rel=0.02), name
        assert found["class_centre"] == pytest.approx(expected["class_centre"], rel=0.15)
        assert not np.array_equal(loss.centres, plain_loss.centres)

    def test_mixed_precision_scales_the_loss_and_keeps_float32(self, tmp_path):
        with devices.scope(tf.distribute.get_strategy(), policy="mixed_float16"):
            model = child_model()
        loss = child_loss()
        history = train_child(model, tmp_path, loss, epochs=1)
        assert isinstance(model.optimizer, tf.keras.mixed_precision.LossScaleOptimizer)
        assert model.layers[1].compute_dtype == "float16"
        assert {variable.dtype for variable in model.variables} == {tf.float32}
        assert loss.centres.dtype == tf.float32
        assert tf.keras.mixed_precision.global_policy().name == "float32"
        assert train_child(model, tmp_path, loss, epochs=1) == history

    def test_drop_path_rises_with_the_epochs(self, tmp_path):
        model = child_model(drop_path=0.2)
        layer = next(layer for layer in model.layers if isinstance(layer, DropPath))
        scales = []
        assign = layer.scale.assign
        layer.scale.assign = lambda value: (scales.append(value), assign(value))
        train(model, tmp_path)
        assert scales == [epoch / EPOCHS for epoch in range(EPOCHS)]

    def test_a_warm_start_begins_with_the_other_trainings_weights(self, tmp_path, finished):
        folder, trained, _ = finished
        model = small_model()
        first_epoch(model, tmp_path, warm_start=folder)
        assert int(model.optimizer.iterations) == STEPS
        for variable, expected in zip(
            model.trainable_variables, trained.trainable_variables, strict=True
        ):
            np.testing.assert_allclose(variable, expected, atol=1e-6)

    def test_a_stopped_warm_start_goes_on_with_its_own(self, tmp_path, finished):
        model, again = small_model(), small_model()
        first_epoch(model, tmp_path, warm_start=finished[0])
        first_epoch(again, tmp_path, warm_start="/gone")
        assert_same(state(again), state(model))

    def test_a_warm_start_of_other_classes_is_refused(self, tmp_path, finished):
        of_four = data.Images(IMAGES.images, IMAGES.labels, (*CLASS_NAMES, "three"))
        settings = {"epochs": 1, "batch_size": BATCH, "warm_start": finished[0]}
        with pytest.raises(ValueError, match="has 3 classes, the data set has 4$"):
            training.train(
                small_model(classes=4), of_four, validation=of_four, directory=tmp_path, **settings
            )
        assert os.listdir(tmp_path) == []


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
        confusion = np.zeros([classes, classes], int)
        np.add.at(confusion, (images.labels, logits.argmax(axis=1)), 1)
        evaluation = training.evaluate(self.model(classes), images, batch_size=batch_size)
        assert evaluation == {
            "confusion_matrix": confusion.tolist(),
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

    def test_outputs_that_are_not_finite_are_refused(self):
        images = tf.keras.Input([1, 1, 3])
        model = tf.keras.Model(images, tf.math.log(tf.keras.layers.Flatten()(images) - 2))
        with pytest.raises(ValueError, match="outputs are not finite numbers"):
            training.evaluate(model, self.images(3))

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
        config = {"data": {"name": "shapes", "split": "train"}, "network": NETWORK}
        genotype = {"normal": GENOTYPE.normal, "reduce": GENOTYPE.reduce}
        run = {"config": config, "data_dir": "/data", "genotype": genotype, "precision": "child"}
        (folder / "config.json").write_text(json.dumps(run))
        (folder / "metrics.json").write_text("{}")

        def load(name, split, *, data_dir):
            self.loaded = name, split, data_dir
            return VALIDATION

        monkeypatch.setattr(datasets, "load", load)
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

    def test_a_data_set_of_other_classes(self, trained, monkeypatch):
        more = data.Images(VALIDATION.images, VALIDATION.labels, "abcd")
        monkeypatch.setattr(datasets, "load", lambda name, split, *, data_dir: more)
        assert "has 3 classes, the data set has 4" in self.refusal(trained)

    def test_an_unfinished_training(self, trained):
        (trained / "metrics.json").unlink()
        assert "holds no finished training" in self.refusal(trained)

    def test_a_folder_that_is_not_there(self, tmp_path):
        assert "holds no finished training" in self.refusal(tmp_path / "missing")

    def test_without_a_checkpoint(self, trained):
        shutil.rmtree(trained / "checkpoints")
        assert "has no checkpoint of a training" in self.refusal(trained)

    def test_a_truncated_checkpoint(self, trained):
        path = f"{trained}/checkpoints/ckpt-00004-000000012"
        truncate(f"{path}.index", -1)
        assert self.refusal(trained).startswith(f"the checkpoint {path} is broken: ")

    def test_the_checkpoint_of_another_network(self, trained):
        run = json.loads((trained / "config.json").read_text())
        run["genotype"]["reduce"][2] = "sep_conv_3x3"
        (trained / "config.json").write_text(json.dumps(run))
        assert "ckpt-00004-000000012 is of another network: " in self.refusal(trained)
        gc.collect()  # TensorFlow logs what it did not restore: here, not when pytest ends
