"""The command that finds a search's front of sizes."""

import re

import forked
import numpy as np
import pytest
from commands import check_refused, read_csv, refusal, succeed

from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.networks import costs
from cpnas_tf.networks.cells import build_network
from cpnas_tf.runs import search_log
from cpnas_tf.search.oracle import Result
from cpnas_tf.search.random_draw import random_genotype

NETWORK = {"cells": 3, "channels": 4}
ARGUMENTS = ("--config=digits", *(f"--config.network.{key}={n}" for key, n in NETWORK.items()))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search that liked convolutions, and its front."""
    folder = tmp_path_factory.mktemp("front")
    genotypes = [random_genotype(seed, allow_none=False) for seed in range(30)]
    noise = np.random.default_rng(0).normal(0, 0.01, len(genotypes))
    results = [
        Result(0, 0, number, genotype.choices, *[float(z)] * 3)
        for number, (genotype, z) in enumerate(
            zip(genotypes, worth(genotypes) + noise, strict=True)
        )
    ]
    search_log.write(folder / "search.csv", results, [1.0] * len(results))
    printed = succeed(
        forked.run("front", f"--workdir={folder}", *ARGUMENTS, f"--output={folder}/front")
    )
    return folder, printed


def worth(genotypes):
    return np.array([sum("conv" in name for name in one.choices) / 50 for one in genotypes])


def profile(genotype):
    network = build_network(genotype, input_shape=(8, 8, 1), classes=10, **NETWORK)
    return costs.profile(network)


def test_every_genotype_costs_what_profile_says(found):
    folder, printed = found
    rows = [row for row in read_csv(folder / "front" / "front.csv") if row["file"]]
    assert 2 < len(rows) <= 10
    for row in rows:
        genotype = Genotype.load(folder / "front" / row["file"])
        assert genotype.choices == tuple(row[name] for name in CHOICES)
        counted = profile(genotype)
        assert float(row["mbit"]) == pytest.approx(counted["memory_mbit"], abs=1e-9)
        assert float(row["mflops"]) == pytest.approx(counted["flops_m"], abs=1e-9)
        assert f"{row['file']} " in printed
    assert set(genotype.choices) <= set(OPERATIONS) - {"none"}


def test_larger_ones_have_more_of_what_the_search_liked(found):
    folder, _ = found
    rows = read_csv(folder / "front" / "front.csv")
    genotypes = [Genotype.from_choices(row[name] for name in CHOICES) for row in rows]
    liked = worth(genotypes)
    assert liked[0] < 0.2 < liked[-1]
    assert np.corrcoef(liked, [float(row["score"]) for row in rows])[0, 1] > 0.9
    assert Genotype.load(folder / "front" / "genotype.json") == genotypes[-1]


def test_a_limit_is_kept(found, tmp_path):
    folder, _ = found
    limit = profile(Genotype(["skip_connect"] * 14, ["avg_pool_3x3"] * 14))["flops_m"] + 0.002
    arguments = (f"--workdir={folder}", *ARGUMENTS, f"--config.front.max_mflops={limit}")
    succeed(forked.run("front", *arguments, f"--output={tmp_path}/front"))
    rows = read_csv(tmp_path / "front" / "front.csv")
    assert 0 < max(float(row["mflops"]) for row in rows) <= limit
    best = Genotype.load(tmp_path / "front" / "genotype.json")
    assert any("conv" in name for name in best.choices)
    assert profile(best)["flops_m"] <= limit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config.front.max_mbit=0.001"],
            r"max_mbit must be at least 0\.\d{6}, what the smallest genotype has, received: 0.001",
        ),
        (
            ["--config.front.max_mflops=-1"],
            "--config.front.max_mflops must be a number > 0, or None",
        ),
        (
            ["--config.front.max_bits=1"],
            "unknown key --config.front.max_bits: ",
        ),
        (["--workdir=missing"], "search log not found: .*missing/search.csv"),
    ],
)
def test_bad_input(found, tmp_path, arguments, message):
    folder, _ = found
    arguments = (f"--workdir={folder}", *ARGUMENTS, f"--output={tmp_path}/front", *arguments)
    assert re.search(message, refusal("front", *arguments))
    assert not list(tmp_path.iterdir())


def test_a_front_is_replaced_only_with_overwrite(found):
    folder, _ = found
    arguments = (f"--workdir={folder}", *ARGUMENTS, f"--output={folder}/front")
    check_refused(folder, "front", *arguments, value="holds a finished run (front.csv): ")
    before = (folder / "front" / "front.csv").read_bytes()
    succeed(forked.run("front", *arguments, "--overwrite"))
    assert (folder / "front" / "front.csv").read_bytes() == before
