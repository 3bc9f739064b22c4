"""The results of an ablation: its runs, and statistics per method. No TensorFlow.

The runs of one search share its genotype, so they are not independent samples of a method. A
sample is therefore a search seed, and its value is the mean test accuracy over the training seeds.
Searches are compared over the training seeds that both have.

References:
    Yang et al., "NAS evaluation is frustratingly hard", ICLR 2020 (relative improvement).
    Lindauer and Hutter, "Best practices for scientific research on NAS", JMLR 2020.
"""

import glob
import math
import os
from collections.abc import Mapping, Sequence
from statistics import fmean, variance
from typing import Any

import numpy as np
from scipy import stats

from cpnas_tf.catalogue import BASELINE
from cpnas_tf.files import read_json, write_csv, write_json
from cpnas_tf.genotypes import Genotype
from cpnas_tf.runs.progress import text_table

CONFIDENCE = 0.95
TEST = "two-sided paired t-test"
_ROUNDING = 1e-12  # of means of the same accuracies
# The keys of `search.json` and `run.json`, with their types.
_NUMBER = (int, float)
_KEY = {"method": str, "beta": (*_NUMBER, type(None)), "search_seed": int}
_COST = {"seconds": _NUMBER, "images": int}
_SEARCH = {**_KEY, "genotype": dict, "scores": (list, type(None)), **_COST}
_RUN = {**_KEY, "training_seed": int, "accuracy": _NUMBER, "loss": _NUMBER, **_COST}


def read(directory: str | os.PathLike[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Reads the finished runs of an ablation.

    Args:
        directory: the ablation's workdir.

    Returns:
        `(searches, runs)`, the contents of its `search.json` and `run.json` files, see `grid`.

    Raises:
        ValueError: naming the file, if one is broken or the search of a run is missing.
    """
    searches, runs = (
        {path: _read_record(path, types) for path in sorted(_find(directory, pattern))}
        for pattern, types in (("searches/*/search.json", _SEARCH), ("runs/*/run.json", _RUN))
    )
    found = {_search_key(search) for search in searches.values()}
    for path, run in runs.items():
        if _search_key(run) not in found:
            raise ValueError(f"the search of {path} is not in {directory}/searches")
    return list(searches.values()), list(runs.values())


def count_unfinished(directory: str | os.PathLike[str]) -> int:
    """The number of searches and trainings that have begun and not finished."""
    return sum(
        not os.path.exists(os.path.join(folder, name))
        for pattern, name in (("searches/*/", "search.json"), ("runs/*/", "run.json"))
        for folder in _find(directory, pattern)
    )


def _find(directory, pattern):
    return glob.glob(os.path.join(glob.escape(os.fspath(directory)), pattern))


def _read_record(path, types):
    record = read_json(path)
    for name, kind in types.items():
        if not isinstance(record, dict) or name not in record:
            raise ValueError(f"cannot read {path}: it has no {name}")
        if not isinstance(record[name], kind) or not _is_finite(record[name]):
            raise ValueError(f"cannot read {path}: {name} is {record[name]!r}")
    return record


def _is_finite(value):
    """Whether a value is no number, or one that a float can hold."""
    try:
        return not isinstance(value, _NUMBER) or math.isfinite(value)
    except OverflowError:
        return False


def write(directory: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Writes `runs.csv`, `table.csv` and `table.json` from the finished runs of an ablation.

    Returns:
        The rows of the table.
    """
    searches, runs = read(directory)
    rows = make_table(searches, runs)
    write_csv(os.path.join(directory, "runs.csv"), run_rows(searches, runs))
    write_csv(os.path.join(directory, "table.csv"), rows)
    write_json(
        os.path.join(directory, "table.json"),
        {"confidence": CONFIDENCE, "test": TEST, "rows": rows},
    )
    return rows


def run_rows(
    searches: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """One dict per run: its point of the grid, its results, and both costs."""
    by_search = {_search_key(search): search for search in searches}
    rows = []
    for run in sorted(runs, key=_order):
        search = by_search[_search_key(run)]
        rows.append(
            {
                **{name: run[name] for name in (*_KEY, "training_seed")},
                "test_accuracy": run["accuracy"],
                "test_loss": run["loss"],
                "search_score": genotype_score(search["genotype"], search["scores"]),
                "search_seconds": search["seconds"],
                "search_images": search["images"],
                "training_seconds": run["seconds"],
                "training_images": run["images"],
            }
        )
    return rows


def make_table(
    searches: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The statistics of each method and beta_P, over its search seeds.

    Returns:
        A list of dicts. A value is None where there are too few searches for it.
        - `method`, `beta`, `searches` (the sample's size n), `runs`;
        - `mean`, `std`, `low` and `high` of the test accuracy;
        - `training_std`, its standard deviation over the training seeds of one search (pooled);
        - `pairs`, `difference`, `difference_low`, `difference_high` and `p_value` of the paired
          difference from `random` with the same seeds (`TEST`, not corrected for the number of
          rows);
        - `relative_improvement` over the mean accuracy of `random`, in percent;
        - `kendall_tau`, the mean of `rank_correlation` over the searches;
        - `seconds` and `images` of all searches and trainings together.
    """
    trained = _trained(runs)
    baseline: Mapping[int, Any] = next(
        (found for key, found in trained.items() if key[0] == BASELINE), {}
    )
    accuracies = {
        (*key, seed): accuracy
        for key, found in trained.items()
        for seed, accuracy in _means(found).items()
    }
    rows = []
    for (method, beta), found in trained.items():
        own_searches, own_runs = (
            [record for record in records if (record["method"], record["beta"]) == (method, beta)]
            for records in (searches, runs)
        )
        correlations = [rank_correlation(search, searches, accuracies) for search in own_searches]
        taus = [tau for tau in correlations if tau is not None]
        rows.append(
            {
                "method": method,
                "beta": beta,
                "searches": len(found),
                "runs": len(own_runs),
                **interval(list(_means(found).values())),
                "training_std": _training_std(found),
                **_compare(found, {} if method == BASELINE else baseline),
                "kendall_tau": fmean(taus) if taus else None,
                "seconds": sum(record["seconds"] for record in own_searches + own_runs),
                "images": sum(record["images"] for record in own_searches + own_runs),
            }
        )
    return rows


def samples(runs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, float | None], dict[int, float]]:
    """The samples behind the table's statistics, in the order of its rows.

    Returns:
        `{(method, beta): {search seed: mean accuracy over the training seeds}}`.
    """
    return {key: _means(found) for key, found in _trained(runs).items()}


def _trained(runs):
    """`{(method, beta): {search seed: {training seed: test accuracy}}}`, in the table's order."""
    trained = {}
    for run in sorted(runs, key=_order):
        found = trained.setdefault((run["method"], run["beta"]), {})
        found.setdefault(run["search_seed"], {})[run["training_seed"]] = run["accuracy"]
    return trained


def _means(found):
    """A method's sample: `{search seed: mean accuracy over the training seeds}`."""
    return {seed: fmean(reached.values()) for seed, reached in found.items()}


def _training_std(found):
    """What one training's accuracy varies by around its search's mean, with n - 1 for each."""
    variances = [
        (len(reached) - 1, variance(reached.values()))
        for reached in found.values()
        if len(reached) > 1
    ]
    freedom = sum(degrees for degrees, _ in variances)
    if not freedom:
        return None
    return math.sqrt(sum(degrees * value for degrees, value in variances) / freedom)


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, standard deviation, and Student's confidence interval of the mean.

    Args:
        values: a sample of one or more numbers.

    Returns:
        A dict of `mean`, `std` (with n - 1), `low` and `high`; the last three are None for a single
        number.
    """
    mean = fmean(values)
    if len(values) < 2:
        return {"mean": mean, "std": None, "low": None, "high": None}
    std, test = float(np.std(values, ddof=1)), _t_test(values)
    low, high = map(float, test.confidence_interval(CONFIDENCE)) if test else (mean, mean)
    return {"mean": mean, "std": std, "low": low, "high": high}


def paired_p_value(differences: Sequence[float]) -> float | None:
    """The p-value of `TEST`, or None if all differences are equal."""
    test = _t_test(differences)
    return float(test.pvalue) if test else None


def _t_test(values):
    """The t-test that the mean is 0; None for equal values, which have no variance."""
    return stats.ttest_1samp(values, 0) if np.ptp(values) > _ROUNDING else None


def _compare(found, baseline):
    """The table's columns that compare a method's accuracies with those of `random`.

    Args:
        found: the method's `{search seed: {training seed: accuracy}}`.
        baseline: the same of `random`; empty if there is none, or for `random` itself.
    """
    names = ("difference", "difference_low", "difference_high", "p_value", "relative_improvement")
    columns = {"pairs": 0, **dict.fromkeys(names)}
    if baseline:
        own, average = (fmean(_means(each).values()) for each in (found, baseline))
        columns["relative_improvement"] = 100 * (own - average) / average
    differences = [
        fmean(found[seed][training] - baseline[seed][training] for training in common)
        for seed in found
        if (common := found[seed].keys() & baseline.get(seed, {}).keys())
    ]
    if differences:
        mean, _, low, high = interval(differences).values()
        columns |= {"difference": mean, "difference_low": low, "difference_high": high}
        columns |= {"pairs": len(differences), "p_value": paired_p_value(differences)}
    return columns


def genotype_score(
    genotype: Mapping[str, Sequence[str]], scores: Sequence[Mapping[str, float]] | None
) -> float | None:
    """A search's score of a genotype: the mean score of its 28 choices.

    Args:
        genotype: the two cells of `genotype.json`.
        scores: for each of the 28 edges, `{operation: score}`; None if the search has none.

    Returns:
        A float; None without scores, or if the search did not score one of the operations.
    """
    if scores is None:
        return None
    chosen = list(zip(scores, Genotype(**genotype).choices, strict=True))
    if not all(name in edge for edge, name in chosen):
        return None
    return fmean(edge[name] for edge, name in chosen)


def rank_correlation(
    search: Mapping[str, Any],
    searches: Sequence[Mapping[str, Any]],
    accuracies: Mapping[tuple[str, float | None, int], float],
) -> float | None:
    """Kendall's tau-b between a search's scores of genotypes and their trained accuracies.

    The genotypes are those of all other searches, `random` included, that it can score. Its own is
    left out, for it was chosen by these scores.

    Args:
        search: the search whose scores are evaluated.
        searches: all searches of the ablation.
        accuracies: `{(method, beta, search seed): mean test accuracy}`.

    Returns:
        tau in [-1, 1], or None if the search has no scores or there is nothing to rank.
    """
    if search["scores"] is None:
        return None
    scores, reached = [], []
    for other in searches:
        score = genotype_score(other["genotype"], search["scores"])
        key = _search_key(other)
        if score is not None and key != _search_key(search) and key in accuracies:
            scores.append(score)
            reached.append(accuracies[key])
    if len(set(scores)) < 2 or len(set(reached)) < 2:
        return None
    return float(stats.kendalltau(scores, reached).statistic)


def _search_key(record):
    """The point of the grid that a record's search belongs to."""
    return record["method"], record["beta"], record["search_seed"]


def _order(run):
    """The sort key of a run: its point of the grid, with a beta_P of None first."""
    beta = -math.inf if run["beta"] is None else run["beta"]
    return run["method"], beta, run["search_seed"], run["training_seed"]


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as text, with accuracies and differences in percent."""

    def percent(value, sign=""):
        return "-" if value is None else f"{100 * value:{sign}.2f}"

    def number(value, form):
        return "-" if value is None else f"{value:{form}}"

    def bounds(row, name):
        low, high = row[f"{name}low"], row[f"{name}high"]
        return "-" if low is None else f"{percent(low)} to {percent(high)}"

    header = (
        *("method", "beta", "n", "runs", "mean ± std", f"{CONFIDENCE:.0%} interval"),
        "training std",
        *("pairs", "to random", f"{CONFIDENCE:.0%} interval", "p", "RI %", "tau"),
        *("seconds", "images"),
    )
    lines = [
        (
            row["method"],
            number(row["beta"], "g"),
            str(row["searches"]),
            str(row["runs"]),
            f"{percent(row['mean'])} ± {percent(row['std'])}",
            bounds(row, ""),
            percent(row["training_std"]),
            str(row["pairs"]),
            percent(row["difference"], "+"),
            bounds(row, "difference_"),
            number(row["p_value"], ".3f"),
            number(row["relative_improvement"], "+.2f"),
            number(row["kendall_tau"], "+.2f"),
            f"{row['seconds']:.0f}",
            f"{row['images']:,}",
        )
        for row in rows
    ]
    note = (
        f"n searches, compared in pairs; p: {TEST}, not corrected; std over the searches, training "
        "std over the training seeds of one search"
    )
    return f"{text_table([header, *lines])}\n{note}"
