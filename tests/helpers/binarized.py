"""A small network that another paper binarizes, six images for it, and NumPy beside it."""

import cpnas_tf  # noqa: F401, isort: skip
import larq as lq
import numpy as np
import tensorflow as tf

from cpnas_tf.networks.binarizations import kernel_quantizer

CLASSES = 3
IMAGES = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype("float32")
LABELS = np.array([0, 2, 2, 1, 0, 2])


def sign(x):
    return np.where(np.asarray(x) >= 0, 1.0, -1.0)


def network(binarization):
    """A 1-bit convolution `conv` and a 1-bit depthwise one `maps`, compiled with SGD."""
    tf.keras.utils.set_random_seed(0)
    images = tf.keras.Input([8, 8, 1], name="images")
    x = lq.layers.QuantConv2D(
        6,
        3,
        kernel_quantizer=kernel_quantizer(binarization),
        kernel_constraint="weight_clip",
        use_bias=False,
        name="conv",
    )(images)
    x = lq.layers.QuantDepthwiseConv2D(
        3,
        depthwise_quantizer=kernel_quantizer(binarization, depthwise=True),
        depthwise_constraint="weight_clip",
        use_bias=False,
        name="maps",
    )(x)
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = tf.keras.Model(images, tf.keras.layers.Dense(CLASSES, name="logits")(x))
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(0.1), loss)
    return model


def kernels(model):
    """Each latent kernel as float64, its quantizer, and the axes that its filters lie along."""
    layers = [model.get_layer(name) for name in ("conv", "maps")]
    return [
        (layers[0].kernel.latent_variable.numpy().astype(float), layers[0].kernel_quantizer, (3,)),
        (
            layers[1].depthwise_kernel.latent_variable.numpy().astype(float),
            layers[1].depthwise_quantizer,
            (2, 3),
        ),
    ]


def fit(model, *callbacks, **options):
    """One step on all images."""
    options = {"shuffle": False, "verbose": 0, "batch_size": 6, **options}
    return model.fit(IMAGES, LABELS, callbacks=[*callbacks], **options).history


def numerical_gradient(function, x, step=1e-6):
    gradient = np.zeros_like(x)
    for position in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[position] = step
        gradient[position] = (function(x + shift) - function(x - shift)) / (2 * step)
    return gradient
