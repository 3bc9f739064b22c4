"""The loss of BONN, a Bayesian view of 1-bit kernels and of the features of a class.

    L = L_CE + lambda / 2 * sum over 1-bit layers and their kernels k of
                   { || k^ - w k ||^2 + nu (|k| - mu)^2 / sigma^2 + nu n log sigma^2 }
             + theta / 2 * mean over samples s of
                   { || f_s - c ||^2 + sum over features n of (f_sn - c_n)^2 / s_n^2 + log s_n^2 }

k^ = sign(k) and w is a learned vector of a filter's shape (see `networks.binarizations.BonnSign`).
A kernel of n elements has a mean mu of its positive elements, -mu of its negative ones, and one
variance sigma^2; a class has a centre c of its pooled features and a variance s_n^2 of each.

Decision: mu, sigma^2, c and s^2 are learned as the centres of the centre loss are. Each step moves
them part of the way to where their term is smallest for this batch; no gradient flows into them.
Decision: the features' part is a mean over the batch, as the cross-entropy is. Decision: nu, which
is not published, is 1e-4 by default.

References:
    BONN (Zhao et al., ICCV 2019), sections 3.2 and 3.3.
"""

import tensorflow as tf

from cpnas_tf.networks.binarizations import BonnSign, kernels_of
from cpnas_tf.networks.quantizers import filter_axes
from cpnas_tf.settings import checked
from cpnas_tf.training.features import (
    class_count,
    class_indices,
    features_layer,
    follow,
    map_shape,
)
from cpnas_tf.training.terms import LossTerms, shared_variable

# Decision: the least variances, of a kernel's magnitudes and of a feature.
LEAST_KERNEL_VARIANCE, LEAST_FEATURE_VARIANCE = 1e-8, 1e-2


def magnitudes(kernel: tf.Tensor, *, depthwise: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of the magnitudes of each filter's elements, each `[filters]`."""
    axes = filter_axes(kernel, depthwise)
    mean, variance = tf.nn.moments(tf.abs(kernel), axes)
    return tf.reshape(mean, [-1]), tf.reshape(variance, [-1])


def kernel_term(
    kernel: tf.Tensor,
    *,
    scale: tf.Tensor,
    means: tf.Tensor,
    variances: tf.Tensor,
    prior_weight: float,
    depthwise: bool = False,
) -> tf.Tensor:
    """The sum in braces over a layer's kernels, a float32 scalar.

    Args:
        kernel: k, `[height, width, in, out]`, or `[height, width, channels, 1]` if depthwise.
        scale: w, of a shape that broadcasts to it.
        means, variances: mu and sigma^2 > 0, `[filters]`; constant in the gradient.
        prior_weight: nu.
        depthwise: whether each channel is a filter of its own.
    """
    kernel, scale = (tf.cast(each, tf.float32) for each in (kernel, scale))
    per_filter = [1, 1, -1, 1] if depthwise else [1, 1, 1, -1]
    means, variances = (
        tf.stop_gradient(tf.reshape(each, per_filter)) for each in (means, variances)
    )
    signs = tf.where(kernel < 0, -1.0, 1.0)
    prior = tf.square(tf.abs(kernel) - means) / variances + tf.math.log(variances)
    return tf.reduce_sum(tf.square(signs - scale * kernel) + prior_weight * prior)


def feature_term(
    features: tf.Tensor, *, labels: tf.Tensor, centres: tf.Tensor, variances: tf.Tensor
) -> tf.Tensor:
    """The mean over a batch of the features' term, a float32 scalar, 0 for an empty batch.

    Args:
        features: f, `[batch, features]`.
        labels: integers `[batch]`.
        centres, variances: c and s^2 > 0, `[classes, features]`; constant in the gradient.
    """
    centres, variances = (
        tf.stop_gradient(tf.gather(each, labels)) for each in (centres, variances)
    )
    squares = tf.square(tf.cast(features, tf.float32) - centres)
    total = tf.reduce_sum(squares + squares / variances + tf.math.log(variances))
    return tf.math.divide_no_nan(total, tf.cast(tf.shape(labels)[0], tf.float32))


class BONNLoss(LossTerms):
    """Adds BONN's loss to `fit` of a compiled network that `BonnSign` binarizes.

    The logs have the terms `bonn_kernels` and `bonn_features`, the latter of the last layer's maps
    averaged over height and width. A term whose weight is 0 is neither computed nor logged. For
    what is added to `fit` and how see `LossTerms`.
    """

    @checked("bonn")
    def __init__(
        self,
        *,
        kernel_weight: float = 1e-4,
        prior_weight: float = 1e-4,
        feature_weight: float = 1e-3,
        centre_rate: float = 0.5,
    ) -> None:
        """Describes the loss; the model comes with `fit`, or with `build`.

        Args:
            kernel_weight: lambda.
            prior_weight: nu.
            feature_weight: theta.
            centre_rate: how far a step moves means, centres and variances, in (0, 1].

        Raises:
            ValueError: if a weight is negative, or the rate is not in (0, 1].
        """
        super().__init__()
        self.kernel_weight, self.prior_weight = kernel_weight, prior_weight
        self.feature_weight, self.centre_rate = feature_weight, centre_rate
        self._state: dict[str, tf.Variable] = {}

    @property
    def state(self) -> dict[str, tf.Variable]:
        """The kernels' means and variances, and the classes' centres and variances."""
        return self._state

    def _plan(self, model):
        weights, self._state = {}, {}
        if self.kernel_weight:
            weights["bonn_kernels"] = self.kernel_weight / 2
            self._kernels = kernels_of(model, BonnSign)
            # `[2, filters]`, all layers' filters side by side
            self._state["priors"] = shared_variable(self._magnitudes(), name="priors")
        if self.feature_weight:
            weights["bonn_features"] = self.feature_weight / 2
            classes = class_count(model, weight="feature_weight")
            self._layer = features_layer(model, None)
            shape = [classes, *map_shape(self._layer, pooled=True)]
            self._state["centres"] = shared_variable(tf.zeros(shape), name="centres")
            self._state["variances"] = shared_variable(tf.ones(shape), name="variances")
        return weights

    def _magnitudes(self):
        found = [
            magnitudes(tf.cast(kernel, tf.float32), depthwise=sign.depthwise)
            for kernel, sign in self._kernels
        ]
        means, variances = (tf.concat(each, axis=0) for each in zip(*found, strict=True))
        return tf.stack([means, tf.maximum(variances, LEAST_KERNEL_VARIANCE)])

    def _compute(self, labels):
        terms = {}
        if "priors" in self._state:
            terms["bonn_kernels"] = self._kernel_term()
        if "centres" in self._state:
            terms["bonn_features"] = self._feature_term(labels)
        return terms

    def _kernel_term(self):
        priors = self._state["priors"]
        filters = [kernel.shape[2 if sign.depthwise else 3] for kernel, sign in self._kernels]
        parts = zip(self._kernels, tf.split(priors, filters, axis=1), strict=True)
        total = tf.add_n(
            [
                kernel_term(
                    kernel,
                    scale=sign.scale,
                    means=part[0],
                    variances=part[1],
                    prior_weight=self.prior_weight,
                    depthwise=sign.depthwise,
                )
                for (kernel, sign), part in parts
            ]
        )
        priors.assign_add(self.centre_rate * (self._magnitudes() - priors))
        return total

    def _feature_term(self, labels):
        centres, variances = self._state["centres"], self._state["variances"]
        labels = class_indices(labels, centres.shape[0])
        features = self._features(pooled=True)
        term = feature_term(features, labels=labels, centres=centres, variances=variances)
        squares = tf.square(features - tf.gather(centres, labels))
        follow(variances, squares, labels=labels, rate=self.centre_rate)
        variances.assign(tf.maximum(variances, LEAST_FEATURE_VARIANCE))
        follow(centres, features, labels=labels, rate=self.centre_rate)
        return term
