"""`cpnas evaluate` of a checkout: python bin/evaluate.py --help."""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
from cpnas_tf.cli import app
from cpnas_tf.commands import evaluate

if __name__ == "__main__":
    app.run(evaluate.main, evaluate.define_flags)
