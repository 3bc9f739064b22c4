"""Classifies photos with an exported network.

cpnas predict --export=DIR PHOTO...

PHOTO is a file of an image or a folder of them. Prints a line per photo: file, class and its
probability, or with --json one JSON object for all. --output=FILE.png draws the photos with their
classes. Photos of any size are read as those of the training were, upright.
"""

import json
import os

from absl import flags

from cpnas_tf.cli import app
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags of the command."""
    app.define_path("export", "Folder of a `cpnas export`.")
    app.define_arguments("photos", "File of a photo, or a folder of them.")
    app.define_switch("flatbuffer", "Ask the flatbuffer of LiteRT instead of the SavedModel.")
    app.define_switch("json", "Print one JSON object: classes, and probabilities by photo.")
    app.define_path("output", "PNG file for a picture of the photos.", required=False)
    app.define_overwrite()


def main() -> None:
    """Classifies the photos, and prints the classes."""
    if not FLAGS.photos:
        raise ValueError("a photo is needed: cpnas predict --export=DIR PHOTO...")
    for path in FLAGS.photos:
        if not os.path.exists(path):
            raise ValueError(f"{path} is not there")
    if FLAGS.output and os.path.exists(FLAGS.output) and not FLAGS.overwrite:
        raise ValueError(f"{FLAGS.output} exists: replace it with --overwrite")
    app.load_tensorflow()
    from cpnas_tf.export.exported import Exported, find_photos

    exported = Exported(FLAGS.export, flatbuffer=FLAGS.flatbuffer)
    probabilities, errors = {}, []
    for photo in find_photos(FLAGS.photos):
        try:
            probabilities[photo] = exported.ask(photo)
        except ValueError as error:
            errors.append(error)
    _print(exported.class_names, probabilities)
    if FLAGS.output and probabilities:
        _draw(exported.class_names, probabilities)
    if errors:
        total = len(errors) + len(probabilities)
        raise ValueError(f"{len(errors)} of {total} photos cannot be used: {errors[0]}")


def _print(class_names, probabilities):
    if FLAGS.json:
        listed = {photo: values.tolist() for photo, values in probabilities.items()}
        app.output(json.dumps({"classes": class_names, "probabilities": listed}))
        return
    for photo, values in probabilities.items():
        app.output(f"{' '.join(photo.splitlines())}: {_said(class_names, values)}")


def _said(class_names, values):
    """The likeliest class and its probability."""
    return f"{class_names[values.argmax()]} {values.max():.1%}"


def _draw(class_names, probabilities):
    from cpnas_tf.export.exported import thumbnail
    from cpnas_tf.files import write_atomically
    from cpnas_tf.plots import figures, photos

    shown = list(probabilities)[: photos.MOST]
    pairs = [
        (thumbnail(photo, photos.SIDE), _said(class_names, probabilities[photo])) for photo in shown
    ]
    figure = photos.plot_photos({"": pairs})
    write_atomically(FLAGS.output, figures.render(figure, "png"))
    left = len(probabilities) - len(shown)
    show(f"{FLAGS.output}{f': the first {len(shown)} photos' if left else ''}")
