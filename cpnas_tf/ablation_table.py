"""What an ablation found: its runs, and a row of statistics a method. No TensorFlow.

The runs of one search share its genotype, so that they are not independent samples of a method:
the sample is a search seed, and its value is the mean test accuracy over the training seeds.

References:
    Yang et al., "NAS evaluation is frustratingly hard", ICLR 2020 (relative improvement).
    Lindauer and Hutter, "Best practices for scientific research on NAS", JMLR 2020.
"""

import glob
import itertools
import math
import os
from statistics import fmean

import numpy as np
from scipy import stats

from cpnas_tf.genotypes import Genotype
from cpnas_tf.workdir import read_json, write_csv, write_json

CONFIDENCE = 0.95
TEST = "two-sided paired t-test"
# What a search's and a run's file have, with its types: both of them, and each of its own.
_NUMBER = (int, float)
_KEY = {"method": str, "beta": (*_NUMBER, type(None)), "search_seed": int}
_COST = {"seconds": _NUMBER, "images": int}
_SEARCH = {**_KEY, "genotype": dict, "scores": (list, type(None)), **_COST}
_RUN = {**_KEY, "training_seed": int, "accuracy": _NUMBER, "loss": _NUMBER, **_COST}


def read(directory):
    """Reads the finished runs of an ablation.

    Args:
        directory: the ablation's workdir.

    Returns:
        `(searches, runs)`, the contents of its `search.json` and `run.json` files, see `ablation`.

    Raises:
        ValueError: naming the file, if one is broken, or is of a run whose search is not there.
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


def count_unfinished(directory):
    """The number of searches and trainings that an ablation has begun and not finished."""
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
        if not isinstance(record[name], kind):
            raise ValueError(f"cannot read {path}: {name} is {record[name]!r}")
    return record


def write(directory):
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


def run_rows(searches, runs):
    """A dict a run: its place in the grid, what it reached, what its search and itself cost."""
    by_search = {_search_key(search): search for search in searches}
    rows = []
    for run in sorted(runs, key=lambda run: (*_search_key(run), run["training_seed"])):
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


def make_table(searches, runs):
    """The statistics of each method and beta_P, over its search seeds.

    Returns:
        A list of dicts, with None where there are too few searches for a figure: `method`, `beta`,
        `searches` (the sample's size n), `runs`; `mean`, `std`, `low` and `high` of the test
        accuracy; `difference`, `difference_low`, `difference_high` and `p_value` of the paired
        difference to `random` with the same seeds (`TEST`, not corrected for the number of rows);
        `relative_improvement`, in percent of the mean accuracy of `random`; `kendall_tau`, see
        `rank_correlation`; `seconds` and `images` of all its searches and trainings together.
    """
    accuracies = _accuracies(runs)
    samples = _samples(accuracies)
    chance = next((sample for key, sample in samples.items() if key[0] == "random"), {})
    rows = []
    for (method, beta), sample in samples.items():
        own_searches, own_runs = (
            [record for record in records if (record["method"], record["beta"]) == (method, beta)]
            for records in (searches, runs)
        )
        taus = [rank_correlation(search, searches, accuracies) for search in own_searches]
        taus = [tau for tau in taus if tau is not None]
        rows.append(
            {
                "method": method,
                "beta": beta,
                "searches": len(sample),
                "runs": len(own_runs),
                **interval(list(sample.values())),
                **_compare(sample, {} if method == "random" else chance),
                "kendall_tau": fmean(taus) if taus else None,
                "seconds": sum(record["seconds"] for record in own_searches + own_runs),
                "images": sum(record["images"] for record in own_searches + own_runs),
            }
        )
    return rows


def samples(runs):
    """The samples that the table's statistics are of, in the order of its rows.

    Returns:
        `{(method, beta): {search seed: accuracy}}`, a mean over the training seeds.
    """
    return _samples(_accuracies(runs))


def _accuracies(runs):
    """The mean test accuracy over the training seeds, by a search's key."""
    return {
        key: fmean(run["accuracy"] for run in group)
        for key, group in itertools.groupby(sorted(runs, key=_search_key), key=_search_key)
    }


def _samples(accuracies):
    samples = {}
    for (method, beta, seed), accuracy in accuracies.items():
        beta = beta if math.isfinite(beta) else None
        samples.setdefault((method, beta), {})[seed] = accuracy
    return samples


def interval(values):
    """Mean, standard deviation and Student's confidence interval of the mean.

    Args:
        values: a sample of at least one number.

    Returns:
        A dict of `mean`, `std` (of the sample, n - 1), `low` and `high`; the latter three are None
        for a single number.
    """
    mean, count = fmean(values), len(values)
    if count < 2:
        return {"mean": mean, "std": None, "low": None, "high": None}
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)) * std / math.sqrt(count)
    return {"mean": mean, "std": std, "low": mean - half, "high": mean + half}


def paired_p_value(differences):
    """The p-value of `TEST` for differences of mean 0, or None if they are all the same."""
    if len(set(differences)) < 2:
        return None
    error = np.std(differences, ddof=1) / math.sqrt(len(differences))
    return 2 * float(stats.t.sf(abs(fmean(differences)) / error, len(differences) - 1))


def _compare(sample, chance):
    """The columns of the table that compare accuracies by seed with those of `random`."""
    pairs = [(sample[seed], chance[seed]) for seed in sample if seed in chance]
    differences = [own - other for own, other in pairs]
    if not pairs:
        names = ("difference", "difference_low", "difference_high", "p_value")
        return dict.fromkeys((*names, "relative_improvement"))
    found = interval(differences)
    average = fmean(chance.values())
    return {
        "difference": found["mean"],
        "difference_low": found["low"],
        "difference_high": found["high"],
        "p_value": paired_p_value(differences),
        "relative_improvement": 100 * (fmean(sample.values()) - average) / average,
    }


def genotype_score(genotype, scores):
    """What a search thinks of a genotype: the mean over its 28 choices of their scores.

    Args:
        genotype: the two cells of `genotype.json`.
        scores: for each of the 28 edges, the score by operation (zbar of CP-NAS); None from a
            search without.

    Returns:
        A float; None without scores, or if the search did not know one of the operations.
    """
    if scores is None:
        return None
    chosen = list(zip(scores, Genotype(**genotype).choices, strict=True))
    if not all(name in edge for edge, name in chosen):
        return None
    return fmean(edge[name] for edge, name in chosen)


def rank_correlation(search, searches, accuracies):
    """Kendall's tau-b between a search's scores of all genotypes and their trained accuracies.

    The genotypes are those of all searches of the ablation, the random ones and its own included,
    if they have a score.

    Args:
        search: the search whose scores are judged.
        searches: all searches.
        accuracies: mean test accuracy by method, beta_P and search seed.

    Returns:
        tau in [-1, 1], or None if it has no scores or there is nothing to rank.
    """
    if search["scores"] is None:
        return None
    scores, reached = [], []
    for other in searches:
        score = genotype_score(other["genotype"], search["scores"])
        if score is not None and _search_key(other) in accuracies:
            scores.append(score)
            reached.append(accuracies[_search_key(other)])
    if len(set(scores)) < 2 or len(set(reached)) < 2:
        return None
    return float(stats.kendalltau(scores, reached).statistic)


def _search_key(record):
    """What a record's search is in the grid; sorts, as a beta_P of None would not."""
    beta = record["beta"]
    return record["method"], -math.inf if beta is None else beta, record["search_seed"]


def text(rows):
    """The table as text, accuracies and differences in percent."""

    def percent(value, sign=""):
        return "-" if value is None else f"{100 * value:{sign}.2f}"

    def number(value, form):
        return "-" if value is None else f"{value:{form}}"

    lines = [
        f"{'method':>10}{'beta':>7}{'n':>4}{'mean ± std':>16}{'95% interval':>18}"
        f"{'to random':>11}{'95% interval':>18}{'p':>8}{'RI %':>8}{'tau':>7}"
        f"{'seconds':>10}{'images':>12}"
    ]
    for row in rows:
        bounds, difference = (
            f"{percent(row[f'{name}low'])} to {percent(row[f'{name}high'])}"
            for name in ("", "difference_")
        )
        accuracy = f"{percent(row['mean'])} ± {percent(row['std'])}"
        lines.append(
            f"{row['method']:>10}{number(row['beta'], 'g'):>7}{row['searches']:>4}{accuracy:>16}"
            f"{bounds:>18}{percent(row['difference'], '+'):>11}{difference:>18}"
            f"{number(row['p_value'], '.3f'):>8}{number(row['relative_improvement'], '+.2f'):>8}"
            f"{number(row['kendall_tau'], '+.2f'):>7}{row['seconds']:>10.0f}{row['images']:>12,}"
        )
    return "\n".join([*lines, f"n searches; p: {TEST} against random, not corrected"])
