"""Exports a trained network.

cpnas export --workdir=DIR --output=DIR

Writes saved_model/, model_litert.tflite, model.tflite, predict.py, export.json and a model card
into the output folder, all or nothing.
"""

from absl import flags

from cpnas_tf.cli import app
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command."""
    app.define_path("workdir", "Workdir of a finished `cpnas train`.")
    app.define_path("output", "Folder to make.")
    app.define_data_dir()
    app.define_overwrite()


def main() -> None:
    """Exports and prints what was checked."""
    from cpnas_tf.runs.trained import TrainedRun

    trained = TrainedRun(FLAGS.workdir, data_dir=FLAGS.data_dir)
    app.load_tensorflow()
    from cpnas_tf.export.bundle import check_output, export

    check_output(FLAGS.output, overwrite=FLAGS.overwrite)
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
    for name, prefix in (("model_litert.tflite", "litert_"), ("model.tflite", "tflite_")):
        if summary[f"{prefix}bytes"]:
            show(
                f"{name}, {summary[f'{prefix}bytes']} bytes, predicts otherwise for "
                f"{summary[f'{prefix}changed_predictions']} of "
                f"{summary[f'{prefix}images_checked']} images"
            )
    if trained.precision == "child" and not summary["tflite_bytes"]:
        show("model.tflite left out: it needs Larq Compute Engine, pip install '.[deploy]'")
