"""Trainings that are stopped, that diverge and that end early; what is told of them."""

import contextlib
import resource
import shutil
import sys

import cpnas_tf  # noqa: F401, isort: skip
import larq as lq
import numpy as np
import pytest
import tensorflow as tf
from small_training import (
    EPOCHS,
    STEPS,
    assert_same,
    at_epoch,
    checkpoint_files,
    child_loss,
    child_model,
    raising,
    small_model,
    state,
    train,
    train_child,
    truncate,
    untimed,
)

from cpnas_tf.runs import history as history_log
from cpnas_tf.training import callback

pytestmark = pytest.mark.usefixtures("deterministic")


class StopError(Exception):
    """Stands for whatever ends a process."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small model's whole training, with no TensorBoard to import: folder, model, history."""
    folder, model = tmp_path_factory.mktemp("finished"), small_model()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorboard", None)
        history = train(model, folder)
    return folder, model, history


SETTINGS = {"auxiliary_weight": 0.4, "label_smoothing": 0.1}


def stochastic_child():
    return child_model(drop_path=0.3)


@pytest.fixture(scope="module")
def finished_child(tmp_path_factory):
    """A child's whole training with all that has a state: folder, model, loss, history."""
    folder, model, loss = tmp_path_factory.mktemp("child"), stochastic_child(), child_loss()
    return folder, model, loss, train_child(model, folder, loss, **SETTINGS)


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
    """A copy of `stopped_once`: three epochs are done, the checkpoints of 2 and 3 are there."""
    return shutil.copytree(stopped_once, tmp_path / "stopped")


def checkpoints(folder):
    return sorted({name.partition(".")[0] for name in checkpoint_files(folder)})


def trained_state(model, loss):
    """The state of a child that was trained as a part of a model with a tower."""
    return {variable.name: variable.numpy() for variable in model.variables} | {
        "centres": loss.centres.numpy()
    }


class TestStopped:
    """A training goes on to the same end, bit by bit."""

    STOPS = (
        ("on_train_batch_end", 1, 2, KeyboardInterrupt, "ckpt-00000-000000002"),
        ("_finish_epoch", 1, 1, KeyboardInterrupt, "ckpt-00000-000000003"),
        ("on_epoch_end", 3, 1, KeyboardInterrupt, "ckpt-00002-000000006"),  # not validated yet
        ("_write_state", 4, 1, KeyboardInterrupt, "ckpt-00003-000000009"),
    )

    def test_wherever_it_is_stopped(self, finished_child, tmp_path, monkeypatch):
        folder, model, loss, history = finished_child
        for hook, epoch, call, error, last in self.STOPS:
            with monkeypatch.context() as patch:
                at_epoch(patch, hook, epoch, raising(error), call=call)
                with pytest.raises(error):
                    train_child(stochastic_child(), tmp_path, **SETTINGS)
            assert checkpoints(tmp_path)[-1] == last, hook
        again, again_loss = stochastic_child(), child_loss()
        found = train_child(again, tmp_path, again_loss, **SETTINGS)
        assert untimed(found) == untimed(history)
        assert_same(trained_state(again, again_loss), trained_state(model, loss))
        assert np.any(loss.centres.numpy())
        assert untimed(history_log.read(tmp_path / "history.csv")) == untimed(history)

    def test_a_long_epoch_is_saved_amid(self, finished, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(callback, "_SAVE_SECONDS", 0)
            at_epoch(patch, "on_train_batch_end", 2, raising(StopError), call=3)
            with pytest.raises(StopError):
                train(small_model(), tmp_path)
        assert checkpoints(tmp_path) == ["ckpt-00001-000000004", "ckpt-00001-000000005"]
        again = small_model()
        assert untimed(train(again, tmp_path)) == untimed(finished[2])
        assert_same(state(again), state(finished[1]))

    def test_a_row_without_its_checkpoint_is_done_again(self, finished, tmp_path, monkeypatch):
        _, model, history = finished
        with monkeypatch.context() as patch:
            patch.setattr(tf.train.Checkpoint, "write", raising(StopError))
            with pytest.raises(StopError):
                train(small_model(), tmp_path)
        assert len(history_log.read(tmp_path / "history.csv")) == 1
        again = small_model()
        assert untimed(train(again, tmp_path)) == untimed(history)
        assert_same(state(again), state(model))

    def test_a_full_disk_keeps_the_checkpoints_before(self, stopped, finished):
        before = checkpoint_files(stopped)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
        try:
            with pytest.raises(OSError, match="^cannot write the checkpoint .* too large$"):
                train(small_model(), stopped)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert checkpoints(stopped)[:2] == ["ckpt-00002-000000006", "ckpt-00003-000000009"]
        assert checkpoint_files(stopped).items() >= before.items()
        assert untimed(train(small_model(), stopped)) == untimed(finished[2])

    def test_a_broken_checkpoint_means_to_go_on_from_the_one_before(
        self, stopped, finished, caplog
    ):
        _, model, history = finished
        truncate(f"{stopped}/checkpoints/ckpt-00003-000000009.data-00000-of-00001", 0.5)
        again = small_model()
        assert untimed(train(again, stopped)) == untimed(history)
        assert_same(state(again), state(model))
        assert "is broken" in caplog.messages[0]


class TestDivergence:
    def poison(self, model):
        kernel = model.get_layer("convolution").kernel
        kernel.assign(tf.fill(kernel.shape, np.nan))

    def test_a_learning_rate_far_too_high_is_one_line(self, tmp_path):
        with pytest.raises(ValueError, match="^the (val_)?loss is (nan|inf) in epoch 1: .*$"):
            train(small_model(), tmp_path, learning_rate=1e30, gradient_clip=0)
        assert not (tmp_path / "history.csv").exists()
        assert not (tmp_path / "checkpoints").exists()

    def test_weights_that_diverge_are_not_saved_amid(self, stopped, monkeypatch):
        before = checkpoint_files(stopped)
        monkeypatch.setattr(callback, "_SAVE_SECONDS", 0)
        at_epoch(monkeypatch, "on_epoch_begin", 4, self.poison)
        with pytest.raises(ValueError, match="^the loss is nan in epoch 4: "):
            train(small_model(), stopped)
        assert checkpoint_files(stopped) == before

    @pytest.mark.parametrize(
        ("hook", "name"), [("on_train_batch_end", "loss"), ("on_epoch_end", "val_loss")]
    )
    def test_keeps_the_checkpoints_before(self, stopped, finished, monkeypatch, hook, name):
        before = checkpoint_files(stopped)
        message = f"^the {name} is nan in epoch 4: try a lower learning_rate; .* is kept$"
        with monkeypatch.context() as patch:
            at_epoch(patch, hook, 4, self.poison)
            with pytest.raises(ValueError, match=message):
                train(small_model(), stopped)
        assert checkpoint_files(stopped) == before
        assert len(history_log.read(stopped / "history.csv")) == 3
        assert untimed(train(small_model(), stopped)) == untimed(finished[2])


class TestEarlyStopping:
    def test_it_ends_where_the_accuracy_has_not_risen_for_so_long(self, tmp_path, monkeypatch):
        accuracies = iter([0.2, 0.5, 0.4, 0.5, 0.9])
        model = small_model()

        def judged(self, *args, **kwargs):
            return {"loss": 1.0, "accuracy": next(accuracies)}

        monkeypatch.setattr(tf.keras.Model, "evaluate", judged)
        history = train(model, tmp_path, epochs=9, early_stopping=2)
        assert [row["val_accuracy"] for row in history] == [0.2, 0.5, 0.4, 0.5]
        assert train(small_model(), tmp_path, epochs=9, early_stopping=2) == history


class TestTold:
    def test_tensorboard_finds_every_number_of_the_history(self, finished_child):
        folder, _, _, history = finished_child
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
            if name != "epoch"
        }
        terms = {"loss", "cross_entropy", "filter_mse", "class_centre", "auxiliary_loss"}
        assert terms <= set(history[0])

    def test_the_flip_ratio_counts_the_signs_that_an_epoch_changed(self, tmp_path, monkeypatch):
        def signs():
            kernels = [
                getattr(layer, name)
                for layer in model.layers
                for name in ("kernel", "depthwise_kernel")
                if isinstance(layer, (lq.layers.QuantConv2D, lq.layers.QuantDepthwiseConv2D))
                and layer.input_quantizer is not None
                and hasattr(layer, name)
            ]
            return np.concatenate([np.ravel(kernel.numpy() >= 0) for kernel in kernels])

        model, seen = child_model(), []
        monkeypatch.setattr(
            callback, "scale_drop_path", lambda network, scale: seen.append(signs())
        )
        history = train_child(model, tmp_path, learning_rate=0.5)
        seen.append(signs())
        expected = [np.mean(seen[i] != seen[i + 1]) for i in range(EPOCHS)]
        total = [np.mean(seen[0] != seen[i + 1]) for i in range(EPOCHS)]
        assert [row["flip_ratio"] for row in history] == pytest.approx(expected, abs=1e-6)
        assert [row["total_flip_ratio"] for row in history] == pytest.approx(total, abs=1e-6)
        assert max(expected) > 0

    def test_speed_and_progress(self, finished, tmp_path, capsys):
        history = finished[2]
        for row in history:
            assert row["images_per_second"] > 8 * STEPS / row["seconds"] > 0
        train(small_model(), tmp_path)
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1] for line in lines] == [f"[{n}/{EPOCHS}]" for n in range(1, 5)]
        assert lines[-1].endswith("ETA 0:00:00")

    def test_verbose(self, tmp_path, capsys):
        silent, told = small_model(), small_model()
        train(silent, tmp_path / "silent", verbose=0)
        assert capsys.readouterr().out == ""
        history = train(told, tmp_path / "told", verbose=1)
        assert_same(state(told), state(silent))
        moves = capsys.readouterr().out.split("\r")[1:]
        assert len(moves) == EPOCHS * (STEPS + 1)
        for epoch, row in enumerate(history):
            *steps, line = moves[epoch * (STEPS + 1) :][: STEPS + 1]
            for number, step in enumerate(steps, start=1):
                assert step.startswith(f"epoch {epoch + 1}: step {number}/{STEPS}  loss ")
            assert float(steps[-1].split()[-1]) == pytest.approx(row["loss"], abs=1e-4)
            assert f"[{epoch + 1}/{EPOCHS}] loss {row['loss']:.4f}" in line
        with pytest.raises(ValueError, match="^verbose must be .* received: 'yes'$"):
            train(small_model(), tmp_path / "refused", verbose="yes")
        assert not (tmp_path / "refused").exists()
