"""`cpnas train` of a checkout: python bin/train.py --help."""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
from cpnas_tf.cli import app
from cpnas_tf.commands import train

if __name__ == "__main__":
    app.run(train.main, train.define_flags)
