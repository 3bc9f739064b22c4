import errno
import math
import os
import pathlib
import signal
import stat
import subprocess
import sys

import pytest

from cpnas_tf import files

ROOT = pathlib.Path(__file__).parents[1]


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


class TestLocalPath:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [("~", "{home}"), ("~/a", "{home}/a"), ("~root/a", "/root/a"), ("a~/~", "a~/~")],
    )
    def test_a_tilde_is_the_home_folder(self, tmp_path, monkeypatch, path, expected):
        monkeypatch.setenv("HOME", str(tmp_path))
        assert files.local_path(path) == expected.format(home=tmp_path)
        assert files.local_path(pathlib.Path(path)) == expected.format(home=tmp_path)

    @pytest.mark.parametrize(
        "path", ["", "a", "./~", "~nobody_here", "a:b", "/a//b", "C:/a", "a b/ä", "://b"]
    )
    def test_other_paths_stay_as_they_are(self, path):
        assert files.local_path(path) == files.local_path(os.fsencode(path)) == path

    @pytest.mark.parametrize("scheme", ["gs", "s3", "ram", "file", "hdfs", "https", "S3"])
    def test_a_url_is_refused(self, scheme):
        with pytest.raises(ValueError, match=f"^{scheme}://a/b is a URL: a path in this machine"):
            files.local_path(f"{scheme}://a/b")

    def test_a_name_that_is_not_utf_8_is_refused(self):
        with pytest.raises(
            ValueError, match=r"^the name of b'w\\xe9/run' is not UTF-8: rename it$"
        ):
            files.local_path(os.fsdecode(b"w\xe9/run"))

    @pytest.mark.parametrize("path", ["x" * 4000, "ä" * 200, "a/" * 2500])
    def test_a_name_that_no_file_can_have_is_refused_and_shortened(self, path):
        with pytest.raises(ValueError, match="^File name too long: ") as error:
            files.local_path(path)
        assert len(str(error.value)) < 100

    def test_a_link_to_itself_is_refused(self, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "link")
        with pytest.raises(ValueError, match="^Too many levels of symbolic links: "):
            files.local_path(tmp_path / "link" / "file")

    def test_without_a_home_a_tilde_is_refused(self, monkeypatch):
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for an unknown user
        with pytest.raises(ValueError, match="^there is no home folder for ~/a: set HOME"):
            files.local_path("~/a")


@pytest.fixture
def fifo(tmp_path):
    """A pipe that nobody writes to: who opens it to read would wait for ever."""
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.fixture
def device(tmp_path):
    """A link to a device that never ends."""
    (tmp_path / "zero").symlink_to("/dev/zero")
    return tmp_path / "zero"


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_pipes_and_devices_are_neither_read_nor_replaced(kind, request):
    path = request.getfixturevalue(kind)
    before = os.lstat(path)
    with pytest.raises(ValueError, match="^this is no regular file$"):
        files.read_text(path)
    with pytest.raises(ValueError, match=f"^cannot read {path}: this is no regular file$"):
        files.read_json(path)
    with pytest.raises(OSError, match=f"this is no regular file: '{path}'$"):
        files.write_atomically(path, "text")
    assert os.lstat(path) == before
    assert os.listdir(path.parent) == [path.name]


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
from cpnas_tf import files
with files.replaced(sys.argv[1]) as new:
    files.write_atomically(new + "/state", "half")
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

    def test_it_is_there_at_each_instant(self, folder, monkeypatch):
        seen = []
        for name in ("rename", "unlink", "rmdir"):
            change = getattr(os, name)

            def spy(*args, change=change, **options):
                change(*args, **options)
                seen.append(contents(folder))

            monkeypatch.setattr(os, name, spy)
        exchange = files._exchange
        monkeypatch.setattr(files, "_exchange", lambda *paths: exchange(*paths) and "exchanged")
        self.replace(folder)
        assert seen
        assert all(found == {"new": b"new"} for found in seen)

    @pytest.mark.parametrize("instant", ["first", "second"])
    def test_without_an_exchange_the_next_call_puts_the_old_back(
        self, folder, tmp_path, monkeypatch, instant
    ):
        """After a process was killed after one of both renames."""
        monkeypatch.setattr(files, "_exchange", lambda *paths: False)
        partial = tmp_path / "out.partial"
        (partial / "new").mkdir(parents=True)
        (partial / "new" / "new").write_text("new")
        (partial / ".lock").touch()
        folder.rename(partial / "old")
        if instant == "second":
            (partial / "new").rename(folder)
        with files.replaced(folder) as new:
            assert contents(folder) == ({"old": b"old"} if instant == "first" else {"new": b"new"})
            pathlib.Path(new, "new").write_text("new")
        assert os.listdir(tmp_path) == ["out"]
        self.replace(folder, "newer")
        assert contents(tmp_path) == {"out/newer": b"newer"}
        assert os.listdir(tmp_path) == ["out"]

    def test_a_failure_amid_both_renames_puts_the_old_back(self, folder, tmp_path, monkeypatch):
        monkeypatch.setattr(files, "_exchange", lambda *paths: False)
        rename = os.rename

        def refuse_new(source, target):
            if source.endswith("new"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), target)
            rename(source, target)

        monkeypatch.setattr(os, "rename", refuse_new)
        with pytest.raises(PermissionError):
            self.replace(folder)
        assert contents(tmp_path) == {"out/old": b"old"}

    def test_of_a_link_the_target_is_replaced(self, folder, tmp_path):
        (tmp_path / "link").symlink_to("out")
        self.replace(tmp_path / "link")
        assert os.readlink(tmp_path / "link") == "out"
        assert contents(folder) == {"new": b"new"}

    @pytest.mark.parametrize("name", ["new", "old"])
    def test_a_folder_in_its_way_that_is_someone_elses_is_kept(self, folder, tmp_path, name):
        (tmp_path / "out.partial" / name).mkdir(parents=True)
        (tmp_path / "out.partial" / name / "mine").write_text("mine")
        before = contents(tmp_path)
        with pytest.raises(ValueError, match="out.partial is in the way, .*: move it$"):
            self.replace(folder)
        assert contents(tmp_path) == before

    def test_a_folder_of_that_name_with_other_files_keeps_them(self, folder, tmp_path):
        (tmp_path / "out.partial").mkdir()
        (tmp_path / "out.partial" / "mine").write_text("mine")
        self.replace(folder)
        assert contents(tmp_path) == {"out/new": b"new", "out.partial/mine": b"mine"}


class TestFind:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "[a]*"
        for name in ("one.txt", "two.txt", "logs/one.txt", "logs/deep/one.txt", "other/one.txt"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        (folder / "link").symlink_to("logs")
        return folder

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("one.txt", ["one.txt"]),
            ("*.txt", ["one.txt", "two.txt"]),
            ("*/one.txt", ["logs/one.txt", "other/one.txt"]),
            ("logs/*/*", ["logs/deep/one.txt"]),
            ("link/one.txt", []),
            ("link", ["link"]),
            ("one.txt/below", []),
            ("missing/*", []),
            ("../*", []),
            ("..", []),
            ("", []),
        ],
    )
    def test_names(self, folder, name, expected):
        assert list(files.find(folder, name)) == [str(folder / path) for path in expected]

    def test_links_in_the_place_of_folders(self, folder):
        found = list(files.find(folder, "l*/one.txt", links=True))
        assert found == [str(folder / "link"), str(folder / "logs" / "one.txt")]

    def test_folders_that_are_not_entered(self, folder):
        found = files.find(folder, "*/one.txt", enter=lambda below: below.endswith("logs"))
        assert list(found) == [str(folder / "logs" / "one.txt")]

    def test_a_folder_that_is_not_there(self, tmp_path):
        assert list(files.find(tmp_path / "missing", "*")) == []


class TestPlainPath:
    @pytest.mark.parametrize("name", ["plain", "{a} b~", "ä"])
    def test_a_path_without_a_pattern_stays(self, tmp_path, name):
        with files.plain_path(tmp_path / name / "file") as path:
            assert path == str(tmp_path / name / "file")

    @pytest.mark.parametrize("name", ["a[1]", "a*", "a?", "a\\b"])
    def test_one_with_a_pattern_becomes_another_of_the_same_file(self, tmp_path, name):
        (tmp_path / name).mkdir()
        with files.plain_path(tmp_path / name / "file") as path:
            assert not set(path) & set("[*?\\")
            pathlib.Path(path).write_text("text")
        assert (tmp_path / name / "file").read_text() == "text"
        assert not os.path.lexists(path)


class TestJson:
    def test_round_trip(self, tmp_path):
        value = {"a": [1, None], "b": {"ä": 0.5}}
        files.write_json(tmp_path / "file.json", value)
        assert files.read_json(tmp_path / "file.json") == value
        assert (tmp_path / "file.json").read_text().endswith("}\n")

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_number_that_is_not_finite_is_refused(self, tmp_path, value):
        path = tmp_path / "file.json"
        with pytest.raises(ValueError, match="^cannot write .*file.json as JSON: [^\n]*$"):
            files.write_json(path, {"a": [1.0, value]})
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("text", [b"", b'{"a": 1', b"\xff\xfe", b"{'a': 1}", b"[" * 100_000])
    def test_a_broken_file_is_named_in_one_line(self, tmp_path, text):
        (tmp_path / "file.json").write_bytes(text)
        with pytest.raises(ValueError, match="^cannot read .*file.json: .*$"):
            files.read_json(tmp_path / "file.json")

    def test_a_missing_file_and_a_folder_are_named(self, tmp_path):
        with pytest.raises(ValueError, match="^file not found: .*missing.json$"):
            files.read_json(tmp_path / "missing.json")
        with pytest.raises(ValueError, match=f"^cannot read {tmp_path}: .*directory"):
            files.read_json(tmp_path)


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
