"""The report of a search or of an ablation: one HTML file that needs nothing else. No TensorFlow.

It shows what the files of a workdir say, so that the same files give the same report.
"""

import os

import cpnas_tf
from cpnas_tf import ablation_report, ablation_table, epochs_report, search_log, search_report
from cpnas_tf.genotypes import Genotype
from cpnas_tf.markup import element, page, section, table
from cpnas_tf.workdir import read_json


def make_report(workdir, *, trained=()):
    """Makes the report of a workdir, finished or not.

    Args:
        workdir: of a search or of an ablation.
        trained: networks to show beside the paper's, see `search_report.sections`; for a search.

    Returns:
        The bytes of an HTML file.

    Raises:
        ValueError: if there is nothing to report in the folder, or one of its files is broken.
    """
    run = _read_run(workdir)
    config = run["config"] if isinstance(run.get("config"), dict) else {}
    files = [os.path.join(workdir, name) for name in ("search.csv", "genotype.json")]
    if any(map(os.path.exists, files)):
        kind = "Search"
        content = _report_search(*files, config, trained)
    elif trained:
        raise ValueError(f"trained networks go with a search, and {workdir} holds none")
    else:
        kind = "Ablation"
        content = _report_ablation(workdir)
    dataset = search_report.setting(config, "data", "name")
    origin = (
        f"{os.path.basename(os.path.abspath(workdir))}, read by cpnas_tf {cpnas_tf.__version__}"
    )
    return page(
        f"{kind} on {dataset}" if dataset else kind,
        element("p", origin),
        *content,
        _configuration(run),
    )


def _read_run(workdir):
    """The contents of `config.json`; {} where there is none, as after a library call."""
    path = os.path.join(workdir, "config.json")
    run = read_json(path) if os.path.exists(path) else {}
    if not isinstance(run, dict):
        raise ValueError(f"cannot read {path}: a JSON object is needed, received: {run!r}")
    return run


def _report_search(log, path, config, trained):
    genotype = Genotype.load(path) if os.path.exists(path) else None
    more = {"genotype": genotype, "config": config, "trained": trained}
    if search_log.is_by_epochs(log):
        return epochs_report.sections(search_log.read_epochs(log), **more)
    rows = search_log.read(log) if os.path.exists(log) else None
    return search_report.sections(rows, **more)


def _report_ablation(workdir):
    searches, runs = ablation_table.read(workdir)
    if not runs:
        raise ValueError(
            f"nothing to report in {workdir}: there is neither a search (search.csv, "
            "genotype.json) nor a finished run of an ablation (runs/*/run.json)"
        )
    unfinished = ablation_table.count_unfinished(workdir)
    return ablation_report.sections(searches, runs, unfinished=unfinished)


def _configuration(run):
    """All values of `config.json`; where data lies is nobody else's business."""
    rest = {name: value for name, value in run.items() if name not in ("config", "data_dir")}
    values = [*_flatten(run.get("config", {})), *_flatten(rest)]
    if not values:
        return section("Configuration", element("p", "The workdir has no config.json."))
    caption = "config.json; a seed that is not in it is 0"
    return section("Configuration", table(caption, ("key", "value"), values, kind="words"))


def _flatten(value, name=""):
    """[(name, text)] of all values in nested dicts, the names joined by dots."""
    if not isinstance(value, dict):
        values = value if isinstance(value, list) else [value]
        return [(name, ", ".join(map(str, values)))]
    return [
        pair
        for key, inner in value.items()
        for pair in _flatten(inner, f"{name}.{key}".lstrip("."))
    ]
