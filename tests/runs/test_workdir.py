import contextlib
import errno
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cpnas_tf import files
from cpnas_tf.runs import workdir

ROOT = pathlib.Path(__file__).parents[2]
RUN = {
    "version": "0.1.0",
    "config": {"search": {"beta": 2.0, "seed": 0}, "data": {"name": "digits"}},
    "data_dir": "/data",
}
FILES = {
    "result": "genotype.json",
    "written": ["genotype.json", "search.csv", "tuner/state", "tuner/trial_*/trial.json"],
}

CLAIM = """
import sys, time
from cpnas_tf.files import write_atomically
from cpnas_tf.runs import workdir
with workdir.claim(sys.argv[1], {"config": 1}, result="done", written=("done", "state")):
    write_atomically(sys.argv[1] + "/state", "half")
    print("claimed", flush=True)
    time.sleep(600)
"""


def record_of(run=RUN):
    """What `config.json` holds of a run."""
    return {"format": 2, **run, "written": FILES["written"]}


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


class TestClaim:
    def test_a_new_folder_records_the_run(self, tmp_path):
        folder = tmp_path / "a" / "b"
        with claim(folder):
            assert json.loads((folder / "config.json").read_text()) == record_of()
            (folder / "search.csv").write_text("rows")
        assert json.loads((folder / "config.json").read_text()) == record_of()

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
        assert json.loads((unfinished / "config.json").read_text()) == record_of(moved)
        assert (unfinished / "search.csv").exists()

    @pytest.mark.parametrize(
        ("before", "now", "line"),
        [
            (2, 1, "threads: 2 before, 1 now: results may differ by rounding from here on\n"),
            (2, 2, ""),
            (None, 2, ""),
        ],
    )
    def test_going_on_with_other_threads_says_so(self, tmp_path, capsys, before, now, line):
        folder = tmp_path / "run"
        work(folder, "search.csv", run={**RUN, "threads": before})
        assert capsys.readouterr().out == ""
        work(folder, run={**RUN, "threads": now})
        assert capsys.readouterr().out == line
        assert json.loads((folder / "config.json").read_text())["threads"] == now

    def test_starting_afresh_with_other_threads_does_not(self, tmp_path, capsys):
        work(tmp_path / "run", "genotype.json", run={**RUN, "threads": 2})
        work(tmp_path / "run", "search.csv", run={**RUN, "threads": 1}, overwrite=True)
        assert capsys.readouterr().out == ""

    def test_other_images_are_refused_and_the_difference_named(self, unfinished):
        there, here = ({**RUN, "images": images_of(count)} for count in (8, 9))
        work(unfinished, run=there)
        before = contents(unfinished)
        line = refusal(unfinished, here)
        assert "run on other images (train/cat: 8 images there, 9 images here): restore" in line
        assert "overwrite=True" in line
        assert contents(unfinished) == before
        with claim(unfinished, here, overwrite=True):
            assert not (unfinished / "search.csv").exists()
            (unfinished / "search.csv").write_text("new")
        assert json.loads((unfinished / "config.json").read_text()) == record_of(here)

    def test_a_worker_of_other_images_is_refused(self, unfinished):
        there, here = ({**RUN, "images": images_of(count)} for count in (8, 9))
        work(unfinished, run=there)
        with pytest.raises(ValueError, match="8 images there, 9 images here.: a worker must read"):
            workdir.joined(unfinished, here).__enter__()
        for run, options in ((there, {}), (RUN, {}), (here, {"overwrite": True})):
            with workdir.joined(unfinished, run, **options):
                pass

    def test_a_worker_may_come_before_its_chief(self, tmp_path):
        with workdir.joined(tmp_path / "run", {**RUN, "images": images_of(8)}):
            assert os.listdir(tmp_path) == []

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
        assert json.loads((unfinished / "config.json").read_text()) == record_of(run)
        work(unfinished, run={**run, "cwd": "/elsewhere"})

    def test_a_finished_run_is_kept(self, finished):
        before = contents(finished)
        line = refusal(finished)
        assert "holds a finished run (genotype.json)" in line
        assert str(finished) in line
        assert "overwrite=True" in line
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
        assert "overwrite=True" in line
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
        assert json.loads((unfinished / "config.json").read_text()) == record_of(changed(beta=0.0))

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


OLD = {"version": "0.1.0", "config": {"data": {"name": "digits"}}, "data_dir": None}


def tree(folder):
    """All that is in a folder but locks: a file's content, a link's target, None for a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name != ".lock":
            is_file = path.is_file() and not path.is_symlink()
            content = path.read_bytes() if is_file else None
            found[str(path.relative_to(folder))] = (
                os.readlink(path) if path.is_symlink() else content
            )
    return found


@pytest.fixture
def home(tmp_path):
    """A folder such as a user's home: all that a run would write is there, and is the user's."""
    folder = tmp_path / "home"
    names = (
        *("Downloads/film.partial", "thesis.partial/chapter/1.tex", "search.csv", "history.csv"),
        *("genotype.json", "metrics.json", "tuner/state", "tuner/state.7.partial"),
        *("checkpoints/ckpt-00001-000000003.index", "logs/events.out.tfevents.1.v2"),
        *("search.csv.99.partial", "config.json.old", "runs/a/run.json", "searches/a/.lock"),
    )
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "image.99.partial").write_text("mine")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    return folder


class TestFilesOfOthers:
    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize(
        "config",
        [
            None,
            b'{"name": "of another program"}',
            b'{"format": 2}',
            b'{"format": 9, "written": {"genotype.json": 1}}',
            b'{"format": 2, "written": [1]}',
            b'{"version": "0.1.0", "config": {}, "data_dir": null}',
            b'{"version": "0.1.0", "config": {}, "data_dir": null, "command": "build"}',
            b"[]",
            b"[1, 2]",
            b"null",
            b'"text"',
            b"\x00\xff",
            b"key: value",
        ],
    )
    def test_a_folder_that_holds_them_alone_is_refused(self, home, config, overwrite):
        if config is not None:
            (home / "config.json").write_bytes(config)
        before = tree(home.parent)
        for run in (RUN, changed(beta=0.0)):
            assert "home" in refusal(home, run, overwrite=overwrite)
        assert tree(home.parent) == before

    @pytest.mark.parametrize("kind", ["folder", "link to nothing"])
    def test_what_is_no_file_is_no_record(self, home, kind):
        if kind == "folder":
            (home / "config.json").mkdir()
        else:
            (home / "config.json").symlink_to("missing")
        before = tree(home.parent)
        assert "is not empty" in refusal(home, overwrite=True)
        assert tree(home.parent) == before

    def test_the_refusal_names_one_and_what_to_do(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        assert refusal(tmp_path) == (
            f"{tmp_path} is not empty and holds no run of cpnas_tf, but notes.txt: "
            "choose a new folder as workdir"
        )
        (tmp_path / "a").mkdir()
        assert "but a and 1 more: " in refusal(tmp_path)

    @pytest.mark.parametrize(
        "name",
        [
            *(".lock", ".DS_Store", ".git/HEAD", "Thumbs.db", "desktop.ini", "lost+found/x"),
            "config.json.123.partial",
        ],
    )
    def test_what_does_not_make_a_folder_full(self, tmp_path, name):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
        work(tmp_path, "search.csv")
        assert name.endswith(".partial") or (tmp_path / name).read_text() == "mine"

    def test_the_data_of_a_new_run_may_lie_in_its_folder(self, tmp_path):
        (tmp_path / "data" / "digits").mkdir(parents=True)
        run = {**RUN, "data_dir": str(tmp_path / "data")}
        work(tmp_path, "search.csv", run=run)
        assert (tmp_path / "data" / "digits").is_dir()

    def test_beside_a_run_they_are_no_reason_to_refuse_and_stay(self, tmp_path, home):
        folder = tmp_path / "run"
        with claim(folder):
            (folder / "tuner" / "trial_0").mkdir(parents=True)
            for name in ("genotype.json", "search.csv", "tuner/state", "tuner/trial_0/trial.json"):
                (folder / name).write_text("ours")
        names = (
            *(".DS_Store", "notes.txt", "film.partial", "search.csv.old.partial", "search.csv.bak"),
            *("tuner/notes.txt", "tuner/trial_0/notes.txt", "tuner/trial_0/trial.json.partial"),
            *("tuner/x/state", "tuner/x/state.9.partial", "logs/events.out.tfevents.1.v2"),
            *("other/tuner/state", "config.json.old", "metrics.json", "history.csv"),
        )
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("mine")
        (folder / "home").symlink_to(home)
        (folder / "tuner" / "trial_1").symlink_to(home)
        outside = tree(home.parent / "home")
        work(folder, overwrite=True)
        left = {name: content for name, content in tree(folder).items() if content is not None}
        # The link had the place of a folder of the run, which reads what is behind it.
        assert left.keys() == {*names, "config.json", "home"}
        assert {left[name] for name in names} == {b"mine"}
        assert tree(home.parent / "home") == outside

    def test_one_in_the_place_of_what_another_run_would_write_is_not_written_over(self, tmp_path):
        with claim(tmp_path, result="a", written=["a"]):
            (tmp_path / "a").write_text("ours")
        (tmp_path / "search.csv").write_text("mine")
        before = tree(tmp_path)
        line = refusal(tmp_path, changed(beta=0.0), overwrite=True)
        assert line.startswith(f"{tmp_path}/search.csv is not of the run in {tmp_path}, ")
        assert tree(tmp_path) == before

    def test_a_run_that_fails_at_once_leaves_its_record_beside_them(self, unfinished):
        with pytest.raises(RuntimeError), claim(unfinished, changed(beta=0.0), overwrite=True):
            raise RuntimeError
        assert set(contents(unfinished)) == {"config.json", "notes.txt"}
        work(unfinished, "search.csv")  # nothing is written of that run: this one may begin
        assert set(contents(unfinished)) == {"config.json", "notes.txt", "search.csv"}

    def test_a_link_to_a_folder_is_a_workdir(self, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "run").symlink_to(tmp_path / "disk")
        work(tmp_path / "run", "search.csv", "genotype.json")
        work(tmp_path / "run", overwrite=True)
        assert (tmp_path / "run").is_symlink()
        assert os.listdir(tmp_path / "disk") == [".lock"]

    @pytest.mark.parametrize("name", ["lr=[0.1]", "run*1", "a?b", "[!a]", "a\\b"])
    def test_a_folders_name_is_no_pattern(self, tmp_path, name):
        folder = tmp_path / name
        work(folder, "genotype.json")
        (folder / "search.csv.7.partial").write_text("half")
        work(folder, overwrite=True)
        assert set(contents(folder)) == set()

    @pytest.mark.parametrize("name", ["../home/notes", "/etc/hostname", "..", ".", "", "*/../../x"])
    def test_a_record_reaches_nothing_outside(self, unfinished, tmp_path, name):
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "notes").write_text("mine")
        record = {**record_of(), "written": [name, *FILES["written"]]}
        (unfinished / "config.json").write_text(json.dumps(record))
        work(unfinished, run=changed(beta=0.0), overwrite=True)
        assert (tmp_path / "home" / "notes").read_text() == "mine"
        assert set(contents(unfinished)) >= {"notes.txt"}


class TestFormats:
    @pytest.mark.parametrize(
        ("command", "names", "unknown"),
        [
            ("search", ("genotype.json", "search.csv", "states/state_00001.npz"), "metrics.json"),
            ("train", ("metrics.json", "checkpoints/ckpt-00001-000000002.index"), "genotype.json"),
            ("ablate", ("table.csv", "runs/a/run.json", "searches/a/tuner/oracle.json"), "tuner/x"),
        ],
    )
    def test_a_folder_of_version_0_1_is_adopted(self, tmp_path, command, names, unknown):
        run = {**OLD, "command": command}
        for name in (*names, unknown, "logs/events.out.tfevents.1.v2"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("there")
        (tmp_path / "config.json").write_text(json.dumps(run))
        written = {"search": workdir.SEARCH, "train": workdir.TRAINING, "ablate": workdir.ABLATION}
        options = {"result": None, "written": written[command]}
        before = contents(tmp_path)
        work(tmp_path, run={**run, "version": "0.2.0"}, **options)
        after = contents(tmp_path)
        record = json.loads(after.pop("config.json"))
        assert (record["format"], record["version"]) == (2, "0.2.0")
        assert after == {name: before[name] for name in after}
        assert len(after) == len(before) - 1
        with claim(tmp_path, {**run, "config": {}}, overwrite=True, **options):
            left = {"config.json", unknown, "logs/events.out.tfevents.1.v2"}
            assert set(contents(tmp_path)) == left

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize("number", [3, 100, 0, -1, "2", None])
    def test_a_newer_format_is_refused(self, unfinished, number, overwrite):
        (unfinished / "config.json").write_text(json.dumps({**record_of(), "format": number}))
        before = contents(unfinished)
        line = refusal(unfinished, overwrite=overwrite)
        assert f"/config.json has format {number!r}, this version" in line
        assert line.endswith("reads formats 1 to 2: upgrade cpnas_tf")
        assert contents(unfinished) == before


class TestFoldersBelowWithALock:
    WRITTEN = ("table.csv", "runs/*/run.json", "runs/*/.lock")

    @pytest.fixture
    def folder(self, tmp_path):
        with claim(tmp_path, result=None, written=self.WRITTEN):
            for name in ("a", "b"):
                with files.exclusive(tmp_path / "runs" / name):
                    (tmp_path / "runs" / name / "run.json").write_text("done")
            (tmp_path / "table.csv").write_text("rows")
        return tmp_path

    def test_what_a_worker_writes_there_is_left_to_it(self, folder):
        partial = folder / "runs" / "a" / "run.json.7.partial"
        (folder / "table.csv.7.partial").write_text("half")
        partial.write_text("half")
        with files.exclusive(folder / "runs" / "a"):
            work(folder, result=None, written=self.WRITTEN)
            assert partial.read_text() == "half"
        assert not (folder / "table.csv.7.partial").exists()
        workdir.clean(folder / "runs" / "a", ("run.json", ".lock"))
        assert set(contents(folder / "runs" / "a")) == {"run.json"}

    def test_they_are_not_overwritten_while_a_worker_is_in_one(self, folder):
        options = {"result": None, "written": self.WRITTEN, "overwrite": True}
        before = contents(folder)
        with files.exclusive(folder / "runs" / "b"):
            line = refusal(folder, changed(beta=0.0), **options)
        assert line == f"{folder}/runs/b is in use by another process"
        assert contents(folder) == before
        with claim(folder, changed(beta=0.0), **options):
            assert set(os.listdir(folder)) == {"config.json", ".lock"}
