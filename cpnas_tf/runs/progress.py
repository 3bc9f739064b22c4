"""What a user sees of a run: lines of progress, a search's plan and its summary. No TensorFlow."""

from __future__ import annotations

import contextlib
import datetime
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cpnas_tf.catalogue import PRECISIONS
from cpnas_tf.runs import search_log


def show(text: str, *, end: str = "\n") -> None:
    """Writes on standard output if it takes anything: no line is worth the run that it tells of.

    Nothing happens where standard output is missing, closed, full or no longer read. See `write`.
    """
    with contextlib.suppress(Exception):  # whatever a notebook's or a user's stream may raise
        write(text, end=end)


def write(text: str, *, end: str = "\n") -> None:
    """Writes on standard output, with question marks for the characters that it cannot encode.

    Raises:
        OSError: if standard output takes no more, such as on a full disk.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), end=end, flush=True)


def check_verbose(verbose: int | str) -> int:
    """What `verbose` means here: 0, 1 or 2, see `Progress`.

    Raises:
        ValueError: if it is none of these, nor "auto".
    """
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f"verbose must be 'auto', 0, 1 or 2, received: {verbose!r}")
    return (1 if _is_terminal() else 2) if verbose == "auto" else int(verbose)


def _is_terminal():
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # it is None, of someone else's making, or closed
        return False


class Progress:
    """A line per architecture or epoch, and on a terminal a moving one within it.

    Args:
        total: how many the whole run has.
        done: how many of them are done already.
        unit: what they are.
        verbose: as of Keras's `fit`: 0 shows nothing, 2 a line per architecture or epoch, 1 a
            moving line as well; "auto" is 1 on a terminal and 2 elsewhere.

    Raises:
        ValueError: if `verbose` is another value.
    """

    def __init__(
        self, total: int, done: int, unit: str = "architecture", *, verbose: int | str = "auto"
    ) -> None:
        self._total, self._done, self._unit = total, done, unit
        self._verbose = check_verbose(verbose)
        self._since, self._until_then = time.monotonic(), float(done)  # where `left` measures from
        self._has_stepped = self._has_finished = False

    def step(self, number: int, step: int, steps: int, **measures: Any) -> None:
        """Shows at which step architecture or epoch `number` is, all counted from 0.

        Args:
            number, step, steps: where it is.
            measures: numbers to show beside it by name; they are only read where they are shown.
        """
        if not self._has_stepped and step + 1 < steps:
            self._since, self._until_then = time.monotonic(), number + (step + 1) / steps
        self._has_stepped = True
        if self._verbose == 1:
            shown = "".join(f"  {name} {float(value):.4f}" for name, value in measures.items())
            show(f"\r{self._unit} {number + 1}: step {step + 1}/{steps}{shown}", end="")

    def line(self, text: str) -> None:
        """Shows a line, in the place of the moving one."""
        if self._verbose:
            show(f"\r{text}" if self._verbose == 1 else text)

    def left(self, done: int) -> float:
        """The seconds that are left when so many are done, to be called after each one.

        A process traces in its first step and again when it first validates. As soon as there is
        more to measure, neither counts for the pace.
        """
        now = time.monotonic()
        pace = (now - self._since) / (done - self._until_then)
        if not self._has_finished:
            self._since, self._until_then, self._has_finished = now, float(done), True
        return pace * (self._total - done)

    def finish(self, text: str, *, images: int, seconds: float) -> None:
        """Shows the line of an architecture or epoch of a search.

        Args:
            text: what came out.
            images: that it was trained on.
            seconds: how long it took.
        """
        self._done += 1
        self.line(
            f"[{self._done:3d}/{self._total}] {text}  "
            f"{images / seconds:6.0f} images/s  ETA {duration(self.left(self._done))}"
        )


def result_text(result: Any) -> str:
    """The place and the accuracies of an architecture, an `oracle.Result`."""
    text = f"stage {result.stage} round {result.round} sample {result.sample}"
    for who in PRECISIONS:
        accuracy = getattr(result, f"{who}_accuracy")
        if accuracy is not None:
            text += f"  {who} {accuracy:6.2%}"
    return text


def epoch_text(row: Mapping[str, Any]) -> str:
    """The accuracies of an epoch of PC-DARTS, see `search_log.write_epochs`."""
    accuracy = row["architecture_accuracy"]
    architecture = "warm-up" if accuracy is None else f"{accuracy:7.2%}"
    return f"weights {row['accuracy']:6.2%}  architecture {architecture}"


def training_text(row: Mapping[str, Any]) -> str:
    """What a training of a guided search came to, see `search_log.write_trainings`."""
    names = [name for name in ("child", "parent") if row[f"{name}_accuracy"] is not None]
    accuracies = "".join(f"  {name} {row[f'{name}_accuracy']:6.2%}" for name in names)
    predicted = "" if row["predicted"] is None else f" (predicted {row['predicted']:.4f})"
    place = f"{row['phase']} {row['round']}" if row["phase"] == "guided" else row["phase"]
    return f"{place:<9}{accuracies}  score {row['score']:.4f}{predicted}"


def duration(seconds: float) -> str:
    """Seconds as days, hours, minutes and seconds, such as `2 days, 5:00:00`."""
    return str(datetime.timedelta(seconds=round(seconds)))


def text_table(rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A table as text, each column as wide as its longest cell.

    Args:
        rows: of texts, all of one length, the headers first.
        left: how many columns are aligned to the left; the others are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    marks = ["<" if number < left else ">" for number in range(len(widths))]
    form = "  ".join(f"{{:{mark}{width}}}" for mark, width in zip(marks, widths, strict=True))
    return "\n".join(form.format(*row).rstrip() for row in rows)


def plan(
    *,
    operations: int,
    rounds: int,
    images: int,
    estimate: Mapping[str, Any],
    precisions: Sequence[str] = PRECISIONS,
) -> str:
    """What a search is going to do and to cost, as text.

    Args:
        operations: K at the start.
        rounds: T.
        images: that an architecture is trained on.
        estimate: as `Pair.estimate` gives it.
        precisions: of the networks that are trained.
    """
    kept = range(operations, 1, -1)
    stages = [*enumerate(kept), ("total", "")]
    counts = [rounds * left for left in (*kept, sum(kept))]
    lines = [
        (str(stage), str(left), str(count), f"{count * images:,}")
        for (stage, left), count in zip(stages, counts, strict=True)
    ]
    return "\n".join(
        [
            text_table([("stage", "operations per edge", "architectures", "images"), *lines]),
            f"Each image is seen by a {' and by a '.join(precisions)}. Measured now: the first "
            f"step {estimate['first_step_seconds']:.1f} s, each further one "
            f"{estimate['step_seconds']:.3f} s, the validation of an architecture "
            f"{estimate['validation_seconds']:.2f} s.",
            _estimated(estimate),
        ]
    )


def plan_epochs(
    *, epochs: int, warmup_epochs: int, images: int, estimate: Mapping[str, Any]
) -> str:
    """What a search with PC-DARTS is going to do and to cost, as text.

    Args:
        epochs: of the whole search.
        warmup_epochs: those that train the weights alone.
        images: that it trains on, in all epochs.
        estimate: as `PCDarts.plan` measures it.
    """
    return (
        f"{epochs} epochs on {images:,} images in all, the first {warmup_epochs} of the weights "
        "alone.\nMeasured now: the first step "
        f"{estimate['first_step_seconds']:.1f} s, each further one "
        f"{estimate['warmup_step_seconds']:.3f} s in the warm-up and "
        f"{estimate['step_seconds']:.3f} s after it.\n" + _estimated(estimate)
    )


def plan_trainings(
    phases: Sequence[tuple[str, int, int]],
    *,
    images: int,
    precisions: Sequence[str],
    estimate: Mapping[str, Any],
) -> str:
    """What a guided search is going to do and to cost, as text.

    Args:
        phases: the name of each phase, how many trainings it has, and their epochs.
        images: of an epoch.
        precisions: that are trained.
        estimate: as `Trainer.estimate` gives it.
    """
    counts = [(name, count, count * epochs * images) for name, count, epochs in phases]
    counts.append(("total", *(sum(column) for column in list(zip(*counts, strict=True))[1:])))
    lines = [(name, str(count), f"{seen:,}") for name, count, seen in counts]
    return "\n".join(
        [
            text_table([("phase", "trainings", "images"), *lines]),
            f"Each image is seen by a {' and by a '.join(precisions)}. Measured now: the first "
            f"step {estimate['first_step_seconds']:.1f} s, each further one "
            f"{estimate['step_seconds']:.3f} s, the validation of a genotype "
            f"{estimate['validation_seconds']:.2f} s.",
            _estimated(estimate),
        ]
    )


def _estimated(estimate):
    return (
        f"Estimated: {duration(estimate['total_seconds'])} for the search, "
        f"{estimate['peak_bytes'] / 2**30:.1f} GiB of memory."
    )


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """What a search did, as text: a line per stage or round, or one for all epochs.

    Args:
        rows: of any kind of log, as `search_log.read` gives them.
    """
    return _SUMMARIES[search_log.kind_of(rows)](rows)


def _summary_of_architectures(rows: Sequence[Mapping[str, Any]]) -> str:
    trained = PRECISIONS if search_log.has_parents(rows) else PRECISIONS[:1]
    lines: list[tuple[str, ...]] = [("stage", "architectures", *trained, "time")]
    for name, group in [*search_log.by_stage(rows).items(), ("total", rows)]:
        found = search_log.totals(group)
        accuracies = (f"{found[f'{who}_accuracy']:.2%}" for who in trained)
        count, time_taken = str(found["architectures"]), duration(found["seconds"])
        lines.append((str(name), count, *accuracies, time_taken))
    return text_table(lines)


def _summary_of_epochs(rows: Sequence[Mapping[str, Any]]) -> str:
    seconds = duration(sum(row["seconds"] for row in rows))
    return f"{len(rows)} epochs in {seconds}; in the last one: {epoch_text(rows[-1])}"


def _summary_of_trainings(rows: Sequence[Mapping[str, Any]]) -> str:
    lines: list[tuple[str, ...]] = [("phase", "trainings", "child", "mean score", "best", "time")]
    for group in search_log.by_round(rows).values():
        scores = [row["score"] for row in group]
        accuracy = statistics.fmean(row["child_accuracy"] for row in group)
        figures = (f"{accuracy:.2%}", f"{statistics.fmean(scores):.4f}", f"{max(scores):.4f}")
        taken = duration(sum(row["seconds"] for row in group))
        lines.append((search_log.round_name(group), str(len(group)), *figures, taken))
    return text_table(lines)


_SUMMARIES = {
    "architectures": _summary_of_architectures,
    "epochs": _summary_of_epochs,
    "trainings": _summary_of_trainings,
}
