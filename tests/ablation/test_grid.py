import itertools
import json
import os
import shutil
import socket

import pytest
from keras_tuner.engine.trial import TrialStatus
from keras_tuner.errors import FatalError

from cpnas_tf.ablation import table
from cpnas_tf.ablation.grid import AblationOracle, AblationTuner, ablate, make_grid, role
from cpnas_tf.genotypes import CHOICES, OPERATIONS
from cpnas_tf.search.random_draw import random_genotype

SEEDS = {"search_seeds": (3, 2**32 - 1), "training_seeds": (0, 1)}
POINTS = {
    (method, search_seed, training_seed)
    for method in ("random", "bnas-beta0.0", "cpnas-beta0.33", "cpnas-beta-1.0", "pc_darts")
    for search_seed, training_seed in itertools.product(*SEEDS.values())
}


@pytest.fixture
def grid():
    return make_grid(betas=(0.33, -1), **SEEDS)


@pytest.fixture
def oracle(grid, tmp_path):
    oracle = AblationOracle(grid)
    oracle._set_project_dir(tmp_path, "grid")
    return oracle


def point(trial):
    values = trial.hyperparameters.values
    return values["method"], values["search_seed"], values["training_seed"]


def finish(oracle, trial):
    """Asks what keras-tuner's worker asks when it has done a trial."""
    if not oracle.get_trial(trial.trial_id).metrics.exists("accuracy"):
        oracle.update_trial(trial.trial_id, {"accuracy": 0.5}, step=0)
    trial.status = TrialStatus.COMPLETED
    oracle.end_trial(trial)


class TestGrid:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_each_point_is_handed_out_once_to_workers_that_never_wait(self, oracle, workers):
        seen, ongoing = [], []
        for number in range(len(POINTS)):
            trial = oracle.create_trial(f"worker{number % workers}")
            assert trial.status == TrialStatus.RUNNING
            seen.append(point(trial))
            ongoing.append(trial)
            if len(ongoing) == workers:
                trial = ongoing.pop(0)
                oracle.update_trial(trial.trial_id, {"accuracy": 0.5})
                trial.status = TrialStatus.COMPLETED
                oracle.end_trial(trial)
        assert len(seen) == len(set(seen))
        assert set(seen) == POINTS
        assert {training_seed for *_, training_seed in seen[: len(seen) // 2]} == {0}
        last = oracle.create_trial("worker9").status
        assert last == (TrialStatus.IDLE if ongoing else TrialStatus.STOPPED)

    @pytest.fixture
    def trial(self, grid, tmp_path):
        """A trial of the chief before."""
        other = AblationOracle(grid)
        other._set_project_dir(tmp_path, "other")
        return other.create_trial("worker0")

    def test_a_trial_that_another_chief_handed_out_may_end(self, oracle, trial):
        finish(oracle, trial)
        assert not oracle.trials
        assert point(oracle.create_trial("worker0")) == point(trial)

    def test_or_one_that_both_handed_out(self, oracle, trial):
        same = oracle.create_trial("worker1")
        assert same.trial_id == trial.trial_id
        for each in (trial, same):
            finish(oracle, each)
        assert not oracle.ongoing_trials
        assert oracle.get_trial(same.trial_id).status == TrialStatus.COMPLETED

    def test_or_one_whose_metrics_the_other_took(self, oracle, trial):
        oracle.create_trial("worker1")
        trial.status = TrialStatus.COMPLETED
        oracle.end_trial(trial)
        assert oracle.get_trial(trial.trial_id).status == TrialStatus.COMPLETED

    @pytest.mark.parametrize(
        ("given", "value"),
        [
            ({"methods": ()}, "methods"),
            ({"methods": ("random", "darts")}, "darts"),
            ({"betas": (2, 2.0)}, "2, 2.0"),
            ({"betas": (2, 0.0)}, "without 0"),
            ({"betas": (float("nan"),)}, "nan"),
            ({"search_seeds": (-1,)}, "-1"),
            ({"training_seeds": (True,)}, "True"),
            ({"training_seeds": (2**32,)}, str(2**32)),
        ],
    )
    def test_what_is_refused(self, given, value):
        with pytest.raises(ValueError, match=value):
            make_grid(**given)


def test_random_genotypes():
    drawn = [random_genotype(seed) for seed in range(200)]
    assert drawn[7] == random_genotype(7)
    assert len(set(drawn)) == 200
    counts = [sum(g.choices.count(name) for g in drawn) for name in OPERATIONS]
    assert min(counts) > 0.85 * max(counts)
    space = {"operations": ("none", "skip_connect", "sep_conv_3x3"), "allow_none": False}
    assert set(random_genotype(0, **space).choices) == {"skip_connect", "sep_conv_3x3"}


class TestRole:
    @pytest.fixture
    def set_part(self, monkeypatch):
        def set_part(**values):
            for name, value in values.items():
                monkeypatch.setenv(f"KERASTUNER_{name}", str(value))

        return set_part

    @pytest.fixture
    def free_port(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return free.getsockname()[1]

    def test_parts(self, set_part, free_port):
        assert role() == "alone"
        set_part(TUNER_ID="worker0", ORACLE_IP="127.0.0.1", ORACLE_PORT=free_port)
        assert role() == "worker"
        set_part(TUNER_ID="chief")
        assert role() == "chief"

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({}, "KERASTUNER_TUNER_ID=chief, KERASTUNER_ORACLE_IP=, "),
            ({"ORACLE_IP": "127.0.0.1", "ORACLE_PORT": "x"}, "KERASTUNER_ORACLE_PORT=x"),
            ({"ORACLE_IP": "127.0.0.1", "ORACLE_PORT": "65536"}, "KERASTUNER_ORACLE_PORT=65536"),
            ({"ORACLE_IP": "127.0.0.1", "ORACLE_PORT": "0"}, "KERASTUNER_ORACLE_PORT=0"),
            ({"ORACLE_IP": "127.0.0.1", "ORACLE_PORT": "²"}, "KERASTUNER_ORACLE_PORT=²"),
            ({"ORACLE_IP": "192.0.2.1", "ORACLE_PORT": "8000"}, "cannot listen at 192.0.2.1:8000"),
        ],
    )
    def test_what_is_refused(self, set_part, values, message):
        set_part(TUNER_ID="chief", **values)
        with pytest.raises(ValueError, match=message):
            role()

    def test_two_chiefs_cannot_listen_at_one_port(self, set_part):
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as gRPC does
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            set_part(TUNER_ID="chief", ORACLE_IP="127.0.0.1", ORACLE_PORT=port)
            with pytest.raises(ValueError, match=f"127.0.0.1:{port}: Address already in use"):
                role()


class Stopped(BaseException):
    pass


class Fake:
    """Searches and trainings that take no time, count themselves, and stop when told to."""

    def __init__(self, stop_at=None):
        self.calls, self._stop_at = [], stop_at

    def _call(self, *call):
        if len(self.calls) == self._stop_at:
            raise Stopped
        self.calls.append(call)

    def _search(self, method, *, directory, beta, seed):
        assert os.path.basename(directory).startswith(method)
        self._call("search", os.path.basename(directory))
        genotype = random_genotype(seed + (beta is not None))
        scores = beta if beta is None else [dict.fromkeys(OPERATIONS, beta) for _ in CHOICES]
        return {"genotype": genotype, "scores": scores, "seconds": 1.0, "images": 10}

    def _train(self, genotype, *, directory, seed):
        self._call("train", os.path.basename(directory))
        accuracy = genotype.choices.count("none") / 28 + 0.01 * seed
        return {"accuracy": accuracy, "loss": 1.0, "images": 100}

    def ablate(self, grid, folder):
        ablate(grid, find=self._search, train=self._train, directory=str(folder))


def results(folder):
    """All result files but for the time that they tell."""
    found = {}
    for record in (*folder.rglob("search.json"), *folder.rglob("run.json")):
        found[str(record.relative_to(folder))] = json.loads(record.read_text())
        del found[str(record.relative_to(folder))]["seconds"]
    return found


@pytest.fixture
def without_pauses(monkeypatch):
    monkeypatch.setattr(AblationTuner, "pre_create_trial", lambda self: None)


@pytest.mark.usefixtures("without_pauses")
class TestAblate:
    def test_runs_with_one_search_share_it(self, grid, tmp_path):
        fake = Fake()
        fake.ablate(grid, tmp_path)
        names = {"-".join([method, f"search{seed}"]) for method, seed, _ in POINTS}
        searched = [name for kind, name in fake.calls if kind == "search"]
        trained = [name for kind, name in fake.calls if kind == "train"]
        assert sorted(searched) == sorted(names)
        assert sorted(trained) == sorted(f"{m}-search{s}-training{t}" for m, s, t in POINTS)

    def test_wherever_it_is_stopped_it_goes_on(self, grid, tmp_path):
        whole = Fake()
        whole.ablate(grid, tmp_path / "whole")
        for stop_at in (0, 1, 2, 7, len(whole.calls) - 1):
            folder = tmp_path / str(stop_at)
            stopped, rest = Fake(stop_at), Fake()
            with pytest.raises(Stopped):
                stopped.ablate(grid, folder)
            rest.ablate(grid, folder)
            assert stopped.calls + rest.calls == whole.calls
            assert results(folder) == results(tmp_path / "whole")

    def test_a_finished_one_does_nothing_again(self, grid, tmp_path):
        Fake().ablate(grid, tmp_path)
        again = Fake(stop_at=0)
        again.ablate(grid, tmp_path)
        shutil.rmtree(tmp_path / "runs" / "random-search3-training1")
        with pytest.raises(Stopped):
            again.ablate(grid, tmp_path)

    def test_a_failed_run_ends_it(self, grid, tmp_path):
        fake = Fake()
        fake._train = None
        with pytest.raises(FatalError, match="random.*'NoneType' object is not callable"):
            fake.ablate(grid, tmp_path)

    def test_a_failed_result_is_named(self, grid, tmp_path):
        Fake().ablate(grid, tmp_path)
        path = tmp_path / "runs" / "random-search3-training0" / "run.json"
        path.write_text("{")
        with pytest.raises(FatalError, match=f"cannot read {path}"):
            Fake().ablate(grid, tmp_path)


@pytest.mark.usefixtures("without_pauses")
def test_the_table_needs_the_files_alone(grid, tmp_path):
    Fake().ablate(grid, tmp_path)
    rows = table.write(str(tmp_path))
    first = {path.name: path.read_bytes() for path in tmp_path.glob("*.*")}
    assert set(first) == {"runs.csv", "table.csv", "table.json"}
    shutil.copytree(tmp_path, tmp_path / "copy")
    table.write(str(tmp_path / "copy"))
    for name, content in first.items():
        assert (tmp_path / "copy" / name).read_bytes() == content
    assert json.loads(first["table.json"])["rows"] == rows
    assert [(row["method"], row["beta"]) for row in rows] == [
        ("bnas", 0.0),
        ("cpnas", -1.0),
        ("cpnas", 0.33),
        ("pc_darts", None),
        ("random", None),
    ]
    assert {(row["searches"], row["runs"], row["images"]) for row in rows} == {(2, 4, 420)}
    assert len(table.text(rows).splitlines()) == 7
