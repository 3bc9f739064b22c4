import errno
import io
import json
import os
import random

import numpy as np
import pytest

from cpnas_tf.runs import search_state

ARRAYS = {"child_0": np.arange(6.0).reshape(2, 3), "parent_0": np.float32([0.1, np.nan])}


def write(folder, number):
    search_state.write(folder, number, record={"number": number}, arrays=ARRAYS)
    return folder / f"state_{number:05d}.npz"


def test_no_state(tmp_path):
    assert search_state.read_newest(tmp_path) is None
    assert search_state.read_newest(tmp_path / "missing") is None


def test_the_newest_is_read_as_it_was_written(tmp_path, capsys):
    for number in (9, 10, 100000):
        write(tmp_path, number)
    record, arrays = search_state.read_newest(tmp_path)
    assert record == {"number": 100000}
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert capsys.readouterr().out == ""


def test_the_last_two_are_kept(tmp_path):
    for number in range(1, 5):
        write(tmp_path, number)
    assert sorted(os.listdir(tmp_path)) == ["state_00003.npz", "state_00004.npz"]


def test_a_state_cut_or_changed_at_any_byte_is_noticed_and_the_one_before_used(tmp_path, capsys):
    write(tmp_path, 1)
    path = write(tmp_path, 2)
    whole = path.read_bytes()
    changed = (
        whole[:place] + bytes([byte ^ 1 << place % 8]) + whole[place + 1 :]
        for place, byte in enumerate(whole)
    )
    for broken in [*(whole[:size] for size in range(len(whole))), *changed]:
        path.write_bytes(broken)
        assert search_state.read_newest(tmp_path)[0] == {"number": 1}
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(f"the saved state {path} is broken (its checksum is wrong)")
    path.write_bytes(whole)
    assert search_state.read_newest(tmp_path)[0] == {"number": 2}


def test_a_large_state_cut_at_50_random_bytes(tmp_path):
    write(tmp_path, 1)
    arrays = {"child_0": np.random.default_rng(0).normal(size=100_000)}
    search_state.write(tmp_path, 2, record={}, arrays=arrays)
    path = tmp_path / "state_00002.npz"
    whole, generator = path.read_bytes(), random.Random(0)
    for size in generator.sample(range(len(whole)), 50):
        path.write_bytes(whole[:size])
        assert search_state.read_newest(tmp_path)[0] == {"number": 1}


def test_no_whole_state_is_an_error(tmp_path):
    for number in (1, 2):
        write(tmp_path, number).write_bytes(b"")
    with pytest.raises(ValueError, match=f"^no saved state in {tmp_path} can be .*--overwrite$"):
        search_state.read_newest(tmp_path)


def test_a_full_disk_leaves_the_states_before(tmp_path, monkeypatch):
    write(tmp_path, 1)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path, 2)
    assert os.listdir(tmp_path) == ["state_00001.npz"]
    assert search_state.read_newest(tmp_path)[0] == {"number": 1}


def test_arrays_of_objects_are_not_read(tmp_path):
    """They would be pickles, that is code: numpy refuses them."""
    content = io.BytesIO()
    np.savez(content, record=json.dumps({}), bad=np.array([{}], dtype=object))
    write(tmp_path, 1)
    whole = content.getvalue()
    checksum = search_state.hashlib.sha256(whole).digest()
    (tmp_path / "state_00002.npz").write_bytes(whole + checksum)
    assert search_state.read_newest(tmp_path)[0] == {"number": 1}
