"""Strategies: what they refuse, and that several devices search as one does."""

import contextlib
import functools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import forked
import numpy as np
import pytest
from commands import check_equal_trainings

from cpnas_tf import devices
from cpnas_tf.genotypes import EDGES, Genotype
from cpnas_tf.runs import history

SEARCH = (
    "--config=configs/search_digits.py",
    "--config.split.train_images=64",
    "--config.split.validation_images=32",
    "--config.search.cells=1",
    "--config.search.channels=2",
    "--config.search.batch_size=32",
    "--config.search.operations=('none', 'avg_pool_3x3', 'dil_conv_3x3')",
)


def tf_config(*, workers=("a:1", "b:2"), kind="worker", index=0, job="worker"):
    return json.dumps({"cluster": {job: list(workers)}, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize("name", ["none", "mirrored"])
def test_one_process_needs_no_tf_config(monkeypatch, name):
    monkeypatch.setenv("TF_CONFIG", "{")
    assert devices.check_strategy(name) == (0, 1)


def test_a_worker_knows_its_number(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", tf_config(workers=["a:1", "b:2", "[::1]:3"], index=1))
    assert devices.check_strategy("multi_worker") == (1, 3)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "5",
        "{}",
        tf_config()[:-1],
        tf_config(workers=[]),
        tf_config(workers=["a"]),
        tf_config(workers=["a:b"]),
        tf_config(workers=["a:65536"]),
        tf_config(workers=[1]),
        tf_config(index=2),
        tf_config(index=-1),
        tf_config(index="0"),
        tf_config(kind="ps"),
        tf_config(job="ps"),
    ],
)
def test_a_broken_tf_config_is_one_line_that_names_it(monkeypatch, text):
    if text is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="strategy multi_worker needs .* TF_CONFIG") as error:
        devices.check_strategy("multi_worker")
    assert repr(text or "") in str(error.value)
    assert "\n" not in str(error.value)


def test_the_number_of_threads(monkeypatch):
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5}, raising=False)
    assert devices.threads() == 3
    for told, expected in (("2", 2), ("0", 3), ("", 3), ("many", 3)):
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", told)
        assert devices.threads() == expected


def test_an_unknown_strategy():
    with pytest.raises(ValueError, match="none, mirrored, multi_worker, received: 'tpu'"):
        devices.check_strategy("tpu")


def test_mirrored_needs_two_devices():
    with pytest.raises(ValueError, match="found /device:CPU:0: use strategy none"):
        devices.make_strategy("mirrored")


def two_cpus():
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, parts)


def set_tf_config(text):
    os.environ["TF_CONFIG"] = text


def free_addresses(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    addresses = [f"localhost:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def run_workers(folder, *arguments, command="search", set_up=set_tf_config):
    """Runs two workers at once and returns their outcomes; `set_up` gets the TF_CONFIG of each."""
    workers = free_addresses(2)

    def run(index):
        return forked.run(
            command,
            *arguments,
            "--config.strategy=multi_worker",
            f"--workdir={folder}",
            before=functools.partial(set_up, tf_config(workers=workers, index=index)),
        )

    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, range(2)))


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_wait_until_all_are_there(workers):
    addresses = free_addresses(workers)

    def join(number):
        """Waits, and then listens as TensorFlow does."""
        devices._wait_for_others(addresses, number)
        return socket.create_server(("", int(addresses[number].rpartition(":")[2])))

    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        first = [pool.submit(join, number) for number in range(workers - 1)]
        time.sleep(0.5)
        assert not any(each.done() for each in first)
        for each in (pool.submit(join, workers - 1), *first):
            stack.enter_context(each.result(timeout=60))


def test_a_port_that_is_taken_is_one_line():
    with socket.create_server(("", 0)) as other:
        address = f"localhost:{other.getsockname()[1]}"
        line = f"worker 1 cannot listen at {address}: Address already in use"
        with pytest.raises(ValueError, match=f"^{line}$"):
            devices._wait_for_others(["a:1", address], 1)


def stop_amid_the_wait(number, text):
    set_tf_config(text)
    listens = devices._listens

    def stopped(address):
        os.kill(os.getpid(), number)
        return listens(address)

    devices._listens = stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_waits_answers_signals(tmp_path, data_dir, genotype, number):
    text = tf_config(workers=free_addresses(2), index=1)
    arguments = (*TRAIN, "--config.strategy=multi_worker", f"--genotype={genotype}")
    outcome = forked.run(
        "train",
        *(*arguments, f"--data_dir={data_dir}", f"--workdir={tmp_path}/run"),
        before=functools.partial(stop_amid_the_wait, number, text),
        timeout=60,
    )
    assert outcome.stderr == "stopped: the same command goes on from here\n"
    assert outcome.code == 130
    assert not (tmp_path / "run").exists()


def results(folder):
    """The genotype, and `search.csv` without its times."""
    lines = (folder / "search.csv").read_text().splitlines()
    genotype = (folder / "genotype.json").read_text()
    return [line.rpartition(",")[0] for line in lines], genotype


def test_two_devices_and_two_processes_search_alike(tmp_path, data_dir):
    """Bit for bit: in both the same two halves of each batch meet, and a + b = b + a."""
    arguments = (*SEARCH, f"--data_dir={data_dir}")
    for outcome in run_workers(tmp_path / "workers", *arguments):
        assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout == "worker 1 of 2 waits for the others\n"
    outcome = forked.run(
        "search",
        *arguments,
        "--config.strategy=mirrored",
        f"--workdir={tmp_path}/mirrored",
        before=two_cpus,
    )
    assert (outcome.code, outcome.stderr) == (0, "")
    assert results(tmp_path / "workers") == results(tmp_path / "mirrored")
    assert len(results(tmp_path / "workers")[0]) == 1 + 3 + 2

    (tmp_path / "workers" / "genotype.json").unlink()
    for file in (tmp_path / "workers" / "checkpoints").glob("ckpt-00005-*"):
        file.unlink()
    chief, worker = run_workers(tmp_path / "workers", *arguments)
    assert (chief.code, chief.stderr, worker.code, worker.stderr) == (0, "", 0, "")
    (line,) = [line for line in chief.stdout.splitlines() if line.startswith("[")]
    assert line.startswith("[  5/5] ")
    assert results(tmp_path / "workers") == results(tmp_path / "mirrored")

    config = tmp_path / "workers" / "config.json"
    run = json.loads(config.read_text())
    assert run["workers"] == 2
    config.write_text(json.dumps({**run, "workers": 3}))
    for outcome in run_workers(tmp_path / "workers", *arguments):
        assert outcome.code == 1
        assert "workers: 3 there, 2 here" in outcome.stderr


def test_two_devices_and_two_processes_search_alike_by_the_guided_search(tmp_path, data_dir):
    guided = {"cells": 1, "channels": 2, "batch_size": 32, "inputs": 2, "beta": 0.5}
    guided |= {"first": 3, "rounds": 1, "proposals": 1, "finalists": 1, "epochs": 1}
    guided |= {"operations": ("avg_pool_3x3", "dil_conv_3x3"), "finalist_epochs": 1}
    settings = [f"--config.guided.{name}={value}" for name, value in guided.items()]
    arguments = (*SEARCH, "--config.method=guided", *settings, f"--data_dir={data_dir}")
    for outcome in run_workers(tmp_path / "workers", *arguments):
        assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout == "worker 1 of 2 waits for the others\n"
    outcome = forked.run(
        "search",
        *arguments,
        "--config.strategy=mirrored",
        f"--workdir={tmp_path}/mirrored",
        before=two_cpus,
    )
    assert (outcome.code, outcome.stderr) == (0, "")
    assert results(tmp_path / "workers") == results(tmp_path / "mirrored")
    assert len(results(tmp_path / "workers")[0]) == 1 + 3 + 1 + 1


_POOLS = ["max_pool_3x3" if edge in ((0, 2), (1, 2), (2, 5)) else "none" for edge in EDGES]
POOLED = Genotype(normal=_POOLS, reduce=_POOLS)
TRAIN = (
    "--config=configs/train_digits.py",
    "--config.network.unit=paper",
    "--config.network.cells=1",
    "--config.network.channels=2",
    "--config.training.epochs=2",
    "--config.training.batch_size=256",
    "--config.training.learning_rate=0.001",
    "--config.training.label_smoothing=0.1",
    "--config.training.steps_per_execution=2",
)


def trained(folder):
    """The history without its times, and the class centres."""
    import tensorflow as tf

    rows = history.read(folder / "history.csv")
    rows = [{name: row[name] for name in row if name not in history.TIMES} for row in rows]
    newest = max((folder / "checkpoints").glob("*.index"))
    reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
    return rows, reader.get_tensor("centres/.ATTRIBUTES/VARIABLE_VALUE")


def check_trained(outcome):
    """Expects a training to have ended well; of its few 1-bit weights none may flip: it warns."""
    warning = r"(WARNING: only 0% of the 1-bit weights changed [^\n]*\n)?"
    assert re.fullmatch(warning, outcome.stderr)
    assert outcome.code == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data_dir):
    """Where one device, two devices and two processes have done one training."""
    folder = tmp_path_factory.mktemp("trainings")
    POOLED.save(folder / "genotype")
    arguments = (*TRAIN, f"--data_dir={data_dir}", f"--genotype={folder}/genotype")
    for name, before in (("none", None), ("mirrored", two_cpus)):
        strategy = (f"--config.strategy={name}", f"--workdir={folder}/{name}")
        check_trained(forked.run("train", *arguments, *strategy, before=before))
    chief, outcome = run_workers(folder / "multi_worker", *arguments, command="train")
    check_trained(chief)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout == "worker 1 of 2 waits for the others\n"
    assert not list((folder / "multi_worker").rglob("*.partial"))
    return folder


@pytest.fixture(scope="module")
def trainings(folder):
    """What they have made of it."""
    return {name: trained(folder / name) for name in ("none", "mirrored", "multi_worker")}


@pytest.mark.parametrize("name", ["mirrored", "multi_worker"])
def test_several_devices_train_as_one(trainings, name):
    """Losses within 2%, centres within 10% of their size.

    No closer, because BN takes its statistics from a replica's own 128 of the 256 images, and
    that turns some signs of a 1-bit network. Weights that move much would drift further apart.
    """
    (one, centres), (rows, found) = trainings["none"], trainings[name]
    assert [list(row) for row in rows] == [list(row) for row in one]
    for row, expected in zip(rows, one, strict=True):
        for term in ("loss", "cross_entropy", "filter_mse", "class_centre"):
            assert row[term] == pytest.approx(expected[term], rel=0.02), term
        assert row["learning_rate"] == expected["learning_rate"]
    assert 0 < np.linalg.norm(found - centres) < 0.1 * np.linalg.norm(centres)
    assert np.all(np.any(centres, axis=(1, 2, 3)))


def test_two_devices_and_two_processes_train_alike(trainings):
    """Centres bit by bit: in both the same two halves of each batch meet."""
    (mirrored, centres), (workers, found) = trainings["mirrored"], trainings["multi_worker"]
    for row, expected in zip(workers, mirrored, strict=True):
        assert row == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(found, centres)


def set_up_a_stopped_worker(text, number=signal.SIGTERM):
    set_tf_config(text)
    place = {
        "module": "cpnas_tf.training.callback",
        "owner": "EpochCallback",
        "method": "on_epoch_end",
    }
    forked.signal_self(number, call=1, **place)


@pytest.mark.soak
def test_two_processes_that_are_killed_end_the_same(folder, tmp_path, data_dir):
    """Bit by bit, with the moving statistics that each has of its own half of the images."""
    arguments = (*TRAIN, f"--data_dir={data_dir}", f"--genotype={folder}/genotype")
    kill = functools.partial(set_up_a_stopped_worker, number=signal.SIGKILL)
    for set_up, code in ((kill, -signal.SIGKILL), (set_tf_config, 0)):
        outcomes = run_workers(tmp_path / "run", *arguments, command="train", set_up=set_up)
        assert [outcome.code for outcome in outcomes] == [code, code]
        done = len(history.read(tmp_path / "run" / "history.csv"))
        assert done == (1 if code else 2)
    check_equal_trainings(tmp_path / "run", folder / "multi_worker")


def test_a_worker_that_is_stopped_goes_on(tmp_path, data_dir, genotype):
    """TensorFlow has a handler of its own for the signal while there are several workers."""
    arguments = (*TRAIN, "--config.strategy=multi_worker", f"--genotype={genotype}")
    arguments = (*arguments, f"--data_dir={data_dir}", f"--workdir={tmp_path}/run")
    for set_up, code in ((set_up_a_stopped_worker, 130), (set_tf_config, 0)):
        text = tf_config(workers=free_addresses(1))
        outcome = forked.run("train", *arguments, before=functools.partial(set_up, text))
        assert outcome.code == code
        done = len(history.read(tmp_path / "run" / "history.csv"))
        assert done == (1 if code else 2)


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (
            "jit_compile=True",
            "--config.training.jit_compile is for one device, received: a strategy of 2",
        ),
        (
            "batch_size=255",
            "--config.training.batch_size must be a multiple of the 2 devices, received: 255",
        ),
    ],
)
def test_what_two_devices_cannot_do(tmp_path, data_dir, setting, line):
    POOLED.save(tmp_path / "genotype")
    folders = (f"--data_dir={data_dir}", f"--workdir={tmp_path}/run")
    strategy = ("--config.strategy=mirrored", f"--config.training.{setting}")
    arguments = (*TRAIN, *folders, f"--genotype={tmp_path}/genotype", *strategy)
    outcome = forked.run("train", *arguments, before=two_cpus)
    assert (outcome.code, outcome.stderr) == (1, f"error: {line}\n")
    assert not (tmp_path / "run" / "config.json").exists()


ONE_AND_TWO = """
import sys
import cpnas_tf
import numpy as np
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from cpnas_tf.genotypes import OPERATIONS
from cpnas_tf.search.pair import share
from cpnas_tf.search.supernet import Supernet

STEP = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
KEPT = ("skip_connect", "max_pool_3x3", "sep_conv_3x3")
SIZES = {"input_shape": (8, 8, 1), "classes": 3, "cells": 1, "channels": 4}


class Engine:
    def __init__(self, strategy, **settings):
        with strategy.scope():
            self.supernet = Supernet(**SIZES, operations=KEPT, **settings)

        @tf.function(autograph=False)
        def step(images, labels, choices):
            def replica(images, labels):
                return self.supernet.train_step(share(images), share(labels), choices, **STEP)

            losses = strategy.run(replica, args=(images, labels))
            return strategy.reduce("mean", losses, axis=None)

        self.step = step

    def train(self, seed, *, twice):
        random = np.random.default_rng(seed)
        images = random.uniform(-1, 1, [16, 8, 8, 1]).astype("float32")
        labels = random.integers(3, size=16)
        if twice:
            images[8:], labels[8:] = images[:8], labels[:8]
        choices = [OPERATIONS.index(KEPT[(seed + edge) % len(KEPT)]) for edge in range(28)]
        return float(self.step(*map(tf.constant, (images, labels, choices))))


for precision, optimizer in (("child", "sgd"), ("parent", "sgd"), ("parent", "adam")):
    settings = {"precision": precision, "optimizer": optimizer}
    one = Engine(tf.distribute.get_strategy(), **settings)
    two = Engine(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), **settings)
    for seed in range(8):  # else sums lie exactly on the signs' threshold, and rounding decides
        one.train(seed, twice=False)
    for variable, mirrored in zip(one.supernet.variables, two.supernet.variables, strict=True):
        mirrored.assign(variable)
    losses = [engine.train(1, twice=True) for engine in (one, two)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    for variable, mirrored in zip(one.supernet.variables, two.supernet.variables, strict=True):
        copies = [part.numpy() for part in mirrored.values]
        np.testing.assert_array_equal(copies[0], copies[1])
        scale = np.abs(variable.numpy()).max()
        tolerance = 1e-5 if precision == "parent" else 0.05  # rounding moves a child's signs
        np.testing.assert_allclose(copies[0], variable, rtol=0, atol=tolerance * scale)
    different = [engine.train(0, twice=False) for engine in (one, two)]
    assert abs(different[0] - different[1]) > 1e-3, different
print("alike")
"""


def test_two_devices_train_as_one_where_their_statistics_agree():
    """They do where both parts of a batch are the same images.

    BN takes its statistics from a replica's own part of the batch, as is usual, so that else two
    devices and one differ by more than rounding.
    """
    root = pathlib.Path(__file__).parent.parent
    process = subprocess.run(
        [sys.executable, "-c", ONE_AND_TWO],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert process.stdout == "alike\n", process.stderr[-2000:]
