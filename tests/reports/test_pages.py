import json
import shutil

import pytest
from fake_ablation import ACCURACIES, runs_of, searches_of
from fake_ablation import write as write_ablation
from fake_epochs import run_epochs
from fake_epochs import write as write_epochs
from fake_search import run_search, write_log
from pages import Page

from cpnas_tf.ablation import report as ablation_report
from cpnas_tf.reports.pages import make_report

HOSTILE = "<script>alert(1)</script>&amp;\"'"
CONFIG = {
    "version": "0.1.0",
    "config": {
        "data": {"name": "digits", "split": "train"},
        "search": {"rounds": 1, "operations": ["none", "skip_connect"], "seed": 5},
    },
    "data_dir": "/home/me/data",
    "command": "search",
}


@pytest.fixture
def search(tmp_path):
    """The folder of a finished search."""
    rows, _, genotype = run_search(rounds=1)
    folder = tmp_path / "found"
    folder.mkdir()
    write_log(folder / "search.csv", rows)
    genotype.save(folder / "genotype.json")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture
def ablation(tmp_path):
    write_ablation(tmp_path / "compared", searches_of(ACCURACIES), runs_of(ACCURACIES))
    (tmp_path / "compared" / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path / "compared"


def test_a_search(search):
    page = Page(make_report(search))
    assert page.headings[0] == "Search on digits"
    assert page.headings[-1] == "Configuration"
    assert len(page.pictures) == 3
    assert "found, read by cpnas_tf" in page.words


def test_a_search_by_epochs(search):
    write_epochs(search / "search.csv", run_epochs(12))
    page = Page(make_report(search))
    assert page.headings[0] == "Search on digits"
    assert "Operations over the search" in page.headings
    (search / "genotype.json").unlink()
    assert "Unfinished: 12 epochs are done." in Page(make_report(search)).words


def test_an_ablation(ablation):
    (ablation / "runs" / "begun").mkdir()
    page = Page(ablation_report.make_report(ablation))
    assert page.headings[0] == "Ablation on digits"
    assert page.headings[-1] == "Configuration"
    assert "Unfinished: 1 searches or trainings" in page.words


def test_the_configuration_is_told_and_not_where_data_lies(search):
    content = make_report(search)
    table = Page(content).tables["config.json; a seed that is not listed is 0"]
    assert table == [
        ["key", "value"],
        ["data.name", "digits"],
        ["data.split", "train"],
        ["search.rounds", "1"],
        ["search.operations", "none, skip_connect"],
        ["search.seed", "5"],
        ["version", "0.1.0"],
        ["command", "search"],
    ]
    assert b"/home/me" not in content
    assert str(search.parent).encode() not in content


def test_own_images_are_named_without_their_place(search):
    config = {**CONFIG["config"], "data": {"name": "folder:/home/me/pets/", "split": "train"}}
    images = {"classes": ["cat"], "shape": [8, 8, 3], "origin": {"train/cat": "8 images"}}
    run = {**CONFIG, "config": config, "cwd": "/home/me", "images": images}
    (search / "config.json").write_text(json.dumps(run))
    content = make_report(search)
    page = Page(content)
    assert page.headings[0] == "Search on folder:pets"
    assert ["data.name", "folder:pets"] in page.tables[
        "config.json; a seed that is not listed is 0"
    ]
    assert b"/home/me" not in content
    assert b"8 images" not in content


def test_equal_files_give_equal_reports(search, tmp_path):
    shutil.copytree(search, tmp_path / "other" / "found")
    assert make_report(search) == make_report(tmp_path / "other" / "found")


def test_a_genotype_alone_and_a_log_alone(search):
    (search / "config.json").unlink()
    (search / "genotype.json").rename(search / "genotype.txt")
    page = Page(make_report(search))
    assert page.headings[0] == "Search"
    assert "Unfinished: 35 architectures" in page.words
    assert "no config.json" in page.words
    (search / "genotype.txt").rename(search / "genotype.json")
    (search / "search.csv").unlink()
    page = Page(make_report(search))
    assert page.headings == ["Search", "Cells", "Beside the paper", "Configuration"]


def test_no_value_becomes_markup(search, ablation, tmp_path):
    config = {"data": {"name": HOSTILE}, HOSTILE: HOSTILE, "search": {"seed": HOSTILE}}
    for folder in (search, ablation):
        (folder / "config.json").write_text(json.dumps({"config": config}))
    record = json.loads((ablation / "runs" / "000" / "run.json").read_text())
    for kind, name in (("searches", "search.json"), ("runs", "run.json")):
        for path in (ablation / kind).glob(f"*/{name}"):
            changed = {**json.loads(path.read_text())}
            if changed["method"] == record["method"]:
                path.write_text(json.dumps({**changed, "method": HOSTILE}))
    for folder, kind, make in (
        (search, "Search", make_report),
        (ablation, "Ablation", ablation_report.make_report),
    ):
        moved = folder.rename(tmp_path / HOSTILE.replace("/", ""))
        page = Page(make(moved))
        assert page.headings[0] == f"{kind} on {HOSTILE}"
        assert page.words.count(HOSTILE) >= 4
        shutil.rmtree(moved)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "[]", r"config.json: a JSON object is needed, received: \[\]"),
        ("config.json", "{", "cannot read .*config.json"),
        ("search.csv", "", "cannot read the search log"),
        ("genotype.json", "{}", "cannot read the genotype"),
    ],
)
def test_a_broken_file_is_named(search, name, content, message):
    (search / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        make_report(search)


@pytest.mark.parametrize("config", ["7", '{"data": 7}', '{"data": {}, "search": [], "split": ""}'])
def test_a_config_of_another_kind_is_shown_as_it_is(search, config):
    (search / "config.json").write_text(f'{{"config": {config}}}')
    assert Page(make_report(search)).headings[0] == "Search"


def test_what_cannot_be_reported(tmp_path, ablation):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="neither a search .* nor a finished run"):
            make_report(folder)
        with pytest.raises(ValueError, match="neither a search .* nor a finished run"):
            ablation_report.make_report(folder)
    with pytest.raises(ValueError, match="nothing to report"):
        make_report(ablation, trained=[{}])
