"""Checkpoints: whole, or noticed as broken; and what a full disk leaves."""

import gc
import os
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
from small_training import assert_same, checkpoint_files, small_model, truncate
from small_training import values as values_of

from cpnas_tf.runs import checkpoints
from cpnas_tf.runs.checkpoints import TrainingState, load_weights

TRUNCATIONS = [(".index", 0), (".index", -1), (".data-00000-of-00001", 0.5)]
NAMES = ("ckpt-00001-000000003", "ckpt-00001-000000004", "ckpt-00002-000000006")


def make_state(folder, model, **parts):
    return TrainingState(folder, model, strategy=tf.distribute.get_strategy(), **parts)


def fill(model, number):
    """Gives each weight a value of its own, made of a number."""
    for index, weight in enumerate(model.weights):
        shape = weight.shape
        weight.assign(
            tf.reshape(tf.range(np.prod(shape), dtype=tf.float32) + index + number, shape)
        )


@pytest.fixture(scope="module")
def saved_once(tmp_path_factory):
    """A folder where three states were saved, of which two are left."""
    folder, model = tmp_path_factory.mktemp("saved"), small_model()
    state = make_state(folder, model, part=tf.Variable([1.0, 2.0]))
    for number, (epochs, steps) in enumerate([(1, 3), (1, 4), (2, 6)]):
        fill(model, number)
        state.record = {"number": number}
        state.save(epochs=epochs, steps=steps)
    return folder


@pytest.fixture
def saved(saved_once, tmp_path):
    return shutil.copytree(saved_once, tmp_path / "saved")


def restored(folder):
    """The number of the state that is restored, and whether all of it is that state's."""
    model, part = small_model(), tf.Variable([0.0, 0.0])
    state = make_state(folder, model, part=part)
    if not state.restore():
        return None
    expected = small_model()
    fill(expected, state.record["number"])
    assert_same(values_of(model.weights), values_of(expected.weights))
    assert part.numpy().tolist() == [1.0, 2.0]
    return state.record["number"]


def test_the_newest_state_is_restored_and_the_last_two_are_kept(saved):
    assert {name.partition(".")[0] for name in checkpoint_files(saved)} == set(NAMES[1:])
    assert restored(saved) == 2


def test_without_states_there_is_nothing_to_restore(tmp_path):
    assert restored(tmp_path) is None


def test_a_state_that_is_there_is_not_written_again(saved, monkeypatch):
    model = small_model()
    state = make_state(saved, model, part=tf.Variable([0.0, 0.0]))
    state.restore()
    before = checkpoint_files(saved)
    fill(model, 7)
    state.save(epochs=2, steps=6)
    assert checkpoint_files(saved) == before
    state.save(epochs=2, steps=7)
    assert checkpoint_files(saved) != before


@pytest.mark.parametrize(("suffix", "size"), TRUNCATIONS)
def test_a_truncated_state_is_noticed_and_the_one_before_used(saved, capsys, suffix, size):
    truncate(f"{saved}/checkpoints/{NAMES[2]}{suffix}", size)
    assert restored(saved) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert f"the checkpoint {saved}/checkpoints/{NAMES[2]} is broken (" in line
    assert line.endswith("): trying the one before")


def test_a_state_without_its_data_is_noticed(saved, capsys):
    (saved / "checkpoints" / f"{NAMES[2]}.data-00000-of-00001").unlink()
    assert restored(saved) == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_without_a_whole_state_it_does_not_start_over(saved, capsys):
    for name in NAMES[1:]:
        truncate(f"{saved}/checkpoints/{name}.index", -1)
    before = checkpoint_files(saved)
    with pytest.raises(ValueError, match="^no checkpoint in .* can be read: .*--overwrite$"):
        restored(saved)
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert checkpoint_files(saved) == before


def test_another_models_states_are_refused(saved):
    state = make_state(saved, small_model(filters=3), part=tf.Variable([0.0, 0.0]))
    with pytest.raises(ValueError, match="^no checkpoint in .* can be read: .*--overwrite$"):
        state.restore()


@pytest.mark.parametrize("name", ["lr=[0.1]", "run*1", "a?b", "[!a]", "a\\b", "{a,b}"])
def test_a_folders_name_is_no_pattern(saved_once, tmp_path, name):
    folder = shutil.copytree(saved_once, tmp_path / name / name)
    assert restored(folder) == 2
    model, expected = small_model(), small_model()
    state = make_state(folder, model, part=tf.Variable([1.0, 2.0]))
    assert state.restore()
    fill(model, 5)
    state.save(epochs=3, steps=9)
    fill(expected, 5)
    load_weights(model := small_model(), folder)
    assert_same(values_of(model.weights), values_of(expected.weights))
    assert len(os.listdir(folder / "checkpoints")) == 4


def test_a_users_files_beside_the_states_are_kept(saved, tmp_path):
    folder = saved / "checkpoints"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "ckpt-00001-000000003.partial").write_text("mine")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "best").mkdir()
    names = ("best/notes.txt", "ckpt-best.index", "ckpt-00001-000000003.bak", "a.partial", ".a")
    for name in names:
        (folder / name).write_text("mine")
    state = make_state(saved, small_model(), part=tf.Variable([0.0, 0.0]))
    assert state.restore()
    state.save(epochs=3, steps=9)
    assert restored(saved) == 2
    assert {(folder / name).read_text() for name in names} == {"mine"}
    assert (folder / "link" / "ckpt-00001-000000003.partial").read_text() == "mine"


def test_what_a_killed_writer_left_goes_with_the_next_state(saved):
    folder = saved / "checkpoints"
    (folder / f"{NAMES[2][:-1]}7.partial").mkdir()
    (folder / f"{NAMES[2][:-1]}7.data-00000-of-00001").write_text("without its index")
    state = make_state(saved, small_model(), part=tf.Variable([0.0, 0.0]))
    assert state.restore()
    state.save(epochs=3, steps=9)
    found = {path.name.partition(".")[0] for path in folder.iterdir()}
    assert found == {NAMES[2], "ckpt-00003-000000009"}


def test_a_full_disk_keeps_the_states_before(saved):
    state = make_state(saved, small_model(), part=tf.Variable(tf.zeros([10_000])))
    before = checkpoint_files(saved)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        with pytest.raises(OSError, match="^cannot write .*; File too large$") as error:
            state.save(epochs=3, steps=9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(str(error.value).splitlines()) == 1
    after = checkpoint_files(saved)
    assert {name: after[name] for name in before} == before
    assert restored(saved) == 2


def test_every_truncation_and_every_changed_byte_of_data_is_noticed(tmp_path):
    variable = tf.Variable(np.arange(20, dtype=np.float32))
    checkpoint = tf.train.Checkpoint(variable=variable, number=tf.Variable(3))
    path = checkpoint.write(str(tmp_path / "ckpt"))
    checkpoints._check(path)
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
            with pytest.raises(checkpoints._BROKEN):
                checkpoints._check(path)
        with open(path + suffix, "wb") as file:
            file.write(whole)


class TestLoadWeights:
    def refusal(self, model, folder):
        with pytest.raises(ValueError, match=str(folder)) as error:
            load_weights(model, folder)
        (line,) = str(error.value).splitlines()
        return line

    def test_the_weights_of_the_newest(self, saved):
        model, expected = small_model(), small_model()
        load_weights(model, saved)
        fill(expected, 2)
        assert_same(values_of(model.weights), values_of(expected.weights))

    def test_nothing_else_is_taken_over(self, tmp_path):
        source = small_model()
        source.compile("sgd", "mse")
        source.optimizer.iterations.assign(5)
        make_state(tmp_path, source, trained=source).save(epochs=1, steps=5)
        model = small_model()
        load_weights(model, tmp_path)
        model.compile("sgd", "mse")
        assert int(model.optimizer.iterations) == 0

    def test_other_classes(self, saved):
        line = self.refusal(small_model(classes=4), saved)
        assert "has 3 classes, the data set has 4" in line

    def test_another_network(self, saved):
        assert "is of another network: " in self.refusal(small_model(filters=3), saved)
        gc.collect()  # TensorFlow logs what it did not restore: here, not when pytest ends

    def test_no_checkpoint(self, tmp_path):
        assert "has no checkpoint" in self.refusal(small_model(), tmp_path)

    @pytest.mark.parametrize(("suffix", "size"), TRUNCATIONS)
    def test_a_truncated_one(self, saved, suffix, size):
        truncate(f"{saved}/checkpoints/{NAMES[2]}{suffix}", size)
        path = f"{saved}/checkpoints/{NAMES[2]}"
        assert self.refusal(small_model(), saved).startswith(f"the checkpoint {path} is broken: ")
