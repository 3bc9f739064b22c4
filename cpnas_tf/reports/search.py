"""The sections of a search's report, one per question of its reader. No TensorFlow.

References:
    CP-NAS, Algorithm 1, Eqs. 1 and 2, Tables 1 to 3, Fig. 5.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from cpnas_tf.catalogue import DATASETS, METHODS, PRECISIONS, shown_name
from cpnas_tf.genotypes import CHOICES, EDGE_NAMES, OPERATIONS, Genotype
from cpnas_tf.plots.cells import plot_cell
from cpnas_tf.plots.search import plot_accuracies
from cpnas_tf.reports.html import (
    element,
    facts,
    figure,
    heat,
    pair,
    section,
    table,
    vertical_header,
)
from cpnas_tf.reports.paper_tables import SEARCH_COST, TABLE_1, TABLE_2, TABLE_3
from cpnas_tf.runs import search_log
from cpnas_tf.runs.progress import duration

CELLS = {"normal": "Normal cell", "reduce": "Reduction cell"}
BITS = {"child": "1/1", "parent": "32/32"}
WORDS = {"child": "1-bit", "parent": "full precision"}


def sections(
    rows: Sequence[Mapping[str, Any]] | None = None,
    *,
    genotype: Genotype | None = None,
    config: Mapping[str, Any] | None = None,
    trained: Sequence[Mapping[str, Any]] = (),
) -> list[Element]:
    """The sections of a search's report.

    Args:
        rows: as `search_log.read` gives them, at least one; the search may be unfinished. None
            for a genotype alone.
        genotype: the search's result, or None if there is none yet.
        config: the `config` of its `config.json`, as far as it is known.
        trained: trained networks to compare with the paper's. Each is a dict of `name`,
            `precision`, `data` (the data set's name), `genotype` (None for a reference network),
            `accuracy` on the test images, `seconds` of training, and the keys of `costs.profile`.

    Returns:
        A list of elements.
    """
    config = config or {}
    beside_the_paper = comparison(genotype, config, trained)
    if rows is None:
        return [cells(genotype), beside_the_paper]
    return [
        *([] if genotype else [_unfinished(rows, config)]),
        _overview(rows, config),
        cells(genotype),
        _survival(rows, genotype),
        _accuracies(rows),
        _scores(rows),
        beside_the_paper,
        _cost(rows, config, trained),
    ]


def setting(config: Mapping[str, Any], part: str, name: str) -> Any:
    """A value of a config, or None if it has none."""
    values = config.get(part)
    return values.get(name) if isinstance(values, dict) else None


def search_setting(config: Mapping[str, Any], name: str) -> Any:
    """A setting of the search, of its method's section, or None if there is none."""
    method = METHODS.get(str(config.get("method", "cpnas")))  # the only one of the first searches
    return setting(config, method.section, name) if method else None


def planned_architectures(
    rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> int | None:
    """The number of architectures that a search samples (Algorithm 1), or None if unknown."""
    rounds = search_setting(config, "rounds")
    if type(rounds) is not int:
        return None
    return rounds * sum(range(2, search_log.initial_operations(rows) + 1))


def training_images(config: Mapping[str, Any]) -> int | None:
    """The number of images that each architecture is trained on, or None if unknown."""
    count, fraction = (setting(config, "split", f"train_{part}") for part in ("images", "fraction"))
    if type(count) is int:
        return count
    known = DATASETS.get(str(setting(config, "data", "name")))
    if known is None or type(fraction) is not float or setting(config, "data", "split") != "train":
        return None
    return int(round(fraction * known.train, 6))


def _unfinished(rows, config):
    planned = planned_architectures(rows, config)
    done = f"{len(rows)} of {planned}" if planned else str(len(rows))
    text = f"Unfinished: {done} architectures are sampled. The report shows the results so far."
    return element("p", text, class_="unfinished")


def _overview(rows, config):
    found, planned = search_log.totals(rows), planned_architectures(rows, config)
    means = {f"{who}, mean accuracy": f"{found[f'{who}_accuracy']:.2%}" for who in _trained(rows)}
    known = {
        "architectures": f"{len(rows)} of {planned}" if planned else str(len(rows)),
        "time": duration(found["seconds"]),
        **means,
        "data set": setting(config, "data", "name"),
        "beta_P": search_setting(config, "beta"),
        "seed of the search": search_setting(config, "seed"),
        "seed of the images' split": setting(config, "split", "seed"),
    }
    return facts({name: str(value) for name, value in known.items() if value is not None})


def cells(genotype: Genotype | None) -> Element:
    """The section with a search's result: a `Genotype`, or None if there is none yet."""
    if genotype is None:
        return section("Cells", element("p", "None yet: the search is not finished."))
    pictures = [
        figure(
            plot_cell(getattr(genotype, cell), title=title),
            name=cell,
            title=f"{title}: {_in_words(getattr(genotype, cell))}",
            caption=f"{title}. The table below lists the same operations.",
            narrow=False,
        )
        for cell, title in CELLS.items()
    ]
    choices = zip(EDGE_NAMES, genotype.normal, genotype.reduce, strict=True)
    edges = table("The operation of each edge", ("edge", *CELLS.values()), choices, kind="names")
    text = (
        "c(k-2) and c(k-1) are the outputs of the two cells before; 0 to 3 are the intermediate "
        "nodes. The columns of search.csv count all nodes from 0, inputs first: "
        f"{CHOICES[0]} is the normal cell's edge {EDGE_NAMES[0]}."
    )
    return section("Cells", *pictures, edges, element("p", text))


def _in_words(operations):
    return ", ".join(f"{e} {name}" for e, name in zip(EDGE_NAMES, operations, strict=True))


def _survival(rows, genotype):
    stages, known = (
        search_log.initial_operations(rows) - 1,
        len(search_log.remaining_operations(rows)),
    )
    if not known:
        text = "Not known until one round has sampled every operation on every edge."
        return section("Survival of operations", element("p", text))
    text = (
        "The number of stages that each edge kept each operation: 1 was dropped first, and ✓ was "
        f"selected after {stages} stages. A + marks an operation that an unfinished search still "
        "has."
    )
    lifetimes = search_log.lifetimes(rows)
    kept = dict(zip(CHOICES, genotype.choices, strict=True)) if genotype else {}

    def cell(choice, edge, operation):
        lived = lifetimes[choice][operation]
        if kept.get(choice) == operation:
            return heat("✓", 1, f"{edge}: {operation} was selected")
        if not lived:
            return heat("", 0, f"{edge}: {operation} was not searched")
        still = not genotype and lived == known
        meaning = f"{'still there' if still else 'dropped'} after {lived} of {stages} stages"
        return heat(f"{lived}{'+' * still}", lived / (stages + 1), f"{edge}: {operation} {meaning}")

    def heat_map(cell_type, title):
        choices = [choice for choice in CHOICES if choice.startswith(cell_type)]
        values = [
            [edge, *(cell(choice, edge, operation) for operation in OPERATIONS)]
            for edge, choice in zip(EDGE_NAMES, choices, strict=True)
        ]
        columns = ("edge", *map(vertical_header, OPERATIONS))
        return table(f"{title}: stages by edge", columns, values, kind="heat")

    maps = [heat_map(*names) for names in CELLS.items()]
    return section("Survival of operations", element("p", text), pair(*maps))


def _trained(rows):
    """The precisions of the networks that a search trained."""
    return PRECISIONS if search_log.has_parents(rows) else PRECISIONS[:1]


def _accuracies(rows):
    trained = _trained(rows)
    who = " and ".join(f"{name} ({words})" for name, words in WORDS.items() if name in trained)
    picture = figure(
        plot_accuracies(rows),
        name="accuracies",
        title=f"Validation accuracy of {' and '.join(trained)} by architecture; the table lists "
        "the means",
        caption=f"Each architecture's {who} after one epoch.",
    )
    operations, values = search_log.initial_operations(rows), []
    for stage, group in search_log.by_stage(rows).items():
        found = search_log.totals(group)
        means = (f"{found[f'{who}_accuracy']:.2%}" for who in trained)
        values.append((str(operations - stage), str(len(group)), *means))
    columns = ("operations left", "architectures", *(f"{who}, mean" for who in trained))
    return section("Accuracy over the search", picture, table("Accuracy by stage", columns, values))


def _scores(rows):
    text = (
        "The mean of 100 z, with z = A_C + beta_P (A_P - A_C) of Eq. 1, over all edges and "
        "architectures with the operation. Each column is a stage; the darkest cell is its best."
    )
    operations, scores = search_log.initial_operations(rows), search_log.mean_scores(rows)

    def cell(stage, name):
        if name not in scores[stage]:
            return heat("", 0, f"no edge has {name} left")
        low, high = min(scores[stage].values()), max(scores[stage].values())
        score = scores[stage][name]
        share = (score - low) / (high - low) if high > low else 0.5
        return heat(f"{100 * score:.1f}", share, f"{name}, {operations - stage} left: {score:.4f}")

    values = [[name, *(cell(stage, name) for stage in scores)] for name in OPERATIONS]
    columns = ("operation", *(str(operations - stage) for stage in scores))
    caption = "100 z by operation; one column per number of operations left"
    return section(
        "Score z by operation", element("p", text), table(caption, columns, values, kind="heat")
    )


def comparison(
    genotype: Genotype | None,
    config: Mapping[str, Any],
    trained: Sequence[Mapping[str, Any]],
) -> Element:
    """The section that compares trained networks with the paper's, see `sections`."""
    dataset = "imagenet2012" if setting(config, "data", "name") == "imagenet2012" else "cifar10"
    tables: dict[str, tuple[Any, tuple[str, ...], str]] = {
        "cifar10": (
            TABLE_1,
            ("test error %",),
            "Test error on CIFAR-10 (Table 1), costs (Table 3)",
        ),
        "imagenet2012": (TABLE_2, ("top-1 %", "top-5 %"), "Accuracy on ImageNet (Table 2)"),
    }
    printed, measures, title = tables[dataset]
    rows = [_trained_row(network, genotype, measures) for network in trained]
    for name, (*reached, parameters, weights, activations) in printed.items():
        costs = TABLE_3.get(name, (None,) * 4) if printed is TABLE_1 else (None,) * 4
        bits = f"{weights}/{activations}"
        rows.append([f"paper: {name}", *map(_number, reached), f"{parameters:g}", bits])
        rows[-1] += map(_number, costs)
    text = (
        "Saving and speedup compare bits and FLOPs with those of WRN-22 in full precision on the "
        "32x32 images of CIFAR-10. A network for other images has no speedup. As the paper does, "
        "they count convolutions and classifiers; cpnas profile counts the rest as well."
    )
    if not trained:
        text += " No trained network was given (--train)."
    elif {network["data"] for network in trained} != {dataset}:
        text += " Networks trained on other images cannot be compared with the paper's."
    columns = ("M parameters", "W/A bits", "Mbit", "MFLOPs", "saving", "speedup")
    return section(
        "Beside the paper",
        element("p", text),
        table(title, ("network", *measures, *columns), rows),
    )


def _trained_row(network, genotype, measures):
    """A trained network's row: its error for Table 1 or its accuracy for Table 2, and its costs."""
    accuracy = 100 * network["accuracy"]
    reached = [_number(100 - accuracy)] if len(measures) == 1 else [_number(accuracy), "–"]
    other = network["genotype"] not in (None, genotype)
    name = f"here: {network['name']}, {network['precision']} on {shown_name(network['data'])}"
    costs = [network[key] for key in ("memory_mbit", "flops_m", "memory_saving")]
    costs.append(network["speedup"] if network["data"] == "cifar10" else None)
    return [
        f"{name}, another genotype" if other else name,
        *reached,
        f"{network['parameters'] / 1e6:.3g}",
        BITS[network["precision"]],
        *map(_number, costs),
    ]


def _number(value):
    return "–" if value is None else f"{value:.2f}"


def _cost(rows, config, trained):
    images, seconds = training_images(config), sum(row["seconds"] for row in rows)
    values = [
        ("architectures sampled", f"{len(rows)}"),
        ("search, seconds", f"{seconds:,.0f} ({duration(seconds)})"),
        ("seconds per architecture", f"{seconds / len(rows):,.1f}"),
    ]
    if images:
        values.insert(1, ("training images per architecture", f"{images:,}"))
        seen = f"images in all, each seen by {' and '.join(_trained(rows))}"
        values.insert(2, (seen, f"{images * len(rows):,}"))
    return cost(values, trained)


def cost(values: Sequence[tuple[str, str]], trained: Sequence[Mapping[str, Any]]) -> Element:
    """The section with costs: (what, text) pairs, then the trainings' and the paper's."""
    values = list(values)
    for network in trained:
        name = f"training of {network['name']}, seconds"
        values.append((name, f"{network['seconds']:,.0f} ({duration(network['seconds'])})"))
    for dataset, days in SEARCH_COST.items():
        values.append((f"paper: search on {dataset}, GPU-days", f"{days:g}"))
    return section("Cost", table("What it took", ("what", "value"), values, kind="words"))
