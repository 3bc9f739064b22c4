"""Images in memory and the `tf.data` pipelines over them.

`load` reads a data set through TensorFlow Datasets (TFDS) and decodes it once. `batches` gives the
training stream, a pure function of its arguments: what a step sees depends on the seed and on the
step's number, not on the steps before it, so that a stopped run goes on with exactly the images it
would have seen.
"""

import contextlib
import dataclasses
import fcntl
import io
import os
import sys
import urllib.error
import urllib.request

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from cpnas_tf import digits
from cpnas_tf.augmentation import augment, normalize
from cpnas_tf.workdir import first_line

# The shape of an image, (height, width, channels), and the number of classes.
DATASETS = {
    "digits": ((8, 8, 1), 10),
    "fashion_mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
}
SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Labelled images in memory.

    Attributes:
        images: uint8 [n, height, width, channels].
        labels: int32 [n], positions in `class_names`.
        class_names: the classes' names.

    Raises:
        ValueError: if the arrays have other types or shapes, or a label names no class.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __post_init__(self):
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                "images must be uint8 [n, height, width, channels], "
                f"received: {images.dtype} {list(images.shape)}"
            )
        if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{len(images)} images need as many integer labels, "
                f"received: {labels.dtype} {list(labels.shape)}"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
            raise ValueError(
                f"labels must be in 0..{len(self.class_names) - 1}, the positions of the class "
                f"names, received: {labels.min()}..{labels.max()}"
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.astype(np.int32))
        object.__setattr__(self, "class_names", tuple(self.class_names))

    def __len__(self):
        return len(self.images)

    @property
    def shape(self):
        """(height, width, channels) of an image."""
        return self.images.shape[1:]

    def take(self, indices):
        """The images at `indices`, int [m], in that order."""
        return Images(self.images[indices], self.labels[indices], self.class_names)


def describe(name, split):
    """The shape of a data set's images and its number of classes, without reading anything.

    Args:
        name: one of `DATASETS`.
        split: one of `SPLITS`.

    Returns:
        `((height, width, channels), classes)`.

    Raises:
        ValueError: if the name or the split is unknown.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}, expected one of: {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}, expected one of: {', '.join(SPLITS)}")
    return DATASETS[name]


def load(name, split, *, data_dir=None):
    """Reads one split of a data set into memory, in its fixed order.

    Digits are prepared on the spot; the others are downloaded by TFDS if they are not there.

    Args:
        name: one of `DATASETS`.
        split: one of `SPLITS`.
        data_dir: the TFDS data directory; TFDS's own by default.

    Returns:
        `Images`.

    Raises:
        ValueError: if the name or the split is unknown, if the data set is not there and cannot be
            prepared, or if what is there cannot be read.
    """
    describe(name, split)
    builder = _builder(name, data_dir)
    if not builder.data_path.exists():
        _prepare(builder)
        builder = _builder(name, data_dir)
    try:
        images, labels = builder.as_dataset(
            split=split,
            batch_size=-1,
            as_supervised=True,
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        return Images(images.numpy(), labels.numpy(), tuple(builder.info.features["label"].names))
    except Exception as error:  # TFDS and tf.data raise many types for broken files
        raise _unreadable(builder.data_path, error) from error


def _builder(name, data_dir):
    try:
        return tfds.builder(name, data_dir=data_dir)
    except Exception as error:
        raise _unreadable(f"{data_dir or tfds.core.constants.DATA_DIR}/{name}", error) from error


def _prepare(builder):
    """Downloads and writes a data set; of several processes one does, and the others wait for it.

    TFDS writes in a folder whose name it draws from Python's global generator, the same name for
    two processes with one seed, and renames it at the end: hence the lock. A process killed midway
    leaves that folder, which TFDS ignores, and the system releases its lock.
    """
    is_bundled = isinstance(builder, digits.Digits)
    root = os.fspath(builder.data_path.parent.parent)
    try:
        if not is_bundled:
            _check_connection(next(iter(builder.url_infos)))
        os.makedirs(root, exist_ok=True)
        with open(os.path.join(root, f".{builder.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with _quiet() if is_bundled else contextlib.redirect_stdout(sys.stderr):
                builder.download_and_prepare()
    except Exception as error:
        advice = (
            "pass a --data_dir that can be written"
            if is_bundled
            else "pass the --data_dir that holds it, or prepare it where there is a network: "
            f"tfds build {builder.name} --data_dir={root}"
        )
        raise ValueError(
            f"{builder.name} is not in {root} and cannot be prepared there "
            f"({first_line(error)}): {advice}"
        ) from error


def _check_connection(url):
    """Tries once to reach `url`: without a network TFDS would repeat itself for minutes.

    Raises:
        OSError: if there is no answer; any answer will do.
    """
    request = urllib.request.Request(url, method="HEAD")
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=10).close()


@contextlib.contextmanager
def _quiet():
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _unreadable(folder, error):
    return ValueError(
        f"cannot read the data set in {folder} ({first_line(error)}): "
        "delete that folder to prepare it again, or pass another --data_dir"
    )


def split_for_search(
    images,
    *,
    train_fraction=0.5,
    validation_fraction=0.05,
    train_images=None,
    validation_images=None,
    seed=0,
):
    """Draws the two disjoint parts of a training set that the search trains and validates on.

    Args:
        images: `Images` to draw from.
        train_fraction: share of `images` to train on.
        validation_fraction: share of `images` to validate on.
        train_images: number of images to train on, instead of the fraction.
        validation_images: number of images to validate on, instead of the fraction.
        seed: of the draw, 0..2^32 - 1.

    Returns:
        `(train, validation)`, both `Images`.

    Raises:
        ValueError: if a part would be empty, or both together more than there is.

    References:
        CP-NAS, section 3.1: 50% of the training set to train, 5% to validate.
    """
    train = _part("train", len(images), train_fraction, train_images)
    validation = _part("validation", len(images), validation_fraction, validation_images)
    if train + validation > len(images):
        raise ValueError(
            f"{train} images to train and {validation} to validate are more than there is: "
            f"{len(images)}"
        )
    order = np.random.RandomState(seed).permutation(len(images))
    return images.take(order[:train]), images.take(order[train : train + validation])


def _part(name, total, fraction, count):
    size = int(round(fraction * total, 6)) if count is None else count
    if size < 1:
        received = f"{name}_fraction={fraction}" if count is None else f"{name}_images={count}"
        raise ValueError(f"{received} of {total} images leaves no image, at least 1 is needed")
    return size


def steps_per_epoch(images, *, batch_size):
    """The number of full batches in `images`; what remains is dropped.

    Raises:
        ValueError: if there is not one full batch.
    """
    _check_batch_size(batch_size)
    if len(images) < batch_size:
        raise ValueError(
            f"a batch of {batch_size} images needs at least as many, received: {len(images)} images"
        )
    return len(images) // batch_size


def batches(images, *, batch_size, seed, epochs=1, first_step=0, augmentation=None):
    """The training stream from step `first_step` to the end of the first `epochs` epochs.

    Every epoch is a new permutation of the images, made of `(seed, epoch)`; the augmentation of a
    step is made of `(seed, step)`. A stream that starts at `first_step` is therefore the tail of
    the whole one, and costs nothing for the steps before it. Epoch e alone is
    `epochs=e + 1, first_step=e * steps_per_epoch(...)`.

    Args:
        images: `Images`.
        batch_size: images a batch; the last, smaller batch of an epoch is dropped.
        seed: of the whole stream.
        epochs: number of epochs of the whole stream, those before `first_step` included.
        first_step: steps of the whole stream to leave out.
        augmentation: keyword arguments of `augmentation.augment`; nothing is augmented by default.

    Returns:
        `tf.data.Dataset` of images, float32 [batch_size, height, width, channels] in [-1, 1], and
        labels, int32 [batch_size].

    Raises:
        ValueError: if there are fewer images than a batch, the stream would end before it starts,
            or the augmentation is impossible.
    """
    steps = steps_per_epoch(images, batch_size=batch_size)
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1, received: {epochs}")
    if not 0 <= first_step <= epochs * steps:
        raise ValueError(
            f"{epochs} epochs have the steps 0..{epochs * steps}, received first_step={first_step}"
        )
    with tf.device("CPU"):
        pixels, labels = tf.constant(images.images), tf.constant(images.labels)
        seed = tf.constant(seed, tf.int64)

    def epoch_indices(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(images)), seed=tf.stack([seed, epoch])
        )
        return tf.data.Dataset.from_tensor_slices(
            tf.reshape(order[: steps * batch_size], [steps, batch_size])
        )

    @tf.autograph.experimental.do_not_convert  # it would spread an error over many lines
    def make_batch(step, indices):
        batch = augment(
            tf.gather(pixels, indices), seed=tf.stack([seed, step]), **(augmentation or {})
        )
        return batch, tf.gather(labels, indices)

    first_epoch, skipped = divmod(first_step, steps)
    return (
        tf.data.Dataset.range(first_epoch, epochs)
        .flat_map(epoch_indices)
        .skip(skipped)
        .enumerate(start=first_step)
        .map(make_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .apply(tf.data.experimental.assert_cardinality(epochs * steps - first_step))
        .prefetch(tf.data.AUTOTUNE)
    )


def evaluation_batches(images, *, batch_size):
    """All images once, in their order; the last batch may be smaller.

    Returns:
        `tf.data.Dataset` of images, float32 [batch, height, width, channels] in [-1, 1], and
        labels, int32 [batch].
    """
    _check_batch_size(batch_size)
    with tf.device("CPU"):
        dataset = tf.data.Dataset.from_tensor_slices((images.images, images.labels))
    return (
        dataset.batch(batch_size)
        .map(
            lambda batch, labels: (normalize(batch), labels),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .prefetch(tf.data.AUTOTUNE)
    )


def _check_batch_size(batch_size):
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, received: {batch_size}")
