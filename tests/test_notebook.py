"""The documentation's notebook, cell by cell."""

import json
import pathlib

import numpy as np
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[1] / "docs" / "digits.ipynb"


def sources():
    """The code of the cells; a line that begins with % is for Jupyter."""
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield "".join(line for line in cell["source"] if not line.startswith("%"))


@pytest.mark.soak  # it takes a minute
def test_it_runs_and_what_it_finds_is_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for source in sources():
        exec(compile(source, str(NOTEBOOK), "exec"), names)
    test = names["test"]
    assert names["evaluation"]["accuracy"] > 0.75
    assert names["summary"]["changed_predictions"] == 0
    found = names["answer"]["labels"].numpy().astype(str)
    expected = np.array(test.class_names)[test.labels[:10]]
    assert (found == expected).sum() >= 6
