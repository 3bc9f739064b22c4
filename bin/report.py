"""`cpnas report` of a checkout: python bin/report.py --help."""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
from cpnas_tf.cli import app
from cpnas_tf.commands import report

if __name__ == "__main__":
    app.run(report.main, report.define_flags)
