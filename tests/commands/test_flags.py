"""What the flags of several commands have in common."""

import json
import re

import pytest
from commands import (
    GENOTYPE,
    TRAIN,
    check_refused,
    run_process,
    succeed,
)
from forked import ROOT

OPTIONS = {
    "search": {"config", "workdir", "data_dir", "dry_run", "overwrite"},
    "train": {
        *("config", "genotype", "workdir", "precision", "model", "data_dir"),
        *("teacher", "warm_start"),
        "overwrite",
    },
    "evaluate": {"workdir", "data_dir", "overwrite"},
    "export": {"workdir", "output", "data_dir", "overwrite"},
    "front": {"config", "workdir", "output", "data_dir", "overwrite"},
    "predict": {"export", "photos", "flatbuffer", "json", "output", "overwrite"},
    "plot": {"workdir", "genotype", "output", "overwrite"},
    "profile": {"genotype", "config", "precision", "model", "json", "csv", "overwrite"},
    "ablate": {"config", "workdir", "data_dir", "overwrite"},
    "report": {"workdir", "output", "train", "data_dir", "overwrite"},
    "quickstart": {"folder"},
}
REQUIRED = {
    "search": ("config", "workdir"),
    "train": ("config", "genotype", "workdir"),
    "evaluate": ("workdir",),
    "export": ("workdir", "output"),
    "front": ("config", "workdir", "output"),
    "predict": ("export",),
    "plot": ("workdir", "output"),
    "profile": (),
    "ablate": ("config", "workdir"),
    "report": ("workdir", "output"),
    "quickstart": ("folder",),
}


class TestHelp:
    @pytest.mark.parametrize("name", OPTIONS)
    def test_names_all_flags(self, name):
        outcome = run_process(name, "--help")
        flags = re.findall(r"^  --(?:\[no\])?(\w+): (.*)", succeed(outcome), re.MULTILINE)
        assert {flag for flag, _ in flags} == OPTIONS[name]
        assert all(description for _, description in flags)
        assert f"python bin/{name}.py --" in outcome.stdout

    def test_no_command_is_left_out(self):
        assert {path.stem for path in (ROOT / "bin").glob("*.py")} == set(OPTIONS)

    @pytest.mark.parametrize("name", OPTIONS)
    def test_bad_flags_are_refused_before_tensorflow_is_imported(self, name):
        outcome = run_process(name, "--unknown=1", options=["-X", "importtime"])
        imports = re.findall(r"^import time: .*\| +(\S+)\n", outcome.stderr, re.MULTILINE)
        assert "absl.flags" in imports
        assert not {"tensorflow", "keras", "tf_keras", "larq", "numpy.core"} & set(imports)
        rest = re.sub(r"^import time: .*\n", "", outcome.stderr, flags=re.MULTILINE)
        assert rest == "error: Unknown command line flag 'unknown'\n"
        assert outcome.code == 1


class TestFlags:
    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("--precision=foo", "foo"),
            ("--overwrite=foo", "foo"),
            ("--worksdir=foo", "worksdir"),
            ("foo", "foo"),
            ("--workdir=", "--workdir"),
            ("--genotype=", "genotype file"),
            ("--model=wrn22", "genotype, model"),
            ("--model=vgg", "vgg"),
            ("--config", "''"),
            ("--config=missing.py", "missing.py"),
            ("--config=configs", "configs"),
            ("--config=configs/train_cifar10.py:huge", "'huge'"),
            ("--config=configs/train_digits.py:small", "configs/train_digits.py:small"),
            ("--config.foo=1", "--config.foo"),
            ("--config.training.foo=1", "--config.training.foo"),
            ("--config.training.epochs.foo=1", "--config.training.epochs.foo"),
            ("--noconfig.training.foo", "--config.training.foo"),
            ("--config.training.epochs=1.5", "1.5"),
            ("--config.training.epochs=many", "many"),
            ("--config.training.learning_rate=small", "small"),
            ("--config.training=foo", "--config.training"),
            ("--flagfile=missing", "error: Unable to open flagfile"),
        ],
    )
    def test_bad_flags(self, tmp_path, genotype, argument, value):
        valid = (*TRAIN, f"--genotype={genotype}", f"--workdir={tmp_path}/run")
        check_refused(tmp_path, "train", *valid, argument, value=value)

    @pytest.mark.parametrize(
        ("name", "missing"), [(name, flag) for name, flags in REQUIRED.items() for flag in flags]
    )
    def test_missing_flags(self, tmp_path, genotype, name, missing):
        given = {
            "config": f"configs/{'train' if name == 'front' else name}_digits.py",
            "genotype": genotype,
            "output": tmp_path / "output",
            "workdir": tmp_path / "run",
        }
        flags = (flag for flag in REQUIRED[name] if flag != missing)
        arguments = [f"--{flag}={given[flag]}" for flag in flags]
        check_refused(tmp_path, name, *arguments, value=missing)


class TestConfigFiles:
    VALID = "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict("

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("", "get_config"),
            ("get_config = 5", "not callable"),
            ("{", "never closed"),
            ("\0", "null bytes"),
            ("import missing_package", "missing_package"),
            ("def get_config(): return {}['key']", "KeyError: 'key'"),
            ("def get_config(): return {'search': {}}", "received: dict"),
            ("def get_config(): pass", "received: NoneType"),
            ("raise SystemExit", "SystemExit"),
            (f"{VALID}{{'data': {{}}, 'split': {{}}}})", "received: ['data', 'split']"),
            (f"{VALID}dict(data={{}}, split={{}}, search={{}}, serach={{}}))", "serach"),
        ],
    )
    def test_no_config(self, tmp_path, text, value):
        path = tmp_path / "config.py"
        path.write_text(text)
        arguments = (f"--config={path}", f"--workdir={tmp_path}/run")
        assert str(path) in check_refused(tmp_path, "search", *arguments, value=value)

    @pytest.mark.parametrize(
        ("name", "section", "values", "expected"),
        [
            ("search", "search", {"betta": 2.0}, "betta"),
            (
                "search",
                "search",
                {"rounds": "3"},
                "search.rounds must be a whole number >= 1, received: '3'",
            ),
            (
                "search",
                "search",
                {"beta": True},
                "search.beta must be a finite number, received: True",
            ),
            ("search", "search", {"directory": "x"}, "directory"),
            ("search", "search", {"seed": "0"}, "'0'"),
            ("search", "search", {"augmentation": {"crop": 4}}, "'crop'"),
            ("search", "search", {"augmentation": {"flip": 1}}, "search.augmentation.flip"),
            ("search", "search", {"augmentation": {"cutout": -1}}, "cutout"),
            ("search", "data", {"data_dir": "x"}, "data_dir"),
            (
                "search",
                "split",
                {"seed": 0.5},
                "split.seed must be a whole number >= 0, received: 0.5",
            ),
            ("train", "network", {"precision": "child"}, "precision"),
            ("train", "training", {"epochs": 2.5}, "2.5"),
            (
                "train",
                "training",
                {"epochs": None},
                "epochs must be a whole number >= 1, received: None",
            ),
            ("train", "child_parent", {"lambda": 1}, "lambda"),
        ],
    )
    def test_bad_sections(self, tmp_path, data_dir, genotype, name, section, values, expected):
        original = ROOT / "configs" / f"{name}_digits.py"
        path = tmp_path / "config.py"
        path.write_text(
            f"{original.read_text()}\n\noriginal = get_config\n\n\ndef get_config():\n"
            "    config = original().to_dict()\n"
            f"    config[{section!r}].update({values!r})\n"
            "    return ConfigDict(config)\n"
        )
        arguments = [f"--config={path}", f"--workdir={tmp_path}/run", f"--data_dir={data_dir}"]
        if name == "train":
            arguments.append(f"--genotype={genotype}")
        check_refused(tmp_path, name, *arguments, value=expected)


class TestGenotypes:
    @pytest.mark.parametrize(
        ("content", "value"),
        [
            ("", "not JSON"),
            ("normal: none", "not JSON"),
            (GENOTYPE.to_json()[:-9], "not JSON"),
            (b"\xff\xfe", "utf-8"),
            ("[]", "received: list"),
            ({"normal": GENOTYPE.normal}, "received: ['normal']"),
            ({"normal": GENOTYPE.normal[1:], "reduce": GENOTYPE.reduce}, "received: 13"),
            ({"normal": GENOTYPE.normal, "reduce": ["conv", *GENOTYPE.reduce[1:]]}, "'conv'"),
            ({"normal": GENOTYPE.normal, "reduce": GENOTYPE.reduce, "extra": 1}, "'extra'"),
        ],
    )
    @pytest.mark.parametrize("name", ["train", "plot"])
    def test_broken_files(self, tmp_path, name, content, value):
        if not isinstance(content, (str, bytes)):
            content = json.dumps(content)
        path = tmp_path / "broken.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.check(tmp_path, name, path, value)

    @pytest.mark.parametrize("name", ["train", "plot"])
    def test_no_file(self, tmp_path, name):
        self.check(tmp_path, name, tmp_path / "missing.json", "file not found")
        self.check(tmp_path, name, tmp_path, "directory")

    def check(self, tmp_path, name, path, value):
        given = {
            "train": (*TRAIN, f"--workdir={tmp_path}/run"),
            "plot": (f"--output={tmp_path}/run",),
        }
        line = check_refused(tmp_path, name, f"--genotype={path}", *given[name], value=value)
        assert str(path) in line
