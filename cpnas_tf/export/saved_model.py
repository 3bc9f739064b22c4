"""The SavedModel of a classifier. To run it needs nothing but TensorFlow."""

import math
import os
import tempfile
from collections.abc import Sequence

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from cpnas_tf.data.augmentation import MIDDLE, Framing, normalize
from cpnas_tf.data.decoding import decode
from cpnas_tf.export.folding import fold
from cpnas_tf.export.inference import logits
from cpnas_tf.export.packing import PackedKernels, flat
from cpnas_tf.files import plain_path, write_atomically
from cpnas_tf.networks.formulations import without_grappler

CHANNELS = (1, 3, 4)  # of images that files can hold


def save(
    model: tf.keras.Model,
    class_names: Sequence[str],
    path: str | os.PathLike[str],
    *,
    framing: Framing = MIDDLE,
) -> None:
    """Writes a SavedModel with two signatures.

    `serving_default` takes `images`, uint8 `[batch, height, width, channels]`. `serve_bytes`, which
    is there for 1, 3 or 4 channels, takes `image_bytes`, string `[batch]`: JPEG or PNG files (in
    TensorFlow Serving's REST form, `b64`) of any size, turned upright by their EXIF orientation,
    framed and resized as `data.decoding.decode` does it. Both give `logits` and `probabilities`,
    float32 `[batch, classes]`, `classes`, int64 `[batch]`, and `labels`, string `[batch]`, those
    classes' names.

    Args:
        model: a functional or sequential Keras model from images in [-1, 1] to logits.
        class_names: the classes' names, for the asset `labels.txt`.
        path: folder to make.
        framing: what of a photo of another size the training's reader takes.

    Raises:
        ValueError: if the model calls a layer several times.
        OSError, tf.errors.OpError: if the folder cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder, without_grappler():
        labels = os.path.join(folder, "labels.txt")
        with open(labels, "w", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in class_names)
        serving = _Serving(model, labels)
        signatures = {"serving_default": serving.serve}
        if model.input_shape[3] in CHANNELS:
            signatures["serve_bytes"] = _bytes_function(
                serving.serve, model.input_shape[1:], framing
            )
        tf.saved_model.save(serving, path, signatures=signatures)
    _strip_shapes(os.path.join(path, "saved_model.pb"))


def sizes(path: str | os.PathLike[str]) -> dict[str, int]:
    """What a SavedModel of `save` takes on disk, in bytes.

    Returns:
        A dict: `packed_weight_bytes` of the 1-bit kernels and of the weights that are stored as
        they are; `batchnorm_bytes` of batch normalizations, thresholds and kernels' scales;
        `graph_bytes` of all else; and `saved_model_bytes`, their sum.
    """
    with plain_path(os.path.join(path, "variables", "variables")) as plain:
        reader = tf.train.load_checkpoint(plain)
    types = reader.get_variable_to_dtype_map()
    stored = {
        name: math.prod(shape) * types[name].size
        for name, shape in reader.get_variable_to_shape_map().items()
    }
    packed = sum(stored[name] for name in stored if name.startswith(("bits/", "weights/")))
    norms = sum(stored[name] for name in stored if name.startswith(("scales/", "vectors/")))
    total = sum(
        os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
    )
    return {
        "packed_weight_bytes": packed,
        "batchnorm_bytes": norms,
        "graph_bytes": total - packed - norms,
        "saved_model_bytes": total,
    }


def _strip_shapes(path):
    """Takes the shapes of all tensors out of the graph, a third of it: TensorFlow infers them."""
    with open(path, "rb") as file:
        proto = saved_model_pb2.SavedModel.FromString(file.read())
    for function in proto.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            node.attr.pop("_output_shapes", None)
    write_atomically(path, proto.SerializeToString(deterministic=True))


class _Serving(tf.Module):
    """The signature for images and what it needs, without Keras layers."""

    def __init__(self, model: tf.keras.Model, labels: str) -> None:
        super().__init__()
        shape = model.input_shape[1:]
        network = _network(model, self)
        names = tf.lookup.TextFileInitializer(
            labels,
            key_dtype=tf.int64,
            key_index=tf.lookup.TextFileIndex.LINE_NUMBER,
            value_dtype=tf.string,
            value_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        )
        self.labels = tf.lookup.StaticHashTable(names, default_value="")

        @_function(tf.TensorSpec([None, *shape], tf.uint8, name="images"))
        def serve(images):
            images = tf.ensure_shape(images, [None, *shape])  # else a wrong one ends the process
            not_empty = tf.debugging.assert_positive(tf.shape(images)[0], "the batch is empty")
            with tf.control_dependencies([not_empty]):
                outputs = network(images)
            classes = tf.argmax(outputs, axis=-1)
            return {
                "logits": outputs,
                "probabilities": tf.nn.softmax(outputs),
                "classes": classes,
                "labels": self.labels.lookup(classes),
            }

        self.serve = serve


def _bytes_function(serve, shape, framing):
    @_function(tf.TensorSpec([None], tf.string, name="image_bytes"))
    def serve_bytes(image_bytes):
        images = tf.map_fn(
            lambda contents: decode(contents, shape, framing),
            tf.ensure_shape(image_bytes, [None]),
            fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        )
        return serve(images)

    return serve_bytes


def _function(spec, **attributes):
    return tf.function(input_signature=[spec], autograph=False, experimental_attributes=attributes)


def _network(model, stored):
    """The function from images to logits; its variables become attributes of `stored`."""
    kernels, vectors, stored.weights = fold(model)
    sizes = [len(vector) for group in vectors.values() for vector in group]
    if kernels:
        stored.kernels = PackedKernels(kernels)
        stored.bits, stored.scales = stored.kernels.bits, stored.kernels.scales
    if vectors:
        stored.vectors = tf.Variable(flat(sum(vectors.values(), [])), trainable=False)

    # Grappler gets to see what is inlined; a network that is all real gains by that.
    @_function(tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8), _noinline=bool(kernels))
    def network(images):
        parts = iter(tf.split(stored.vectors, sizes) if vectors else [])
        return logits(
            model,
            normalize(images),
            kernels=stored.kernels.unpacked() if kernels else {},
            vectors={name: [next(parts) for _ in group] for name, group in vectors.items()},
        )

    return network
