"""`cpnas profile` of a checkout: python bin/profile.py --help."""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
from cpnas_tf.cli import app
from cpnas_tf.commands import profile

if __name__ == "__main__":
    app.run(profile.main, profile.define_flags)
