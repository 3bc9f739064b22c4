"""The command that counts what a network costs."""

import importlib.util
import inspect
import json
import re

import forked
import pytest
from commands import TRAIN, check_refused, read_csv, run_process, succeed

from cpnas_tf.catalogue import REFERENCE_NETWORKS
from cpnas_tf.genotypes import CHOICES, Genotype
from cpnas_tf.networks import reference


@pytest.fixture
def genotype(tmp_path):
    """A genotype's file: a skip on every edge, whose costs are counted by hand."""
    Genotype.from_choices(["skip_connect"] * len(CHOICES)).save(tmp_path / "genotype.json")
    return tmp_path / "genotype.json"


def without_data():
    """Takes from a command what it could read a data set with."""
    importlib.import_module("tensorflow_datasets").builder = None


class TestProfile:
    PARAMETERS = {
        "wrn22": (4_321_482, 0),
        "wrn22_1bit": (4_321_482, 4_276_224),
        "resnet18": (11_679_912, 0),
        "resnet18_1bit": (11_679_912, 10_985_472),
        "birealnet18": (11_679_912, 10_985_472),
    }

    @pytest.mark.parametrize("model", PARAMETERS)
    def test_reference_networks(self, model):
        profile = json.loads(succeed(forked.run("profile", f"--model={model}", "--json")))
        counted = profile["parameters"], profile["binary_parameters"]
        assert counted == self.PARAMETERS[model]
        assert profile["memory_saving"] == pytest.approx(138.287424 / profile["memory_mbit"])
        assert profile["speedup"] == pytest.approx(647.694848 / profile["flops_m"])
        for name in ("real_macs_m", "binary_macs_m"):
            assert profile[name] == sum(row[name[:-2]] for row in profile["layers"]) / 1e6

    def test_every_reference_network_can_be_named(self):
        functions = inspect.getmembers(reference, inspect.isfunction)
        own = [name for name, function in functions if function.__module__ == reference.__name__]
        names = {name for name in own if name[0] != "_"}
        assert names - {"build"} == set(self.PARAMETERS)
        assert {
            name: "child" if binary else "parent" for name, (_, binary) in self.PARAMETERS.items()
        } == REFERENCE_NETWORKS

    @pytest.mark.parametrize("precision", ["child", "parent"])
    def test_the_networks_of_a_genotype(self, genotype, precision):
        arguments = (f"--genotype={genotype}", "--config=configs/train_cifar10.py", "--json")
        small = ("--config.network.cells=1", "--config.network.channels=8")
        chosen = () if precision == "child" else (f"--precision={precision}",)
        outcome = forked.run("profile", *arguments, *small, *chosen, before=without_data)
        profile = json.loads(succeed(outcome))
        real = 27 * 24 + (4 * 16 + 1) * 10
        binary = 2 * 24 * 16 + 8 * 16 * 16  # the inputs' convolutions and 8 skips of stride 2
        assert profile["parameters"] == real + binary
        assert profile["binary_parameters"] == (binary if precision == "child" else 0)

    @pytest.mark.parametrize("variant", ["plain", "starstar"])
    def test_the_variants_of_a_config(self, genotype, variant):
        """Only in ** the preprocessing is with real inputs; the genotype has no depthwise ones."""
        config = f"--config=configs/train_imagenet.py:{variant}"
        small = ("--config.network.cells=1", "--config.network.channels=8")
        outcome = forked.run("profile", f"--genotype={genotype}", config, *small, "--json")
        profile = json.loads(succeed(outcome))
        stem = 9 * (3 * 4 * 112**2 + 4 * 8 * 56**2 + 8 * 8 * 28**2)
        real, binary = stem + 4 * 16 * 1000, 8 * 16 * 16 * 14**2
        inputs = 2 * 8 * 16 * 28**2
        macs = (real, binary + inputs) if variant == "plain" else (real + inputs, binary)
        assert (profile["real_macs_m"], profile["binary_macs_m"]) == tuple(n / 1e6 for n in macs)

    def test_a_reference_network_with_a_config(self):
        """WRN-22 with 1-bit kernels alone, as the paper's PCNN: its MACs are those of WRN-22."""
        settings = ("--config.network.binarization=pcnn", "--config.network.activations=32")
        arguments = ("--model=wrn22_1bit", "--config=configs/train_cifar10.py", "--json")
        profile = json.loads(succeed(forked.run("profile", *arguments, *settings)))
        counted = profile["parameters"], profile["binary_parameters"]
        assert counted == self.PARAMETERS["wrn22_1bit"]
        assert profile["binary_macs_m"] == 0
        assert profile["flops_m"] == pytest.approx(647.694848)

    def test_in_a_process_of_its_own_only_the_object_is_printed(self):
        profile = json.loads(succeed(run_process("profile", "--model=wrn22", "--json")))
        assert profile["memory_mbit"] == pytest.approx(138.29, abs=0.005)

    def test_table(self):
        printed = succeed(forked.run("profile", "--model=wrn22_1bit"))
        lines = [" ".join(line.split()) for line in printed.splitlines()]
        assert lines[1].startswith("stem convolution 32x32x64 1,728 0 1,769,472 0 ")
        assert any(line.startswith("total 45,258 4,276,224 ") for line in lines)
        assert "this network 5.72 15.99 24.16x 40.50x" in lines
        assert "WRN-22, real, on CIFAR-10 138.29 647.69 1.00x 1.00x" in lines
        # A threshold per channel is in front of a 1-bit convolution, but where a real one looks.
        numbers = 6 * 64 + (2 * 64 + 5 * 128) + (2 * 128 + 5 * 256) + 2 * 256
        assert f"this network, whole {5.7247 + 32 * numbers / 1e6:.2f}" in " ".join(lines)
        assert "paper: WRN-22 (BONN), 1-bit 5.71 17.03 24.19x 28.03x" in lines

    def test_the_paper_is_left_out_where_its_images_are_others(self, genotype):
        arguments = (f"--genotype={genotype}", "--config=configs/train_digits.py")
        printed = succeed(forked.run("profile", *arguments))
        assert "WRN-22" in printed
        assert "paper" not in printed
        own = [line for line in printed.splitlines() if line.startswith("this network")]
        for line, name in zip(own, ("this network", "this network, whole"), strict=True):
            assert re.fullmatch(rf"{name} +[\d.]+ +[\d.]+ +[\d.]+x +-", line), "no speedup"

    def test_csv(self, tmp_path):
        path = tmp_path / "layers.csv"
        arguments = ("--model=wrn22", f"--csv={path}")
        succeed(forked.run("profile", *arguments))
        assert sum(int(row["bits"]) for row in read_csv(path)) == 32 * 4_321_482
        path.write_text("old")
        check_refused(tmp_path, "profile", *arguments, value="--overwrite")
        succeed(forked.run("profile", *arguments, "--overwrite"))
        assert len(read_csv(path)) == 22

    @pytest.mark.parametrize(
        ("arguments", "value"),
        [
            (["--model=vgg"], "vgg"),
            (["--model=wrn22", "--genotype={genotype}"], "genotype"),
            (
                [
                    *("--model=wrn22", "--config=configs/train_digits.py"),
                    "--config.network.binarization=pcnn",
                ],
                "--config.network.binarization is of 1-bit networks, wrn22 is a real one",
            ),
            (["--model=wrn22", "--precision=child"], "--precision"),
            (["--model=wrn22", "--csv={genotype}/layers.csv"], "layers.csv"),
            (["--genotype={genotype}", "--config=configs/search_digits.py"], "search_digits.py"),
            (["--genotype=missing.json", "--config=configs/train_digits.py"], "missing.json"),
            (["--genotype=", "--config=configs/train_digits.py"], "genotype file"),
            ([*TRAIN, "--genotype={genotype}", "--config.data.name=mnist"], "'mnist'"),
            ([*TRAIN, "--genotype={genotype}", "--config.network.cells=0"], "cells"),
        ],
    )
    def test_what_is_refused(self, tmp_path, genotype, arguments, value):
        arguments = [argument.format(genotype=genotype) for argument in arguments]
        check_refused(tmp_path, "profile", *arguments, value=value)

    def test_it_does_not_hide_pythons_profile(self, genotype, tmp_path):
        arguments = (f"--genotype={genotype}", f"--output={tmp_path}/plots")
        outcome = run_process("plot", *arguments, "--run_with_profiling")
        assert "function calls" in succeed(outcome)
