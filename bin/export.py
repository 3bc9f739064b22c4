"""`cpnas export` of a checkout: python bin/export.py --help."""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
from cpnas_tf.cli import app
from cpnas_tf.commands import export

if __name__ == "__main__":
    app.run(export.main, export.define_flags)
