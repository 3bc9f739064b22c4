"""What a trained child and its parent cost in each format they can be shipped in.

python benchmarks/inference.py --child=DIR --parent=DIR [--output=benchmarks/results/inference]

DIR are workdirs of `cpnas train`. A row of the table is a network in a format, from uint8 images to
logits:

- keras: the model in a `tf.function`; its file is Keras's own, with real latent kernels;
- plain: what `tf.saved_model.save` makes of that function;
- packed: `saved_model.save`, one bit a 1-bit weight, batch normalizations folded where exact;
- tflite: TensorFlow's converter on `plain`, run with its XNNPACK kernels;
- lce: `flatbuffer.convert`, Larq Compute Engine's operators, for the child only.

Latency is of a batch of 1, throughput of a batch of 64, both medians of --repeats calls. All
formats take turns, so that what else the machine does meets all. The process is pinned to --threads
cores and every runtime to as many threads. LCE takes one image at a time: a batch is a loop there.

LCE's fast kernels are for Arm. On x86 it runs portable reference code, so that its times say
nothing of a phone; its sizes and predictions are the same everywhere.

Writes inference.json and a plot of accuracy against size into --output. The last line is one JSON
object: a list of rows, `network`, `format`, `bytes`, `accuracy` on the first --images test images,
`changed`, how many of those it predicts otherwise than `keras`, `latency_ms`, `images_per_second`;
and the settings.
"""

import functools
import json
import os
import statistics
import tempfile
import time

from absl import app, flags

import cpnas_tf  # noqa: F401  (before TensorFlow: Keras 2)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from cpnas_tf import files, training
from cpnas_tf.data.augmentation import normalize
from cpnas_tf.export import flatbuffer, saved_model
from cpnas_tf.plots import figures
from cpnas_tf.plots.figures import new_figure

FLAGS = flags.FLAGS
flags.DEFINE_string("child", None, "Workdir of a trained child.", required=True)
flags.DEFINE_string("parent", None, "Workdir of its trained parent.", required=True)
flags.DEFINE_string("output", "benchmarks/results/inference", "Folder for the plot and the JSON.")
flags.DEFINE_string("data_dir", None, "TFDS data directory, the trainings' by default.")
flags.DEFINE_integer("images", 1000, "Test images to measure the accuracy on.")
flags.DEFINE_integer("repeats", 20, "Timed calls a format and batch size.")
flags.DEFINE_integer("threads", 1, "Cores to be pinned to.")

BATCH = 64
MARKERS = {"keras": "o", "plain": "s", "packed": "D", "tflite": "^", "lce": "v"}


def pin(threads):
    """Keeps the process on its first cores, and TensorFlow at as many threads."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def make_formats(model, class_names, folder):
    """Writes all formats; returns the function that runs each and the path of what it takes."""
    os.mkdir(folder)
    paths = {name: os.path.join(folder, name) for name in MARKERS}

    @tf.function(
        input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="images")],
        autograph=False,
    )
    def serve(images):
        return {"logits": model(normalize(images), training=False)}

    paths["keras"] += ".keras"
    model.save(paths["keras"])
    module = tf.Module()
    module.weights = [getattr(weight, "latent_variable", weight) for weight in model.weights]
    tf.saved_model.save(module, paths["plain"], signatures=serve)
    saved_model.save(model, class_names, paths["packed"])
    converter = tf.lite.TFLiteConverter.from_saved_model(paths["plain"])
    files.write_atomically(paths["tflite"], converter.convert())
    runs = {
        "keras": _run_signature(serve),
        "plain": _run_signature(tf.saved_model.load(paths["plain"]).signatures["serving_default"]),
        "packed": _run_signature(
            tf.saved_model.load(paths["packed"]).signatures["serving_default"]
        ),
        "tflite": _run_tflite(paths["tflite"]),
    }
    if model.name == "child":
        files.write_atomically(paths["lce"], flatbuffer.convert(model))
        runs["lce"] = _run_lce(paths["lce"])
    return {name: (run, paths[name]) for name, run in runs.items()}


def _run_signature(signature):
    return lambda images: signature(images=tf.constant(images))["logits"].numpy()


def _run_tflite(path):
    @functools.cache
    def interpreter(batch):
        loaded = tf.lite.Interpreter(path, num_threads=FLAGS.threads)
        (images,) = loaded.get_input_details()
        loaded.resize_tensor_input(images["index"], [batch, *images["shape"][1:]])
        return loaded.get_signature_runner()

    return lambda images: interpreter(len(images))(images=images)["logits"]


def _run_lce(path):
    from larq_compute_engine.tflite.python.interpreter import Interpreter

    with open(path, "rb") as file:
        return Interpreter(file.read(), num_threads=FLAGS.threads).predict


def size_on_disk(path):
    """Bytes of a file, or of all files in a folder."""
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(size_on_disk(os.path.join(path, name)) for name in os.listdir(path))


def predict(run, images):
    """The class that a format predicts for each image."""
    parts = range(0, len(images), BATCH)
    return np.concatenate([run(images[first : first + BATCH]).argmax(axis=1) for first in parts])


def median_seconds(runs, images, repeats):
    """Median time of a call of each function, called in turns, after a first call."""
    seconds = [[] for _ in runs]
    for _ in range(1 + repeats):
        for run, times in zip(runs, seconds, strict=True):
            started = time.perf_counter()
            run(images)
            times.append(time.perf_counter() - started)
    return [statistics.median(times[1:]) for times in seconds]


def plot(rows):
    """Draws accuracy against size, a point a network and format."""
    figure = new_figure(4.5)
    axes = figure.add_axes([0.1, 0.14, 0.72, 0.8])
    colours = {"child": figures.CHILD_COLOUR, "parent": figures.PARENT_COLOUR}
    for row in rows:
        style = {"marker": MARKERS[row["format"]], "color": colours[row["network"]]}
        label = f"{row['network']}, {row['format']}"
        axes.plot(row["bytes"] / 1e3, 100 * row["accuracy"], linewidth=0, label=label, **style)
    axes.set_xscale("log", subs=(2, 5))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter("{x:,.0f}")
    axes.set_xlabel("size in kB")
    axes.set_ylabel(f"accuracy on {FLAGS.images} test images (%)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="center right", fontsize=9, frameon=False)
    return figure


def measure(formats, images):
    """The rows of a table, one per network and format."""
    runs = [run for run, _ in formats.values()]
    latencies = median_seconds(runs, images.images[:1], FLAGS.repeats)
    batches = median_seconds(runs, images.images[:BATCH], FLAGS.repeats)
    classes = {key: predict(run, images.images) for key, (run, _) in formats.items()}
    return [
        {
            "network": network,
            "format": name,
            "bytes": size_on_disk(formats[network, name][1]),
            "accuracy": float((classes[network, name] == images.labels).mean()),
            "changed": int((classes[network, name] != classes[network, "keras"]).sum()),
            "latency_ms": round(1e3 * latency, 3),
            "images_per_second": round(BATCH / seconds, 1),
        }
        for (network, name), latency, seconds in zip(formats, latencies, batches, strict=True)
    ]


def print_table(rows):
    """Prints the rows, and what they do not show."""
    print(f"{'network':8}{'format':8}{'bytes':>12}{'accuracy':>10}{'changed':>9}", end="")
    print(f"{'ms, 1':>10}{'images/s, 64':>14}")
    for row in rows:
        print("{network:8}{format:8}{bytes:12,}{accuracy:10.2%}{changed:9}".format(**row), end="")
        print("{latency_ms:10.2f}{images_per_second:14.1f}".format(**row))
    print("lce on x86 is portable reference code: its fast kernels are for Arm")


def main(_):
    """Measures, prints a table, writes the plot, and as the last line prints one JSON object."""
    pin(FLAGS.threads)
    formats = {}
    with tempfile.TemporaryDirectory() as folder:
        for network in ("child", "parent"):
            directory = getattr(FLAGS, network)
            model, test, run = training.load_trained(directory, data_dir=FLAGS.data_dir)
            if run["precision"] != network:
                raise app.UsageError(f"--{network} is the workdir of a {run['precision']}")
            made = make_formats(model, test.class_names, os.path.join(folder, network))
            formats |= {(network, name): what for name, what in made.items()}
        rows = measure(formats, test.take(np.arange(min(FLAGS.images, len(test)))))
    print_table(rows)
    settings = {name: FLAGS[name].value for name in ("images", "repeats", "threads")}
    os.makedirs(FLAGS.output, exist_ok=True)
    files.write_json(os.path.join(FLAGS.output, "inference.json"), {"rows": rows, **settings})
    for kind in ("png", "svg"):
        path = os.path.join(FLAGS.output, f"accuracy_against_size.{kind}")
        files.write_atomically(path, figures.render(plot(rows), kind))
    print(json.dumps({"rows": rows, **settings}))


if __name__ == "__main__":
    app.run(main)
