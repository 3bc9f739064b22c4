"""The command `cpnas`, as it is installed: from a wheel, in a checkout, and in an editable one."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from forked import ROOT
from setuptools import find_packages

import cpnas_tf
from cpnas_tf.commands import COMMANDS

SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "cpnas_tf", "configs")
CONFIGS = sorted(path.name for path in (ROOT / "configs").glob("*.py"))


def unpacked(folder, kind):
    """Builds a wheel, or that of an editable installation, and unpacks it as pip would."""
    source, site = folder / "source", folder / "site"
    source.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, source / name)
    code = f"import setuptools.build_meta as backend; backend.build_{kind}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return unpacked(tmp_path_factory.mktemp("wheel"), "wheel")


def cpnas(site, *arguments, cwd="/", before=""):
    """Runs the installed command in another folder."""
    code = f"import site, sys; site.addsitedir({str(site)!r}); {before}"
    code += "sys.argv[0] = 'cpnas'; from cpnas_tf.__main__ import main; main()"
    # The package is that of the site, wherever another one is installed.
    environment = {key: value for key, value in os.environ.items() if key[:3] != "TF_"}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_wheel_has_all(site):
    found = {str(path.relative_to(site)) for path in site.rglob("*") if path.is_file()}
    assert {f"cpnas_tf/configs/{name}" for name in CONFIGS} <= found
    kept = [path for path in (ROOT / "cpnas_tf").rglob("*") if path.is_file()]
    assert {str(path.relative_to(ROOT)) for path in kept if path.suffix != ".pyc"} <= found
    (entry_points,) = site.glob("*.dist-info/entry_points.txt")
    parser = configparser.ConfigParser()
    parser.read(entry_points)
    assert dict(parser["console_scripts"]) == {"cpnas": "cpnas_tf.__main__:main"}


def test_every_package_is_listed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    found = {*find_packages(str(ROOT), include=["cpnas_tf*"]), "cpnas_tf.configs"}
    assert set(config["options"]["packages"].split()) == found


def test_it_searches_with_a_config_of_the_package(site, tmp_path):
    shown = "print(sys.modules['cpnas_tf'].__file__); "
    arguments = ("search", "--config=digits", "--config.method=random", "--workdir=run")
    ended = cpnas(site, *arguments, cwd=tmp_path, before=f"import cpnas_tf; {shown}")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == [
        f"{site}/cpnas_tf/__init__.py",
        "genotype: run/genotype.json",
    ]
    run = json.loads((tmp_path / "run" / "config.json").read_text())
    assert run["config"]["data"]["name"] == "digits"


def test_an_editable_installation_has_the_configs(tmp_path):
    ended = cpnas(unpacked(tmp_path, "editable"), "search", "--config=nothing", "--workdir=run")
    names = [name[7:-3] for name in CONFIGS if name.startswith("search_")]
    assert f"neither a file nor one of {', '.join(names)}\n" in ended.stderr


class TestCpnas:
    def test_help_names_every_command_and_loads_no_tensorflow(self, site):
        outcomes = [cpnas(site, *arguments, "--help") for arguments in [[], ["search"], ["plot"]]]
        for ended in outcomes:
            assert (ended.returncode, ended.stderr) == (0, "")
        assert re.findall(r"^  (\w+) +[A-Z]", outcomes[0].stdout, re.MULTILINE) == list(COMMANDS)
        assert "\ncpnas search --config=NAME --workdir=DIR" in outcomes[1].stdout
        loaded = "import atexit; atexit.register(lambda: print('tensorflow' in sys.modules)); "
        for arguments in [[], ["search"]]:
            assert cpnas(site, *arguments, "--help", before=loaded).stdout.endswith("\nFalse\n")

    def test_version(self, site):
        ended = cpnas(site, "--version")
        assert (ended.returncode, ended.stdout) == (0, f"cpnas {cpnas_tf.__version__}\n")

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            ([], f"a command is needed: there are {', '.join(COMMANDS)}; see cpnas --help"),
            (["serch"], f"unknown command 'serch': there are {', '.join(COMMANDS)}; see .*"),
            (["evaluate", "--workdir=none"], "none holds no finished training: .*`cpnas train`.*"),
            (["train", "--config=foo", "--workdir=x", "--genotype=darts"], ".*'foo' is neither.*"),
            (["train", "--config=gs://a", "--workdir=x"], ".*gs://a.*"),
        ],
    )
    def test_what_is_refused(self, site, tmp_path, arguments, line):
        ended = cpnas(site, *arguments, cwd=tmp_path)
        assert re.fullmatch(f"error: {line}\n", ended.stderr)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert not list(tmp_path.iterdir())


def test_a_script_of_a_checkout_speaks_of_scripts(tmp_path):
    ended = subprocess.run(
        [sys.executable, "bin/evaluate.py", f"--workdir={tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr.endswith("holds no finished training: run `bin/train.py` first\n")
    assert ended.returncode == 1
