"""Checkpoints: whole, or noticed as broken; and what a full disk leaves."""

import errno
import gc
import os
import random
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf
from small_training import assert_same, checkpoint_files, small_model, truncate
from small_training import values as values_of

from cpnas_tf.runs.checkpoints import Checkpoints, load_weights, network_parts

TRUNCATIONS = [(".index", 0), (".index", -1), (".data-00000-of-00001", 0.5)]
NAMES = ("ckpt-00001-000000003", "ckpt-00001-000000004", "ckpt-00002-000000006")


UNREADABLE = "^no checkpoint in .* can be read: delete that folder to start afresh$"
DATA = ".data-00000-of-00001"


def make_checkpoints(folder, **parts):
    return Checkpoints(folder, strategy=tf.distribute.get_strategy(), **parts)


def make_state(folder, model, **parts):
    return make_checkpoints(folder, **network_parts(model), **parts)


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
def test_a_truncated_state_is_noticed_and_the_one_before_used(saved, caplog, suffix, size):
    truncate(f"{saved}/checkpoints/{NAMES[2]}{suffix}", size)
    assert restored(saved) == 1
    (line,) = caplog.messages
    assert f"the checkpoint {saved}/checkpoints/{NAMES[2]} is broken (" in line
    assert line.endswith("): trying the one before")


def test_a_state_without_its_data_is_noticed(saved, caplog):
    (saved / "checkpoints" / f"{NAMES[2]}{DATA}").unlink()
    assert restored(saved) == 1
    assert len(caplog.messages) == 1


def test_without_a_whole_state_it_does_not_start_over(saved, caplog):
    for name in NAMES[1:]:
        truncate(f"{saved}/checkpoints/{name}.index", -1)
    before = checkpoint_files(saved)
    with pytest.raises(ValueError, match=UNREADABLE):
        restored(saved)
    assert len(caplog.messages) == 2
    assert checkpoint_files(saved) == before


def test_another_models_states_are_refused(saved):
    state = make_state(saved, small_model(filters=3), part=tf.Variable([0.0, 0.0]))
    with pytest.raises(ValueError, match=UNREADABLE):
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
    assert (folder / f"{NAMES[2]}.index").exists()
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


def test_what_is_saved_is_restored_bit_by_bit(tmp_path, caplog):
    arrays = [np.float32([[0.1, np.nan, -0.0]]), np.int64([2**62]), np.float32([np.inf])]
    record = {"accuracies": [[0.1, 1 / 3]], "epochs": 100_000, "name": "\u00e9", "none": None}
    saved = make_checkpoints(tmp_path, values=[tf.Variable(array) for array in arrays])
    saved.record = record
    for epochs in (9, 10, 99_999, 100_000):
        saved.save(epochs=epochs, steps=3 * epochs)
    names = {name.partition(".")[0] for name in os.listdir(tmp_path / "checkpoints")}
    assert names == {"ckpt-99999-000299997", "ckpt-100000-000300000"}
    values = [tf.Variable(np.zeros_like(array)) for array in arrays]
    found = make_checkpoints(tmp_path, values=values)
    assert found.restore()
    assert found.record == record
    for value, array in zip(values, arrays, strict=True):
        assert value.numpy().tobytes() == array.tobytes()
    assert caplog.messages == []


@pytest.mark.parametrize("in_graph", [True, False])
def test_a_state_cut_anywhere_or_changed_in_its_data_is_noticed(tmp_path, caplog, in_graph):
    """Every length of both files, and every byte of the data; the one before is used."""
    variable = tf.Variable(np.arange(20, dtype=np.float32))
    checkpoints = make_checkpoints(tmp_path, variable=variable, in_graph=in_graph)
    for epochs in (1, 2):
        checkpoints.record = {"epochs": epochs}
        checkpoints.save(epochs=epochs, steps=epochs)
    path = f"{tmp_path}/checkpoints/ckpt-00002-000000002"
    for suffix in (".index", DATA):
        with open(path + suffix, "rb") as file:
            whole = file.read()
        broken = [whole[:size] for size in range(len(whole))]
        if suffix == DATA:
            broken += [
                whole[:place] + bytes([byte ^ 1 << place % 8]) + whole[place + 1 :]
                for place, byte in enumerate(whole)
            ]
        for content in broken:
            write(path + suffix, content)
            caplog.clear()
            assert checkpoints.restore()
            assert checkpoints.record == {"epochs": 1}
            (line,) = caplog.messages
            assert line.startswith(f"the checkpoint {path} is broken (")
        write(path + suffix, whole)
        assert checkpoints.restore()
        assert checkpoints.record == {"epochs": 2}


def write(path, content):
    with open(path, "wb") as file:
        file.write(content)


def test_a_large_state_cut_at_50_random_bytes(tmp_path):
    variable = tf.Variable(np.random.default_rng(0).normal(size=100_000))
    checkpoints = make_checkpoints(tmp_path, variable=variable)
    for epochs in (1, 2):
        checkpoints.record = {"epochs": epochs}
        checkpoints.save(epochs=epochs, steps=epochs)
    path, generator = f"{tmp_path}/checkpoints/ckpt-00002-000000002{DATA}", random.Random(0)
    sizes = generator.sample(range(os.path.getsize(path)), 50)
    for size in sorted(sizes, reverse=True):
        os.truncate(path, size)
        assert checkpoints.restore()
        assert checkpoints.record == {"epochs": 1}


class Crash(BaseException):
    """The end of a process: no code of it runs any more."""


def crash_at(monkeypatch, checkpoints, call, *, half):
    """Ends the process at the n-th call that changes the disk, before it or with half of it done.

    Returns:
        A list to which each call adds its name.
    """
    calls = []

    def watch(owner, name, halve=None):
        original = getattr(owner, name)

        def act(*args, **kwargs):
            calls.append(name)
            if len(calls) == call and not half:
                raise Crash
            if len(calls) > call:
                raise Crash  # what would run after the end
            result = original(*args, **kwargs)
            if len(calls) == call:
                if halve:
                    halve(*args)
                raise Crash
            return result

        monkeypatch.setattr(owner, name, act)

    def cut_all(path):
        folder = os.path.dirname(path.numpy().decode())
        for name in os.listdir(folder):
            truncate(os.path.join(folder, name), 0.5)

    watch(checkpoints, "_write", cut_all)
    for name in ("makedirs", "fsync", "replace", "unlink"):
        watch(os, name)
    watch(shutil, "rmtree")
    return calls


@pytest.mark.parametrize("half", [False, True])
def test_a_save_that_ends_at_any_instant_is_gone_on_from(tmp_path, half):
    """The state restored is the one before, or the new one whole; it then saves as ever."""

    def make(folder):
        variable = tf.Variable(0.0)
        return make_checkpoints(folder, variable=variable, in_graph=False), variable

    def save(checkpoints, variable, epochs):
        variable.assign(epochs)
        checkpoints.record = {"epochs": epochs}
        checkpoints.save(epochs=epochs, steps=epochs)

    found = []
    for call in range(1, 100):
        folder = tmp_path / str(call)
        checkpoints, variable = make(folder)
        for epochs in (1, 2):
            save(checkpoints, variable, epochs)
        with pytest.MonkeyPatch.context() as patch:
            calls = crash_at(patch, checkpoints, call, half=half)
            try:
                save(checkpoints, variable, 3)
            except Crash:
                ended = False
            else:
                ended = True
        again, variable = make(folder)
        assert again.restore()
        assert again.record == {"epochs": float(variable)}
        found.append(again.record["epochs"])
        for epochs in range(int(found[-1]) + 1, 5):
            save(again, variable, epochs)
        assert sorted(os.listdir(folder / "checkpoints")) == [
            f"ckpt-{epochs:05d}-{epochs:09d}{suffix}"
            for epochs in (3, 4)
            for suffix in (DATA, ".index")
        ]
        if ended:
            break
    assert {"_write", "makedirs", "fsync", "replace", "unlink", "rmtree"} <= set(calls)
    assert found == sorted(found)
    assert set(found) == {2, 3}


def test_a_disk_that_fails_at_the_end_of_a_write_leaves_the_states_before(saved, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    state = make_state(saved, small_model(), part=tf.Variable([0.0, 0.0]))
    before = checkpoint_files(saved)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            state.save(epochs=3, steps=9)
    assert checkpoint_files(saved) == before
    assert sorted(os.listdir(saved / "checkpoints")) == sorted(before)
    assert restored(saved) == 2


@pytest.mark.parametrize("state", ["tuner/state_00003.npz", "states/state_00003.npz"])
def test_the_states_of_version_0_1_are_refused(tmp_path, state):
    folder = tmp_path / "a [*?] folder"
    path = folder / state
    path.parent.mkdir(parents=True)
    path.touch()
    checkpoints = make_checkpoints(folder, variable=tf.Variable(1.0))
    with pytest.raises(ValueError, match=f"{path.parent.name} this version cannot") as error:
        checkpoints.restore()
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"the search in {folder} was begun by cpnas_tf 0.1, ")
    path.unlink()
    assert not checkpoints.restore()


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
