"""The features that a loss holds to their class's mean, and those means: the class centres.

References:
    A Discriminative Feature Learning Approach (Wen et al., 2016), Equation 4: the class centres.
"""

import tensorflow as tf

from cpnas_tf.networks.quantizers import all_layers


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


def follow(centres: tf.Variable, maps: tf.Tensor, *, labels: tf.Tensor, rate: float) -> None:
    """Moves centres towards the maps of their classes in the batch of all replicas.

    Args:
        centres: a variable as of `updated_centres`.
        maps: of one replica, `[batch, ...]`; no gradient flows through them.
        labels: integers `[batch]`.
        rate: see `updated_centres`.
    """
    classes = centres.shape[0]
    sums = tf.math.unsorted_segment_sum(tf.stop_gradient(maps), labels, classes)
    counts = tf.math.unsorted_segment_sum(tf.ones_like(labels, tf.float32), labels, classes)
    sums, counts = tf.distribute.get_replica_context().all_reduce("sum", [sums, counts])
    centres.assign(updated_centres(centres, sums=sums, counts=counts, rate=rate))


def class_count(model: tf.keras.Model, *, weight: str) -> int:
    """The number of classes of a model whose first output is `[batch, classes]`.

    Args:
        model: a Keras model.
        weight: the name of the weight that needs no classes if it is 0.

    Raises:
        ValueError: if it has no such output.
    """
    shapes = [tuple(output.shape) for output in model.outputs or ()]
    if not shapes or len(shapes[0]) != 2 or (shapes[0][1] or 0) < 2:
        raise ValueError(
            f"the model {model.name!r} must be a built functional one and have a first output "
            f"[batch, classes] for its class centres, received outputs of the shapes: {shapes} "
            f"({weight}=0 needs none)"
        )
    return shapes[0][1]


def _output_shape(layer):
    """The shape of a layer's one output, or () where there is none or it is not known."""
    try:
        shape = layer.output_shape
    except (AttributeError, RuntimeError):  # how Keras says that
        return ()
    return shape if isinstance(shape, tuple) else ()


def features_layer(model: tf.keras.Model, name: str | None) -> tf.keras.layers.Layer:
    """The layer of this name, or else the last one with an output of rank 4.

    Of several outputs the first one counts: others, such as an auxiliary tower's, have maps too.

    Raises:
        ValueError: if there is none, or several have the name.
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


def map_shape(layer: tf.keras.layers.Layer, *, pooled: bool) -> tuple[int, ...]:
    """The shape of one sample's features.

    Raises:
        ValueError: if it is not known.
    """
    shape = _output_shape(layer)
    if pooled:
        shape = shape[:1] + shape[3:] if len(shape) == 4 else ()
    if len(shape) < 2 or None in shape[1:]:
        raise ValueError(
            f"the output of the layer {layer.name!r} must be maps of known size, or of known "
            f"channels with pooled=True, received the shape: {_output_shape(layer) or 'unknown'}"
        )
    return shape[1:]


def class_indices(labels: tf.Tensor, classes: int) -> tf.Tensor:
    """Labels `[batch]`, `[batch, 1]` or one-hot `[batch, classes]` as integers `[batch]`.

    Raises:
        ValueError: if they have another shape.
    """
    shape = labels.shape.as_list()
    if len(shape) == 2 and shape[1] == classes:
        labels = tf.argmax(labels, axis=1)
    elif shape[1:] not in ([], [1]):
        raise ValueError(
            f"labels must have the shape [batch] or [batch, {classes}], received: {labels.shape}"
        )
    return tf.cast(tf.reshape(labels, [-1]), tf.int32)
