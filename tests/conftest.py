"""Settles Keras 2 and quiets TensorFlow's log before any test module imports TensorFlow."""

import os

import cpnas_tf  # noqa: F401

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
