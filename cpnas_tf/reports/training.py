"""The sections of a training's report, the result first. No TensorFlow."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from cpnas_tf.genotypes import Genotype
from cpnas_tf.plots.training import plot_history
from cpnas_tf.reports.html import element, facts, figure, picture, section, table
from cpnas_tf.reports.search import BITS, cells, setting
from cpnas_tf.runs.progress import duration

_PICTURES = {
    "confusion_matrix": (
        "Confusion matrix",
        "The classes that the test images of each class are taken for. See evaluation.json, too.",
    ),
    "examples": (
        "Examples",
        "Test images with the class that the network gives them, and how sure it is: those that it "
        "is surest of and right, and those with the largest loss.",
    ),
}


def title(run: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> str:
    """What the report is of; the result, if it is known, comes first.

    Args:
        run: the contents of `config.json`.
        evaluation: the contents of `evaluation.json`, or None.
    """
    network = str(run.get("model") or run.get("precision") or "network")
    return f"{evaluation['accuracy']:.2%} test accuracy: {network}" if evaluation else network


def sections(
    rows: Sequence[Mapping[str, Any]],
    *,
    run: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None = None,
    costs: Mapping[str, Any] | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> list[Element]:
    """The sections of a training's report.

    Args:
        rows: as `runs.history.read` gives them, at least one; the training may be unfinished.
        run: the contents of `config.json`.
        evaluation: those of `evaluation.json`, or None before `cpnas evaluate`.
        costs: of the finished network, the keys of `costs.profile`; None if it is not finished.
        pictures: PNG files by name, of what `cpnas evaluate` draws.

    Returns:
        A list of elements.
    """
    genotype = run.get("genotype")
    pictures = pictures or {}
    return [
        *([] if costs else [_unfinished(rows, run)]),
        _overview(rows, evaluation),
        *([] if evaluation else [element("p", "`cpnas evaluate` adds the test images' results.")]),
        _curves(rows),
        *([_classes(evaluation)] if evaluation else []),
        *(
            section(heading, picture(pictures[name], title=heading, caption=caption))
            for name, (heading, caption) in _PICTURES.items()
            if name in pictures
        ),
        *([_sizes(costs, run)] if costs else []),
        *([cells(Genotype(**genotype))] if genotype else []),
    ]


def _unfinished(rows, run):
    config = run.get("config")
    planned = setting(config, "training", "epochs") if isinstance(config, dict) else None
    done = f"{len(rows)} of {planned}" if planned else str(len(rows))
    text = (
        f"Unfinished: {done} epochs are done. The training goes on with the command that began it, "
        "and a report made later shows more."
    )
    return element("p", text, class_="unfinished")


def _overview(rows, evaluation):
    last = rows[-1]
    known = {
        "validation accuracy": f"{last['val_accuracy']:.2%}",
        "training accuracy": f"{last['accuracy']:.2%}",
        "epochs": str(last["epoch"]),
        "time": duration(sum(row["seconds"] for row in rows)),
    }
    if evaluation:
        tested = {
            "test accuracy": f"{evaluation['accuracy']:.2%}",
            "test images": f"{evaluation['examples']:,}",
            "test cross-entropy": f"{evaluation['loss']:.4f}",
        }
        known = {**tested, **known}
    return facts(known)


def _curves(rows):
    drawn = figure(
        plot_history(rows),
        name="history",
        title="Accuracy and cross-entropy of training and validation by epoch; see history.csv",
        caption="Accuracy and cross-entropy by epoch. history.csv has the numbers.",
    )
    return section("Training", drawn)


def _classes(evaluation):
    counts = map(sum, evaluation["confusion_matrix"])
    rows = [
        (name, f"{count:,}", "–" if share is None else f"{share:.2%}")
        for (name, share), count in zip(evaluation["per_class"].items(), counts, strict=True)
    ]
    caption = "Test accuracy by class"
    return section("Classes", table(caption, ("class", "test images", "right"), rows))


def _sizes(costs, run):
    rows = [
        ("parameters", f"{costs['parameters']:,}"),
        ("of them 1-bit", f"{costs['binary_parameters']:,}"),
        ("memory, Mbit", f"{costs['memory_mbit']:.2f}"),
        ("MFLOPs", f"{costs['flops_m']:.2f}"),
        ("W/A bits", BITS.get(run.get("precision"), "–")),
    ]
    caption = "The network's size and cost, counted as the paper does"
    return section("Size", table(caption, ("what", "value"), rows, kind="words"))
