"""The report of an ablation: its methods compared, every search, the cost. No TensorFlow.

References:
    CP-NAS, section 3.4 and Fig. 6.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any
from xml.etree.ElementTree import Element

from cpnas_tf.ablation.plots import has_betas, plot_betas, plot_methods, row_name
from cpnas_tf.ablation.table import (
    CONFIDENCE,
    TEST,
    count_unfinished,
    make_table,
    read,
    run_rows,
    samples,
)
from cpnas_tf.genotypes import CHOICES, OPERATIONS, Genotype
from cpnas_tf.reports.html import element, facts, figure, heat, section, table, vertical_header
from cpnas_tf.reports.pages import NOTHING, assemble, read_run
from cpnas_tf.runs.progress import duration


def make_report(workdir: str | os.PathLike[str]) -> bytes:
    """Makes the report of a finished or unfinished ablation.

    Args:
        workdir: the ablation's folder.

    Returns:
        The bytes of an HTML file.

    Raises:
        ValueError: if the folder holds nothing to report, or one of its files is broken.
    """
    run = read_run(workdir)
    searches, runs = read(workdir)
    if not runs:
        raise ValueError(NOTHING.format(workdir))
    unfinished = count_unfinished(workdir)
    return assemble("Ablation", workdir, run, sections(searches, runs, unfinished=unfinished))


def sections(
    searches: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], *, unfinished: int = 0
) -> list[Element]:
    """The sections of an ablation's report.

    Args:
        searches, runs: as `table.read` gives them, at least one run.
        unfinished: how many searches and trainings have begun and not finished.

    Returns:
        A list of elements.
    """
    rows, accuracies = make_table(searches, runs), samples(runs)
    return [
        *([_unfinished(unfinished)] if unfinished else []),
        _overview(rows, runs),
        _methods(rows, accuracies),
        _comparison(rows),
        *([_betas(rows, accuracies)] if has_betas(rows) else []),
        _operations(rows, searches),
        _searches(searches, runs),
        _cost(rows),
    ]


def _unfinished(count):
    text = f"Unfinished: {count} searches or trainings have begun but not finished."
    return element("p", text, class_="unfinished")


def _overview(rows, runs):
    def values(name):
        return ", ".join(map(str, sorted({run[name] for run in runs})))

    known = {
        "methods": ", ".join(dict.fromkeys(row["method"] for row in rows)),
        "searches": str(sum(row["searches"] for row in rows)),
        "trainings": str(len(runs)),
        "search seeds": values("search_seed"),
        "training seeds": values("training_seed"),
        "total time": duration(sum(row["seconds"] for row in rows)),
    }
    return facts(known)


def _methods(rows, accuracies):
    picture = figure(
        plot_methods(rows, accuracies),
        name="methods",
        title="Test accuracy by method; the table below has the numbers",
        caption="Each point is a search: the mean of its trainings. Bars show the "
        f"{CONFIDENCE:.0%} confidence interval of the mean over the searches (Student's t).",
    )
    values = [
        (
            row_name(row),
            str(row["searches"]),
            str(row["runs"]),
            f"{_percent(row['mean'])} ± {_percent(row['std'])}",
            _interval(row, ""),
            _percent(row["training_std"]),
        )
        for row in rows
    ]
    columns = ("method", "n", "runs", "mean ± std, %", _interval_header(), "training std")
    caption = "Test accuracy over n searches, each the mean of its trainings"
    text = "std: over the searches; training std: over the training seeds of one search."
    found = table(caption, columns, values)
    return section("Accuracy by method", picture, element("p", text), found)


def _comparison(rows):
    text = (
        "Difference from random in percentage points; searches with the same seed are paired. "
        f"p: {TEST}, not corrected for the number of rows. RI: improvement over the mean accuracy "
        "of random, in percent. tau: Kendall's rank correlation between a search's scores (of "
        "CP-NAS: zbar minus its stage's mean) and the trained accuracies of the other searches' "
        "genotypes, averaged over the method's searches. In the paper's Fig. 6, CP-NAS is better "
        "than the other three methods."
    )
    values = [
        (
            row_name(row),
            str(row["pairs"]),
            _percent(row["difference"], "+"),
            _interval(row, "difference_"),
            _number(row["p_value"], ".3f"),
            _number(row["relative_improvement"], "+.2f"),
            _number(row["kendall_tau"], "+.2f"),
        )
        for row in rows
    ]
    columns = ("method", "pairs", "diff.", _interval_header(), "p", "RI %", "tau")
    caption = "Paired difference from random, and how well the scores rank"
    return section(
        "Against random",
        element("p", _significance(rows)),
        element("p", text),
        table(caption, columns, values),
    )


def _significance(rows):
    if not any(row["difference"] is not None for row in rows):
        return "There is no random search with the same seeds to compare with."
    level = 1 - CONFIDENCE
    found = [row for row in rows if row["p_value"] is not None and row["p_value"] < level]
    names = "; ".join(f"{row_name(row)} (p = {row['p_value']:.3f})" for row in found)
    return f"Different from random at the {level:.0%} level ({TEST}): {names or 'none'}."


def _betas(rows, accuracies):
    picture = figure(
        plot_betas(rows, accuracies),
        name="betas",
        title="Test accuracy over beta_P; the table of methods has the numbers",
        caption="Compare the left of the paper's Fig. 6: accuracy falls from beta_P = 2 on.",
    )
    return section("Accuracy over beta_P", picture)


def _operations(rows, searches):
    text = (
        f"The number of a genotype's {len(CHOICES)} edges with each operation, averaged over the "
        "searches; darker means more. The paper finds fewer convolutions with a larger beta_P."
    )

    def values(row):
        found = [
            Genotype(**search["genotype"]).choices
            for search in searches
            if (search["method"], search["beta"]) == (row["method"], row["beta"])
        ]
        for name in OPERATIONS:
            count = fmean(choices.count(name) for choices in found)
            meaning = f"{row_name(row)}: {count:.1f} of {len(CHOICES)} edges with {name}"
            yield heat(f"{count:.1f}", min(4 * count / len(CHOICES), 1), meaning)

    columns = ("method", *map(vertical_header, OPERATIONS))
    rows = [(row_name(row), *values(row)) for row in rows]
    caption = f"Edges of {len(CHOICES)} by operation"
    return section(
        "Operations found", element("p", text), table(caption, columns, rows, kind="heat")
    )


def _searches(searches, runs):
    def search(row):
        return row_name(row), str(row["search_seed"]), _number(row["search_score"], ".4f")

    seeds, values = sorted({run["training_seed"] for run in runs}), []
    for found, group in itertools.groupby(run_rows(searches, runs), key=search):
        reached = {row["training_seed"]: row["test_accuracy"] for row in group}
        values.append((*found, *(_percent(reached.get(seed)) for seed in seeds)))
    columns = ("method", "seed", "score", *(f"seed {seed}, %" for seed in seeds))
    caption = "Searches by seed: the genotype's mean score, and test accuracy by training seed"
    return section("Every search", table(caption, columns, values))


def _cost(rows):
    total = {name: sum(row[name] for row in rows) for name in ("seconds", "images")}
    values = [
        (name, f"{row['seconds']:,.0f}", duration(row["seconds"]), f"{row['images']:,}")
        for name, row in [*((row_name(row), row) for row in rows), ("all", total)]
    ]
    columns = ("method", "seconds", "time", "images")
    caption = "Searches and trainings together; images: epochs times training images"
    return section("Cost", table(caption, columns, values))


def _interval_header():
    return f"{CONFIDENCE:.0%} interval"


def _interval(row, name):
    low, high = (_percent(row[f"{name}{end}"]) for end in ("low", "high"))
    return f"{low} to {high}" if row[f"{name}low"] is not None else "–"


def _percent(value, sign=""):
    return "–" if value is None else f"{100 * value:{sign}.2f}"


def _number(value, form):
    return "–" if value is None else f"{value:{form}}"
