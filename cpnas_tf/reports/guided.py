"""The sections of a guided search's report. No TensorFlow."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.plots.guided import plot_trainings
from cpnas_tf.reports.html import element, facts, figure, heat, section, table
from cpnas_tf.reports.search import cells, comparison, cost, search_setting, setting
from cpnas_tf.runs import search_log
from cpnas_tf.runs.progress import duration


def sections(
    rows: Sequence[Mapping[str, Any]],
    *,
    genotype: Genotype | None = None,
    config: Mapping[str, Any] | None = None,
    trained: Sequence[Mapping[str, Any]] = (),
) -> list[Element]:
    """The sections of the report of a guided search.

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
        _rounds(rows),
        _operations(rows),
        comparison(genotype, config, trained),
        _cost(rows, trained),
    ]


def correlation(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """Kendall's tau of the scores with what the model predicts of each by all other trainings.

    Returns:
        tau in [-1, 1], or None where there is nothing to rank.
    """
    from scipy import stats

    pairs = [(row["left_out"], row["score"]) for row in rows if row["left_out"] is not None]
    if len(pairs) < 2 or any(len(set(column)) < 2 for column in zip(*pairs, strict=True)):
        return None
    return float(stats.kendalltau(*zip(*pairs, strict=True)).statistic)


def _done(rows, config):
    names = ("first", "rounds", "proposals", "finalists")
    first, rounds, proposals, finalists = (search_setting(config, name) for name in names)
    if any(type(value) is not int for value in (first, rounds, proposals, finalists)):
        return str(len(rows))
    return f"{len(rows)} of {first + rounds * proposals + finalists}"


def _unfinished(rows, config):
    text = (
        f"Unfinished: {_done(rows, config)} trainings are done. The report shows the results so "
        "far."
    )
    return element("p", text, class_="unfinished")


def _overview(rows, config):
    best, tau = max(rows, key=lambda row: row["score"]), correlation(rows)
    known = {
        "trainings": _done(rows, config),
        "time": duration(_seconds(rows)),
        "child, best accuracy": f"{best['child_accuracy']:.2%}",
        "tau of model and scores": None if tau is None else f"{tau:.2f}",
        "data set": setting(config, "data", "name"),
        "beta_P": search_setting(config, "beta"),
        "seed of the search": search_setting(config, "seed"),
        "seed of the images' split": setting(config, "split", "seed"),
    }
    return facts({name: str(value) for name, value in known.items() if value is not None})


def _rounds(rows):
    picture = figure(
        plot_trainings(rows),
        name="rounds",
        title="Validation accuracy of the child by training, and scores against the model's "
        "predictions; the table lists the rounds' means",
        caption="Each genotype is trained from scratch. Random ones are drawn uniformly, guided "
        "ones proposed by a model of the scores before, final ones are the best, trained again.",
    )
    tau = correlation(rows)
    if tau is None:
        text = "No model yet: it needs more trainings."
    else:
        text = (
            f"Kendall's tau between the scores and the model's predictions is {tau:.2f}; each "
            "training is predicted by the fit to all others. 1 is the same order, 0 is chance."
        )
    columns = ("round", "trainings", "child, mean", "child, best", "score", "predicted")
    values = [_round_row(group) for group in search_log.by_round(rows).values()]
    return section(
        "What the rounds gained",
        picture,
        table("Means by round", columns, values),
        element("p", text),
    )


def _round_row(group):
    accuracies = [row["child_accuracy"] for row in group]
    known = [row["predicted"] for row in group if row["predicted"] is not None]
    return (
        search_log.round_name(group),
        str(len(group)),
        f"{statistics.fmean(accuracies):.2%}",
        f"{max(accuracies):.2%}",
        f"{statistics.fmean(row['score'] for row in group):.4f}",
        f"{statistics.fmean(known):.4f}" if known else "–",
    )


def _operations(rows):
    groups = search_log.by_round(rows).values()
    text = f"The mean number of edges, of {len(CHOICES)}, with each operation in a round."

    def cell(group, name):
        edges = statistics.fmean(sum(row[choice] == name for choice in CHOICES) for row in group)
        words = f"{name}, {search_log.round_name(group)}: {edges:.1f}"
        return heat(f"{edges:.1f}", edges / len(CHOICES), words)

    values = [[name, *(cell(group, name) for group in groups)] for name in OPERATIONS]
    columns = ("operation", *(search_log.round_name(group) for group in groups))
    heat_map = table("Edges by operation; one column per round", columns, values, kind="heat")
    return section("Operations over the search", element("p", text), heat_map)


def _cost(rows, trained):
    seconds = _seconds(rows)
    values = [
        ("trainings from scratch", str(len(rows))),
        ("epochs in all", str(sum(row["epochs"] for row in rows))),
        ("search, seconds", f"{seconds:,.0f} ({duration(seconds)})"),
        ("seconds per training", f"{seconds / len(rows):,.1f}"),
    ]
    return cost(values, trained)


def _seconds(rows):
    return sum(row["seconds"] for row in rows)
