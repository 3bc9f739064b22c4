"""The networks that a search trains, and their step, in Keras and Larq alone.

What the search engine is measured against. It is frozen and imports nothing of the library, so that
it does not get faster or slower with it; a test compares their values.
"""

import larq as lq
import tensorflow as tf

NODES = 6  # of a cell: two inputs, and four whose outputs are joined


class DepthwiseSign(lq.quantizers.SteSign):
    """alpha * sign(H) with an alpha = mean |H| per channel; Larq's own has one for all channels."""

    def call(self, inputs):
        scale = tf.reduce_mean(tf.abs(inputs), axis=[0, 1], keepdims=True)
        return tf.stop_gradient(scale) * super().call(inputs)


class Relu(lq.quantizers.Quantizer):
    """The parent's activation, in its convolutions as the child's sign is."""

    def call(self, inputs):
        return tf.nn.relu(inputs)


def batch_norm(x):
    """Batch normalization with the constants of the paper's framework."""
    return tf.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


class Units:
    """Convolutions with their activation and BN, of a child or of a parent."""

    def __init__(self, precision):
        self.child = precision == "child"

    def _quantized(self, **kernel):
        common = {"padding": "same", "use_bias": False}
        if self.child:
            return {"input_quantizer": "ste_sign", **kernel, **common}
        return {"input_quantizer": Relu(), **common}

    def _convolution(self, x, filters, stride):
        kernel = {"kernel_quantizer": "magnitude_aware_sign", "kernel_constraint": "weight_clip"}
        layer = lq.layers.QuantConv2D(filters, 1, strides=stride, **self._quantized(**kernel))
        return layer(x)

    def pointwise(self, x, filters):
        return batch_norm(self._convolution(x, filters, 1))

    def reduction(self, x, filters):
        halves = [x, tf.slice(x, [0, 1, 1, 0], [-1] * 4)]
        halves = [self._convolution(half, filters // 2, 2) for half in halves]
        return batch_norm(tf.keras.layers.concatenate(halves))

    def depthwise(self, x, size, *, stride=1, dilation=1):
        kernel = {"depthwise_quantizer": DepthwiseSign(), "depthwise_constraint": "weight_clip"}
        layer = lq.layers.QuantDepthwiseConv2D(
            size, strides=stride, dilation_rate=dilation, **self._quantized(**kernel)
        )
        return batch_norm(layer(x))

    def operation(self, name, x, stride):
        """An edge's operation applied to maps, or None for none."""
        kind, size, filters = name[:-4], int(name[-1]) if name[-1].isdigit() else 0, x.shape[-1]
        if name == "none":
            return None
        if name == "skip_connect":
            return x if stride == 1 else self.reduction(x, filters)
        if kind in ("max_pool", "avg_pool"):
            layers = tf.keras.layers
            pool = layers.MaxPooling2D if kind == "max_pool" else layers.AveragePooling2D
            return batch_norm(pool(size, strides=stride, padding="same")(x))
        if kind == "sep_conv":
            x = self.pointwise(self.depthwise(x, size, stride=stride), filters)
            return self.pointwise(self.depthwise(x, size), filters)
        if stride == 1:
            return self.pointwise(self.depthwise(x, size, dilation=2), filters)
        return self.pointwise(self.depthwise(x[:, ::2, ::2], size), filters)


def build(normal, reduce, *, precision, input_shape, classes, cells, channels):
    """The network of the 14 operations of the normal and of the reduction cells.

    Returns:
        A functional `tf.keras.Model` from images to logits.
    """
    units = Units(precision)
    images = tf.keras.Input(input_shape)
    stem = lq.layers.QuantConv2D(3 * channels, 3, padding="same", use_bias=False)
    s0 = s1 = batch_norm(stem(images))
    reductions, after_reduction = {cells // 3, 2 * cells // 3}, False
    for cell in range(cells):
        stride = 2 if cell in reductions else 1
        channels *= stride
        preprocess = units.reduction if after_reduction else units.pointwise
        nodes = [preprocess(s0, channels), units.pointwise(s1, channels)]
        operations = iter(reduce if cell in reductions else normal)
        for _ in range(2, NODES):
            edges = [
                units.operation(next(operations), x, stride if source < 2 else 1)
                for source, x in enumerate(nodes)
            ]
            edges = [x for x in edges if x is not None]
            zeros = tf.zeros_like(nodes[0][:, ::stride, ::stride]) if not edges else None
            nodes.append(tf.keras.layers.add(edges) if len(edges) > 1 else [*edges, zeros][0])
        s0, s1 = s1, tf.keras.layers.concatenate(nodes[2:])
        after_reduction = cell in reductions
    pooled = tf.keras.layers.GlobalAveragePooling2D()(s1)
    return tf.keras.Model(images, tf.keras.layers.Dense(classes)(pooled))


def make_step(models, images, labels, *, learning_rate, momentum, weight_decay):
    """A function that trains each of the models for a step, compiled."""
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizers = [tf.keras.optimizers.legacy.SGD(learning_rate, momentum=momentum) for _ in models]

    @tf.function(autograph=False)
    def train():
        for model, optimizer in zip(models, optimizers, strict=True):
            with tf.GradientTape() as tape:
                value = loss(labels, model(images, training=True))
                squares = [tf.nn.l2_loss(variable) for variable in model.trainable_variables]
                value += weight_decay * tf.add_n(squares)
            gradients = tape.gradient(value, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    return train
