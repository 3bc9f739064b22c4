"""The command that sums up `make quickstart`."""

import re
import shutil

import forked
from commands import read_json, refusal, succeed


def test_it_sums_up_what_the_other_commands_made(runs, tmp_path):
    folder = tmp_path / "quickstart"
    line = refusal("quickstart", f"--folder={folder}")
    assert f"{folder}/search/search.csv" in line
    shutil.copytree(runs, folder)
    shutil.copytree(runs / "train", folder / "train_parent")
    printed = succeed(forked.run("quickstart", f"--folder={folder}"))
    accuracy = read_json(runs / "train" / "evaluation.json")["accuracy"]
    assert re.search(rf"test accuracy +{accuracy:.2%} +{accuracy:.2%}\n", printed)
    for name in ("search/genotype.json", "train", "export/saved_model", "plots", "report.html"):
        assert f"{folder}/{name}" in printed
