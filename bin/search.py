"""`cpnas search` of a checkout: python bin/search.py --help."""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
from cpnas_tf.cli import app
from cpnas_tf.commands import search

if __name__ == "__main__":
    app.run(search.main, search.define_flags)
