"""`cpnas predict` of a checkout: python bin/predict.py --help."""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
from cpnas_tf.cli import app
from cpnas_tf.commands import predict

if __name__ == "__main__":
    app.run(predict.main, predict.define_flags)
