"""Comparing search methods: keras-tuner's grid search over methods, beta_P and seeds.

A point of the grid is a *run*: a search with one method, beta_P and search seed, then a training
of the derived child with one training seed. Runs that differ only in the training seed share their
search. All results are kept in small files in the ablation's folder, each written atomically when
its search or training has finished:

- `searches/NAME/search.csv`: the search's log, if it writes one;
- `searches/NAME/search.json`: `method`, `beta` (None where there is none), `search_seed`;
  `genotype`; `scores` (for each of the 28 edges, every operation's score: its last zbar minus its
  stage's mean, or its weight in PC-DARTS' mixture; None without a search);
  `seconds`; `images` (epochs times training images, of child and parent together);
- `runs/NAME/run.json`: the same first three and `training_seed`; `accuracy` and `loss` on the test
  images; `seconds` (of a resumed training, those since it resumed) and `images`.

These files alone are the state of an ablation. Decision: keras-tuner's own files are not resumed,
because a kill can truncate them. The grid starts again and reads finished runs from their files.

Several processes can share an ablation in keras-tuner's way. Each sets the environment variables
KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT, the chief's address, and a KERASTUNER_TUNER_ID:
"chief" for the one that hands out the runs, and "worker0", "worker1" and so on for those that do
them in one folder. Restart a worker that was killed: the chief keeps its run for it, and the others
wait for it.
"""

import dataclasses
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.errors import FatalError, FatalRuntimeError
from keras_tuner.oracles import GridSearchOracle

from cpnas_tf.catalogue import COMPARED, METHODS
from cpnas_tf.errors import first_line
from cpnas_tf.files import exclusive, local_path, read_json, write_json
from cpnas_tf.genotypes import Genotype
from cpnas_tf.runs import workdir
from cpnas_tf.runs.progress import check_verbose, show
from cpnas_tf.settings import SettingError, checked


@checked("grid")
def make_grid(
    *,
    methods: Sequence[str] = COMPARED,
    betas: Sequence[float] = (2.0,),
    search_seeds: Sequence[int] = (0, 1, 2, 3, 4),
    training_seeds: Sequence[int] = (0, 1, 2),
) -> keras_tuner.HyperParameters:
    """The points of an ablation as keras-tuner's hyperparameters.

    A method and its beta_P are one string such as "cpnas-beta0.33", because keras-tuner rounds
    numbers to 32 bits between chief and worker. The training seed varies slowest, so that several
    workers start with different searches.

    Args:
        methods: of `METHODS`; `random` draws a genotype and searches nothing, `bnas` is the paper's
            baseline, CP-NAS with beta_P = 0, `pc_darts` the gradient-based search. The
            default is what the paper compares.
        betas: values of beta_P, for `cpnas` alone.
        search_seeds: of the search, or of the draw.
        training_seeds: of the derived network's weights and of the order of its images.

    Raises:
        ValueError: if a list is empty or has duplicates, or a value is not allowed.
    """
    for name in methods:
        beta = None if METHODS[name].defaults else METHODS[name].beta
        if beta in betas and any(METHODS[other].varies_beta for other in methods):
            raise SettingError(
                "betas",
                f"betas must be without {beta:g}, which is what {name} has, received: {betas!r}",
            )
    grid = keras_tuner.HyperParameters()
    grid.Choice("training_seed", list(training_seeds))
    grid.Choice("search_seed", list(search_seeds))
    grid.Choice("method", [run for name in methods for run in _with_betas(name, betas)])
    return grid


def _with_betas(name, betas):
    """The texts for a method with each of its beta_P, or without."""
    method = METHODS[name]
    betas = betas if method.varies_beta else [method.beta]
    return [name if beta is None else f"{name}-beta{float(beta)}" for beta in betas]


def role() -> str:
    """This process's role: "alone", "chief" or "worker".

    Raises:
        ValueError: if some of keras-tuner's environment variables are missing, or the chief cannot
            listen at its address.
    """
    names = [f"KERASTUNER_{name}" for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT")]
    tuner, address, port = values = [os.environ.get(name, "") for name in names]
    if not any(values):
        return "alone"
    if not all(values) or not port.isdecimal() or not 0 < int(port) < 65536:
        given = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        raise ValueError(
            "a chief or worker needs three environment variables, an id, the chief's address and "
            f"its port, received: {given}"
        )
    if "chief" not in tuner:
        return "worker"
    # gRPC would share the port with another chief, which would mix up their workers.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, int(port)))
        except OSError as error:
            reason = error.strerror
            raise ValueError(f"the chief cannot listen at {address}:{port}: {reason}") from error
    return "chief"


class AblationOracle(GridSearchOracle):
    """keras-tuner's grid search, for several workers at once.

    Args:
        grid: as `make_grid` makes it.
    """

    def __init__(self, grid: keras_tuner.HyperParameters) -> None:
        super().__init__(
            objective=keras_tuner.Objective("accuracy", "max"),
            hyperparameters=grid,
            allow_new_entries=False,
        )
        self.verbose = 0

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The next point of the grid; keras-tuner would wait for the end of the previous one."""
        response = super().populate_space(trial_id)
        if response["status"] == TrialStatus.RUNNING:
            self._populate_next.append(trial_id)
        return response

    # A chief that was restarted does not know the trials that workers have from the one before. It
    # hands out the same points again, whose results are then read from their files.

    def get_trial(self, trial_id: str) -> Trial:
        """The trial of that id; an empty one if this chief has not handed it out."""
        return self.trials.get(trial_id) or Trial(self.get_space(), trial_id)

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Trial:
        """Takes the metrics of a trial that this chief has handed out."""
        if trial_id in self.trials:
            return super().update_trial(trial_id, metrics, step)
        return self.get_trial(trial_id)

    def score_trial(self, trial: Trial) -> None:
        """Sets a score that says nothing, as nothing is chosen by it.

        A trial may end here whose metrics the chief before took.
        """
        trial.score = 0.0

    def end_trial(self, trial: Trial) -> None:
        """Ends a trial that this chief has handed out."""
        if trial.trial_id in self.trials:
            super().end_trial(trial)


class AblationTuner(BaseTuner):
    """Does the unfinished runs of an ablation.

    Args:
        grid: as `make_grid` makes it.
        find: function of a method's name, `directory`, `beta` and `seed` that starts or resumes a
            search there and returns a dict of `genotype`, `scores`, `seconds` and `images`.
        train: a function of a genotype, `directory` and `seed` that starts or resumes a training
            there and returns a dict of `accuracy`, `loss` and `images`.
        directory: the ablation's folder.
        own_directory: a folder for keras-tuner's files, which are never read.
        verbose: 0 shows nothing; 1, 2 and "auto" show a line per run.
    """

    def __init__(
        self,
        grid: keras_tuner.HyperParameters,
        *,
        find: Callable[..., dict[str, Any]],
        train: Callable[..., dict[str, Any]],
        directory: str | os.PathLike[str],
        own_directory: str | os.PathLike[str],
        verbose: int | str = "auto",
    ) -> None:
        self._find, self._train, self._folder = find, train, local_path(directory)
        self._verbose = check_verbose(verbose)
        super().__init__(AblationOracle(grid), directory=own_directory, project_name="grid")

    def pre_create_trial(self) -> None:
        """Pauses: while other workers do the last runs, keras-tuner polls without a delay."""
        time.sleep(0.1)

    def run_trial(self, trial: Any) -> dict[str, float]:
        """Searches and trains, and returns the test accuracy.

        Raises:
            keras_tuner.errors.FatalError: if either fails; keras-tuner would go on after any other.
        """
        try:
            return {"accuracy": self._run(**trial.hyperparameters.values)["accuracy"]}
        except FatalError:
            raise
        except Exception as error:
            raise FatalRuntimeError(
                f"the run {trial.hyperparameters.values} failed: {first_line(error)}"
            ) from error

    def _run(self, *, method, search_seed, training_seed):
        name, (kind, _, beta) = f"{method}-search{search_seed}", method.partition("-beta")
        beta = float(beta) if beta else None
        point = {"method": kind, "beta": beta, "search_seed": search_seed}

        def search(directory):
            found = self._find(kind, directory=directory, beta=beta, seed=search_seed)
            found["genotype"].save(os.path.join(directory, "genotype.json"))
            return {**point, **found, "genotype": dataclasses.asdict(found["genotype"])}

        def train(directory):
            genotype, started = Genotype(**found["genotype"]), time.monotonic()
            reached = self._train(genotype, directory=directory, seed=training_seed)
            seconds = time.monotonic() - started
            return {**point, "training_seed": training_seed, **reached, "seconds": seconds}

        folder = os.path.join(self._folder, "searches", name)
        found = _make_or_read(folder, "search.json", search, workdir.SEARCH_OF_ABLATION)
        name = f"{name}-training{training_seed}"
        folder = os.path.join(self._folder, "runs", name)
        run = _make_or_read(folder, "run.json", train, workdir.TRAINING_OF_ABLATION)
        if self._verbose:
            show(f"{name}: test accuracy {run['accuracy']:.2%}")
        return run


def _make_or_read(folder, name, make, written):
    """The contents of a JSON file, made by the first process to need it while others wait."""
    path = os.path.join(folder, name)
    with exclusive(folder, wait=True):
        workdir.clean(folder, written)
        if not os.path.exists(path):
            write_json(path, make(folder))
        return read_json(path)


def ablate(
    grid: keras_tuner.HyperParameters,
    *,
    find: Callable[..., dict[str, Any]],
    train: Callable[..., dict[str, Any]],
    directory: str | os.PathLike[str],
    verbose: int | str = "auto",
) -> None:
    """Does all unfinished runs of a grid, or this process's share of them.

    Args:
        grid: as `make_grid` makes it.
        find, train: see `AblationTuner`.
        directory: the ablation's folder.
        verbose: 0 shows nothing; 1, 2 and "auto" show a line per run.

    Raises:
        ValueError: if this is a worker and its chief does not answer.
        keras_tuner.errors.FatalError: if a run fails.
    """
    with tempfile.TemporaryDirectory() as own:
        tuner = AblationTuner(
            grid,
            find=find,
            train=train,
            directory=directory,
            own_directory=own,
            verbose=verbose,
        )
        try:
            tuner.search()
        except grpc.RpcError as error:
            raise ValueError(
                f"no answer from the chief ({error.details()}): start this worker again with it"
            ) from error
