"""Training and evaluation of networks: takes a Keras model and images, keeps checkpoints.

References:
    CP-NAS, section 3.1, for the recipe: SGD, cosine to 0, L2, gradient clipping at 5.
"""

import functools
import math
import os
import signal
import sys

import tensorflow as tf

from cpnas_tf import devices
from cpnas_tf.data import streams
from cpnas_tf.networks.cells import add_auxiliary_tower
from cpnas_tf.runs.checkpoints import has_checkpoint, load_weights
from cpnas_tf.training.callback import EpochCallback
from cpnas_tf.training.optimizers import make_optimizer


def train(
    model,
    images,
    *,
    validation,
    directory,
    epochs=600,
    batch_size=96,
    optimizer="sgd",
    learning_rate=0.025,
    momentum=0.9,
    weight_decay=3e-4,
    decay_batch_norm=True,
    gradient_clip=5.0,
    label_smoothing=0.0,
    auxiliary_weight=0.0,
    early_stopping=None,
    jit_compile=False,
    steps_per_execution=1,
    augmentation=None,
    child_parent=None,
    warm_start=None,
    seed=0,
    on_start=lambda: None,
):
    """Trains a Keras classifier from logits; the defaults are the paper's for CIFAR-10.

    A training that was stopped goes on where it was, to the same end: each epoch, and every ten
    minutes of a long one, ends with a checkpoint in `directory`, of which the last two are kept.
    A KeyboardInterrupt saves at once.

    The training runs under the `tf.distribute` strategy and the dtype policy that the model was
    made under (see `devices.scope`). Each replica takes its part of every batch; under
    "mixed_float16" the losses are float32 and scaled. All workers of several have to call it, and
    only the chief writes; they save at the end of an epoch alone.

    Args:
        model: a functional or sequential Keras model from images in [-1, 1] to logits.
        images: `Images` to train on.
        validation: `Images` to evaluate on after each epoch. Nothing is chosen by it: the
            weights of the last epoch are the result.
        directory: folder for `checkpoints`, `history.csv` and TensorBoard's `logs`.
        epochs: how often to go through `images`.
        batch_size: images a step, of all replicas together.
        optimizer, learning_rate, momentum, weight_decay, gradient_clip: see `make_optimizer`.
        decay_batch_norm: whether weight decay is on batch normalization's parameters, too.
        label_smoothing: the share of a label that is spread over all classes, in [0, 1).
        auxiliary_weight: of the loss of an auxiliary tower (see `add_auxiliary_tower`)
            that is trained beside the classifier and left out elsewhere; 0 for none.
        early_stopping: after how many epochs without a better validation accuracy to end; None for
            never.
        jit_compile: whether XLA compiles the training step, of one device. XLA has no
            deterministic poolings: a stopped training then goes on to the same end up to rounding.
        steps_per_execution: steps that run without coming back to Python.
        augmentation: keyword arguments of `data.augmentation.augment`.
        child_parent: a `ChildParentLoss`, or None to train with cross-entropy alone.
        warm_start: folder of another training of such a network, whose weights to start from.
        seed: of the order and the augmentation of the images.
        on_start: called when all settings have been found possible, before anything in `directory`
            is read or written.

    Returns:
        The rows of `history.csv`, a dict an epoch: losses, accuracies, the learning rate of the
        last step, the share of 1-bit weights whose sign changed in the epoch (`flip_ratio`), and
        speed. `val_loss` is the plain cross-entropy.

    Raises:
        ValueError: if a setting is impossible, the loss is not finite, or no checkpoint in
            `directory` can be read.
        OSError: if `directory` cannot be written (a full disk included); the checkpoints before are
            untouched.
    """
    strategy = model.distribute_strategy
    _check_settings(epochs, label_smoothing, auxiliary_weight, early_stopping, steps_per_execution)
    steps = streams.steps_per_epoch(images, batch_size=batch_size)
    devices.check_batch_size(strategy, batch_size)
    replicas = strategy.num_replicas_in_sync
    if jit_compile and replicas > 1:
        raise ValueError(f"jit_compile is for one device, received: a strategy of {replicas}")
    if warm_start is not None and not has_checkpoint(directory):
        load_weights(model, warm_start)
    with devices.scope(strategy, policy=model.dtype_policy):
        trained = add_auxiliary_tower(model) if auxiliary_weight else model
        trained.compile(
            optimizer=make_optimizer(
                optimizer,
                learning_rate=learning_rate,
                steps=epochs * steps,
                momentum=momentum,
                weight_decay=weight_decay,
                without_decay=() if decay_batch_norm else _batch_norm_parameters(trained),
                gradient_clip=gradient_clip,
            ),
            loss=[_cross_entropy(label_smoothing)] * len(trained.outputs),
            loss_weights=[1.0, auxiliary_weight][: len(trained.outputs)],
            metrics=[["accuracy"], []][: len(trained.outputs)],
            jit_compile=jit_compile,
            steps_per_execution=steps_per_execution,
        )
    stream = functools.partial(
        streams.batches,
        images,
        batch_size=batch_size,
        seed=seed,
        epochs=epochs,
        augmentation=augmentation,
    )
    stream()  # refuses an impossible augmentation
    progress = EpochCallback(
        trained,
        model,
        directory=directory,
        judge=_judge(model),
        validation=streams.evaluation_batches(validation, batch_size=batch_size),
        epochs=epochs,
        steps=steps,
        batch_size=batch_size,
        early_stopping=early_stopping,
        child_parent=child_parent,
    )
    on_start()

    def fit(*, until):
        """Trains from where the training stands to the end of an epoch."""
        done = progress.steps_done
        trained.fit(
            devices.distribute(strategy, stream(first_step=done)),
            initial_epoch=done // steps,
            epochs=until,
            steps_per_epoch=steps - done % steps,
            verbose=1 if sys.stdout.isatty() else 0,
            callbacks=[*([child_parent] if child_parent else []), progress],
        )

    os.makedirs(directory, exist_ok=True)
    progress.restore()
    try:
        if not progress.is_over and progress.steps_done % steps:
            fit(until=progress.steps_done // steps + 1)
        if not progress.is_over:
            fit(until=epochs)
    except KeyboardInterrupt:
        signal.alarm(0)  # by which a command makes sure that it ends soon
        progress.save()
        raise
    devices.wait_for_all(strategy)
    return progress.rows


def _check_settings(epochs, label_smoothing, auxiliary_weight, early_stopping, steps_per_execution):
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, received: {epochs}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), received: {label_smoothing}")
    if not 0 <= auxiliary_weight < math.inf:
        raise ValueError(f"auxiliary_weight must be a number >= 0, received: {auxiliary_weight}")
    if early_stopping is not None and early_stopping < 1:
        raise ValueError(
            f"early_stopping must be at least 1 epoch, or None, received: {early_stopping}"
        )
    if steps_per_execution < 1:
        raise ValueError(f"steps_per_execution must be at least 1, received: {steps_per_execution}")


def _cross_entropy(smoothing=0.0):
    """Cross-entropy of integer labels and logits, in float32, with smoothed labels."""

    def cross_entropy(labels, logits):
        logits = tf.cast(logits, tf.float32)
        losses = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        if smoothing:
            uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
            losses = (1 - smoothing) * losses + smoothing * uniform
        return losses

    return cross_entropy


def _judge(model):
    """The network as a model of its own that `evaluate` can be called on amid a training."""
    with devices.scope(model.distribute_strategy, policy=model.dtype_policy):
        judge = tf.keras.Model(model.inputs, model.outputs)
        judge.compile(loss=_cross_entropy(), metrics=["accuracy"])
    return judge


def _batch_norm_parameters(model):
    kind = tf.keras.layers.BatchNormalization
    layers = [module for module in model.submodules if isinstance(module, kind)]
    return [variable for layer in layers for variable in layer.trainable_variables]
