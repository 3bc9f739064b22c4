"""Training and evaluation of networks: takes a Keras model and images, keeps checkpoints.

References:
    CP-NAS, section 3.1, for the recipe: SGD, cosine to 0, L2, gradient clipping at 5.
"""

import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from cpnas_tf import devices
from cpnas_tf.data import AnyImages, streams
from cpnas_tf.files import local_path
from cpnas_tf.networks.binarizations import learned_scales
from cpnas_tf.networks.cells import add_auxiliary_tower
from cpnas_tf.networks.quantizers import all_layers, one_bit_kernels
from cpnas_tf.runs.checkpoints import has_checkpoint, load_weights
from cpnas_tf.runs.images import check_alike, check_fits
from cpnas_tf.runs.progress import check_verbose
from cpnas_tf.settings import SettingError, checked
from cpnas_tf.training.callback import EpochCallback
from cpnas_tf.training.distillation import check_teacher, taught_by
from cpnas_tf.training.optimizers import check_warmup, make_optimizer
from cpnas_tf.training.terms import LossTerms

# A child of which fewer weights flipped is a random one with trained batch normalization.
FEW_FLIPS = 0.01


class Training:
    """A planned training of a Keras classifier from logits; the defaults are the paper's.

    All settings are checked, and the model is compiled, when it is made; `run` trains in a folder.
    The training runs under the `tf.distribute` strategy and the dtype policy that the model was
    made under (see `devices.scope`). Each replica takes its part of every batch; under
    "mixed_float16" the losses are float32 and scaled. All workers of several have to run it, and
    only the chief writes; they save at the end of an epoch alone.

    Args:
        model: a functional or sequential Keras model from images in [-1, 1] to logits.
        images: `Images` to train on.
        validation: `Images` to evaluate on after each epoch. Nothing is chosen by it: the
            weights of the last epoch are the result.
        epochs: how often to go through `images`.
        batch_size: images per step, of all replicas together.
        optimizer, learning_rate, momentum, weight_decay, gradient_clip: see `make_optimizer`.
        warmup_epochs: over how many epochs the learning rate rises from 0, before the cosine.
        decay_batch_norm: whether weight decay is on batch normalization's parameters, too.
        decay_binary_kernels: whether it is on the latent weights of 1-bit kernels, too.
        class_weights: whether the images of a class count the more in the loss the fewer they are,
            so that all classes count the same together: n / (classes * n_c) of n images.
        label_smoothing: the share of a label that is spread over all classes, in [0, 1).
        auxiliary_weight: of the loss of an auxiliary tower (see `add_auxiliary_tower`)
            that is trained beside the classifier and left out elsewhere; 0 for none.
        early_stopping: after how many epochs without a better validation accuracy to end; None for
            never.
        jit_compile: whether XLA compiles the training step, of one device. XLA has no
            deterministic poolings: a stopped training then goes on to the same end up to rounding.
        steps_per_execution: steps that run without coming back to Python.
        augmentation: keyword arguments of `data.augmentation.augment`.
        child_parent: a `ChildParentLoss` or other `LossTerms`, or None to train with cross-entropy
            alone.
        teacher: a trained network to learn from as well, a Keras model from the same images to
            logits, made under the same strategy; see `distillation`.
        teacher_weight: its share of the loss, in [0, 1]; 1 leaves the labels out.
        temperature: of the softmax of teacher and network.
        warm_start: folder of another training of such a network, whose weights to start from.
        seed: of the order and the augmentation of the images.

    Attributes:
        model: as given.

    Raises:
        ValueError: if a setting is impossible, or the weights to start from cannot be read.
    """

    @checked("training")
    def __init__(
        self,
        model: tf.keras.Model,
        images: AnyImages,
        *,
        validation: AnyImages,
        epochs: int = 600,
        batch_size: int = 96,
        optimizer: str = "sgd",
        learning_rate: float = 0.025,
        momentum: float = 0.9,
        weight_decay: float = 3e-4,
        warmup_epochs: int = 0,
        decay_batch_norm: bool = True,
        decay_binary_kernels: bool = True,
        gradient_clip: float = 5.0,
        class_weights: bool = False,
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.0,
        early_stopping: int | None = None,
        jit_compile: bool = False,
        steps_per_execution: int = 1,
        augmentation: Mapping[str, Any] | None = None,
        child_parent: LossTerms | None = None,
        teacher: tf.keras.Model | None = None,
        teacher_weight: float = 1.0,
        temperature: float = 1.0,
        warm_start: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        check_fits(model, images)
        check_alike(images, validation)
        self.model, self._strategy = model, model.distribute_strategy
        self._epochs, self._child_parent = epochs, child_parent
        check_warmup(warmup_epochs, epochs=epochs)
        _check_devices(self._strategy, batch_size, jit_compile)
        settings = {
            "learning_rate": learning_rate,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "gradient_clip": gradient_clip,
        }
        self._stream = functools.partial(
            streams.batches,
            images,
            batch_size=batch_size,
            seed=seed,
            epochs=epochs,
            augmentation=augmentation,
        )
        teaching = {"weight": teacher_weight, "temperature": temperature}
        if teacher is not None:
            check_teacher(model, teacher)
        self._stream()  # refuses what is impossible for these images
        self._steps = streams.steps_per_epoch(images, batch_size=batch_size)
        self._is_warm = warm_start is not None
        if warm_start is not None:
            load_weights(model, local_path(warm_start))
        weights = _class_weights(images) if class_weights else None
        with devices.scope(self._strategy, policy=model.dtype_policy):
            self._trained = add_auxiliary_tower(model) if auxiliary_weight else model
            outputs = len(self._trained.outputs)
            loss_weights = [1.0, auxiliary_weight][:outputs]
            if teacher is not None:
                self._trained = taught_by(
                    teacher, self._trained, output_weights=loss_weights, **teaching
                )
            self._trained.compile(
                optimizer=make_optimizer(
                    optimizer,
                    steps=epochs * self._steps,
                    warmup_steps=warmup_epochs * self._steps,
                    binary_kernels=_binary_kernels(model),
                    without_decay=[
                        *([] if decay_batch_norm else _batch_norm_parameters(self._trained)),
                        *([] if decay_binary_kernels else _binary_kernels(model)),
                        *_scales(model),
                    ],
                    **settings,
                ),
                loss=[_cross_entropy(label_smoothing, weights)] * outputs,
                loss_weights=loss_weights,
                metrics=[["accuracy"], []][:outputs],
                jit_compile=jit_compile,
                steps_per_execution=steps_per_execution,
            )
        self._progress = EpochCallback(
            self._trained,
            model,
            judge=_judge(model),
            validation=streams.evaluation_batches(validation, batch_size=batch_size),
            epochs=epochs,
            steps=self._steps,
            batch_size=batch_size,
            early_stopping=early_stopping,
            child_parent=child_parent,
        )

    def run(
        self, directory: str | os.PathLike[str], *, verbose: int | str = "auto"
    ) -> list[dict[str, Any]]:
        """Trains in a folder; a training that was stopped there goes on, to the same end.

        Each epoch, and every ten minutes of a long one, ends with a checkpoint, of which the last
        two are kept. A KeyboardInterrupt saves at once.

        Args:
            directory: folder for `checkpoints`, `history.csv` and TensorBoard's `logs`.
            verbose: how much to show of it, as in Keras's `fit`; see `runs.progress.Progress`.

        Returns:
            The rows of `history.csv`, a dict per epoch: losses, accuracies, the learning rate of
            the last step, the share of 1-bit weights whose sign changed in the epoch (`flip_ratio`)
            and since the start (`total_flip_ratio`), and speed. `val_loss` is the plain
            cross-entropy.

        Raises:
            ValueError: if the loss is not finite, or no checkpoint in `directory` can be read.
            OSError: if `directory` cannot be written (a full disk included); the checkpoints before
                are untouched.
        """
        progress, verbose = self._progress, check_verbose(verbose)
        directory = local_path(directory)
        os.makedirs(directory, exist_ok=True)
        progress.restore(directory, verbose=verbose)
        try:
            if not progress.is_over and progress.steps_done % self._steps:
                self._fit(until=progress.steps_done // self._steps + 1)
            if not progress.is_over:
                self._fit(until=self._epochs)
        except KeyboardInterrupt:
            progress.save()
            raise
        devices.wait_for_all(self._strategy)
        self._warn_of_still_signs(progress.rows[-1])
        return progress.rows

    def _warn_of_still_signs(self, row):
        """Warns of a child that is still the random one that it was."""
        flipped = row.get("total_flip_ratio", 1.0)
        if flipped < FEW_FLIPS and not self._is_warm and devices.is_chief(self._strategy):
            logging.warning(
                "only %.2g%% of the 1-bit weights changed their sign since the start: the network "
                "hardly trained; a higher learning_rate or optimizer=adam moves more",
                100 * flipped,
            )

    def _fit(self, *, until):
        """Trains from where the training stands to the end of an epoch."""
        done = self._progress.steps_done
        self._trained.fit(
            devices.distribute(self._strategy, self._stream(first_step=done)),
            initial_epoch=done // self._steps,
            epochs=until,
            steps_per_epoch=self._steps - done % self._steps,
            verbose=0,
            callbacks=[*([self._child_parent] if self._child_parent else []), self._progress],
        )


def train(
    model: tf.keras.Model,
    images: AnyImages,
    *,
    directory: str | os.PathLike[str],
    warm_start: str | os.PathLike[str] | None = None,
    verbose: int | str = "auto",
    **settings: Any,
) -> list[dict[str, Any]]:
    """Trains a Keras classifier in a folder, see `Training`.

    Args:
        model, images: see `Training`.
        directory: folder of the training, where one that was stopped goes on.
        warm_start: see `Training`; a training that goes on does not need it any more.
        verbose: see `Training.run`.
        settings: the other arguments of `Training`.

    Returns:
        The rows of `history.csv`, see `Training.run`.

    Raises:
        ValueError: if a setting is impossible, the loss is not finite, or no checkpoint in
            `directory` can be read.
        OSError: if `directory` cannot be written (a full disk included); the checkpoints before are
            untouched.

    Examples:
        >>> import cpnas_tf, numpy as np
        >>> from cpnas_tf.data import Images
        >>> pixels = np.random.default_rng(0).integers(256, size=[64, 8, 8, 1]).astype("uint8")
        >>> images = Images(pixels, np.arange(64) % 2, ["cat", "dog"])
        >>> child = cpnas_tf.build_network(
        ...     cpnas_tf.Genotype.load("darts"),
        ...     input_shape=images.image_shape,
        ...     classes=images.classes,
        ...     cells=3,
        ...     channels=4,
        ... )
        >>> rows = cpnas_tf.train(
        ...     child,
        ...     images,
        ...     validation=images,
        ...     directory="runs/child",
        ...     epochs=1,
        ...     batch_size=32,
        ...     child_parent=cpnas_tf.ChildParentLoss(),
        ...     verbose=0,
        ... )
        >>> [row["epoch"] for row in rows]
        [1]
    """
    if has_checkpoint(local_path(directory)):
        warm_start = None
    planned = Training(model, images, warm_start=warm_start, **settings)
    return planned.run(directory, verbose=verbose)


def _check_devices(strategy, batch_size, jit_compile):
    devices.check_batch_size(strategy, batch_size)
    replicas = strategy.num_replicas_in_sync
    if jit_compile and replicas > 1:
        raise SettingError(
            "jit_compile", f"jit_compile is for one device, received: a strategy of {replicas}"
        )


def _class_weights(images):
    """The weight of each class's images, float32 [classes]; 0 of a class without images."""
    counts = np.bincount(images.labels, minlength=images.classes)
    return np.where(counts, len(images) / (images.classes * np.maximum(counts, 1)), 0).astype("f4")


def _cross_entropy(smoothing=0.0, class_weights=None):
    """Cross-entropy of integer labels and logits, in float32, with smoothed labels.

    Args:
        smoothing: share of a label that is spread over all classes.
        class_weights: of the classes' losses, float32 [classes]; None for 1.
    """

    def cross_entropy(labels, logits):
        logits = tf.cast(logits, tf.float32)
        losses = tf.keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        if smoothing:
            uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
            losses = (1 - smoothing) * losses + smoothing * uniform
        if class_weights is not None:
            labels = tf.reshape(tf.cast(labels, tf.int32), tf.shape(losses))
            losses *= tf.gather(class_weights, labels)
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


def _scales(model):
    """What quantizers learn beside the kernels. Decision: no weight decay takes it to 0."""
    return [scale for layer in all_layers(model) for scale in learned_scales(layer)]


def _binary_kernels(model):
    return [kernel for kernel, _ in one_bit_kernels(model)]
