"""Training a network, with the Child-Parent loss for a child, and measuring it."""

from cpnas_tf.training.child_parent import ChildParentLoss
from cpnas_tf.training.evaluation import evaluate, load_trained
from cpnas_tf.training.loop import Training, train

__all__ = ["ChildParentLoss", "Training", "evaluate", "load_trained", "train"]
