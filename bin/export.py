"""Exports a trained network.

python bin/export.py --workdir=DIR --output=DIR

Writes saved_model/, model.tflite, export.json and a model card into the output folder, all or
nothing.
"""

import cpnas_tf.cli.interrupt  # noqa: F401, isort: skip
from absl import flags

from cpnas_tf.cli import app
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS
app.define_path("workdir", "Workdir of a finished bin/train.py.")
app.define_path("output", "Folder to make.")
app.define_data_dir()
app.define_overwrite()
flags.adopt_module_key_flags(app)


def main():
    """Exports and prints what was checked."""
    app.load_tensorflow()
    from cpnas_tf.export.bundle import check_output, export
    from cpnas_tf.runs.trained import TrainedRun

    check_output(FLAGS.output, overwrite=FLAGS.overwrite)
    trained = TrainedRun(FLAGS.workdir, data_dir=FLAGS.data_dir)
    test = trained.test_images()
    summary = export(
        trained.network(),
        test,
        directory=FLAGS.output,
        trained=trained,
        overwrite=FLAGS.overwrite,
    )
    show(
        f"SavedModel, {summary['saved_model_bytes']} bytes, equals Keras on "
        f"{summary['images_checked']} images: {FLAGS.output}"
    )
    if summary["tflite_bytes"]:
        show(
            f"flatbuffer, {summary['tflite_bytes']} bytes, predicts otherwise for "
            f"{summary['tflite_changed_predictions']} of {summary['tflite_images_checked']} images"
        )
    else:
        show("flatbuffer left out: it needs Larq Compute Engine, pip install '.[deploy]'")


if __name__ == "__main__":
    app.run(main)
