"""The sections of a PC-DARTS search's report. No TensorFlow.

References:
    PC-DARTS (Xu et al., ICLR 2020), section 3; CP-NAS, Tables 1 to 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.plots.search import plot_epochs
from cpnas_tf.reports.html import element, facts, figure, heat, section, table
from cpnas_tf.reports.search import cells, comparison, cost, search_setting, setting
from cpnas_tf.runs.progress import duration

COLUMNS = 10  # a table shows at most this many epochs


def sections(
    rows: Sequence[Mapping[str, Any]],
    *,
    genotype: Genotype | None = None,
    config: Mapping[str, Any] | None = None,
    trained: Sequence[Mapping[str, Any]] = (),
) -> list[Element]:
    """The sections of the report of a search with PC-DARTS.

    Args:
        rows: as `search_log.read` gives them, at least one; the search may be unfinished.
        genotype, config, trained: as for `reports.search.sections`.

    Returns:
        A list of elements.
    """
    config = config or {}
    return [
        *([] if genotype else [_unfinished(rows, config)]),
        _overview(rows, config),
        cells(genotype),
        _operations(rows),
        _accuracies(rows),
        comparison(genotype, config, trained),
        _cost(rows, trained),
    ]


def _done(rows, config):
    planned = search_setting(config, "epochs")
    return f"{len(rows)} of {planned}" if type(planned) is int else str(len(rows))


def _unfinished(rows, config):
    text = (
        f"Unfinished: {_done(rows, config)} epochs are done. The report shows the results so far."
    )
    return element("p", text, class_="unfinished")


def _overview(rows, config):
    known = {
        "epochs": _done(rows, config),
        "time": duration(_seconds(rows)),
        "accuracy, weights' images": _percent(rows[-1]["accuracy"]),
        "accuracy, architecture's images": _percent(rows[-1]["architecture_accuracy"]),
        "data set": setting(config, "data", "name"),
        "precision": search_setting(config, "precision"),
        "seed of the search": search_setting(config, "seed"),
        "seed of the images' split": setting(config, "split", "seed"),
    }
    return facts({name: str(value) for name, value in known.items() if value is not None})


def _operations(rows):
    text = (
        f"The number of edges, of {len(CHOICES)}, with each operation in the genotype that alpha "
        "and beta favoured after an epoch. `none` counts edges that their nodes would not keep."
    )
    shown = _shown(rows)

    def cell(row, name):
        edges = sum(row[choice] == name for choice in CHOICES)
        return heat(str(edges), edges / len(CHOICES), f"{name}, epoch {row['epoch']}: {edges}")

    values = [[name, *(cell(row, name) for row in shown)] for name in OPERATIONS]
    columns = ("operation", *(str(row["epoch"]) for row in shown))
    heat_map = table("Edges by operation; one column per epoch", columns, values, kind="heat")
    return section("Operations over the search", element("p", text), heat_map)


def _accuracies(rows):
    picture = figure(
        plot_epochs(rows),
        name="accuracies",
        title="Training accuracy by epoch; the table lists some of the values",
        caption="Training accuracy on the images that update the weights, and on those that update "
        "the architecture.",
    )
    values = [
        (
            str(row["epoch"]),
            _percent(row["accuracy"]),
            _percent(row["architecture_accuracy"]) or "warm-up",
        )
        for row in _shown(rows)
    ]
    columns = ("epoch", "weights' images", "architecture's images")
    return section("Accuracy over the search", picture, table("Accuracy by epoch", columns, values))


def _shown(rows):
    """At most `COLUMNS` rows, evenly spaced and ending with the last."""
    count = min(len(rows), COLUMNS)
    return [rows[len(rows) * number // count - 1] for number in range(1, count + 1)]


def _cost(rows, trained):
    seconds = _seconds(rows)
    values = [
        ("epochs", str(len(rows))),
        ("search, seconds", f"{seconds:,.0f} ({duration(seconds)})"),
        ("seconds per epoch", f"{seconds / len(rows):,.1f}"),
    ]
    return cost(values, trained)


def _seconds(rows):
    return sum(row["seconds"] for row in rows)


def _percent(share):
    return None if share is None else f"{share:.2%}"
