"""What a user sees of a search: its plan, a line an architecture, a summary. No TensorFlow."""

import datetime
import sys
import time

from cpnas_tf.runs import search_log


class Progress:
    """One line an architecture or epoch, and on a terminal a moving one within it.

    Args:
        total: how many the whole search has.
        done: how many of them are done already.
        unit: what they are.
    """

    def __init__(self, total, done, unit="architecture"):
        self._total, self._done, self._unit = total, done, unit
        self._started, self._first = time.monotonic(), done

    def step(self, number, step, steps):
        """Shows at which step architecture or epoch `number` is, all counted from 0."""
        if sys.stdout.isatty():
            print(f"\r{self._unit} {number + 1}: step {step + 1}/{steps}", end="", flush=True)

    def finish(self, text, *, images, seconds):
        """Prints the line of an architecture or epoch.

        Args:
            text: what came out.
            images: that it was trained on.
            seconds: how long it took.
        """
        self._done += 1
        elapsed = time.monotonic() - self._started
        left = elapsed / (self._done - self._first) * (self._total - self._done)
        print(
            f"{chr(13) if sys.stdout.isatty() else ''}[{self._done:3d}/{self._total}] {text}  "
            f"{images / seconds:6.0f} images/s  ETA {duration(left)}",
            flush=True,
        )


def result_text(result):
    """The place and the accuracies of an architecture, an `oracle.Result`."""
    return (
        f"stage {result.stage} round {result.round} sample {result.sample}  "
        f"child {result.child_accuracy:6.2%}  parent {result.parent_accuracy:6.2%}"
    )


def epoch_text(row):
    """The accuracies of an epoch of PC-DARTS, see `search_log.write_epochs`."""
    accuracy = row["architecture_accuracy"]
    architecture = "warm-up" if accuracy is None else f"{accuracy:7.2%}"
    return f"weights {row['accuracy']:6.2%}  architecture {architecture}"


def duration(seconds):
    """Seconds as days, hours, minutes and seconds, such as `2 days, 5:00:00`."""
    return str(datetime.timedelta(seconds=round(seconds)))


def text_table(rows, *, left=1):
    """A table as text, each column as wide as its longest cell.

    Args:
        rows: of texts, all of one length, the headers first.
        left: how many columns are aligned to the left; the others are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    marks = ["<" if number < left else ">" for number in range(len(widths))]
    form = "  ".join(f"{{:{mark}{width}}}" for mark, width in zip(marks, widths, strict=True))
    return "\n".join(form.format(*row).rstrip() for row in rows)


def plan(*, operations, rounds, images, estimate):
    """What a search is going to do and to cost, as text.

    Args:
        operations: K at the start.
        rounds: T.
        images: that an architecture is trained on.
        estimate: as `ChildParentTuner.estimate` gives it.
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
            "Each image is seen by a child and by a parent. Measured now: the first step "
            f"{estimate['first_step_seconds']:.1f} s, each further one "
            f"{estimate['step_seconds']:.3f} s, the validation of an architecture "
            f"{estimate['validation_seconds']:.2f} s.",
            _estimated(estimate),
        ]
    )


def plan_epochs(*, epochs, warmup_epochs, images, estimate):
    """What a search with PC-DARTS is going to do and to cost, as text.

    Args:
        epochs: of the whole search.
        warmup_epochs: those that train the weights alone.
        images: that it trains on, in all epochs.
        estimate: as `PCDarts.estimate` gives it.
    """
    return (
        f"{epochs} epochs on {images:,} images in all, the first {warmup_epochs} of the weights "
        "alone.\nMeasured now: the first step "
        f"{estimate['first_step_seconds']:.1f} s, each further one "
        f"{estimate['warmup_step_seconds']:.3f} s in the warm-up and "
        f"{estimate['step_seconds']:.3f} s after it.\n" + _estimated(estimate)
    )


def _estimated(estimate):
    return (
        f"Estimated: {duration(estimate['total_seconds'])} for the search, "
        f"{estimate['peak_bytes'] / 2**30:.1f} GiB of memory."
    )


def summary(rows):
    """What a search did, a line a stage, as text.

    Args:
        rows: as `search_log.read` gives them.
    """
    lines = [("stage", "architectures", "child", "parent", "time")]
    for name, group in [*search_log.by_stage(rows).items(), ("total", rows)]:
        found = search_log.totals(group)
        accuracies = (f"{found[f'{who}_accuracy']:.2%}" for who in ("child", "parent"))
        count, time_taken = str(found["architectures"]), duration(found["seconds"])
        lines.append((str(name), count, *accuracies, time_taken))
    return text_table(lines)


def summary_epochs(rows):
    """What a search with PC-DARTS did, in one line; `rows` as in `search_log.write_epochs`."""
    seconds = duration(sum(row["seconds"] for row in rows))
    return f"{len(rows)} epochs in {seconds}; in the last one: {epoch_text(rows[-1])}"
