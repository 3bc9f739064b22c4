"""Paths as users write them: each flag that takes one expands `~`, and refuses what is no path."""

import functools
import os
import re

import forked
import pytest
from commands import TRAIN, check_refused, read_json, refusal, succeed

CONFIG = "--config=configs/train_digits.py"
FLAGS = (
    *(("search", name) for name in ("config", "workdir", "data_dir")),
    *(
        ("train", name)
        for name in ("config", "workdir", "data_dir", "genotype", "teacher", "warm_start")
    ),
    *(("evaluate", name) for name in ("workdir", "data_dir")),
    *(("export", name) for name in ("workdir", "output", "data_dir")),
    *(("plot", name) for name in ("workdir", "genotype", "output")),
    *(("profile", name) for name in ("config", "genotype", "csv")),
    *(("ablate", name) for name in ("config", "workdir", "data_dir")),
    *(("report", name) for name in ("workdir", "output", "train", "data_dir")),
    ("quickstart", "folder"),
)


@pytest.fixture
def at_home(tmp_path):
    """Makes a new folder a command's home."""
    (tmp_path / "home").mkdir()
    return functools.partial(live_in, str(tmp_path / "home"))


def live_in(home):
    os.environ["HOME"] = home


@pytest.mark.parametrize(("command", "flag"), FLAGS)
def test_what_is_no_path_is_refused_by_its_flag(command, flag):
    named = "" if flag == "config" else f"--{flag}: "
    for path, reason in (
        ("gs://bucket/a", "gs://bucket/a is a URL: "),
        ("x" * 4000, "File name too long: "),
        (os.fsdecode(b"w\xe9/run"), r"the name of b'w\xe9/run' is not UTF-8: "),
    ):
        assert refusal(command, f"--{flag}={path}").startswith(f"error: {named}{reason}")


def test_each_flag_with_a_path_is_tested():
    defined = {
        (command, name)
        for command in {command for command, _ in FLAGS}
        for name in re.findall(r"\n  --(\w+):", succeed(forked.run(command, "--help")))
    }
    others = {"precision", "model"}
    assert {(command, name) for command, name in defined if name not in others} == set(FLAGS)


def test_a_tilde_is_the_home_folder(at_home, tmp_path, genotype, data_dir):
    home = tmp_path / "home"
    genotype.rename(home / "genotype.json")
    (home / "train.py").symlink_to(forked.ROOT / "configs" / "train_digits.py")
    (home / "data").symlink_to(data_dir)
    train = ("train", "--config=~/train.py", *TRAIN[1:], "--genotype=~/genotype.json")
    succeed(forked.run(*train, "--data_dir=~/data", "--workdir=~/run", before=at_home))
    assert read_json(home / "run" / "config.json")["data_dir"] == str(home / "data")
    more = ("--data_dir=~/data", "--workdir=~/more", "--warm_start=~/run", "--teacher=~/run")
    succeed(forked.run(*train, *more, before=at_home))
    assert read_json(home / "more" / "config.json")["teacher"] == str(home / "run")
    succeed(forked.run("evaluate", "--workdir=~/run", before=at_home))
    succeed(forked.run("export", "--workdir=~/run", "--output=~/export", before=at_home))
    assert (home / "export" / "export.json").is_file()
    plot = ("plot", "--genotype=~/genotype.json", "--output=~/plots")
    assert f"{home}/plots/normal.png\n" in succeed(forked.run(*plot, before=at_home))
    profile = ("profile", "--model=wrn22", "--csv=~/layers.csv")
    succeed(forked.run(*profile, before=at_home))
    assert (home / "layers.csv").is_file()
    assert not (forked.ROOT / "~").exists()


def test_a_folder_of_images_may_lie_in_the_home_folder(at_home, tmp_path):
    profile = ("profile", CONFIG, "--genotype=darts", "--config.data.name=folder:~/photos")
    line = refusal(*profile, before=at_home)
    assert line.startswith(f"error: folder not found: {tmp_path}/home/photos/train; ")


def test_a_folder_of_images_is_no_url(tmp_path):
    command = ("train", CONFIG, "--genotype=darts", f"--workdir={tmp_path}/run")
    name = "--config.data.name=folder:gs://bucket/photos"
    line = check_refused(tmp_path, *command, name, value="gs://bucket/photos is a URL: ")
    assert line.startswith("error: --config.data.name must be folder:PATH (")


def test_a_pipe_is_no_config(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    command = ("train", f"--config={tmp_path}/fifo", "--genotype=darts")
    check_refused(tmp_path, *command, f"--workdir={tmp_path}/run", value=f"{tmp_path}/fifo")
