"""The report of a search as one self-contained HTML file. No TensorFlow.

A report is made from the files of a workdir alone, so equal files give equal reports.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

import cpnas_tf
from cpnas_tf.catalogue import shown_name
from cpnas_tf.files import read_json
from cpnas_tf.genotypes import Genotype
from cpnas_tf.reports import guided as guided_report
from cpnas_tf.reports import pc_darts as pc_darts_report
from cpnas_tf.reports import search as search_report
from cpnas_tf.reports import training as training_report
from cpnas_tf.reports.html import element, page, section, table
from cpnas_tf.runs import history, search_log
from cpnas_tf.runs.workdir import check_format

_READ_BY = ", read by cpnas_tf "  # stands in every report
NOTHING = (
    "nothing to report in {}: there is neither a search (search.csv, genotype.json) nor a finished "
    "run of an ablation (runs/*/run.json) nor an epoch of a training (history.csv)"
)

# What a report shows of each kind of log.
_LOG_SECTIONS = {
    "architectures": search_report.sections,
    "epochs": pc_darts_report.sections,
    "trainings": guided_report.sections,
}


def make_report(
    workdir: str | os.PathLike[str], *, trained: Sequence[Mapping[str, Any]] = ()
) -> bytes:
    """Makes the report of a finished or unfinished search.

    Args:
        workdir: the search's folder.
        trained: networks to compare with the paper's, see `reports.search.sections`.

    Returns:
        The bytes of an HTML file.

    Raises:
        ValueError: if the folder holds nothing to report, or one of its files is broken.
    """
    run = read_run(workdir)
    if not is_search(workdir):
        raise ValueError(NOTHING.format(workdir))
    log, genotype = (os.path.join(workdir, name) for name in ("search.csv", "genotype.json"))
    return assemble("Search", workdir, run, _sections(log, genotype, config_of(run), trained))


def make_training_report(
    workdir: str | os.PathLike[str], *, costs: Mapping[str, Any] | None = None
) -> bytes:
    """Makes the report of a finished or unfinished training.

    Args:
        workdir: the training's folder.
        costs: of its network, see `reports.training.sections`; None if it is not finished.

    Returns:
        The bytes of an HTML file.

    Raises:
        ValueError: if the folder holds no epoch of a training, or one of its files is broken.
    """
    run = read_run(workdir)
    rows = _read_history(workdir)
    path = os.path.join(workdir, "evaluation.json")
    evaluation = read_json(path) if os.path.exists(path) else None
    pictures = {}
    for name in ("confusion_matrix", "examples") if evaluation else ():
        path = os.path.join(workdir, f"{name}.png")
        if os.path.exists(path):
            with open(path, "rb") as file:
                pictures[name] = file.read()
    made = training_report.sections(
        rows, run=run, evaluation=evaluation, costs=costs, pictures=pictures
    )
    return assemble(training_report.title(run, evaluation), workdir, run, made)


def _read_history(workdir):
    path = os.path.join(workdir, "history.csv")
    if not is_training(workdir):
        raise ValueError(NOTHING.format(workdir))
    try:
        rows = history.read(path)
    except (ValueError, TypeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if not rows:
        raise ValueError(f"{path} has no epoch yet")
    return rows


def is_training(workdir: str | os.PathLike[str]) -> bool:
    """Whether a folder holds epochs of a training."""
    return os.path.exists(os.path.join(workdir, "history.csv"))


def is_search(workdir: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a search's log or genotype."""
    return any(
        os.path.exists(os.path.join(workdir, name)) for name in ("search.csv", "genotype.json")
    )


def is_report(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a file that holds a report, of any version."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return _READ_BY.encode() in file.read()


def assemble(
    kind: str, workdir: str | os.PathLike[str], run: Mapping[str, Any], content: Sequence[Element]
) -> bytes:
    """The page of a run: its title and origin, its sections and its configuration."""
    dataset = search_report.setting(config_of(run), "data", "name")
    origin = f"{os.path.basename(os.path.abspath(workdir))}{_READ_BY}{cpnas_tf.__version__}"
    return page(
        f"{kind} on {dataset}" if dataset else kind,
        element("p", origin),
        *content,
        _configuration(run),
    )


def read_run(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """The contents of `config.json`; {} if there is none, as after a library call.

    The locations and names of the user's files are private, and left out.
    """
    path = os.path.join(workdir, "config.json")
    run = read_json(path) if os.path.exists(path) else {}
    if not isinstance(run, dict):
        raise ValueError(f"cannot read {path}: a JSON object is needed, received: {run!r}")
    check_format(run, path)
    hidden = ("data_dir", "cwd", "images", "written", "teacher", "warm_start")
    shown = {key: value for key, value in run.items() if key not in hidden}
    name = search_report.setting(config_of(run), "data", "name")
    if isinstance(name, str):
        data = {**run["config"]["data"], "name": shown_name(name)}
        shown["config"] = {**run["config"], "data": data}
    return shown


def config_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """The `config` of a run's record, or {} if it has none."""
    return run["config"] if isinstance(run.get("config"), dict) else {}


def _sections(log, path, config, trained):
    genotype = Genotype.load(path) if os.path.exists(path) else None
    more = {"genotype": genotype, "config": config, "trained": trained}
    if not os.path.exists(log):
        return search_report.sections(**more)
    rows = search_log.read(log)
    return _LOG_SECTIONS[search_log.kind_of(rows)](rows, **more)


def _configuration(run):
    """All values of a run's record."""
    rest = {name: value for name, value in run.items() if name != "config"}
    values = [*_flatten(run.get("config", {})), *_flatten(rest)]
    if not values:
        return section("Configuration", element("p", "The workdir has no config.json."))
    caption = "config.json; a seed that is not listed is 0"
    return section("Configuration", table(caption, ("key", "value"), values, kind="words"))


def _flatten(value, name=""):
    """The values of nested dicts as [(name, text)], with the keys joined by dots."""
    if not isinstance(value, dict):
        values = value if isinstance(value, list) else [value]
        return [(name, ", ".join(map(str, values)))]
    return [
        pair
        for key, inner in value.items()
        for pair in _flatten(inner, f"{name}.{key}".lstrip("."))
    ]
