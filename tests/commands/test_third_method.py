"""A further search method is one module and one row: every command that needs to knows it."""

import forked
import pytest
from commands import SEARCH, check_refused, read_csv, read_json, succeed
from forked import ROOT
from pages import Page

from cpnas_tf import catalogue
from cpnas_tf.genotypes import CHOICES, Genotype

DRAWN = ("--config.method=drawn", "--config.drawn.draws=4")


def add_a_row():
    catalogue.METHODS["drawn"] = catalogue.Method("drawn_search:DrawnSearch", "drawn")


@pytest.fixture
def config(tmp_path):
    """A config with the method's section."""
    path = tmp_path / "config.py"
    path.write_text(
        f"{(ROOT / 'configs' / 'search_digits.py').read_text()}\n\noriginal = get_config\n\n\n"
        "def get_config():\n"
        "    return ConfigDict({**original().to_dict(), 'drawn': {'draws': 3, 'seed': 5}})\n"
    )
    return f"--config={path}"


def test_it_searches_and_is_drawn_and_reported(tmp_path, data_dir, config):
    folder = tmp_path / "run"
    images = SEARCH[1:3]
    command = ("search", config, *images, *DRAWN, f"--workdir={folder}", f"--data_dir={data_dir}")
    planned = succeed(forked.run(*command, "--dry_run", before=add_a_row))
    assert planned == "4 draws beside 96 images\n"
    assert not folder.exists()
    printed = succeed(forked.run(*command, before=add_a_row))
    assert printed.startswith("4 epochs in 0:00:02; ")
    rows = read_csv(folder / "search.csv")
    genotype = Genotype.load(folder / "genotype.json")
    assert len(rows) == 4
    assert genotype.choices == tuple(rows[-1][name] for name in CHOICES)
    assert read_json(folder / "config.json")["config"]["drawn"] == {"draws": 4, "seed": 5}

    plots, report = tmp_path / "plots", tmp_path / "report.html"
    drawn = forked.run("plot", f"--workdir={folder}", f"--output={plots}", before=add_a_row)
    assert f"{plots}/search.png" in succeed(drawn).split()
    command = ("report", f"--workdir={folder}", f"--output={report}")
    succeed(forked.run(*command, before=add_a_row))
    page = Page(report.read_bytes())
    assert "Operations over the search" in page.headings
    assert "seed of the search5" in page.words


def test_its_settings_are_refused_before_anything_is_written(tmp_path, data_dir, config):
    arguments = (config, *DRAWN, f"--workdir={tmp_path}/run", f"--data_dir={data_dir}")
    for argument, value in (
        ("--config.drawn.draws=0", "draws must be at least 1, received: 0"),
        ("--config.strategy=mirrored", "drawn takes strategy none alone, received: 'mirrored'"),
    ):
        check_refused(tmp_path, "search", *arguments, argument, value=value, before=add_a_row)


def test_without_its_row_it_is_unknown(tmp_path):
    arguments = (*SEARCH, "--config.method=drawn", f"--workdir={tmp_path}/run")
    known = "random, bnas, bnas_w1a32, cpnas, pc_darts, best_of_n, evolution, guided"
    value = f"method must be one of {known}, received: 'drawn'"
    check_refused(tmp_path, "search", *arguments, value=value)
