import contextlib
import errno
import io
import itertools
import sys
import types

import pytest
from fake_search import run_search, without_parents

from cpnas_tf.runs import progress as progress_module
from cpnas_tf.search.oracle import Result

RESULT = Result(2, 1, 0, ("none",) * 28, 0.5, 0.75, 1.0)
ESTIMATE = {
    "first_step_seconds": 12.34,
    "step_seconds": 0.8,
    "validation_seconds": 1.5,
    "total_seconds": 90_061,
    "peak_bytes": 3 * 2**29,
}


def test_a_line_an_architecture(monkeypatch, capsys):
    """An hour from call to call: the ETA is that of what is left, from what this process did."""
    monkeypatch.setattr(progress_module.time, "monotonic", itertools.count(0, 3600).__next__)
    progress, text = progress_module.Progress(105, 50), progress_module.result_text(RESULT)
    progress.finish(text, images=1000, seconds=4.0)
    progress.finish(text, images=1000, seconds=0.5)
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        "[ 51/105] stage 2 round 1 sample 0  child 50.00%  parent 75.00%     250 images/s"
        "  ETA 2 days, 6:00:00"
    )
    assert second.endswith("   2000 images/s  ETA 2 days, 5:00:00")


@pytest.mark.parametrize("done", [0, 2])
def test_tracing_is_not_taken_for_the_pace(monkeypatch, capsys, done):
    """Of 20, each with 10 steps of 3 s; tracing the steps takes 500 s, and what follows 40 s."""
    clock = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    progress = progress_module.Progress(20, done)
    for number in range(done, 20):
        for step in range(10):
            clock[0] += 503 if (number, step) == (done, 0) else 3
            progress.step(number, step, 10)
        clock[0] += 40 if number == done else 0
        progress.finish("text", images=1, seconds=1.0)
    etas = [line.split("ETA ")[1] for line in capsys.readouterr().out.splitlines()]
    first = (9 * 3 + 40) / 0.9 * (19 - done)
    assert etas[0] == progress_module.duration(first)
    assert etas[1:] == [progress_module.duration(30 * left) for left in range(18 - done, -1, -1)]


def test_left_of_epochs_of_one_step(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: clock[0])
    progress, left = progress_module.Progress(4, 0, "epoch", verbose=0), []
    for number, seconds in enumerate((60, 5, 5, 5)):
        clock[0] += seconds
        progress.step(number, 0, 1)
        left.append(progress.left(number + 1))
    assert left == [180, 10, 5, 0]


def test_columns_of_a_text_table_are_as_wide_as_their_longest_cell():
    rows = [("name", "kind", "n"), ("a", "long kind", "1,000"), ("b {0}", "", "")]
    assert progress_module.text_table(rows).splitlines() == [
        "name        kind      n",
        "a      long kind  1,000",
        "b {0}",
    ]
    assert progress_module.text_table(rows, left=2).splitlines()[0] == "name   kind           n"


def test_plan_of_the_papers_search():
    text = progress_module.plan(operations=8, rounds=3, images=25_000, estimate=ESTIMATE)
    lines = [line.split() for line in text.splitlines()]
    assert lines[1] == ["0", "8", "24", "600,000"]
    assert lines[7] == ["6", "2", "6", "150,000"]
    assert lines[8] == ["total", "105", "2,625,000"]
    assert "the first step 12.3 s, each further one 0.800 s" in text
    assert "validation of an architecture 1.50 s" in text
    assert "1 day, 1:01:01 for the search, 1.5 GiB of memory" in text


def test_summary():
    rows, _, _ = run_search(rounds=2)
    lines = [line.split() for line in progress_module.summary(rows).splitlines()[1:]]
    assert [line[0] for line in lines] == [*map(str, range(7)), "total"]
    assert [int(line[1]) for line in lines] == [16, 14, 12, 10, 8, 6, 4, 70]
    for column, name in ((2, "child_accuracy"), (3, "parent_accuracy")):
        for line in lines:
            group = [row[name] for row in rows if line[0] in ("total", str(row["stage"]))]
            mean = 100 * sum(group) / len(group)
            assert float(line[column].rstrip("%")) == pytest.approx(mean, abs=0.005)
    assert lines[0][4] == "0:00:24"
    assert lines[-1][4] == "0:01:45"


def test_a_search_without_parents_says_nothing_of_them():
    rows = without_parents(run_search(rounds=1)[0])
    plan = {"operations": 8, "rounds": 3, "images": 25_000, "estimate": ESTIMATE}
    texts = [
        progress_module.summary(rows),
        progress_module.result_text(types.SimpleNamespace(**rows[0])),
        progress_module.plan(**plan, precisions=["child"]),
    ]
    for text in texts:
        assert "child" in text
        assert "parent" not in text
    assert [len(line.split()) for line in texts[0].splitlines()] == [4] * 9


def test_a_search_by_epochs():
    estimate = {**ESTIMATE, "warmup_step_seconds": 0.4}
    lines = progress_module.plan_epochs(
        epochs=50, warmup_epochs=15, images=2_125_000, estimate=estimate
    ).splitlines()
    assert lines[0] == "50 epochs on 2,125,000 images in all, the first 15 of the weights alone."
    assert "the first step 12.3 s, each further one 0.400 s in the warm-up and 0.800 s" in lines[1]
    assert lines[2] == "Estimated: 1 day, 1:01:01 for the search, 1.5 GiB of memory."
    warm = {"epoch": 1, "accuracy": 0.5, "architecture_accuracy": None, "seconds": 61.2}
    rows = [warm, {**warm, "architecture_accuracy": 0.25}]
    assert progress_module.epoch_text(warm) == "weights 50.00%  architecture warm-up"
    expected = "2 epochs in 0:02:02; in the last one: weights 50.00%  architecture  25.00%"
    assert progress_module.summary(rows) == expected


def test_nothing_moves_where_nobody_looks(capsys):
    progress_module.Progress(5, 0).step(0, 1, 3)
    assert capsys.readouterr().out == ""


class Stream:
    """Standard output of someone else's making."""

    def __init__(self, error=None):
        self.error, self.text = error, ""

    def write(self, text):
        if self.error:
            raise self.error
        self.text += text


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


def ascii_stream():
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii")


@pytest.mark.parametrize(
    "stream",
    [
        lambda: None,
        closed,
        Stream,
        lambda: Stream(BrokenPipeError()),
        lambda: Stream(RuntimeError("the kernel has gone")),
        lambda: open("/dev/full", "w"),  # noqa: SIM115
    ],
)
def test_no_line_is_worth_a_run(monkeypatch, stream):
    stream = stream()
    monkeypatch.setattr(sys, "stdout", stream)
    progress = progress_module.Progress(5, 0)
    for number in range(3):
        progress.step(number, 1, 3)
        progress.finish("text" * 5000, images=1000, seconds=4.0)
    progress_module.show("end")
    monkeypatch.undo()
    if hasattr(stream, "name"):
        with contextlib.suppress(OSError):
            stream.close()


def test_a_result_that_cannot_be_written_is_an_error(monkeypatch):
    for error in (BrokenPipeError(), OSError(errno.ENOSPC, "full")):
        monkeypatch.setattr(sys, "stdout", Stream(error))
        with pytest.raises(type(error)):
            progress_module.write("text")


def test_what_cannot_be_encoded_is_replaced(monkeypatch):
    stream = ascii_stream()
    monkeypatch.setattr(sys, "stdout", stream)
    progress_module.show("café \udcff [1/2]")
    monkeypatch.undo()
    assert stream.buffer.getvalue() == b"caf? ? [1/2]\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "verbose", "moves", "tells"),
    [
        (Terminal, "auto", True, True),
        (io.StringIO, "auto", False, True),
        (io.StringIO, 1, True, True),
        (Terminal, 2, False, True),
        (Terminal, 0, False, False),
        (io.StringIO, 0, False, False),
    ],
)
def test_verbose_is_as_in_keras(monkeypatch, stream, verbose, moves, tells):
    stream = stream()
    monkeypatch.setattr(sys, "stdout", stream)
    progress = progress_module.Progress(5, 0, "epoch", verbose=verbose)
    progress.step(0, 1, 3, loss=0.5)
    progress.finish("text", images=1000, seconds=4.0)
    monkeypatch.undo()
    text = stream.getvalue()
    assert text.startswith("\repoch 1: step 2/3  loss 0.5000\r[" if moves else "[" if tells else "")
    assert text.endswith("\n") == tells
    assert bool(text) == tells


@pytest.mark.parametrize("verbose", ["yes", 3, -1, None, "0"])
def test_other_values_of_verbose_are_refused(verbose):
    with pytest.raises(ValueError, match=f"verbose must be .* received: {verbose!r}"):
        progress_module.Progress(5, 0, verbose=verbose)
