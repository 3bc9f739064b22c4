"""How hard the filters' term of the Child-Parent loss holds the signs, beside the cross-entropy.

python benchmarks/child_parent_gradients.py --data_dir=DIR [--channels=16 --cells=6 --image_size=16]

To change its sign a latent weight H has to pass 0, where the term of weight 1 pushes it back with
2 alpha / elements (child_parent.filter_mse). For each 1-bit kernel of an untrained child of
benchmarks/results/search_cifar10_2560 this is divided by the root mean square of the gradient
of the cross-entropy of 32 CIFAR-10 images. Far above 1 no sign changes, far below 1 the term does
nothing. The last line is one JSON object: the median and the quartiles over the kernels.
"""

import json
import math
import os
import statistics

from absl import app, flags

import cpnas_tf  # noqa: F401  chooses Keras 2

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "TFDS data directory, TFDS's own by default.")
flags.DEFINE_integer("channels", 16, "C of the first cell.")
flags.DEFINE_integer("cells", 6, "Number of cells.")
flags.DEFINE_integer("image_size", 16, "Height and width of the images.")

BATCH = 32
GENOTYPE = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), "results", "search_cifar10_2560", "genotype.json"
)


def push_over_gradient(kernel, depthwise, gradient):
    """The term's push at H = 0 over the cross-entropy's gradient, of one kernel."""
    import numpy as np

    from cpnas_tf.networks.quantizers import filter_axes

    elements = math.prod(kernel.shape[axis] for axis in filter_axes(kernel, depthwise))
    push = 2 * np.abs(kernel.numpy()).mean() / elements
    return float(push / np.sqrt(np.square(gradient.numpy()).mean()))


def main(_):
    """Measures each kernel once."""
    import tensorflow as tf

    from cpnas_tf import data
    from cpnas_tf.genotypes import Genotype
    from cpnas_tf.networks.cells import build_network
    from cpnas_tf.networks.quantizers import one_bit_kernels

    tf.keras.utils.set_random_seed(0)
    images = data.load(
        "cifar10", f"train[:{BATCH}]", data_dir=FLAGS.data_dir, image_size=FLAGS.image_size
    )
    model = build_network(
        Genotype.load(GENOTYPE),
        input_shape=images.image_shape,
        classes=images.classes,
        cells=FLAGS.cells,
        channels=FLAGS.channels,
    )
    kernels = one_bit_kernels(model)
    batch, labels = next(iter(images.in_order().batch(BATCH)))
    with tf.GradientTape() as tape:
        logits = model(batch, training=True)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
    gradients = tape.gradient(loss, [kernel for kernel, _ in kernels])
    ratios = [
        push_over_gradient(kernel, depthwise, gradient)
        for (kernel, depthwise), gradient in zip(kernels, gradients, strict=True)
    ]
    low, median, high = statistics.quantiles(ratios, n=4)
    print(json.dumps({"kernels": len(ratios), "median": median, "quartiles": [low, high]}))


if __name__ == "__main__":
    app.run(main)
