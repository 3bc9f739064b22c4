"""Own images, written for the tests."""

import tensorflow as tf


def write(path, image):
    """Writes an image as a PNG file, and its folder; returns the image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(image).numpy())
    return image
