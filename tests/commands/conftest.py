"""What all five commands made, once for all tests."""

import functools
import shutil
from concurrent.futures import ThreadPoolExecutor

import forked
import pytest
from commands import SEARCH_OF_3, TRAIN, run_process, succeed
from made_once import made_once


@pytest.fixture(scope="session")
def runs(shared_folder, data_dir):
    """The folder of all five commands' results, each of which ran in a process of its own."""
    forked.prepare()
    return made_once(shared_folder / "runs", functools.partial(make_runs, data_dir=data_dir))


def make_runs(folder, *, data_dir):
    data = f"--data_dir={data_dir}"
    genotype = f"--genotype={folder}/search/genotype.json"
    succeed(run_process("search", *SEARCH_OF_3, f"--workdir={folder}/search", data))
    succeed(run_process("train", *TRAIN, genotype, f"--workdir={folder}/train", data))
    at_once = [
        ("evaluate", f"--workdir={folder}/train"),
        ("export", f"--workdir={folder}/train", f"--output={folder}/export"),
        ("plot", f"--workdir={folder}/search", f"--output={folder}/plots"),
    ]
    with ThreadPoolExecutor() as pool:
        for outcome in pool.map(lambda command: run_process(*command), at_once):
            succeed(outcome)


@pytest.fixture
def copy_of(runs, tmp_path):
    """Copies one of the runs to where it may be damaged."""
    return lambda name: shutil.copytree(runs / name, tmp_path / name)
