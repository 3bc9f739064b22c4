"""The log of a search, `search.csv`: a row per architecture, in the order sampled. No TensorFlow.

A search with PC-DARTS samples none: its log has a row per epoch. A guided search trains each of its
architectures from scratch: its log has a row per training.

References:
    CP-NAS, Algorithm 1 and Eq. 1.
"""

import csv
import itertools
import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cpnas_tf.files import write_csv
from cpnas_tf.genotypes import CHOICES, OPERATIONS

POSITION = ("stage", "round", "sample")
SCORES = ("child_accuracy", "parent_accuracy", "z")
COLUMNS = (*POSITION, *CHOICES, *SCORES, "seconds")
# What PC-DARTS measures in an epoch, on the images of the weights' steps and of the architecture's.
MEASURES = ("loss", "accuracy", "architecture_loss", "architecture_accuracy")
EPOCH_COLUMNS = ("epoch", *CHOICES, *MEASURES, "seconds")
# What a guided search does, and what it measures of a training. The parent's figures are missing
# where none is trained; a finalist has no `left_out`, and what was drawn at random no `predicted`.
PHASES = ("random", "guided", "final")
TRAINING_MEASURES = ("child_loss", "child_accuracy", "parent_loss", "parent_accuracy")
_OPTIONAL = (*TRAINING_MEASURES[2:], "predicted", "left_out")
_TRAINING = ("training", "phase", "round", "epochs")
TRAINING_SCORES = ("score", "predicted", "left_out")
TRAINING_COLUMNS = (*_TRAINING, *CHOICES, *TRAINING_MEASURES, *TRAINING_SCORES, "seconds")


def write(path: str | os.PathLike[str], results: Iterable[Any], seconds: Iterable[float]) -> None:
    """Writes the log, atomically.

    Args:
        path: of `search.csv`.
        results: the finished trials' `oracle.Result`s, in the order sampled.
        seconds: how long each of them took.
    """
    rows = [
        {
            **{name: getattr(result, name) for name in (*POSITION, *SCORES)},
            **dict(zip(CHOICES, result.choices, strict=True)),
            "seconds": f"{duration:.3f}",
        }
        for result, duration in zip(results, seconds, strict=True)
    ]
    write_csv(path, rows, columns=COLUMNS)


def write_epochs(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the log of a search with PC-DARTS, atomically.

    Args:
        path: of `search.csv`.
        rows: a dict per epoch: its number `epoch`, counted from 1; `choices`, the 28 operations of
            the genotype that would be derived after it; the `MEASURES`, None where there is none;
            `seconds`.
    """
    table = [
        {
            **{name: row[name] for name in ("epoch", *MEASURES)},
            **dict(zip(CHOICES, row["choices"], strict=True)),
            "seconds": f"{row['seconds']:.3f}",
        }
        for row in rows
    ]
    write_csv(path, table, columns=EPOCH_COLUMNS)


def write_trainings(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the log of a guided search, atomically.

    Args:
        path: of `search.csv`.
        rows: a dict per training, as `read` gives it.
    """
    table = [{**row, "seconds": f"{row['seconds']:.3f}"} for row in rows]
    write_csv(path, table, columns=TRAINING_COLUMNS)


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Reads the log of a search of any kind, finished or not.

    Returns:
        A list with a dict per row. The keys of a sampled architecture are `COLUMNS`: `stage`,
        `round` and `sample` are integers; the 28 `CHOICES` operations' names; `child_accuracy` and
        `parent_accuracy` (in [0, 1]), `z` and `seconds` floats; `parent_accuracy` is None where no
        parent was trained. Those of an epoch of PC-DARTS are
        `EPOCH_COLUMNS`: `epoch` is an integer; the 28 `CHOICES` operations' names; the `MEASURES`
        floats, the architecture's None in the warm-up; `seconds` a float. Those of a training of a
        guided search are `TRAINING_COLUMNS`: `training` (from 1), `round` (from 0) and `epochs` are
        integers, `phase` is one of `PHASES`; losses, accuracies, `score` (the more the better), the
        model's `predicted` score before the training and by all others (`left_out`) are floats, or
        None where there is none. See `kind_of`.

    Raises:
        ValueError: naming the file and line, if it is missing, empty or not such a log.
    """
    rows, line = [], 1
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.reader(file, strict=True)
            kind = _kind_by_header(next(reader, ()))
            for fields in reader:
                line = reader.line_num
                if len(fields) != len(kind.columns):
                    raise ValueError(f"expected {len(kind.columns)} values, received {len(fields)}")
                rows.append(kind.parse(dict(zip(kind.columns, fields, strict=True))))
                last = [tuple(row[name] for name in kind.position) for row in rows[-2:]]
                if len(last) == 1 and kind.first not in (None, last[0]):
                    begin = ", ".join(map("{} {}".format, kind.position, kind.first))
                    raise ValueError(f"the first row must be {begin}: rows are missing")
                if len(last) == 2 and last[0] >= last[1]:
                    raise ValueError(f"{', '.join(kind.position)} must increase from line to line")
    except FileNotFoundError:
        raise ValueError(f"search log not found: {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read the search log {path}: {error.strerror}") from None
    except (csv.Error, ValueError) as error:
        raise ValueError(f"cannot read the search log {path}, line {line}: {error}") from None
    if not rows:
        raise ValueError(f"the search log {path} holds no row yet")
    return rows


def kind_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the rows of a log are: the name of their kind in `KINDS`."""
    return next(name for name, kind in KINDS.items() if kind.position[0] in rows[0])


def _kind_by_header(fields):
    """The kind of a log with these columns; of broken ones the most alike says what is wrong."""
    kind = max(KINDS.values(), key=lambda kind: len(set(kind.columns) & set(fields)))
    _check_header(fields, kind.columns)
    return kind


def _check_header(fields, columns):
    if tuple(fields) != columns:
        first, last = (columns.index(CHOICES[end]) for end in (0, -1))
        names = (*columns[: first + 1], "...", *columns[last:])
        raise ValueError(f"expected {len(columns)} columns: {', '.join(names)}")


def _parse_row(row):
    """The values of an architecture's line."""
    _check_choices(row)
    for name in POSITION:
        row[name] = int(row[name])
    if not 0 <= row["stage"] < len(OPERATIONS) - 1:
        raise ValueError(f"stage must be 0 to {len(OPERATIONS) - 2}, received {row['stage']}")
    known = [name for name in SCORES if row[name] or name != "parent_accuracy"]
    numbers = {name: _number(row, name) for name in (*known, "seconds")}
    return row | dict.fromkeys(SCORES) | numbers


def _parse_epoch(row):
    """The values of an epoch's line."""
    _check_choices(row)
    row["epoch"] = int(row["epoch"])
    known = [name for name in MEASURES if row[name] or not name.startswith("architecture")]
    numbers = {name: _number(row, name) for name in (*known, "seconds")}
    return row | dict.fromkeys(MEASURES) | numbers


def _parse_training(row):
    """The values of a training's line."""
    _check_choices(row)
    if row["phase"] not in PHASES:
        raise ValueError(f"phase must be one of {', '.join(PHASES)}, received {row['phase']!r}")
    row |= {name: int(row[name]) for name in ("training", "round", "epochs")}
    names = (*TRAINING_MEASURES, *TRAINING_SCORES)
    known = [name for name in names if row[name] or name not in _OPTIONAL]
    numbers = {name: _number(row, name) for name in (*known, "seconds")}
    return row | dict.fromkeys(names) | numbers


def _check_choices(row):
    for name in CHOICES:
        if row[name] not in OPERATIONS:
            raise ValueError(f"unknown operation {row[name]!r} in column {name}")


def _number(row, name):
    value = float(row[name])
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, received {value}")
    return value


class Kind(NamedTuple):
    """A kind of log.

    Attributes:
        columns: their names.
        position: those that increase from row to row; the first is no other kind's.
        first: the position of the first row, or None if it can be any.
        parse: function from the texts of a row to its values, both by column.
    """

    columns: tuple[str, ...]
    position: tuple[str, ...]
    first: tuple[int, ...] | None
    parse: Callable[[dict], dict]


# What a row is.
KINDS = {
    "architectures": Kind(COLUMNS, POSITION, (0, 0, 0), _parse_row),
    "epochs": Kind(EPOCH_COLUMNS, ("epoch",), (1,), _parse_epoch),
    # Several tuners may finish another training first.
    "trainings": Kind(TRAINING_COLUMNS, ("training",), None, _parse_training),
}


def has_parents(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each architecture's parent was trained, and not its child alone."""
    return all(row["parent_accuracy"] is not None for row in rows)


def initial_operations(rows: Sequence[Mapping[str, Any]]) -> int:
    """K at the start of the search: as many as its first round samples, once that is complete."""
    first_round = sum(row["stage"] == row["round"] == 0 for row in rows)
    return first_round if first_round < len(rows) else len(OPERATIONS)


def by_stage(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """The rows of each stage: `{stage: rows}`."""
    return {
        stage: list(group) for stage, group in itertools.groupby(rows, key=lambda row: row["stage"])
    }


def remaining_operations(rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, set[str]]]:
    """The operations that each edge still has, a stage of the search at a time.

    A round samples every remaining operation of every edge once (Algorithm 1), so what a stage
    starts with is known when its first round is complete.

    Args:
        rows: as `read` gives them.

    Returns:
        `{stage: {choice: set of operations}}` for each stage that has a complete round.
    """
    operations = initial_operations(rows)
    return {
        stage: {name: {row[name] for row in group} for name in CHOICES}
        for stage, group in by_stage(rows).items()
        if len(group) >= operations - stage
    }


def survival(rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, int]]:
    """How many of the 28 edges still hold each operation: `{stage: {operation: edges}}`.

    Args:
        rows: as `read` gives them; the stages are those of `remaining_operations`.
    """
    return {
        stage: {name: sum(name in left for left in edges.values()) for name in OPERATIONS}
        for stage, edges in remaining_operations(rows).items()
    }


def lifetimes(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """How many stages each edge was known to have each operation: `{choice: {operation: stages}}`.

    Args:
        rows: as `read` gives them; the stages are those of `remaining_operations`.
    """
    stages = remaining_operations(rows).values()
    return {
        choice: {name: sum(name in edges[choice] for edges in stages) for name in OPERATIONS}
        for choice in CHOICES
    }


def mean_scores(rows: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """The mean z of each operation, over all edges and architectures of a stage that sampled it.

    Args:
        rows: as `read` gives them.

    Returns:
        `{stage: {operation: z}}`; an operation that no edge has any more is left out.
    """
    scores: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        stage = scores.setdefault(row["stage"], {})
        for choice in CHOICES:
            stage.setdefault(row[choice], []).append(row["z"])
    return {
        stage: {name: statistics.fmean(values) for name, values in names.items()}
        for stage, names in scores.items()
    }


def totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What some rows come to: `architectures`, the means of both accuracies, and all `seconds`.

    The mean of the parents' is None where there are none, see `has_parents`.
    """
    known = SCORES[:2] if has_parents(rows) else SCORES[:1]
    return {
        "architectures": len(rows),
        **dict.fromkeys(SCORES[:2]),
        **{name: statistics.fmean(row[name] for row in rows) for name in known},
        "seconds": sum(row["seconds"] for row in rows),
    }


def by_round(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    """The trainings of each round of a guided search: 0 is the first design, the last the finals'.

    Args:
        rows: as `read` gives them.
    """
    return {
        number: list(group)
        for number, group in itertools.groupby(rows, key=lambda row: row["round"])
    }


def round_name(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a round of a guided search is called, from its trainings."""
    phase = rows[0]["phase"]
    return f"guided, round {rows[0]['round']}" if phase == "guided" else phase
