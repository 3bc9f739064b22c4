"""Algorithm 1 of CP-NAS as a keras-tuner `Oracle`: sampling, scoring, pruning. No TensorFlow here.

References:
    CP-NAS, section 2.3, Eqs. 1 and 2, Algorithm 1.
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.errors import FatalRuntimeError, FatalValueError

from cpnas_tf.files import write_json
from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.search.surrogate import LEAST, Surrogate
from cpnas_tf.settings import SettingError, checked

ACCURACIES = ("child_accuracy", "parent_accuracy")


class Result(NamedTuple):
    """One finished trial, in the order of `search_log.COLUMNS`.

    Attributes:
        stage: how many operations each edge had lost, from 0.
        round: t of Algorithm 1, from 0.
        sample: e of Algorithm 1, from 0.
        choices: the 28 sampled operations, ordered as `CHOICES`.
        child_accuracy: A_C in [0, 1].
        parent_accuracy: A_P in [0, 1], or None where no parent was trained.
        z: the trial's score, Eq. 1.
    """

    stage: int
    round: int
    sample: int
    choices: tuple[str, ...]
    child_accuracy: float
    parent_accuracy: float | None
    z: float


def child_parent_score(child_accuracy: float, parent_accuracy: float, beta: float) -> float:
    """The score of a sampled architecture, z = A_C + beta_P (A_P - A_C).

    `beta` = 0 looks at the child alone (the paper's BNAS† baseline), 1 at the parent alone.

    The printed equation contradicts the paper's text, "when beta_P becomes larger, CP-NAS tends to
    select fewer convolutional operations": with the printed sign searches find more of them. The
    loss A_P - A_C as a penalty, z = A_C - beta_P (A_P - A_C), does what the text says. Decision:
    the printed sign; a negative `beta` is the other one.

    References:
        CP-NAS, Eq. 1.
    """
    return child_accuracy + beta * (parent_accuracy - child_accuracy)


def evaluation_indicator(mean_scores: Sequence[float]) -> np.ndarray:
    """The share of each operation left on one edge, e(o_k) = exp(zbar_k) / sum_k' exp(zbar_k').

    Args:
        mean_scores: zbar of the edge's operations, `[operations]`.

    Returns:
        A float array `[operations]` that sums to 1, finite for any finite scores.

    References:
        CP-NAS, Eq. 2.
    """
    scores = np.asarray(mean_scores, dtype=np.float64)
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()


def sampling_orders(
    remaining: Sequence[Sequence[str]],
    *,
    seed: int,
    stage: int,
    round_index: int,
    steps: tuple[int, int] | None = None,
) -> tuple[tuple[str, ...], ...]:
    """The order in which one round goes through the operations left on each edge.

    Sampling without replacement: sample e takes position e of every edge's own permutation, so that
    each edge sees each of its operations exactly once a round. The permutations depend on the
    arguments alone, hence a search that goes on needs no saved generator state.

    Args:
        remaining: for each edge, the tuple of operations that are left.
        steps: which steps the order is for instead of the round's epochs: `(sample, group)`.

    Returns:
        For each edge, a tuple of the same operations in random order.
    """
    # Zeros at the end would not change a seed.
    more = () if steps is None else (1 + number for number in steps)
    generator = np.random.default_rng([seed, stage, round_index, *more])
    return tuple(tuple(generator.permutation(names).tolist()) for names in remaining)


def worst_operation(mean_scores: Mapping[str, float], *, allow_none: bool = True) -> str:
    """The operation that an edge drops: the one with the smallest e of Eq. 2.

    Decision: zbar is compared instead of e, which increases with it: the order is the same, and it
    does not drown when the exponentials of a large beta_P underflow.
    Decision: of tied operations the first in `OPERATIONS` goes, so `none` and then the operations
    without weights before the convolutions.
    Decision: without `allow_none`, an edge with two operations left drops `none` if it is one of
    them. Until then `none` competes as the others do, so that the search is the same up to its last
    pruning, and only an edge that would have ended with `none` ends with another operation.

    Args:
        mean_scores: operation -> zbar of one edge, ordered as `OPERATIONS`.
        allow_none: whether `none` may be the edge's last operation.
    """
    if not allow_none and len(mean_scores) == 2 and "none" in mean_scores:
        return "none"
    return min(mean_scores, key=lambda name: mean_scores[name])


def mean_zbars(
    results: Sequence[Result], remaining: Sequence[Sequence[str]]
) -> list[dict[str, float]]:
    """The zbar of Algorithm 1: the mean z of the last stage's architectures with the operation.

    Args:
        results: the finished trials, the last of them those of the stage.
        remaining: for each edge, the operations that it has in this stage.

    Returns:
        For each edge a dict, operation -> zbar, ordered as `remaining`.
    """
    stage = [result for result in results if result.stage == results[-1].stage]
    return [
        {name: fmean(one.z for one in stage if one.choices[edge] == name) for name in names}
        for edge, names in enumerate(remaining)
    ]


def additive_zbars(
    results: Sequence[Result], remaining: Sequence[Sequence[str]]
) -> list[dict[str, float]]:
    """A zbar by a model of z that adds up what each operation is worth on each edge.

    A mean over T architectures also has what their 27 other operations are worth. The model, a
    ridge regression, tells them apart, and shrinks what an edge's few scores say to what the
    operation is worth in its cell type. Decision: it is fitted to all stages, each z minus its
    stage's mean, for in the last stages there are fewer architectures than choices.

    Args, Returns:
        As `mean_zbars`.

    References:
        `search.surrogate`.
    """
    stages = itertools.groupby(results, key=lambda result: result.stage)
    levels = {stage: fmean(result.z for result in group) for stage, group in stages}
    model = Surrogate(
        [Genotype.from_choices(result.choices) for result in results],
        [result.z - levels[result.stage] for result in results],
    )
    level = levels[results[-1].stage]
    return [
        {name: level + float(model.estimates[edge, OPERATIONS.index(name)]) for name in names}
        for edge, names in enumerate(remaining)
    ]


_ZBARS = {"mean": mean_zbars, "additive": additive_zbars}  # by the names of INDICATORS


class ChildParentOracle(keras_tuner.Oracle):
    """Algorithm 1 of CP-NAS: which architecture to train next, and which operations to abandon.

    Every edge (i, j) starts with the same K operations O(i, j). While K > 1, a *stage*:

    1. for t = 1..T (*rounds*) and e = 1..K (*samples*), take one operation of every edge without
       replacement, train child and parent of that architecture for an epoch (a *trial*), and give
       z = A_C + beta_P (A_P - A_C) of their accuracies to all sampled operations (Eq. 1);
    2. zbar = mean of z over t, e(o_k) = softmax of zbar over the edge's operations (Eq. 2);
    3. every edge drops its operation of smallest e, and K = K - 1.

    A trial's hyperparameters are the 28 keras-tuner `Choice`s of `CHOICES`. It reports the metrics
    `child_accuracy` and `parent_accuracy`, once, and its score is z. With a beta_P of 0 the parent
    has no part in it and can be missing. Trials run one at a time and in order, since they share
    weights: while one is ongoing, another tuner is told to wait. An accuracy that is missing or not
    in [0, 1], or a trial that did not complete, ends the search with a
    `keras_tuner.errors.FatalError`, for Algorithm 1 has no place for a missing score.

    The whole state is the ordered list of finished trials' accuracies, from which all else follows.
    It is saved atomically in the project's `oracle.json`; a trial that was ongoing starts again.

    Args:
        rounds: T, at least 1.
        beta: beta_P, any finite number; 0 is the paper's BNAS† baseline.
        seed: of the sampling, at least 0.
        operations: the K operations each edge starts with, at least 2, in any order.
        allow_none: whether `none` may survive the search, see `worst_operation`.
        sampling: "epoch" trains a trial's architecture for its epoch, as the paper does; "step"
            trains another one in each step of the epoch, see `architecture_of_step`.
        indicator: what zbar of Eq. 2 is, see `mean_zbars` (the paper's) and `additive_zbars`.

    Raises:
        ValueError: if an argument is anything else.

    References:
        CP-NAS, section 2.3, Algorithm 1; T = 3, beta_P = 2 and K = 8 are those of section 3.

    Examples:
        >>> import cpnas_tf
        >>> oracle = cpnas_tf.ChildParentOracle(rounds=3, beta=2.0, seed=0)
        >>> oracle.architectures  # 3 (8 + 7 + ... + 2)
        105
        >>> oracle.remaining()[0]
        ('none', 'skip_connect', 'max_pool_3x3', 'avg_pool_3x3', 'sep_conv_3x3', ...)
    """

    @checked("search")
    def __init__(
        self,
        *,
        rounds: int = 3,
        beta: float = 2.0,
        seed: int = 0,
        operations: Sequence[str] = OPERATIONS,
        allow_none: bool = True,
        sampling: str = "epoch",
        indicator: str = "mean",
    ) -> None:
        if len(operations) < 2:
            raise SettingError(
                "operations", f"operations must be 2 or more, received: {operations!r}"
            )
        self.rounds = rounds
        self.beta = float(beta)
        self.operations = tuple(name for name in OPERATIONS if name in operations)
        self.allow_none = bool(allow_none)
        self.sampling = sampling
        self.indicator = indicator
        if indicator == "additive" and rounds * len(operations) < LEAST:
            raise SettingError(
                "indicator",
                f"indicator must be mean for fewer than {LEAST} architectures in the first stage, "
                f"received: {indicator!r} for {rounds * len(operations)}",
            )
        hyperparameters = keras_tuner.HyperParameters()
        for name in CHOICES:
            hyperparameters.Choice(name, list(self.operations))
        super().__init__(
            objective=keras_tuner.Objective("child_accuracy", "max"),
            max_trials=self.architectures,
            hyperparameters=hyperparameters,
            allow_new_entries=False,
        )
        self.seed = seed  # The base class takes 0 for "any seed".
        self.verbose = 0
        self._start()

    def _start(self):
        self.trials = {}
        self.ongoing_trials = {}
        self.start_order = []
        self.end_order = []
        self._results = []
        self._history = []
        self._remaining = (self.operations,) * len(CHOICES)

    @property
    def architectures(self) -> int:
        """The number of trials in the whole search, T (K + ... + 3 + 2)."""
        return self.rounds * sum(range(2, len(self.operations) + 1))

    @property
    def results(self) -> tuple[Result, ...]:
        """A `Result` for each finished trial, in order."""
        return tuple(self._results)

    @property
    def history(self) -> tuple[Any, ...]:
        """For each finished stage, 28 dicts: operation -> (zbar, e(o)), the dropped one too."""
        return tuple(self._history)

    def position(self, number: int) -> tuple[int, int, int]:
        """The (stage, round, sample) of trial `number`, all counted from 0.

        Raises:
            ValueError: if the search has no such trial.
        """
        if not 0 <= number < self.architectures:
            raise ValueError(
                f"a trial's number is in 0..{self.architectures - 1}, received: {number}"
            )
        stage, kept = 0, len(self.operations)
        while number >= self.rounds * kept:
            number -= self.rounds * kept
            stage, kept = stage + 1, kept - 1
        return stage, *divmod(number, kept)

    def remaining(self) -> tuple[tuple[str, ...], ...]:
        """The operations left on each of the 28 edges, ordered as `OPERATIONS`."""
        return self._remaining

    def architecture_of_step(self, step: int) -> Genotype:
        """The architecture that the next trial trains in a step of its epoch, counted from 0.

        With the sampling "step", K steps together train every operation that is left on every edge
        once, K being how many are left, in an order of their own. So a score says less about when
        its architecture was trained. The trial's own architecture is the one that is validated.

        References:
            FairNAS (Chu et al., 2021), section 3.2, for groups of steps without replacement.
        """
        if self.sampling == "epoch":
            return Genotype.from_choices(self._next_choices())
        stage, round_index, sample = self.position(len(self._results))
        group, place = divmod(step, len(self._remaining[0]))
        orders = sampling_orders(
            self._remaining,
            seed=self.seed,
            stage=stage,
            round_index=round_index,
            steps=(sample, group),
        )
        return Genotype.from_choices(order[place] for order in orders)

    def genotype(self) -> Genotype:
        """The architecture that was found: on each edge the one operation that is left.

        Raises:
            ValueError: if the search is not finished.
        """
        if len(self._results) < self.architectures:
            raise ValueError(
                f"the search is not finished: {len(self._results)} of {self.architectures} trials"
            )
        return Genotype.from_choices(name for (name,) in self._remaining)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The choices of the next trial, as keras-tuner asks for them."""
        if len(self._results) == self.architectures:
            return {"status": TrialStatus.STOPPED}
        if self.ongoing_trials:
            return {"status": TrialStatus.IDLE}
        values = dict(zip(CHOICES, self._next_choices(), strict=True))
        return {"status": TrialStatus.RUNNING, "values": values}

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Any:
        """Takes a trial's accuracies, of a beta_P of 0 the child's alone if there is no parent.

        Raises:
            keras_tuner.errors.FatalValueError: if one is missing or not in [0, 1].
        """
        self._check_accuracies(trial_id, metrics)
        _register_accuracies(self.trials[trial_id])
        known = {name: value for name, value in metrics.items() if value is not None}
        return super().update_trial(trial_id, known, step)

    def score_trial(self, trial: Trial) -> None:
        """Sets the trial's score, by which operations are abandoned, to z of Eq. 1.

        An override gives another score; it must follow from the trial's choices and accuracies
        alone, since a search that goes on scores its finished trials again.
        """
        child, parent = self._reported_accuracies(trial)
        trial.score = child_parent_score(child, child if parent is None else parent, self.beta)

    def end_trial(self, trial: Trial) -> None:
        """Records a finished trial; after the last one of a stage, every edge drops an operation.

        Raises:
            keras_tuner.errors.FatalRuntimeError: if the trial did not complete.
            keras_tuner.errors.FatalValueError: if the trial is not the ongoing one, an accuracy
                is missing, or its score is not finite.
        """
        # All that can be refused is refused here: an error inside the base class's method would
        # leave its lock taken.
        if all(trial.trial_id != ongoing.trial_id for ongoing in self.ongoing_trials.values()):
            raise FatalValueError(f"trial {trial.trial_id} is not ongoing and cannot end")
        if trial.status != TrialStatus.COMPLETED:
            reason = ((trial.message or "").strip() or "no message").splitlines()[-1]
            raise FatalRuntimeError(f"trial {trial.trial_id} ended as {trial.status}: {reason}")
        self._record(self.trials[trial.trial_id])
        super().end_trial(trial)

    def _next_choices(self):
        stage, round_index, sample = self.position(len(self._results))
        orders = sampling_orders(
            self._remaining, seed=self.seed, stage=stage, round_index=round_index
        )
        return tuple(order[sample] for order in orders)

    def _record(self, trial):
        """Scores the next trial and adds its result: the one place where the search moves on."""
        stage, round_index, sample = self.position(len(self._results))
        accuracies = self._reported_accuracies(trial)
        self.score_trial(trial)
        z = trial.score
        if z is None or not math.isfinite(z):
            raise FatalValueError(f"trial {trial.trial_id} must have a finite score, received: {z}")
        self._results.append(
            Result(stage, round_index, sample, self._next_choices(), *accuracies, float(z))
        )
        kept = len(self._remaining[0])
        if (round_index, sample) == (self.rounds - 1, kept - 1):
            self._prune()

    def _prune(self):
        """Evaluates the last stage and drops every edge's worst operation."""
        evaluations, remaining = [], []
        for zbars in _ZBARS[self.indicator](self._results, self._remaining):
            indicators = evaluation_indicator(list(zbars.values())).tolist()
            pairs = zip(zbars.values(), indicators, strict=True)
            evaluations.append(dict(zip(zbars, pairs, strict=True)))
            worst = worst_operation(zbars, allow_none=self.allow_none)
            remaining.append(tuple(name for name in zbars if name != worst))
        self._history.append(tuple(evaluations))
        self._remaining = tuple(remaining)

    def _check_accuracies(self, trial_id, accuracies):
        for name in ACCURACIES:
            value = accuracies.get(name)
            if value is None and name == "parent_accuracy" and not self.beta:
                continue
            if value is None or not 0 <= value <= 1:
                raise FatalValueError(
                    f"trial {trial_id} must report a {name} in [0, 1], received: {value}"
                )

    def _reported_accuracies(self, trial):
        """The pair (A_C, A_P) that a trial reported; A_P is None where there is no parent."""
        accuracies = {
            name: trial.metrics.get_last_value(name)
            for name in ACCURACIES
            if trial.metrics.exists(name)
        }
        self._check_accuracies(trial.trial_id, accuracies)
        values = map(accuracies.get, ACCURACIES)
        return tuple(None if value is None else float(value) for value in values)

    def _settings(self):
        return {
            "rounds": self.rounds,
            "beta": self.beta,
            "seed": self.seed,
            "operations": list(self.operations),
            "allow_none": self.allow_none,
            "sampling": self.sampling,
            "indicator": self.indicator,
        }

    def get_state(self) -> dict[str, Any]:
        """The settings and the finished trials' accuracies, `[[A_C, A_P or None], ...]`."""
        results = [[result.child_accuracy, result.parent_accuracy] for result in self._results]
        return {**self._settings(), "results": results}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes back to just after the last finished trial of `state`.

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
        if not isinstance(results, list) or len(results) > self.architectures:
            raise ValueError(
                f"the saved search needs a list of at most {self.architectures} results"
            )
        self._start()
        for accuracies in results:
            self._replay(accuracies)

    def _replay(self, accuracies):
        """Rebuilds a finished trial as `create_trial`, `update_trial` and `end_trial` left it."""
        trial_id = f"{len(self._results):0{len(str(self.max_trials))}d}"
        metrics = dict(zip(ACCURACIES, accuracies, strict=True))
        self._check_accuracies(trial_id, metrics)
        trial = Trial(self.get_space(), trial_id, TrialStatus.COMPLETED)
        trial.hyperparameters.values = dict(zip(CHOICES, self._next_choices(), strict=True))
        _register_accuracies(trial)
        for name, value in metrics.items():
            if value is not None:
                trial.metrics.update(name, value)
        self._record(trial)
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
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"cannot go on with the search in {path}: {error}") from None


def _register_accuracies(trial):
    """Says that more is better, where keras-tuner would take the parent's accuracy for a loss."""
    for name in ACCURACIES:
        if not trial.metrics.exists(name):
            trial.metrics.register(name, direction="max")
