"""`cpnas front` of a checkout: python bin/front.py --help."""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
from cpnas_tf.cli import app
from cpnas_tf.commands import front

if __name__ == "__main__":
    app.run(front.main, front.define_flags)
