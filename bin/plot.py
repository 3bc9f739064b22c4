"""`cpnas plot` of a checkout: python bin/plot.py --help."""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
from cpnas_tf.cli import app
from cpnas_tf.commands import plot

if __name__ == "__main__":
    app.run(plot.main, plot.define_flags)
