"""A keras-tuner tuner that trains, from scratch, the genotypes that a guided search chooses."""

import os
import tempfile
import time
from typing import Any

import numpy as np
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
from cpnas_tf.search.guided_oracle import EPOCHS, NUMBER, GuidedOracle, left_out
from cpnas_tf.search.trainer import Trainer
from cpnas_tf.search.tuner import own_oracle


class GuidedTuner(BaseTuner):
    """Runs the trials of a `GuidedOracle`: a training from scratch each.

    After each trial the oracle's state is saved in `checkpoints/`; it is all that the search needs
    to go on. The last two are kept; a new tuner on the same folder goes on from the newest one that
    can be read. Weights and images of a training depend on the seed and its number alone.

    All workers of several run the same search, and only the chief writes.

    Args:
        oracle: a `GuidedOracle`.
        trainer: the `Trainer` of its precisions.
        directory: folder of the search, where `search.csv` is written.
        verbose: how much to show, see `runs.progress.Progress`.

    Attributes:
        trainer: as given.
        seconds: how long each training took, by its number.

    Raises:
        ValueError: if checkpoints are there and none can be read or they are of another search.
    """

    def __init__(
        self,
        oracle: GuidedOracle,
        trainer: Trainer,
        *,
        directory: str | os.PathLike[str],
        verbose: int | str = "auto",
    ) -> None:
        verbose = progress.check_verbose(verbose)
        self.trainer = trainer
        self.seconds: dict[int, float] = {}
        self._folder = local_path(directory)
        self._is_chief = devices.is_chief(trainer.strategy)
        self._checkpoints = Checkpoints(self._folder, strategy=trainer.strategy)
        # Other workers have keras-tuner write its files where nobody reads them.
        own = self._folder if self._is_chief else tempfile.mkdtemp()
        with own_oracle():
            super().__init__(oracle, directory=own, project_name="tuner")
        self.reload()
        done = len(self.oracle.results)
        self._progress = progress.Progress(oracle.trainings, done, "training", verbose=verbose)
        self._summaries = Summaries(os.path.join(self._folder, "logs"))

    def search(self) -> None:
        """Runs all trials that are left."""
        with own_oracle():
            super().search()

    def run_trial(self, trial: Trial) -> dict[str, float]:
        """Trains the trial's genotype from scratch and returns the validation's figures.

        Raises:
            keras_tuner.errors.FatalError: if a step fails or a loss is not finite. keras-tuner
                would count any other error as one failed trial, and go on without its score.
        """
        started, values = time.monotonic(), trial.hyperparameters.values
        genotype = Genotype.from_choices(values[name] for name in CHOICES)
        number = values[NUMBER]
        try:
            self.trainer.train(
                genotype,
                seed=training_seed(self.oracle.seed, number),
                epochs=values[EPOCHS],
                first_epoch=self.oracle.epochs_before(number),
                on_step=lambda step, steps: self._progress.step(number, step, steps),
            )
            measures = self.trainer.validate(genotype)
        except FatalError:
            raise
        except Exception as error:
            raise FatalRuntimeError(
                f"training {number} could not be done: {first_line(error)}"
            ) from error
        self.seconds[number] = time.monotonic() - started
        return measures

    def on_trial_end(self, trial: Trial) -> None:
        """Lets the oracle score the trial, then writes `search.csv` and the state."""
        super().on_trial_end(trial)
        if self._is_chief:
            number = trial.hyperparameters.values[NUMBER]
            (row,) = [row for row in self.rows() if row["training"] == number + 1]
            images = trial.hyperparameters.values[EPOCHS] * self.trainer.images
            self._progress.finish(
                progress.training_text(row), images=images, seconds=row["seconds"]
            )
            self._summarize(row)

    def _summarize(self, row):
        """Logs a training for TensorBoard, and at a round's end what the rounds gained."""
        names = (*search_log.TRAINING_MEASURES, "score", "predicted", "seconds")
        scalars = {name: row[name] for name in names if row[name] is not None}
        pictures = {}
        done = len(self.oracle.results)
        if done == self.oracle.trainings or self.oracle.place(done) != self.oracle.place(done - 1):
            from cpnas_tf.plots import figures, guided

            pictures["rounds"] = figures.render(guided.plot_trainings(self.rows()), "png")
        self._summaries.write(row["training"], scalars, pictures=pictures)

    def rows(self) -> list[dict[str, Any]]:
        """The finished trainings, as `search_log.read` gives them."""
        oracle = self.oracle
        results = oracle.results
        short = [result for result in results if result.number < oracle.candidates]
        known = dict(zip((result.number for result in short), left_out(short), strict=True))
        rows = []
        for result in results:
            phase, round_index = oracle.place(result.number)
            rows.append(
                {
                    "training": result.number + 1,
                    "phase": phase,
                    "round": round_index,
                    "epochs": oracle.epochs_of(result.number),
                    **dict(zip(CHOICES, result.choices, strict=True)),
                    **dict.fromkeys(search_log.TRAINING_MEASURES),
                    **result.measures,
                    "score": result.score,
                    "predicted": result.predicted,
                    "left_out": known.get(result.number),
                    "seconds": self.seconds[result.number],
                }
            )
        return rows

    def save(self) -> None:
        """Writes `search.csv`, then the checkpoint it belongs to.

        In this order: a search that is killed between the two does the last row again.
        """
        if self._is_chief:
            search_log.write_trainings(os.path.join(self._folder, "search.csv"), self.rows())
        seconds = {str(number): duration for number, duration in self.seconds.items()}
        self._checkpoints.record = {"oracle": self.oracle.get_state(), "seconds": seconds}
        done = len(self.oracle.results)
        self._checkpoints.save(
            epochs=done, steps=self.oracle.epochs_before(done) * self.trainer.steps
        )

    def reload(self) -> None:
        """Goes on from the newest checkpoint that can be read, if there is one.

        Raises:
            ValueError: if checkpoints are there and none can be read.
        """
        if self._checkpoints.restore():
            record = self._checkpoints.record
            self.oracle.set_state(record["oracle"])
            self.seconds = {int(number): taken for number, taken in record["seconds"].items()}


def training_seed(seed: int, number: int) -> int:
    """The seed of the weights of a search's training, another one for each number."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
