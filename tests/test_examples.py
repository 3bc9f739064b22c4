"""The examples in the docstrings of the public names, each run in an empty folder."""

import doctest

import pytest

import cpnas_tf
from cpnas_tf.export import export
from cpnas_tf.search import search

PUBLIC = [search, export, *(getattr(cpnas_tf, name) for name in cpnas_tf.__all__)]


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.__name__)
def test_the_example_gives_what_it_says(public, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (found,) = doctest.DocTestFinder(recurse=False).find(public, public.__name__, globs={})
    assert found.examples
    report = []
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(found, out=report.append)
    assert results.failed == 0, "".join(report)
