import contextlib
import errno
import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cpnas_tf import errors, files
from cpnas_tf.runs import workdir

ROOT = pathlib.Path(__file__).parents[2]
RUN = {
    "version": "0.1.0",
    "config": {"search": {"beta": 2.0, "seed": 0}, "data": {"name": "digits"}},
    "data_dir": "/data",
}
FILES = {"result": "genotype.json", "written": ("genotype.json", "search.csv", "tuner")}

CLAIM = """
import sys, time
from cpnas_tf import workdir
with workdir.claim(sys.argv[1], {"config": 1}, result="done", written=("done", "state")):
    workdir.write_atomically(sys.argv[1] + "/state", "half")
    print("claimed", flush=True)
    time.sleep(600)
"""


def changed(**search):
    """RUN with other settings of its search."""
    return {**RUN, "config": {**RUN["config"], "search": {**RUN["config"]["search"], **search}}}


def images_of(count):
    """The record of a folder's images."""
    origin = {"train/cat": f"{count} images"}
    return {"classes": ["cat", "dog"], "shape": [8, 8, 3], "origin": origin}


def claim(folder, run=RUN, **options):
    return workdir.claim(folder, run, **{**FILES, **options})


def work(folder, *names, run=RUN, **options):
    """Claims a folder and writes files in it."""
    with claim(folder, run, **options):
        for name in names:
            files.write_atomically(folder / name, name)


def refusal(folder, run=RUN, **options):
    """The one line with which a claim is refused, before the run starts."""
    with pytest.raises(ValueError, match=str(folder)) as error, claim(folder, run, **options):
        pytest.fail("claimed")
    (line,) = str(error.value).splitlines()
    return line


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def unfinished(tmp_path):
    """The folder of a search that was stopped, with a file of the user's in it."""
    folder = tmp_path / "run"
    work(folder, "search.csv")
    (folder / "tuner").mkdir()
    (folder / "tuner" / "state").write_text("state")
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture
def finished(unfinished):
    work(unfinished, "genotype.json")
    return unfinished


@pytest.fixture
def other_process(tmp_path):
    """A process that has claimed a folder and holds it: `(folder, process)`."""
    folder = tmp_path / "held"
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIM, folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "claimed\n"
        yield folder, process
        process.kill()


GRAPH_ERROR = """Graph execution error:

Detected at node MatMul defined at (most recent call last):
  File "search.py", line 4, in <module>

  File "search.py", line 3, in step

OOM when allocating a tensor
\t [[{{node MatMul}}]]
Hint: something else [Op:__inference_step_8]"""


class TestFirstLine:
    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (ValueError("one"), "one"),
            (ValueError("\n one \ntwo"), "one"),
            (ValueError(), "ValueError"),
            (RuntimeError(" \n"), "RuntimeError"),
            (KeyError("name"), "'name'"),
            (
                RuntimeError("{{function_node __wrapped__SaveV2}} x; disk full [Op:SaveV2]"),
                "x; disk full",
            ),
            (RuntimeError(GRAPH_ERROR), "OOM when allocating a tensor"),
        ],
    )
    def test_is_what_the_error_says(self, error, line):
        assert errors.first_line(error) == line


class TestWriteAtomically:
    @pytest.mark.parametrize(("data", "expected"), [("ä\n", "ä\n".encode()), (b"\x00\xff", None)])
    def test_writes_text_and_bytes_as_they_are(self, tmp_path, data, expected):
        files.write_atomically(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == (expected or data)
        assert os.listdir(tmp_path) == ["file"]

    @pytest.mark.parametrize("function", ["fsync", "replace"])
    def test_a_full_disk_leaves_the_old_file_and_no_part_of_the_new(
        self, tmp_path, monkeypatch, function
    ):
        def full(*args):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        path = tmp_path / "file"
        path.write_text("old")
        monkeypatch.setattr(os, function, full)
        with pytest.raises(OSError, match="No space left"):
            files.write_atomically(path, "new")
        assert contents(tmp_path) == {"file": b"old"}

    def test_an_interrupt_leaves_the_old_file_and_no_part_of_the_new(self, tmp_path, monkeypatch):
        def interrupt(*args):
            raise KeyboardInterrupt

        path = tmp_path / "file"
        path.write_text("old")
        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            files.write_atomically(path, "new")
        assert contents(tmp_path) == {"file": b"old"}

    def test_is_on_disk_before_it_takes_the_old_files_place(self, tmp_path, monkeypatch):
        path = tmp_path / "file"
        path.write_text("old")
        seen = []
        fsync, replace = os.fsync, os.replace

        def spy_fsync(descriptor):
            fsync(descriptor)
            seen.append(("synced", os.fstat(descriptor).st_size, path.read_text()))

        def spy_replace(source, target):
            seen.append(("replaced", os.stat(source).st_size, path.read_text()))
            replace(source, target)

        monkeypatch.setattr(os, "fsync", spy_fsync)
        monkeypatch.setattr(os, "replace", spy_replace)
        files.write_atomically(path, "newer")
        assert seen == [("synced", 5, "old"), ("replaced", 5, "old")]
        assert path.read_text() == "newer"

    @pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
    def test_permissions_follow_the_umask(self, tmp_path, umask):
        before = os.umask(umask)
        try:
            files.write_atomically(tmp_path / "file", "text")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask

    @pytest.mark.parametrize("name", ["missing/file", "file/below", "folder"])
    def test_an_error_names_the_path_that_was_asked_for(self, tmp_path, name):
        (tmp_path / "file").write_text("old")
        (tmp_path / "folder").mkdir()
        path = tmp_path / name
        with pytest.raises(OSError, match=r"^\[Errno \d+\] ") as error:
            files.write_atomically(path, "text")
        assert str(error.value).endswith(f": {str(path)!r}")
        assert contents(tmp_path) == {"file": b"old"}

    def test_a_full_disk_names_the_path(self, tmp_path, monkeypatch):
        def full(*args):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/file'$"):
            files.write_atomically(tmp_path / "file", "text")


REPLACE = """
import sys, time
from cpnas_tf import workdir
with workdir.replaced(sys.argv[1]) as new:
    workdir.write_atomically(new + "/state", "half")
    print("writing", flush=True)
    time.sleep(600)
"""


class TestReplaced:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "out"
        folder.mkdir()
        (folder / "old").write_text("old")
        return folder

    @pytest.fixture
    def replacing(self, folder):
        """Another process that is at replacing the folder."""
        command = [sys.executable, "-c", REPLACE, folder]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "writing\n"
            yield process
            process.kill()

    def replace(self, folder, name="new"):
        with files.replaced(folder) as new:
            assert os.listdir(new) == []
            pathlib.Path(new, name).write_text(name)

    def test_takes_the_place_at_the_end_of_the_block(self, folder, tmp_path):
        with files.replaced(folder) as new:
            pathlib.Path(new, "new").write_text("new")
            assert contents(folder) == {"old": b"old"}
        assert contents(tmp_path) == {"out/new": b"new"}
        assert os.listdir(tmp_path) == ["out"]

    def test_makes_what_was_not_there(self, tmp_path):
        self.replace(tmp_path / "a" / "b")
        assert contents(tmp_path) == {"a/b/new": b"new"}
        assert os.listdir(tmp_path / "a") == ["b"]

    def test_an_error_keeps_the_old(self, folder, tmp_path):
        with pytest.raises(FileNotFoundError), files.replaced(folder) as new:
            os.unlink(os.path.join(new, "missing"))
        assert contents(tmp_path) == {"out/old": b"old"}
        assert os.listdir(tmp_path) == ["out"]

    def test_another_process_is_kept_out(self, folder, replacing):
        with pytest.raises(ValueError, match=f"^{folder}.partial is in use by another process$"):
            self.replace(folder)
        assert replacing.poll() is None

    def test_what_a_killed_process_left_goes_at_the_next_call(self, folder, tmp_path, replacing):
        replacing.send_signal(signal.SIGKILL)
        replacing.wait()
        assert contents(folder) == {"old": b"old"}
        assert (tmp_path / "out.partial" / "new" / "state").read_text() == "half"
        self.replace(folder)
        assert contents(tmp_path) == {"out/new": b"new"}
        assert os.listdir(tmp_path) == ["out"]

    def test_a_folder_of_that_name_with_other_files_keeps_them(self, folder, tmp_path):
        (tmp_path / "out.partial").mkdir()
        (tmp_path / "out.partial" / "mine").write_text("mine")
        self.replace(folder)
        assert contents(tmp_path) == {"out/new": b"new", "out.partial/mine": b"mine"}


class TestJson:
    def test_round_trip(self, tmp_path):
        files.write_json(tmp_path / "file.json", RUN)
        assert files.read_json(tmp_path / "file.json") == RUN
        assert (tmp_path / "file.json").read_text().endswith("}\n")

    @pytest.mark.parametrize("text", [b"", b'{"a": 1', b"\xff\xfe", b"{'a': 1}"])
    def test_a_broken_file_is_named_in_one_line(self, tmp_path, text):
        (tmp_path / "file.json").write_bytes(text)
        with pytest.raises(ValueError, match="^cannot read .*file.json: .*$"):
            files.read_json(tmp_path / "file.json")

    def test_a_missing_file_and_a_folder_are_named(self, tmp_path):
        with pytest.raises(ValueError, match="^file not found: .*missing.json$"):
            files.read_json(tmp_path / "missing.json")
        with pytest.raises(ValueError, match=f"^cannot read {tmp_path}: .*directory"):
            files.read_json(tmp_path)


class TestClaim:
    def test_a_new_folder_records_the_run(self, tmp_path):
        folder = tmp_path / "a" / "b"
        with claim(folder):
            assert json.loads((folder / "config.json").read_text()) == RUN
            (folder / "search.csv").write_text("rows")
        assert json.loads((folder / "config.json").read_text()) == RUN

    def test_nothing_is_written_before_the_block(self, tmp_path):
        claim(tmp_path / "run")
        assert os.listdir(tmp_path) == []

    def test_a_refusal_needs_no_block(self, finished, tmp_path):
        (tmp_path / "file").write_text("mine")
        for folder in (finished, tmp_path / "file"):
            with pytest.raises(ValueError, match=f"^{folder} "):
                claim(folder)

    def test_looks_again_when_it_has_the_folder_for_itself(self, unfinished):
        late = claim(unfinished)
        work(unfinished, "genotype.json")
        with pytest.raises(ValueError, match="holds a finished run"), late:
            pytest.fail("claimed")

    def test_the_same_run_goes_on(self, unfinished):
        before = contents(unfinished)
        work(unfinished)
        assert contents(unfinished) == before

    def test_data_may_lie_elsewhere_and_the_version_be_newer(self, unfinished):
        moved = {**RUN, "data_dir": None, "version": "0.2.0"}
        work(unfinished, run=moved)
        assert json.loads((unfinished / "config.json").read_text()) == moved
        assert (unfinished / "search.csv").exists()

    def test_other_images_are_refused_and_the_difference_named(self, unfinished):
        there, here = ({**RUN, "images": images_of(count)} for count in (8, 9))
        work(unfinished, run=there)
        before = contents(unfinished)
        line = refusal(unfinished, here)
        assert "run on other images (train/cat: 8 images there, 9 images here): restore" in line
        assert "--overwrite" in line
        assert contents(unfinished) == before
        with claim(unfinished, here, overwrite=True):
            assert not (unfinished / "search.csv").exists()
            (unfinished / "search.csv").write_text("new")
        assert json.loads((unfinished / "config.json").read_text()) == here

    def test_images_may_be_known_only_when_the_folder_is_taken(self, unfinished):
        work(unfinished, run={**RUN, "images": images_of(8)})
        run = dict(RUN)
        late = claim(unfinished, run)
        run["images"] = images_of(9)
        with pytest.raises(ValueError, match="8 images there, 9 images here"), late:
            pytest.fail("claimed")

    def test_a_record_without_images_goes_on_and_gets_them(self, unfinished):
        run = {**RUN, "images": images_of(8), "cwd": "/home"}
        work(unfinished, run=run)
        assert (unfinished / "search.csv").exists()
        assert json.loads((unfinished / "config.json").read_text()) == run
        work(unfinished, run={**run, "cwd": "/elsewhere"})

    def test_a_finished_run_is_kept(self, finished):
        before = contents(finished)
        line = refusal(finished)
        assert "holds a finished run (genotype.json)" in line
        assert str(finished) in line
        assert "--overwrite" in line
        assert contents(finished) == before

    @pytest.mark.parametrize(
        ("run", "difference"),
        [
            (changed(beta=0.0), "config.search.beta: 2.0 there, 0.0 here"),
            (changed(rounds=3), "config.search.rounds: None there, 3 here"),
            ({**RUN, "precision": "child"}, "precision: None there, 'child' here"),
            ({**RUN, "config": 1}, "config: {'search'"),
        ],
    )
    def test_a_different_run_is_refused_and_the_difference_named(self, unfinished, run, difference):
        before = contents(unfinished)
        line = refusal(unfinished, run)
        assert f"holds a different run ({difference}" in line
        assert "--overwrite" in line
        assert contents(unfinished) == before

    def test_overwrite_starts_a_finished_run_afresh(self, finished):
        with claim(finished, overwrite=True):
            assert set(contents(finished)) == {"config.json", "notes.txt"}
            assert not (finished / "tuner").exists()
            (finished / "search.csv").write_text("new")

    def test_overwrite_starts_a_different_run_afresh(self, unfinished):
        with claim(unfinished, changed(beta=0.0), overwrite=True):
            assert set(contents(unfinished)) == {"config.json", "notes.txt"}
            (unfinished / "search.csv").write_text("new")
        assert json.loads((unfinished / "config.json").read_text()) == changed(beta=0.0)

    def test_overwrite_lets_the_same_unfinished_run_go_on(self, unfinished):
        before = contents(unfinished)
        work(unfinished, overwrite=True)
        assert contents(unfinished) == before

    def test_overwrite_removes_a_link_but_not_what_it_points_to(self, finished, tmp_path):
        elsewhere = tmp_path / "elsewhere"
        (finished / "tuner").rename(elsewhere)
        (finished / "tuner").symlink_to(elsewhere)
        work(finished, overwrite=True)
        assert (elsewhere / "state").read_text() == "state"
        assert not os.path.lexists(finished / "tuner")

    def test_a_run_that_fails_before_it_writes_anything_is_forgotten(self, tmp_path):
        with pytest.raises(ValueError, match="impossible"), claim(tmp_path / "run"):
            raise ValueError("impossible settings")
        assert contents(tmp_path / "run") == {}
        work(tmp_path / "run", "search.csv", run=changed(beta=0.0))

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_a_run_that_fails_later_goes_on(self, tmp_path, error):
        with contextlib.suppress(error), claim(tmp_path):
            (tmp_path / "search.csv").write_text("rows")
            raise error
        assert "different run" in refusal(tmp_path, changed(beta=0.0))
        work(tmp_path)
        assert (tmp_path / "search.csv").read_text() == "rows"

    @pytest.mark.parametrize("broken", ["", '{"config": ', "\0"])
    def test_a_broken_config_is_one_line(self, unfinished, broken):
        (unfinished / "config.json").write_text(broken)
        before = contents(unfinished)
        assert f"cannot read {unfinished}/config.json: " in refusal(unfinished)
        assert contents(unfinished) == before

    @pytest.mark.parametrize("name", ["file", "file/below"])
    def test_a_file_is_no_workdir(self, tmp_path, name):
        (tmp_path / "file").write_text("mine")
        assert refusal(tmp_path / name).startswith(f"{tmp_path / name} is or lies in a file")
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_folder_that_cannot_be_made(self):
        assert refusal("/proc/cpnas").startswith("cannot write in /proc/cpnas: ")

    def test_a_folder_without_write_permission(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))
        folder = tmp_path / "a" / "b"
        assert refusal(folder) == f"cannot write in {folder}: Permission denied"
        assert os.listdir(tmp_path) == []

    def test_a_folder_that_cannot_be_written(self, tmp_path, monkeypatch):
        def refuse(path, mode):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

        monkeypatch.setattr(files, "open", refuse, raising=False)  # root may write anywhere
        assert refusal(tmp_path) == f"cannot write in {tmp_path}: Permission denied"

    def test_the_lock_is_open_again_after_the_block(self, tmp_path):
        for _ in range(2):
            with files.exclusive(tmp_path):
                assert "in use by another process" in refusal(tmp_path)

    def test_waiting_for_the_lock(self, tmp_path):
        def enter():
            with files.exclusive(tmp_path, wait=True):
                return time.monotonic()

        with ThreadPoolExecutor() as pool, files.exclusive(tmp_path):
            entered = pool.submit(enter)
            time.sleep(0.1)
            left = time.monotonic()
        assert entered.result() >= left

    def test_one_process_at_a_time_even_with_overwrite(self, other_process):
        folder, process = other_process
        before = contents(folder)
        for run, overwrite in (({"config": 1}, False), (RUN, True)):
            line = refusal(folder, run, overwrite=overwrite)
            assert line == f"{folder} is in use by another process"
        assert contents(folder) == before
        assert process.poll() is None

    def test_a_killed_process_leaves_the_folder_free_and_its_run_goes_on(self, other_process):
        folder, process = other_process
        process.send_signal(signal.SIGKILL)
        process.wait()
        files = {"result": "done", "written": ("done", "state")}
        with workdir.claim(folder, {"config": 1}, **files):
            assert (folder / "state").read_text() == "half"


def test_what_a_killed_process_left_half_written_is_removed(unfinished):
    partials = [unfinished / "search.csv.99.partial", unfinished / "tuner" / "state.99.partial"]
    for partial in partials:
        partial.write_text("half")
    kept = contents(unfinished)
    with claim(unfinished):
        assert contents(unfinished) == {
            name: content for name, content in kept.items() if "partial" not in name
        }


class TestCsv:
    def test_rows_under_their_keys(self, tmp_path):
        rows = [{"name": 'a, "b"', "value": 1}, {"name": None, "value": 0.5}]
        files.write_csv(tmp_path / "table.csv", rows)
        assert (tmp_path / "table.csv").read_text() == 'name,value\n"a, ""b""",1\n,0.5\n'

    def test_columns_of_no_rows(self, tmp_path):
        files.write_csv(tmp_path / "table.csv", [], columns=("name", "value"))
        assert (tmp_path / "table.csv").read_text() == "name,value\n"

    def test_other_keys_are_an_error_and_the_file_before_stays(self, tmp_path):
        (tmp_path / "table.csv").write_text("before")
        with pytest.raises(ValueError, match="value"):
            files.write_csv(tmp_path / "table.csv", [{"name": "a"}, {"value": 1}])
        assert (tmp_path / "table.csv").read_text() == "before"
