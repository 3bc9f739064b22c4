"""The Child-Parent loss: two terms beside the cross-entropy that train a 1-bit network (the child).

    L = L_CE + filter_weight * sum over 1-bit layers l and filters c of MSE(H_c^l, H^_c^l)
             + centre_weight / 2 * mean over samples s of || f_s - fbar_class(s) ||^2

The first term pulls every latent real filter H towards its reconstruction H^ = alpha * sign(H), the
second every sample's feature map f towards its class's mean. Both are pure functions here, and
`ChildParentLoss` puts them into the `fit` of any compiled Keras classifier with Larq layers.

References:
    CP-NAS, section 2.4, Equations 3 and 4.
    XNOR-Net (Rastegari et al., 2016), section 3.1: the scale alpha.
"""

import math

import tensorflow as tf

from cpnas_tf.networks.quantizers import filter_axes, one_bit_kernels, reconstruct
from cpnas_tf.settings import checked
from cpnas_tf.training.features import (
    class_centre_distance,
    class_count,
    class_indices,
    features_layer,
    follow,
    map_shape,
)
from cpnas_tf.training.terms import LossTerms, shared_variable


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


class ChildParentLoss(LossTerms):
    """Adds the Child-Parent loss to `fit` of a compiled Keras classifier whose layers are Larq's.

    The logs have the terms `filter_mse` and `class_centre`; a term whose weight is 0 is neither
    computed nor logged. For what is added to `fit` and how see `LossTerms`.

    Decision: a class's centre is one running mean of the child's own maps, updated from each batch.
    A later `fit` continues from the centres of the one before.

    Attributes:
        centres: after `build`, a variable `[classes, height, width, channels]`, or `[classes,
            channels]` if `pooled`; None without the centre term. To save it, put it into a
            `tf.train.Checkpoint`.

    References:
        CP-NAS, section 2.4, Equation 3.

    Examples:
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
        super().__init__(warmup_epochs=warmup_epochs)
        self.filter_weight = filter_weight
        self.centre_weight = centre_weight
        self.centre_rate = centre_rate
        self.features = features
        self.pooled = pooled
        self.centres: tf.Variable | None = None

    @property
    def state(self) -> dict[str, tf.Variable]:
        """The centres, if there are some."""
        return {} if self.centres is None else {"centres": self.centres}

    def _plan(self, model):
        """Finds the 1-bit kernels and the features, and makes the centres.

        The filters' term needs a 1-bit kernel. The centres need a first output `[batch, classes]`,
        which a subclassed model has not, and exactly one layer `features`, whose output has a known
        size.
        """
        weights, self._kernels, self.centres = {}, [], None
        if self.filter_weight:
            weights["filter_mse"] = self.filter_weight
            self._kernels = one_bit_kernels(model)
            if not self._kernels:
                raise ValueError(
                    f"the model {model.name!r} has no Larq layer with 1-bit kernels: "
                    "give one that has, or filter_weight=0"
                )
        if self.centre_weight:
            weights["class_centre"] = self.centre_weight / 2
            classes = class_count(model, weight="centre_weight")
            self._layer = features_layer(model, self.features)
            shape = [classes, *map_shape(self._layer, pooled=self.pooled)]
            self.centres = shared_variable(tf.zeros(shape), name="centres")
        return weights

    def _compute(self, labels):
        terms = {}
        if self._kernels:
            errors = [filter_mse(kernel, depthwise=each) for kernel, each in self._kernels]
            terms["filter_mse"] = tf.add_n(errors)
        if self.centres is not None:
            terms["class_centre"] = self._class_centre(class_indices(labels, self.centres.shape[0]))
        return terms

    def _class_centre(self, labels):
        """The distance from the centres, which then move."""
        maps = self._features(pooled=self.pooled)
        distance = class_centre_distance(maps, labels=labels, centres=self.centres)
        follow(self.centres, maps, labels=labels, rate=self.centre_rate)
        return distance
