"""The guided search as a keras-tuner `Oracle`: what to train next, and which genotype is best.

References:
    BANANAS (White et al., 2021), WeakNAS (Wu et al., 2021): a predictor of scores is refitted after
        each round, and chooses the next one's architectures. CP-NAS, Eq. 1: the score.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.errors import FatalRuntimeError, FatalValueError

from cpnas_tf.catalogue import PRECISIONS
from cpnas_tf.files import write_json
from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.search.oracle import child_parent_score
from cpnas_tf.search.proposals import Space, best_first, first_design, propose, standings
from cpnas_tf.search.surrogate import LEAST, Surrogate
from cpnas_tf.settings import SettingError, checked

NUMBER, EPOCHS = "tuner/training", "tuner/epochs"  # a trial's values beside its 28 choices


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished training.

    Attributes:
        number: of the training, from 0.
        choices: the genotype's 28 operations, ordered as `CHOICES`.
        measures: the validation's figures: `child_loss`, `child_accuracy` and the parent's.
        score: the more the better, see `GuidedOracle.score_trial`.
        predicted: the score that the model expected; None in the first design.
    """

    number: int
    choices: tuple[str, ...]
    measures: Mapping[str, float]
    score: float
    predicted: float | None

    @property
    def genotype(self) -> Genotype:
        """The `Genotype` that was trained."""
        return Genotype.from_choices(self.choices)


class GuidedOracle(keras_tuner.Oracle):
    """Trains few genotypes from scratch, and lets a model of their scores choose the next ones.

    1. *Random*: a first design of `first` genotypes, drawn uniformly without `none`.
    2. *Guided*: `rounds` times, a `Surrogate` is fitted to all scores, and proposes genotypes:
       descendants of the best ones (`proposals.propose`).
    3. *Final*: the best `finalists` by score and prediction are trained again, longer and with a
       fresh seed, so that the luck by which a genotype got so far does not count. The best of these
       is the result; without finalists it is the best by score and prediction.

    A training is a *trial*. Its hyperparameters are the 28 keras-tuner `Choice`s of `CHOICES`, and
    its values also say which training it is (`NUMBER`) and how long (`EPOCHS`). It reports, once,
    `child_loss` and `child_accuracy` of the validation, and those of the parent if `beta` is not 0.
    The trainings of one phase and round do not depend on each other: several tuners may run them at
    the same time, and wait where they have to for the last one of a round.

    The whole state is the list of finished trainings, saved atomically in the project's
    `oracle.json`; one that was ongoing starts again.

    Args:
        first: how many genotypes are drawn at random, at least 3 if there are proposals.
        rounds: of proposals.
        proposals: genotypes per round; with 0 the result is the best of the first design.
        finalists: how many are trained again, at most as many as were trained.
        epochs, finalist_epochs: of a training, and of a finalist's.
        beta: beta_P of Eq. 1, any finite number; 0 looks at the child alone.
        score: "loss" or "accuracy" of the validation, by which genotypes are compared. Decision:
            the loss, of which few images and short trainings say more.
        operations: what an edge may carry, `none` left out; at least 2.
        inputs: how many edges a node keeps (the others are `none`), or all that it has if they are
            fewer; 5 keeps all.
        seed: of the first design and the proposals.

    Raises:
        ValueError: if an argument is anything else.

    Example:
        >>> from cpnas_tf.search import GuidedOracle
        >>> oracle = GuidedOracle(first=24, rounds=3, proposals=4, finalists=2)
        >>> oracle.trainings
        38
        >>> oracle.place(25)
        ('guided', 1)
    """

    @checked("guided")
    def __init__(
        self,
        *,
        first: int = 24,
        rounds: int = 3,
        proposals: int = 4,
        finalists: int = 2,
        epochs: int = 2,
        finalist_epochs: int = 4,
        beta: float = 0.0,
        score: str = "loss",
        operations: Sequence[str] = OPERATIONS,
        inputs: int = 5,
        seed: int = 0,
    ) -> None:
        names = tuple(name for name in OPERATIONS if name in operations and name != "none")
        if len(names) < 2:
            raise SettingError(
                "operations",
                f"operations must be 2 or more beside none, received: {operations!r}",
            )
        if proposals and first < LEAST:
            raise SettingError(
                "first",
                f"first must be at least the {LEAST} trainings that the model needs, "
                f"received: {first}",
            )
        candidates = first + rounds * proposals
        if finalists > candidates:
            raise SettingError(
                "finalists",
                f"finalists must be at most the {candidates} trainings before, "
                f"received: {finalists}",
            )
        self.first, self.rounds, self.proposals = first, rounds, proposals
        self.finalists, self.epochs, self.finalist_epochs = finalists, epochs, finalist_epochs
        self.beta, self.score, self.inputs = float(beta), score, inputs
        self.operations = names
        hyperparameters = keras_tuner.HyperParameters()
        for name in CHOICES:
            hyperparameters.Choice(name, list(OPERATIONS))
        super().__init__(
            objective=keras_tuner.Objective("child_loss", "min"),
            max_trials=candidates + finalists,
            hyperparameters=hyperparameters,
            allow_new_entries=False,
        )
        self.seed = seed  # The base class takes 0 for "any seed".
        self.verbose = 0
        self._space = Space(names, inputs)
        self._start()

    def _start(self):
        self.trials = {}
        self.ongoing_trials = {}
        self.start_order = []
        self.end_order = []
        self._results = {}
        self._planned = {}

    @property
    def precisions(self) -> tuple[str, ...]:
        """Whose figures a training reports: the child's, and the parent's unless `beta` is 0."""
        return PRECISIONS if self.beta else PRECISIONS[:1]

    @property
    def candidates(self) -> int:
        """The number of trainings before the finalists'."""
        return self.first + self.rounds * self.proposals

    @property
    def trainings(self) -> int:
        """The number of trainings in the whole search."""
        return self.candidates + self.finalists

    @property
    def results(self) -> tuple[Result, ...]:
        """The finished trainings, by number."""
        return tuple(self._results[number] for number in sorted(self._results))

    def place(self, number: int) -> tuple[str, int]:
        """Phase and round of a training: ("random", 0), ("guided", 1...) or ("final", last + 1)."""
        if number < self.first:
            return "random", 0
        if number < self.candidates:
            return "guided", 1 + (number - self.first) // self.proposals
        return "final", self.rounds + 1

    def epochs_of(self, number: int) -> int:
        """How many epochs a training has."""
        return self.epochs if number < self.candidates else self.finalist_epochs

    def epochs_before(self, number: int) -> int:
        """How many epochs all trainings before this one have; before `trainings`, that is all."""
        finalists = max(0, number - self.candidates)
        return (number - finalists) * self.epochs + finalists * self.finalist_epochs

    def model(self) -> Surrogate | None:
        """The model of the scores so far, None while there are too few; finalists do not count."""
        return self._model(self._candidates())

    def genotype(self) -> Genotype:
        """The genotype that was found.

        Raises:
            ValueError: if the search is not finished.
        """
        if len(self._results) < self.trainings:
            raise ValueError(
                f"the search is not finished: {len(self._results)} of {self.trainings} trainings"
            )
        if not self.finalists:
            return Genotype.from_choices(self._best(1)[0])
        finalists = [result for result in self.results if result.number >= self.candidates]
        return finalists[best_first(result.score for result in finalists)[0]].genotype

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The choices of the next trial, as keras-tuner asks for them."""
        if len(self._results) == self.trainings:
            return {"status": TrialStatus.STOPPED}
        number = self._next_number()
        if number is None:
            return {"status": TrialStatus.IDLE}
        values = dict(zip(CHOICES, self._choices(number), strict=True))
        values |= {NUMBER: number, EPOCHS: self.epochs_of(number)}
        return {"status": TrialStatus.RUNNING, "values": values}

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Any:
        """Takes a training's figures.

        Raises:
            keras_tuner.errors.FatalValueError: if one is missing or impossible.
        """
        self._check_measures(trial_id, metrics)
        self._register_measures(self.trials[trial_id])
        return super().update_trial(trial_id, metrics, step)

    def score_trial(self, trial: Trial) -> None:
        """Sets the trial's score to z = A_C + beta_P (A_P - A_C), Eq. 1.

        A is the validation accuracy, or minus the validation loss. An override gives another score;
        it must follow from the trial's choices and figures alone, since a search that goes on
        scores its finished trials again.
        """
        measures = self._reported(trial)
        sign = -1 if self.score == "loss" else 1
        child, parent = (
            sign * measures.get(f"{precision}_{self.score}", 0.0) for precision in PRECISIONS
        )
        trial.score = child_parent_score(child, parent, self.beta) if self.beta else child

    def end_trial(self, trial: Trial) -> None:
        """Records a finished training.

        Raises:
            keras_tuner.errors.FatalRuntimeError: if the trial did not complete.
            keras_tuner.errors.FatalValueError: if the trial is not an ongoing one, a figure is
                missing, or its score is not finite.
        """
        # All that can be refused is refused here: an error inside the base class's method would
        # leave its lock taken.
        if all(trial.trial_id != ongoing.trial_id for ongoing in self.ongoing_trials.values()):
            raise FatalValueError(f"trial {trial.trial_id} is not ongoing and cannot end")
        if trial.status != TrialStatus.COMPLETED:
            reason = ((trial.message or "").strip() or "no message").splitlines()[-1]
            raise FatalRuntimeError(f"trial {trial.trial_id} ended as {trial.status}: {reason}")
        known = self.trials[trial.trial_id]
        self._record(known, predicted=self._predicted(known.hyperparameters.values[NUMBER]))
        super().end_trial(trial)

    def _next_number(self):
        """The first training of this phase and round that is neither done nor ongoing, or None."""
        ongoing = {trial.hyperparameters.values[NUMBER] for trial in self.ongoing_trials.values()}
        left = [number for number in range(self.trainings) if number not in self._results]
        for number in left:
            if self.place(number) != self.place(left[0]):
                return None
            if number not in ongoing:
                return number
        return None

    def _choices(self, number):
        """The 28 operations of a training all of whose predecessors are done."""
        phase, round_index = self.place(number)
        if (phase, round_index) not in self._planned:
            self._planned[phase, round_index] = self._plan(phase, round_index)
        first = {"random": 0, "final": self.candidates}.get(
            phase, self.first + (round_index - 1) * self.proposals
        )
        return self._planned[phase, round_index][number - first]

    def _plan(self, phase, round_index):
        """The choices of all trainings of a round."""
        if phase == "final":
            return self._best(self.finalists)
        if phase == "random":
            drawn = first_design(self._space, count=self.first, seed=self.seed)
        else:
            drawn = self._propose(round_index)
        return [tuple(OPERATIONS[index] for index in choices) for choices in drawn]

    def _propose(self, round_index):
        """The genotypes of a round, as positions in `OPERATIONS`."""
        results = self._before(round_index)
        return propose(
            self._space,
            _fit(results),
            [result.genotype for result in results],
            [result.score for result in results],
            count=self.proposals,
            seed=[self.seed, round_index],
        )

    def _model(self, results):
        """The model of some trainings' scores; None where there are too few."""
        return _fit(results) if len(results) >= LEAST else None

    def _candidates(self):
        return [result for result in self.results if result.number < self.candidates]

    def _before(self, round_index):
        """The finished trainings before a round."""
        last = self.first + (round_index - 1) * self.proposals
        return [result for result in self._candidates() if result.number < last]

    def _best(self, count):
        """The choices of the best candidates by score and prediction."""
        results = self._candidates()
        scores, model = [result.score for result in results], self._model(results)
        if model is not None:
            scores = standings(model, [result.genotype for result in results], scores)
        return [results[place].choices for place in best_first(scores)[:count]]

    def _predicted(self, number):
        """The score that the model expects of a training that was planned by it."""
        phase, round_index = self.place(number)
        results = self._before(round_index) if phase == "guided" else self._candidates()
        model = None if phase == "random" else self._model(results)
        if model is None:
            return None
        genotype = Genotype.from_choices(self._choices(number))
        return float(model.predict([genotype])[0])

    def _record(self, trial, *, predicted):
        """Scores a training and adds its result: the one place where the search moves on."""
        measures = self._reported(trial)
        self.score_trial(trial)
        if trial.score is None or not math.isfinite(trial.score):
            raise FatalValueError(
                f"trial {trial.trial_id} must have a finite score, received: {trial.score}"
            )
        values = trial.hyperparameters.values
        number, choices = values[NUMBER], tuple(values[name] for name in CHOICES)
        self._results[number] = Result(number, choices, measures, float(trial.score), predicted)

    def _measures(self):
        """The names of what a training reports, each with whether more is better."""
        return {
            f"{precision}_{measure}": direction
            for precision in self.precisions
            for measure, direction in (("loss", "min"), ("accuracy", "max"))
        }

    def _check_measures(self, trial_id, measures):
        for name in self._measures():
            value, most = measures.get(name), 1 if name.endswith("accuracy") else math.inf
            if value is None or not (0 <= value <= most and math.isfinite(value)):
                words = "in [0, 1]" if most == 1 else "that is finite and not negative"
                raise FatalValueError(
                    f"trial {trial_id} must report a {name} {words}, received: {value}"
                )

    def _register_measures(self, trial):
        """Says of each figure whether more is better, which keras-tuner would have to guess."""
        for name, direction in self._measures().items():
            if not trial.metrics.exists(name):
                trial.metrics.register(name, direction=direction)

    def _reported(self, trial):
        """The figures that a trial reported."""
        measures = {
            name: float(trial.metrics.get_last_value(name))
            for name in self._measures()
            if trial.metrics.exists(name)
        }
        self._check_measures(trial.trial_id, measures)
        return measures

    def _settings(self):
        return {
            "first": self.first,
            "rounds": self.rounds,
            "proposals": self.proposals,
            "finalists": self.finalists,
            "epochs": self.epochs,
            "finalist_epochs": self.finalist_epochs,
            "beta": self.beta,
            "score": self.score,
            "operations": list(self.operations),
            "inputs": self.inputs,
            "seed": self.seed,
        }

    def get_state(self) -> dict[str, Any]:
        """The settings and the finished trainings, each with its choices, figures, prediction."""
        results = [
            {
                "number": result.number,
                "choices": list(result.choices),
                "measures": dict(result.measures),
                "predicted": result.predicted,
            }
            for result in self._results.values()
        ]
        return {**self._settings(), "results": results}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes back to just after the last finished training of `state`.

        Raises:
            ValueError: if `state` is not such a state, or that of a search with other settings.
        """
        for name, value in self._settings().items():
            if name not in state:
                raise ValueError(f"the saved search has no setting {name!r}")
            if state[name] != value:
                raise ValueError(
                    f"the saved search has {name} = {state[name]!r}, this one {value!r}: "
                    "go on with the saved setting, or start afresh elsewhere"
                )
        results = state.get("results")
        if not isinstance(results, list) or len(results) > self.trainings:
            raise ValueError(f"the saved search needs a list of at most {self.trainings} results")
        self._start()
        for result in results:
            self._replay(result)

    def _replay(self, result):
        """Rebuilds a finished trial as `create_trial`, `update_trial` and `end_trial` left it."""
        trial_id = f"{len(self._results):0{len(str(self.max_trials))}d}"
        number, choices = result["number"], Genotype.from_choices(result["choices"]).choices
        if number in self._results or number not in range(self.trainings):
            raise ValueError(f"the saved search has a second or unknown training {number!r}")
        self._check_measures(trial_id, result["measures"])
        trial = Trial(self.get_space(), trial_id, TrialStatus.COMPLETED)
        trial.hyperparameters.values = dict(zip(CHOICES, choices, strict=True))
        trial.hyperparameters.values |= {NUMBER: number, EPOCHS: self.epochs_of(number)}
        self._register_measures(trial)
        for name in self._measures():
            trial.metrics.update(name, result["measures"][name])
        self._record(trial, predicted=result["predicted"])
        self.trials[trial_id] = trial
        self.start_order.append(trial_id)
        self.end_order.append(trial_id)

    def save(self) -> None:
        """Writes `oracle.json`, atomically."""
        write_json(self._get_oracle_fname(), self.get_state())

    def reload(self) -> None:
        """Reads `oracle.json` alone: keras-tuner's trial files may have been cut off by a kill.

        Raises:
            ValueError: naming the file, if it is missing, damaged or has other settings.
        """
        path = self._get_oracle_fname()
        try:
            with open(path, encoding="utf-8") as file:
                self.set_state(json.load(file))
        except (OSError, TypeError, KeyError, ValueError, FatalValueError) as error:
            raise ValueError(f"cannot go on with the search in {path}: {error}") from None


def left_out(results: Sequence[Result]) -> list[float | None]:
    """What the model predicts of each training when it is fitted to all others, or None."""
    if len(results) < LEAST:
        return [None] * len(results)
    return np.asarray(_fit(results).left_out).tolist()


def _fit(results):
    return Surrogate([result.genotype for result in results], [result.score for result in results])
