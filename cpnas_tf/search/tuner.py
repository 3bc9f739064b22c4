"""A keras-tuner tuner that trains the child and parent that Algorithm 1 samples, and saves.

References:
    CP-NAS, section 2.3, Algorithm 1.
"""

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Iterator
from statistics import fmean
from typing import Any

from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial
from keras_tuner.errors import FatalError, FatalRuntimeError

from cpnas_tf import devices
from cpnas_tf.errors import first_line
from cpnas_tf.files import local_path
from cpnas_tf.genotypes import CHOICES, Genotype
from cpnas_tf.runs import progress, search_log
from cpnas_tf.runs.checkpoints import Checkpoints
from cpnas_tf.runs.tensorboard import Summaries
from cpnas_tf.search.oracle import ACCURACIES, ChildParentOracle
from cpnas_tf.search.pair import Pair


class ChildParentTuner(BaseTuner):
    """Runs the trials of a `ChildParentOracle`: one epoch of child and parent each.

    Of the child alone, if the pair has no parent.

    After each trial all that the search needs to go on is saved in `checkpoints/`: the supernets
    with their optimizers' slots, and the oracle's state. The last two are kept; a new tuner on the
    same folder goes on from the newest one that can be read.

    All workers of several run the same search, and only the chief writes.

    Args:
        oracle: a `ChildParentOracle`.
        pair: the `Pair` to train.
        directory: folder of the search, where `search.csv` is written.
        verbose: how much to show, see `runs.progress.Progress`.

    Attributes:
        pair: as given.
        seconds: how long each trial took.

    Raises:
        ValueError: if `oracle` is of another kind, or checkpoints are there and none can be read or
            they are of another search.
    """

    def __init__(
        self,
        oracle: ChildParentOracle,
        pair: Pair,
        *,
        directory: str | os.PathLike[str],
        verbose: int | str = "auto",
    ) -> None:
        verbose = progress.check_verbose(verbose)
        if not isinstance(oracle, ChildParentOracle):
            raise ValueError(
                "oracle must be a ChildParentOracle, whose trials share the weights of the pair, "
                f"received: {type(oracle).__name__}"
            )
        self.pair = pair
        self.seconds: list[float] = []
        self._folder, self._is_chief = local_path(directory), devices.is_chief(pair.strategy)
        parts: dict[str, Any] = {
            name: list(supernet.variables) for name, supernet in pair.supernets.items()
        }
        self._checkpoints = Checkpoints(self._folder, strategy=pair.strategy, **parts)
        # Other workers have keras-tuner write its files where nobody reads them.
        own = self._folder if self._is_chief else tempfile.mkdtemp()
        with own_oracle():
            super().__init__(oracle, directory=own, project_name="tuner")
        self.reload()
        done = len(self.oracle.results)
        self._batches = pair.batches(epoch=done)
        self._progress = progress.Progress(oracle.architectures, done, verbose=verbose)
        self._summaries = Summaries(os.path.join(self._folder, "logs"))

    def search(self) -> None:
        """Runs all trials that are left."""
        with own_oracle():
            super().search()

    def run_trial(self, trial: Trial) -> dict[str, float]:
        """Trains the trial's child and parent for an epoch and returns both accuracies.

        Raises:
            keras_tuner.errors.FatalError: if a step fails or a loss is not finite. keras-tuner
                would count any other error as one failed trial, and go on with broken weights.
        """
        started = time.monotonic()
        genotype = Genotype.from_choices(trial.hyperparameters.values[name] for name in CHOICES)
        number = len(self.oracle.results)
        try:
            self._train(number)
            accuracies = self.pair.validate(genotype)
        except FatalError:
            raise
        except Exception as error:
            raise FatalRuntimeError(
                f"architecture {number} could not be trained: {first_line(error)}"
            ) from error
        self.seconds.append(time.monotonic() - started)
        return {f"{precision}_accuracy": value for precision, value in accuracies.items()}

    def _train(self, number):
        losses = self.pair.train_epoch(
            self.oracle.architecture_of_step, number, self._batches, on_step=self._progress.step
        )
        for precision, loss in losses.items():
            if not math.isfinite(loss):
                raise FatalRuntimeError(
                    f"the {precision}'s loss is {loss} in architecture {number}: "
                    f"try a lower learning_rate than {self.pair.rate(0):g}"
                )

    def on_trial_end(self, trial: Trial) -> None:
        """Lets the oracle score the trial, then writes `search.csv` and the state."""
        super().on_trial_end(trial)
        if self._is_chief:
            text = progress.result_text(self.oracle.results[-1])
            self._progress.finish(text, images=self.pair.images, seconds=self.seconds[-1])
            self._summarize()

    def _summarize(self):
        """Logs the last trial for TensorBoard, and after a stage what its edges made of it."""
        number, result = len(self.oracle.results), self.oracle.results[-1]
        scalars = {name: getattr(result, name) for name in (*ACCURACIES, "z")}
        scalars = {name: value for name, value in scalars.items() if value is not None}
        scalars["seconds"] = self.seconds[-1]
        pictures = {}
        if len(self.oracle.history) > result.stage:
            from cpnas_tf.plots import figures
            from cpnas_tf.plots import search as search_plots

            figure = search_plots.plot_indicators(self.oracle.history[result.stage])
            pictures["indicator"] = figures.render(figure, "png")
        self._summaries.write(number, scalars, pictures=pictures)

    def save(self) -> None:
        """Writes `search.csv`, then the checkpoint it belongs to.

        In this order: a search that is killed between the two does the last row again.
        """
        results = self.oracle.results
        if self._is_chief:
            search_log.write(os.path.join(self._folder, "search.csv"), results, self.seconds)
        self._checkpoints.record = {"oracle": self.oracle.get_state(), "seconds": self.seconds}
        self._checkpoints.save(epochs=len(results), steps=len(results) * self.pair.steps)

    def reload(self) -> None:
        """Goes on from the newest checkpoint that can be read, if there is one.

        Raises:
            ValueError: if checkpoints are there and none can be read.
        """
        if self._checkpoints.restore():
            self.oracle.set_state(self._checkpoints.record["oracle"])
            self.seconds = self._checkpoints.record["seconds"]

    def genotype(self) -> Genotype:
        """The `Genotype` that was found, at the search's end."""
        return self.oracle.genotype()

    def scores(self) -> list[dict[str, float]]:
        """For each of the 28 edges a dict, operation -> its last zbar minus its stage's mean.

        Scores of different stages compare only so: from stage to stage the weights train on, and
        the worst operations leave.
        """
        scores: list[dict[str, float]] = [{} for _ in CHOICES]
        for stage in self.oracle.history:
            for edge, indicators in zip(scores, stage, strict=True):
                level = fmean(zbar for zbar, _ in indicators.values())
                edge.update({name: zbar - level for name, (zbar, _) in indicators.items()})
        return scores


@contextlib.contextmanager
def own_oracle() -> Iterator[None]:
    """Keeps keras-tuner from asking a chief for trials: these share weights, and so a process.

    Where the search is itself a trial, as in an ablation, the environment names that one's chief.
    """
    chief = os.environ.pop("KERASTUNER_ORACLE_IP", None)
    try:
        yield
    finally:
        if chief is not None:
            os.environ["KERASTUNER_ORACLE_IP"] = chief
