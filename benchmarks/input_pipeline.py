"""How fast the input pipelines are, beside the training step that they feed.

python benchmarks/input_pipeline.py [--batch_size=96] [--rounds=5] [--batches=200]

The images are random: 50,000 of 32x32 pixels in memory, and JPEG files of 500x375 pixels, about as
large as ImageNet's, in a TFRecord file. The step is that of the paper's Small child: 10 cells,
C = 56, a random genotype. Pipelines and steps are timed in turns, so that what else the machine
does meets all. The last line is one JSON object with

- images_per_second: of the CIFAR-10 pipeline with the paper's augmentation (crop, flip, cutout),
  alone; *_plain, *_crop_flip and *_cutout with parts of it, which tell what limits;
- images_per_core_second: the same over the processor time that it took, in seconds: what one core
  gives it, whatever else the machine does;
- step_images_per_second: what the training step consumes;
- input_ratio: images_per_second over that, the median over the rounds;
- fed_step_ratio: a step on the pipeline's next batch over one on a batch that is there already;
- jpeg_images_per_second, jpeg_images_per_core_second: of the ImageNet pipeline, 224x224, with
  random windows and flips.
"""

import os
import statistics
import tempfile
import time

from absl import app, flags

import cpnas_tf  # noqa: F401  (before TensorFlow: Keras 2)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from output import print_figures

from cpnas_tf import data
from cpnas_tf.data.imagenet import StoredImages
from cpnas_tf.genotypes import OPERATIONS, Genotype
from cpnas_tf.networks.cells import build_network

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 96, "Images a batch.")
flags.DEFINE_integer("rounds", 5, "How often each is timed.")
flags.DEFINE_integer("batches", 200, "Batches of CIFAR-10's shape to time at once.")

CROP_FLIP = {"crop_padding": 4, "flip": True}
AUGMENTATIONS = {
    "_plain": {},
    "_crop_flip": CROP_FLIP,
    "_cutout": {"cutout": 16},
    "": {**CROP_FLIP, "cutout": 16},
}
JPEG_FILES = 256
JPEG_BATCH = 64


def timed(function):
    """Seconds that a call takes, and seconds of processor time."""
    started, used = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - started, time.process_time() - used


def stream(images, augmentation, batch_size):
    """A training stream that ends only after very many epochs."""
    settings = {"batch_size": batch_size, "epochs": 10_000, "augmentation": augmentation}
    return iter(data.batches(images, seed=0, **settings))


def throughput(batches, count, *, warm_up):
    """Images/s of the next `count` batches, and images per second of processor time."""
    for _ in range(warm_up):
        images, _ = next(batches)
    seconds, used = timed(lambda: [next(batches) for _ in range(count)])
    return count * len(images) / seconds, count * len(images) / used


def random_images():
    """Images of CIFAR-10's shape and number."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, [50_000, 32, 32, 3], np.uint8)
    return data.Images(pixels, random.integers(0, 10, 50_000), tuple("abcdefghij"))


def jpeg_images(folder):
    """Writes JPEG files of coarse noise as ImageNet's are stored."""
    random = np.random.default_rng(0)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(num_classes=1000),
        }
    )
    path = os.path.join(folder, "images.tfrecord")
    sizes = []
    with tf.io.TFRecordWriter(path) as writer:
        for _ in range(JPEG_FILES):
            coarse = random.integers(0, 256, [94, 125, 3]).astype(np.uint8)
            pixels = tf.image.resize(coarse, [375, 500], "bicubic")
            file = tf.io.encode_jpeg(tf.saturate_cast(pixels, tf.uint8), quality=93).numpy()
            sizes.append(len(file))
            writer.write(features.serialize_example({"image": file, "label": 0}))
    print(f"JPEG files: {statistics.mean(sizes) / 1e3:.0f} kB on average")
    return StoredImages(((path, 0, JPEG_FILES),), features)


def small_child():
    """The paper's Small child of a random genotype, compiled."""
    random = np.random.default_rng(0)
    genotype = Genotype.from_choices(random.choice(OPERATIONS, 28).tolist())
    model = build_network(genotype, input_shape=(32, 32, 3), classes=10, cells=10, channels=56)
    model.compile(
        tf.keras.optimizers.legacy.SGD(0.025, momentum=0.9),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def main(_):
    """Measures, prints a table, and as the last line one JSON object."""
    batch_size = FLAGS.batch_size
    images, model = random_images(), small_child()
    batch = next(stream(images, AUGMENTATIONS[""], batch_size))
    model.train_on_batch(*batch)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        jpegs = jpeg_images(folder)
        for _ in range(FLAGS.rounds):
            row = {}
            for name, augmentation in AUGMENTATIONS.items():
                wall, core = throughput(
                    stream(images, augmentation, batch_size), FLAGS.batches, warm_up=50
                )
                row[f"images_per_second{name}"], row[f"images_per_core_second{name}"] = wall, core
            row["jpeg_images_per_second"], row["jpeg_images_per_core_second"] = throughput(
                stream(jpegs, {"crop_area": 0.08, "flip": True}, JPEG_BATCH), 4, warm_up=4
            )
            step, _ = timed(lambda: model.train_on_batch(*batch))
            batches = stream(images, AUGMENTATIONS[""], batch_size)
            next(batches)
            fed, _ = timed(lambda batches=batches: model.train_on_batch(*next(batches)))
            row["step_images_per_second"] = batch_size / step
            row["input_ratio"] = row["images_per_second"] * step / batch_size
            row["fed_step_ratio"] = fed / step
            rows.append(row)
            print("  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    result = {key: round(statistics.median(row[key] for row in rows), 4) for key in rows[0]}
    result |= {"batch_size": batch_size, "threads": os.cpu_count()}
    print_figures(result)


if __name__ == "__main__":
    app.run(main)
