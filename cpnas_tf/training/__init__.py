"""Training a network, with the Child-Parent loss for a child, and measuring it."""

from cpnas_tf.training.bonn import BONNLoss
from cpnas_tf.training.child_parent import ChildParentLoss
from cpnas_tf.training.evaluation import evaluate, load_trained
from cpnas_tf.training.loop import Training, train
from cpnas_tf.training.pcnn import PCNNLoss

# The losses of `catalogue.BINARIZATIONS`, by their section of --config.
LOSSES = {"child_parent": ChildParentLoss, "pcnn": PCNNLoss, "bonn": BONNLoss}
__all__ = [
    "LOSSES",
    "BONNLoss",
    "ChildParentLoss",
    "PCNNLoss",
    "Training",
    "evaluate",
    "load_trained",
    "train",
]
