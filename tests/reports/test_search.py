import re

import pytest
from fake_search import run_search, without_parents
from pages import Page

from cpnas_tf.genotypes import CELL_TYPES, OPERATIONS
from cpnas_tf.reports import search as search_report
from cpnas_tf.reports.html import page
from cpnas_tf.reports.paper_tables import TABLE_1, TABLE_2
from cpnas_tf.runs import search_log

CONFIG = {
    "data": {"name": "cifar10", "split": "train"},
    "split": {"train_fraction": 0.5, "seed": 3},
    "search": {"rounds": 2, "beta": 2.0, "seed": 7},
}
TITLES = {"normal": "Normal cell", "reduce": "Reduction cell"}
COMPARISON = "Test error on CIFAR-10 (Table 1), costs (Table 3)"


def report(*arguments, **named):
    return Page(page("a search", *search_report.sections(*arguments, **named)))


def trained(genotype, **more):
    return {
        "name": "child",
        "precision": "child",
        "data": "cifar10",
        "genotype": genotype,
        "accuracy": 0.9,
        "seconds": 3661.4,
        "parameters": 2_912_345,
        "memory_mbit": 3.5,
        "flops_m": 12.25,
        "memory_saving": 39.5,
        "speedup": 52.875,
        **more,
    }


@pytest.fixture(scope="module")
def finished():
    rows, history, genotype = run_search(rounds=2)
    return rows, history, genotype, report(rows, genotype=genotype, config=CONFIG)


def test_every_part_is_there(finished):
    assert finished[-1].headings == [
        "a search",
        "Cells",
        "Survival of operations",
        "Accuracy over the search",
        "Score z by operation",
        "Beside the paper",
        "Cost",
    ]
    assert "Unfinished" not in finished[-1].words


def test_the_cells_are_drawn_and_told(finished):
    _, _, genotype, found = finished
    for picture, cell in zip(found.pictures, CELL_TYPES, strict=False):
        assert picture.startswith(f"{TITLES[cell]}: c(k-2) → 0 {getattr(genotype, cell)[0]}, ")
        assert picture.endswith(f", 2 → 3 {getattr(genotype, cell)[-1]}")
    assert "normal_0_2 is the normal cell's edge c(k-2) → 0." in found.words
    header, *edges = found.tables["The operation of each edge"]
    assert header == ["edge", "Normal cell", "Reduction cell"]
    assert [row[1:] for row in edges] == [
        list(pair) for pair in zip(genotype.normal, genotype.reduce, strict=True)
    ]
    assert [row[0] for row in edges[:5]] == [
        *("c(k-2) → 0", "c(k-1) → 0", "c(k-2) → 1", "c(k-1) → 1", "0 → 1"),
    ]


@pytest.mark.parametrize("cell", CELL_TYPES)
def test_survival_is_how_many_stages_an_edge_kept_an_operation(finished, cell):
    _, history, genotype, found = finished
    header, *rows = found.tables[f"{TITLES[cell]}: stages by edge"]
    assert header == ["edge", *OPERATIONS]
    edges = [edge for edge in history[0] if edge.startswith(cell)]
    for edge, kept, row in zip(edges, getattr(genotype, cell), rows, strict=True):
        stages = {name: str(sum(name in left[edge] for left in history)) for name in OPERATIONS}
        assert row[1:] == list({**stages, kept: "✓"}.values())


def test_accuracies_are_means_of_stages(finished):
    rows, _, _, found = finished
    _, *lines = found.tables["Accuracy by stage"]
    assert [line[0] for line in lines] == list("8765432")
    for line, group in zip(lines, search_log.by_stage(rows).values(), strict=True):
        child, parent = (
            sum(row[f"{who}_accuracy"] for row in group) / len(group) for who in ("child", "parent")
        )
        assert line[1:] == [str(len(group)), f"{child:.2%}", f"{parent:.2%}"]


def test_a_search_without_parents_is_reported_without_them():
    rows, _, genotype = run_search(rounds=2)
    rows = without_parents(rows)
    found = report(rows, genotype=genotype, config=CONFIG)
    header, *lines = found.tables["Accuracy by stage"]
    assert header[2:] == ["child, mean"]
    assert {len(line) for line in lines} == {3}
    (picture,) = (words for words in found.pictures if words.startswith("Validation accuracy"))
    assert "parent" not in picture
    assert "parent, mean" not in found.words
    assert ["images in all, each seen by child", "1,750,000"] in found.tables["What it took"]


def test_scores_are_hundred_z(finished):
    rows, _, _, found = finished
    caption = "100 z by operation; one column per number of operations left"
    header, *lines = found.tables[caption]
    assert header == ["operation", *"8765432"]
    scores = search_log.mean_scores(rows)
    for name, line in zip(OPERATIONS, lines, strict=True):
        known = [f"{100 * scores[s][name]:.1f}" if name in scores[s] else "" for s in range(7)]
        assert line == [name, *known]


def test_seeds_and_cost(finished):
    rows, _, _, found = finished
    for fact in ("seed of the search7", "seed of the images' split3", "architectures70 of 70"):
        assert fact in found.words
    assert found.tables["What it took"][1:] == [
        ["architectures sampled", "70"],
        ["training images per architecture", "25,000"],
        ["images in all, each seen by child and parent", "1,750,000"],
        ["search, seconds", "105 (0:01:45)"],
        ["seconds per architecture", "1.5"],
        ["paper: search on cifar10, GPU-days", "0.1"],
        ["paper: search on imagenet2012, GPU-days", "2.8"],
    ]


@pytest.mark.parametrize(
    ("config", "images"),
    [
        ({"split": {"train_images": 2560, "train_fraction": 0.5}}, 2560),
        ({"data": {"name": "digits", "split": "train"}, "split": {"train_fraction": 0.5}}, 718),
        ({"data": {"name": "digits", "split": "test"}, "split": {"train_fraction": 0.5}}, None),
        ({"data": {"name": "mine", "split": "train"}, "split": {"train_fraction": 0.5}}, None),
        ({"data": [], "split": {"train_images": "many"}}, None),
        ({}, None),
    ],
)
def test_training_images_are_told_where_they_are_known(config, images):
    assert search_report.training_images(config) == images


class TestComparison:
    def test_the_paper_s_rows(self, finished):
        header, *rows = finished[-1].tables[COMPARISON]
        assert header[:4] == ["network", "test error %", "M parameters", "W/A bits"]
        assert [row[0] for row in rows] == [f"paper: {name}" for name in TABLE_1]
        small = ["paper: CP-NAS (Small)", "6.50", "2.9", "1/1", "3.32", "12.89", "41.56", "50.24"]
        assert small in rows
        assert ["paper: DARTS", "2.83", "3.4", "32/32", *"––––"] in rows
        assert "(--train)" in finished[-1].words

    def test_our_networks_come_first(self, finished):
        rows, _, genotype, _ = finished
        other = run_search(rounds=1, seed=1)[-1]
        networks = [
            trained(genotype),
            trained(other, name="digits child", precision="parent", data="digits", accuracy=1.0),
        ]
        found = report(rows, genotype=genotype, config=CONFIG, trained=networks)
        own, another, first, *_ = found.tables[COMPARISON][1:]
        name = "here: child, child on cifar10"
        assert own == [name, "10.00", "2.91", "1/1", "3.50", "12.25", "39.50", "52.88"]
        assert another[0] == "here: digits child, parent on digits, another genotype"
        assert another[1:] == ["0.00", "2.91", "32/32", "3.50", "12.25", "39.50", "–"]
        assert first[0] == "paper: WRN-22"
        assert "cannot be compared" in found.words
        assert ["training of child, seconds", "3,661 (1:01:01)"] in found.tables["What it took"]

    def test_imagenet_has_a_table_of_its_own(self, finished):
        rows, _, genotype, _ = finished
        config = {"data": {"name": "imagenet2012"}}
        network = trained(genotype, data="imagenet2012", accuracy=0.665)
        found = report(rows, genotype=genotype, config=config, trained=[network])
        header, own, *printed = found.tables["Accuracy on ImageNet (Table 2)"]
        assert header[1:3] == ["top-1 %", "top-5 %"]
        assert own[1:3] == ["66.50", "–"]
        assert len(printed) == len(TABLE_2)
        assert printed[-1][:5] == ["paper: CP-NAS **", "66.50", "86.80", "12.5", "1/1"]
        assert "cannot be compared" not in found.words


class TestUnfinished:
    @pytest.mark.parametrize("stop", [1, 7, 8, 22, 69])
    def test_what_there_is_is_told(self, stop):
        rows, _, _ = run_search(rounds=2)
        found = report(rows[:stop], config=CONFIG)
        assert f"Unfinished: {stop} of 70 architectures are sampled." in found.words
        assert "None yet" in found.words
        assert len(found.pictures) == 1
        maps = [name for name in found.tables if name.endswith("stages by edge")]
        assert len(maps) == (2 if stop >= 8 else 0)

    def test_what_an_edge_still_has_is_marked(self):
        rows, history, _ = run_search(rounds=1)
        found = report(rows[:16], config=CONFIG)  # one architecture into the third stage
        _, first, *_ = found.tables["Normal cell: stages by edge"]
        left = history[1]["normal_0_2"]
        assert first[1:] == ["2+" if name in left else "1" for name in OPERATIONS]
        notes = [note for note in found.notes if note.startswith("c(k-2) → 0: ")]
        assert sum("still there after 2 of 7 stages" in note for note in notes) == 2 * 7

    def test_without_a_config_the_total_is_not_known(self):
        rows, _, genotype = run_search(rounds=1)
        assert "Unfinished: 9 architectures are sampled." in report(rows[:9]).words
        assert "Unfinished" not in report(rows, genotype=genotype).words


def test_a_search_over_fewer_operations():
    rows, history, genotype = run_search(rounds=2, operations=OPERATIONS[:3])
    found = report(rows, genotype=genotype, config=CONFIG)
    assert "architectures10 of 10" in found.words
    _, *edges = found.tables["Normal cell: stages by edge"]
    assert all(sorted(row[1:4]) == ["1", "2", "✓"] and row[4:] == [""] * 5 for row in edges)


def test_a_genotype_alone():
    found = report(genotype=run_search(rounds=1)[-1], config=CONFIG)
    assert found.headings == ["a search", "Cells", "Beside the paper"]
    assert len(found.pictures) == 2
    assert not re.search("Unfinished|None yet", found.words)
