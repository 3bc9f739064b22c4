"""`cpnas ablate` of a checkout: python bin/ablate.py --help."""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
from cpnas_tf.cli import app
from cpnas_tf.commands import ablate

if __name__ == "__main__":
    app.run(ablate.main, ablate.define_flags)
