"""The Child-Parent loss: two terms beside the cross-entropy that train a 1-bit network (the child).

    L = L_CE + filter_weight * sum over 1-bit layers l and filters c of MSE(H_c^l, H^_c^l)
             + centre_weight / 2 * mean over samples s of || f_s - fbar_class(s) ||^2

The first term pulls every latent real filter H towards its reconstruction H^ = alpha * sign(H), the
second every sample's feature map f towards its class's mean. Both are pure functions here, and
`ChildParentLoss` puts them into the `fit` of any compiled Keras classifier with Larq layers.

References:
    CP-NAS, section 2.4, Equations 3 and 4.
    XNOR-Net (Rastegari et al., 2016), section 3.1: the scale alpha.
    A Discriminative Feature Learning Approach (Wen et al., 2016), Equation 4: the class centres.
"""

import contextlib
import math
import threading
from typing import Any

import tensorflow as tf

from cpnas_tf import devices
from cpnas_tf.networks.quantizers import all_layers, filter_axes, one_bit_kernels, reconstruct
from cpnas_tf.settings import checked


def filter_mse(kernel: tf.Tensor, *, depthwise: bool = False) -> tf.Tensor:
    """The sum over a kernel's filters of MSE(H_c, H^_c), the mean over a filter's elements.

    The gradient is 2 (H - H^) / elements, as if H^ were constant. It is exact: alpha minimizes the
    error, so that the error's derivative by alpha is 0.

    Args:
        kernel: H, as in `reconstruct`.
        depthwise: as in `reconstruct`.

    Returns:
        A float32 scalar, the first term of Equation 3 for one layer.
    """
    kernel = tf.cast(kernel, tf.float32)
    elements = math.prod(kernel.shape[axis] for axis in filter_axes(kernel, depthwise))

    @tf.custom_gradient  # halves the operations in the graph: a network has hundreds of kernels
    def summed_means(kernel):
        error = kernel - reconstruct(kernel, depthwise=depthwise)
        return tf.reduce_sum(tf.square(error)) / elements, lambda dy: dy * (2 / elements) * error

    return summed_means(kernel)


def class_centre_distance(maps: tf.Tensor, *, labels: tf.Tensor, centres: tf.Tensor) -> tf.Tensor:
    """The squared distance of feature maps from their class's centre, || f_s - fbar_class(s) ||^2.

    Decision: the squared norm is averaged over a map's elements and over the batch, so that the
    term's weight depends neither on the image's nor on the batch's size. No gradient flows into
    the centres.

    Args:
        maps: f, `[batch, height, width, channels]`, or `[batch, channels]` if pooled.
        labels: integers `[batch]`.
        centres: fbar, `[classes, height, width, channels]` or `[classes, channels]`.

    Returns:
        A float32 scalar, 0 for an empty batch: the second term of Equation 3 without its weight.
    """
    maps = tf.cast(maps, tf.float32)
    squares = tf.square(maps - tf.stop_gradient(tf.gather(centres, labels)))
    return tf.math.divide_no_nan(tf.reduce_sum(squares), tf.cast(tf.size(squares), tf.float32))


def updated_centres(
    centres: tf.Tensor, *, sums: tf.Tensor, counts: tf.Tensor, rate: float
) -> tf.Tensor:
    """The class centres after a batch: c_j + rate * sum over s in j of (f_s - c_j) / (1 + n_j).

    Args:
        centres: c, `[classes, ...]`.
        sums: the sum of the batch's maps f_s of each class, `[classes, ...]`.
        counts: n, the batch's number of samples of each class, `[classes]`.
        rate: how far the centres move, in (0, 1].

    Returns:
        `[classes, ...]`; the centre of a class that the batch lacks stays as it is.
    """
    counts = tf.reshape(counts, [-1] + [1] * (len(centres.shape) - 1))
    return centres + rate * (sums - counts * centres) / (1 + counts)


class ChildParentLoss(tf.keras.callbacks.Callback):
    """Adds the Child-Parent loss to `fit` of a compiled Keras classifier whose layers are Larq's.

    Each term is computed in float32, also under mixed precision, and added to the compiled loss
    before any loss scaling. In the training logs `loss` is the total, `cross_entropy` is what Keras
    alone would report (regularization losses included), and `filter_mse` and `class_centre` are the
    terms without their weights, all averaged over the epoch. The validation logs have no terms. A
    term whose weight is 0 is neither computed nor logged. Sample and class weights act on the
    compiled loss only. Labels are integers, or one-hot `[batch, classes]` (of soft labels the
    largest counts). If the loss is a cross-entropy of probabilities and the model gives none, the
    first batch ends with an error.

    Decision: a class's centre is one running mean of the child's own maps, updated from each batch.
    A later `fit` continues from the centres of the one before.

    While `fit` runs, the model has this callback's `train_function`. Layers and losses are changed
    only within a step, so that the model can be evaluated and saved between two steps as usual.
    After `fit` the model is as before. A `fit` that raised leaves the train function behind: the
    next `fit` drops it, and a `train_on_batch` before that trains with the terms. A model may have
    its own `train_step` if that calls `compute_loss`.

    Attributes:
        centres: after `build`, a variable `[classes, height, width, channels]`, or `[classes,
            channels]` if `pooled`; None without the centre term. To save it, put it into a
            `tf.train.Checkpoint`.

    References:
        CP-NAS, section 2.4, Equation 3.

    Example:
        >>> import cpnas_tf, larq, numpy as np, tensorflow as tf
        >>> model = tf.keras.Sequential(
        ...     [
        ...         tf.keras.Input([8, 8, 1]),
        ...         larq.layers.QuantConv2D(
        ...             4, 3, kernel_quantizer="ste_sign", kernel_constraint="weight_clip"
        ...         ),
        ...         tf.keras.layers.Flatten(),
        ...         tf.keras.layers.Dense(10),
        ...     ]
        ... )
        >>> cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile("adam", cross_entropy)
        >>> images, labels = np.random.uniform(-1, 1, [32, 8, 8, 1]), np.arange(32) % 10
        >>> fitted = model.fit(images, labels, verbose=0, callbacks=[cpnas_tf.ChildParentLoss()])
        >>> sorted(fitted.history)
        ['class_centre', 'cross_entropy', 'filter_mse', 'loss']
    """

    _supports_tf_logs = True  # Keras need not wait for the values of a batch's logs

    @checked("child_parent")
    def __init__(
        self,
        *,
        filter_weight: float = 1e-3,
        centre_weight: float = 1e-1,
        centre_rate: float = 0.5,
        warmup_epochs: int = 0,
        features: str | None = None,
        pooled: bool = False,
    ) -> None:
        """Describes the loss; the model comes with `fit`, or with `build`.

        Args:
            filter_weight: the weight of the 1-bit filters' reconstruction errors. Decision: with
                Equation 3's weight of 1 the term keeps the signs where they are, and on CIFAR-10
                none changed any more (benchmarks/child_parent_loss.py).
            centre_weight: lambda; the class-centre distance has half of it. The paper prints no
                value. In a sweep on CIFAR-10 this one was the best beside the filters' term, by
                less than seeds differ.
            centre_rate: how far a batch moves the centres, in (0, 1].
            warmup_epochs: over how many epochs both weights rise, linearly, from 0 in the first.
            features: the name of the layer whose output is f; by default the last one that gives
                maps `[batch, height, width, channels]`.
            pooled: whether f is averaged over height and width: the centres of 1000 classes' maps
                may not fit into memory.

        Raises:
            ValueError: if a weight or `warmup_epochs` is negative, or the rate is not in (0, 1].
        """
        super().__init__()
        self.filter_weight = filter_weight
        self.centre_weight = centre_weight
        self.centre_rate = centre_rate
        self.warmup_epochs = warmup_epochs
        self.features = features
        self.pooled = pooled
        self.centres = None
        self._built_for = None
        self._plain = None  # Keras's train function; `_step` is another one, traced with the terms

    def build(self, model: tf.keras.Model) -> None:
        """Finds the 1-bit kernels and the features, and makes the centres; `fit` does it as well.

        Call it before `fit` to restore `centres` from a checkpoint. A second call with the same
        model does nothing, one with another model starts anew.

        Args:
            model: a built Keras classifier.

        Raises:
            ValueError: if the model lacks what a term needs. The filters' term needs a 1-bit
                kernel. The centres need a first output `[batch, classes]`, which a subclassed model
                has not, and exactly one layer `features`, whose output has a known size.
        """
        if model is self._built_for:
            return
        self._built_for = self._plain = self._layer = self.centres = None
        self._kernels, self._weights, self._share = [], {}, tf.constant(1.0)
        self._replica = threading.local()  # tf.distribute runs each replica in its own thread
        if self.filter_weight:
            self._weights["filter_mse"] = self.filter_weight
            self._kernels = one_bit_kernels(model)
            if not self._kernels:
                raise ValueError(
                    f"the model {model.name!r} has no Larq layer with 1-bit kernels: "
                    "give one that has, or filter_weight=0"
                )
        with model.distribute_strategy.scope():
            if self.warmup_epochs:
                self._share = _variable(0.0, name="share")
            if self.centre_weight:
                self._weights["class_centre"] = self.centre_weight / 2
                classes = _classes(model)
                self._layer = _features_layer(model, self.features)
                shape = [classes, *_map_shape(self._layer, self.pooled)]
                self.centres = _variable(tf.zeros(shape), name="centres")
            self._row_error = _variable(0.0, name="row_error")
            self._means = {name: tf.keras.metrics.Mean(name) for name in self._weights}
        self._built_for = model

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """The terms' means over the epoch."""
        return list(self._means.values())

    def on_train_begin(self, logs: Any = None) -> None:
        """Gives `fit` a training step with the terms, in the place of Keras's own."""
        model, history = self.model, getattr(self.model, "history", None)  # each `fit` has its own
        self.build(model)
        found = model.train_function
        if hasattr(found, "restore"):  # of another ChildParentLoss, or of a `fit` that raised
            if found.history is history:
                raise ValueError("fit takes one ChildParentLoss, received more")
            found.restore()
        plain = model.train_function, model.train_tf_function
        if plain[0] is not self._plain:  # else `_step` of the last `fit` is there, and traced
            model.make_train_function(force=True)
            self._plain, self._step = plain[0], (model.train_function, model.train_tf_function)
        self._rows_checked = not _expects_probabilities(model)

        def restore():
            model.train_function, model.train_tf_function = plain

        def train(iterator):
            if getattr(model, "history", None) is not history:  # left behind by a `fit` that raised
                restore()
                return plain[0](iterator)
            return self._train(iterator)

        vars(train).update(history=history, restore=restore)
        model.train_function, model.train_tf_function = train, self._step[1]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the epoch's means, and sets the share of their weights that the terms have."""
        for mean in self._means.values():
            mean.reset_state()
        if self.warmup_epochs:
            self._share.assign(min(1.0, epoch / self.warmup_epochs))

    def on_train_end(self, logs: Any = None) -> None:
        """Gives Keras's own training step back."""
        self.model.train_function.restore()

    def _train(self, iterator):
        """Runs Keras's training step, with the terms in the model's loss and in its logs."""
        model, layer = self.model, self._layer
        wrapped = [
            (model, "train_step", self._with_logs(model.train_step)),
            (model, "compute_loss", self._with_terms(model.compute_loss)),
        ]
        if layer is not None:
            wrapped.append((layer, "call", self._with_maps(layer.call)))
        if not devices.is_alone(model.distribute_strategy):
            # Keras adds up what the workers log, and here each logs the means over all of them.
            wrapped.append((model, "_distribute_reduction_method", "first"))
        with _replaced(wrapped):
            logs = self._with_total(self._step[0](iterator))
        if not self._rows_checked:
            self._check_rows()
        return logs

    def _check_rows(self):
        """Raises ValueError if the first batch's outputs were no probabilities for the loss."""
        self._rows_checked = True
        error = self._row_error.numpy()
        if error > 0.1:  # a softmax in float16 is closer
            raise ValueError(
                f"the loss of the model {self.model.name!r} expects probabilities, but a row "
                f"of its first output has a sum that differs from 1 by {error:.3g}: end the model "
                "with a softmax, or compile it with a loss that has from_logits=True"
            )

    def _with_total(self, logs):
        """The logs of a step of all replicas, with the total as their `loss`."""
        if "loss" not in logs:
            return logs
        terms = {name: logs[name] for name in self._means}
        return {**logs, "loss": self._total(logs["loss"], terms), "cross_entropy": logs["loss"]}

    def _with_logs(self, train_step):
        def logged_step(data):
            self._replica.maps, self._replica.added = None, False
            logs = train_step(data)
            if not self._replica.added:  # by `_with_terms`
                raise ValueError(
                    "the model's own train_step must call compute_loss for the Child-Parent loss"
                )
            self._replica.maps = None
            return {**logs, **{name: mean.result() for name, mean in self._means.items()}}

        return logged_step

    def _with_terms(self, compute_loss):
        def total_loss(x=None, y=None, y_pred=None, sample_weight=None):
            loss = compute_loss(x, y, y_pred, sample_weight)
            terms = self._terms(tf.nest.flatten(y)[0])
            row_sums = tf.reduce_sum(tf.cast(tf.nest.flatten(y_pred)[0], tf.float32), axis=-1)
            self._row_error.assign(tf.reduce_max(tf.abs(row_sums - 1)))
            self._replica.added = True
            # The replicas' gradients are summed: each takes its share, as of Keras's own losses.
            replicas = tf.distribute.get_strategy().num_replicas_in_sync
            return self._total(loss, {name: term / replicas for name, term in terms.items()})

        return total_loss

    def _with_maps(self, call):
        def kept_call(*args, **kwargs):
            outputs = call(*args, **kwargs)
            self._replica.maps = outputs
            return outputs

        return kept_call

    def _total(self, loss, terms):
        weighted = [self._weights[name] * self._share * term for name, term in terms.items()]
        return tf.add_n([tf.cast(loss, tf.float32), *weighted])

    def _terms(self, labels):
        """The terms of one replica's batch, without their weights; moves the centres."""
        terms = {}
        if self._kernels:
            errors = [filter_mse(kernel, depthwise=each) for kernel, each in self._kernels]
            terms["filter_mse"] = tf.add_n(errors)
        if self.centres is not None:
            terms["class_centre"] = self._class_centre(
                _class_indices(labels, self.centres.shape[0])
            )
        for name, term in terms.items():
            self._means[name].update_state(term, sample_weight=tf.shape(labels)[0])
        return terms

    def _class_centre(self, labels):
        maps = self._replica.maps
        if maps is None:
            raise ValueError(f"the layer {self._layer.name!r} takes no part in the training step")
        maps = tf.cast(maps, tf.float32)
        if self.pooled:
            maps = tf.reduce_mean(maps, axis=(1, 2))
        distance = class_centre_distance(maps, labels=labels, centres=self.centres)
        self._move_centres(tf.stop_gradient(maps), labels)
        return distance

    def _move_centres(self, maps, labels):
        """Updates the centres from the batch of all replicas."""
        classes = self.centres.shape[0]
        sums = tf.math.unsorted_segment_sum(maps, labels, classes)
        counts = tf.math.unsorted_segment_sum(tf.ones_like(labels, tf.float32), labels, classes)
        sums, counts = tf.distribute.get_replica_context().all_reduce("sum", [sums, counts])
        self.centres.assign(
            updated_centres(self.centres, sums=sums, counts=counts, rate=self.centre_rate)
        )


def _variable(value, *, name):
    """A variable of which all replicas hold the same."""
    aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
    return tf.Variable(value, trainable=False, name=name, aggregation=aggregation)


@contextlib.contextmanager
def _replaced(attributes):
    """For a while, sets attributes in the objects' own dictionaries, unseen by Keras's tracking."""
    with contextlib.ExitStack() as stack:
        for owner, name, value in attributes:
            own = vars(owner)
            stack.callback(own.__setitem__ if name in own else own.pop, name, own.get(name))
            own[name] = value
        yield


def _expects_probabilities(model):
    """Whether the loss of a model's first output is a cross-entropy of probabilities."""
    loss = model.loss
    if isinstance(loss, dict):
        loss = loss.get(model.output_names[0])
    elif isinstance(loss, (list, tuple)):
        loss = loss[0]
    losses = tf.keras.losses
    if isinstance(loss, (losses.CategoricalCrossentropy, losses.SparseCategoricalCrossentropy)):
        return not loss.get_config()["from_logits"]
    functions = (losses.categorical_crossentropy, losses.sparse_categorical_crossentropy)
    return (losses.get(loss) if isinstance(loss, str) else loss) in functions


def _classes(model):
    """The number of classes of a model whose first output is `[batch, classes]`."""
    shapes = [tuple(output.shape) for output in model.outputs or ()]
    if not shapes or len(shapes[0]) != 2 or (shapes[0][1] or 0) < 2:
        raise ValueError(
            f"the model {model.name!r} must be a built functional one and have a first output "
            f"[batch, classes] for its class centres, received outputs of the shapes: {shapes} "
            "(centre_weight=0 needs none)"
        )
    return shapes[0][1]


def _output_shape(layer):
    """The shape of a layer's one output, or () where there is none or it is not known."""
    try:
        shape = layer.output_shape
    except (AttributeError, RuntimeError):  # how Keras says that
        return ()
    return shape if isinstance(shape, tuple) else ()


def _features_layer(model, name):
    """The layer of this name, or else the last one with an output of rank 4.

    Of several outputs the first one counts: others, such as an auxiliary tower's, have maps too.
    """
    if name is None:
        layers = tf.keras.Model(model.inputs, model.outputs[0]).layers
        candidates = [layer for layer in layers if len(_output_shape(layer)) == 4]
        if not candidates:
            raise ValueError(
                f"the model {model.name!r} has no layer with an output "
                "[batch, height, width, channels]: name another layer with features="
            )
        return candidates[-1]
    named = [layer for layer in all_layers(model) if layer.name == name]
    if len(named) != 1:
        raise ValueError(
            f"features must name one layer of the model {model.name!r}, "
            f"received: {name!r}, the name of {len(named)}"
        )
    return named[0]


def _map_shape(layer, pooled):
    """The shape of one sample's f."""
    shape = _output_shape(layer)
    if pooled:
        shape = shape[:1] + shape[3:] if len(shape) == 4 else ()
    if len(shape) < 2 or None in shape[1:]:
        raise ValueError(
            f"the output of the layer {layer.name!r} must be maps of known size, or of known "
            f"channels with pooled=True, received the shape: {_output_shape(layer) or 'unknown'}"
        )
    return shape[1:]


def _class_indices(labels, classes):
    """Labels `[batch]`, `[batch, 1]` or one-hot `[batch, classes]` as integers `[batch]`."""
    shape = labels.shape.as_list()
    if len(shape) == 2 and shape[1] == classes:
        labels = tf.argmax(labels, axis=1)
    elif shape[1:] not in ([], [1]):
        raise ValueError(
            f"labels must have the shape [batch] or [batch, {classes}], received: {labels.shape}"
        )
    return tf.cast(tf.reshape(labels, [-1]), tf.int32)
