"""The loss of PCNN: each layer's 1-bit kernels are held to the projections of its real ones.

    L = L_CE + lambda / 2 * sum over 1-bit layers and their kernels C of || C^ - W C ||^2

C^ = a sign(mean(W) C) is the 1-bit kernel, constant in the gradient; W, of a filter's shape, is
learned with C (see `networks.binarizations.PcnnSign`). Decision: the paper's eta, which weighs the
cross-entropy's gradient in the second part, is 0: its value is not published.

References:
    PCNN (Gu et al., AAAI 2019), sections 3.3 and 3.4.
"""

import tensorflow as tf

from cpnas_tf.networks.binarizations import PcnnSign, kernels_of, projected
from cpnas_tf.settings import checked
from cpnas_tf.training.terms import LossTerms


def projection_error(kernel: tf.Tensor, projection: tf.Tensor) -> tf.Tensor:
    """The sum over a layer's kernels of || C^ - W C ||^2, a float32 scalar.

    Args:
        kernel: C, `[height, width, in, out]`.
        projection: W, of a shape that broadcasts to it.
    """
    kernel, projection = (tf.cast(each, tf.float32) for each in (kernel, projection))
    error = projection * kernel - projected(kernel, projection)
    return tf.reduce_sum(tf.square(error))


class PCNNLoss(LossTerms):
    """Adds PCNN's loss to `fit` of a compiled network that `PcnnSign` binarizes.

    The logs have the term `projection_error`. For what is added to `fit` and how see `LossTerms`.
    """

    @checked("pcnn")
    def __init__(self, *, kernel_weight: float = 1e-4) -> None:
        """Describes the loss; the model comes with `fit`, or with `build`.

        Args:
            kernel_weight: lambda, of which half is the term's weight; 0 for none.

        Raises:
            ValueError: if the weight is negative.
        """
        super().__init__()
        self.kernel_weight = kernel_weight

    def _plan(self, model):
        if not self.kernel_weight:
            return {}
        self._kernels = kernels_of(model, PcnnSign)
        return {"projection_error": self.kernel_weight / 2}

    def _compute(self, labels):
        if not self._weights:
            return {}
        errors = [projection_error(kernel, sign.projection) for kernel, sign in self._kernels]
        return {"projection_error": tf.add_n(errors)}
