"""The command that draws a search, a genotype or an ablation."""

import os

import fake_epochs
import forked
import pytest
from commands import check_refused, succeed


def test_what_is_written(runs):
    pictures = {path.name: path.read_bytes() for path in (runs / "plots").iterdir()}
    names = ("normal", "reduce", "genotype", "search")
    assert set(pictures) == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    for name, content in pictures.items():
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")


def test_a_search_by_epochs(tmp_path):
    fake_epochs.write(tmp_path / "search.csv", fake_epochs.run_epochs(12))
    arguments = (f"--workdir={tmp_path}", f"--output={tmp_path}/plots")
    printed = succeed(forked.run("plot", *arguments)).split()
    assert printed == [f"{tmp_path}/plots/search.{kind}" for kind in ("png", "svg")]
    assert "architecture" in (tmp_path / "plots/search.svg").read_text()


def test_a_training(runs, tmp_path):
    printed = succeed(forked.run("plot", f"--workdir={runs}/train", f"--output={tmp_path}/plots"))
    assert printed.split() == [f"{tmp_path}/plots/history.{kind}" for kind in ("png", "svg")]
    assert "cross-entropy" in (tmp_path / "plots" / "history.svg").read_text()


def test_a_genotype(runs, tmp_path):
    genotype = f"--genotype={runs}/search/genotype.json"
    printed = succeed(forked.run("plot", genotype, f"--output={tmp_path}/plots")).split()
    names = ("normal", "reduce", "genotype")
    expected = {f"{tmp_path}/plots/{name}.{kind}" for name in names for kind in ("png", "svg")}
    assert set(printed) == expected
    assert all(map(os.path.isfile, printed))


def test_overwrite(runs, copy_of):
    output = copy_of("plots")
    (output / "search.svg").write_text("old")
    succeed(forked.run("plot", f"--workdir={runs}/search", f"--output={output}", "--overwrite"))
    assert (output / "search.svg").read_bytes() == (runs / "plots/search.svg").read_bytes()


def test_it_takes_a_workdir_or_a_genotype(tmp_path, genotype):
    arguments = (f"--workdir={tmp_path}", f"--genotype={genotype}", f"--output={tmp_path}/new")
    check_refused(tmp_path, "plot", *arguments, value="workdir")


@pytest.mark.parametrize("workdir", ["missing", "{runs}/export"])
def test_no_search(runs, tmp_path, workdir):
    path = tmp_path / workdir.format(runs=runs)
    arguments = (f"--workdir={path}", f"--output={tmp_path}/output")
    check_refused(tmp_path, "plot", *arguments, value=f"not found: {path}/search.csv")


def test_a_broken_search(copy_of, tmp_path):
    workdir = copy_of("search")
    os.truncate(workdir / "search.csv", 1000)
    arguments = (f"--workdir={workdir}", f"--output={tmp_path}/output")
    check_refused(tmp_path, "plot", *arguments, value=f"{workdir}/search.csv, line")


def test_a_bug_is_not_taken_for_a_bad_input(tmp_path, genotype):
    """What only a programmer can mend has its traceback."""
    arguments = (f"--genotype={genotype}", f"--output={tmp_path}/plots")
    outcome = forked.run("plot", *arguments, before=break_plotting)
    assert outcome.code == 1
    assert "Traceback" in outcome.stderr
    assert "'NoneType' object is not callable" in outcome.stderr


def break_plotting():
    import cpnas_tf.plots.search

    cpnas_tf.plots.search.plot = None
