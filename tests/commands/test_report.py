"""The command that reports on a search or an ablation."""

import json

import forked
import pytest
from commands import TRAIN, check_refused, read_json, refusal, succeed
from pages import Page


def test_what_is_written(runs, tmp_path):
    output = tmp_path / "report.html"
    arguments = (f"--workdir={runs}/search", f"--output={output}", f"--train={runs}/train")
    assert succeed(forked.run("report", *arguments)) == f"{output}\n"
    page = Page(output.read_bytes())
    accuracy = read_json(runs / "train" / "metrics.json")["val_accuracy"]
    row = page.tables["Test error on CIFAR-10 (Table 1), costs (Table 3)"][1]
    assert row[:2] == ["here: train, child on digits", f"{100 - 100 * accuracy:.2f}"]
    genotype = f"--genotype={runs}/search/genotype.json"
    profile = json.loads(succeed(forked.run("profile", *TRAIN, genotype, "--json")))
    assert row[4] == f"{profile['memory_mbit']:.2f}"


def test_a_training(runs, copy_of, tmp_path):
    output = tmp_path / "report.html"
    succeed(forked.run("report", f"--workdir={runs}/train", f"--output={output}"))
    page = Page(output.read_bytes())
    evaluation = read_json(runs / "train" / "evaluation.json")
    assert page.headings[0] == f"{evaluation['accuracy']:.2%} test accuracy: child on digits"
    assert {"Confusion matrix", "Examples", "Size", "Cells"} <= set(page.headings)
    profile = json.loads(
        succeed(forked.run("profile", *TRAIN, f"--genotype={runs}/search/genotype.json", "--json"))
    )
    sizes = dict(page.tables["The network's size and cost, counted as the paper does"])
    assert sizes["memory, Mbit"] == f"{profile['memory_mbit']:.2f}"
    workdir = copy_of("train")
    (workdir / "metrics.json").unlink()
    arguments = (f"--workdir={workdir}", f"--output={output}", "--overwrite")
    succeed(forked.run("report", *arguments))
    assert "Unfinished: 2 of 2 epochs are done." in Page(output.read_bytes()).words


def test_overwrite(runs, tmp_path):
    arguments = (f"--workdir={runs}/search", f"--output={tmp_path}/report.html")
    succeed(forked.run("report", *arguments))
    report = (tmp_path / "report.html").read_bytes()
    old = report.replace(b"<h1>", b"<h1>An older ")
    (tmp_path / "report.html").write_bytes(old)
    assert "--overwrite" in refusal("report", *arguments)
    assert (tmp_path / "report.html").read_bytes() == old
    succeed(forked.run("report", *arguments, "--overwrite"))
    assert (tmp_path / "report.html").read_bytes() == report


@pytest.mark.parametrize("workdir", ["missing", "{runs}/export", "{runs}/search/search.csv"])
def test_no_search(runs, tmp_path, workdir):
    path = tmp_path / workdir.format(runs=runs)
    arguments = (f"--workdir={path}", f"--output={tmp_path}/report.html")
    check_refused(tmp_path, "report", *arguments, value=f"nothing to report in {path}")


def test_a_training_beside_no_search(runs, tmp_path):
    arguments = (f"--workdir={tmp_path}", f"--output={tmp_path}/report.html")
    value = f"--train goes with a search, and {tmp_path} holds none"
    check_refused(tmp_path, "report", *arguments, f"--train={runs}/train", value=value)


def test_no_training(runs, tmp_path):
    arguments = (f"--workdir={runs}/search", f"--output={tmp_path}/report.html")
    value = f"{runs}/search holds no finished training"
    check_refused(tmp_path, "report", *arguments, f"--train={runs}/search", value=value)


@pytest.mark.parametrize("output", ["folder", "missing/file", "/proc/below"])
def test_not_a_file(runs, tmp_path, output):
    (tmp_path / "folder").mkdir()
    arguments = (f"--workdir={runs}/search", f"--output={tmp_path / output}", "--overwrite")
    check_refused(tmp_path, "report", *arguments, value=str(tmp_path / output))


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize("name", ["thesis.html", "folder", "link"])
def test_it_keeps_what_is_not_its_own(runs, tmp_path, name, more):
    (tmp_path / "thesis.html").write_text("<html><p>cpnas_tf</p></html>")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("thesis.html")
    arguments = (f"--workdir={runs}/search", f"--output={tmp_path / name}", *more)
    value = f"{tmp_path / name} is there and is no report"
    check_refused(tmp_path, "report", *arguments, value=value)
