"""What a user without Larq, Keras 2 and this package does with a SavedModel, also what is wrong.

python client.py SAVED_MODEL IMAGES.npy ANSWERS.npz
"""

import json
import random
import sys

import numpy as np
import tensorflow as tf

NOT_THERE = ("cpnas_tf", "larq", "tf_keras", "keras_tuner")
FUZZED = 1500


def ask(signature, **request):
    return plain({name: output.numpy() for name, output in signature(**request).items()})


def plain(outputs):
    """Outputs as arrays that need no pickle."""
    return {
        n: array.astype("S") if array.dtype == object else array for n, array in outputs.items()
    }


def error(signature, **request):
    """The message of the error that is the answer to a request; "" if there is another answer."""
    try:
        signature(**request)
    except tf.errors.InvalidArgumentError as error:
        return str(error)
    return ""


def mutate(generator, content):
    """Changes, removes or inserts bytes, or cuts off the end."""
    content = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 5])):
        start = generator.randrange(len(content))
        end = start + generator.choice([0, 1, 4, 20])
        new = generator.randbytes(generator.choice([0, 1, 4, 20]))
        content[start:end] = generator.choice([new, b"\xff" * 4, b"\0" * 4])
        if generator.random() < 0.1:
            del content[start:]
        content += b"\0" * (not content)
    return bytes(content)


def fuzz(serve_bytes, files):
    """Counts the requests that were answered and those that were refused."""
    generator = random.Random(0)
    refused = 0
    for _ in range(FUZZED):
        content = mutate(generator, generator.choice(files))
        refused += error(serve_bytes, image_bytes=tf.constant([content])) != ""
    return {"answered": FUZZED - refused, "refused": refused}


def run_session(folder, images):
    """Serves as TensorFlow Serving does: in a session, all variables and tables set up by it."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], folder)
        signature = graph.signature_def["serving_default"]
        feed = {signature.inputs["images"].name: images}
        outputs = {name: output.name for name, output in signature.outputs.items()}
        return plain(session.run(outputs, feed))


def main(folder, requests, answers):
    sys.modules.update(dict.fromkeys(NOT_THERE))
    images = np.load(requests)
    signatures = tf.saved_model.load(folder).signatures
    serve, serve_bytes = signatures["serving_default"], signatures["serve_bytes"]
    rgb = np.repeat(images, 3, axis=3)
    jpeg = [tf.io.encode_jpeg(image).numpy() for image in images]
    png = [tf.io.encode_png(image).numpy() for image in images]
    wrong_images = {
        "float": tf.cast(images[:1], tf.float32),
        "int32": tf.cast(images[:1], tf.int32),
        "smaller": tf.constant(images[:1, 1:]),
        "one image": tf.constant(images[0]),
        "colour": tf.constant(rgb[:1]),
        "empty": tf.constant(images[:0]),
    }
    photo = tf.reshape(tf.cast(tf.range(30 * 20 * 3) % 251, tf.uint8), [30, 20, 3])
    wrong_files = {
        "broken JPEG": [jpeg[0][:-40]],
        "broken PNG": [png[0][:-40]],
        "header of a JPEG": [jpeg[0][:5]],
        "header of a PNG": [png[0][:20]],
        # 2^31 - 1 pixels in each direction.
        "vast PNG": [png[0][:16] + b"\x7f\xff\xff\xff" * 2 + png[0][24:]],
        "BMP": [b"BM" + bytes(100)],
        "text": [b"text"],
        "nothing": [b""],
        "empty": [],
    }
    report = {
        "inputs": {
            name: {
                key: [spec.dtype.name, spec.shape.as_list()]
                for key, spec in signature.structured_input_signature[1].items()
            }
            for name, signature in signatures.items()
        },
        "outputs": {
            key: [spec.dtype.name, spec.shape.as_list()]
            for key, spec in serve.structured_outputs.items()
        },
        "image errors": {n: error(serve, images=wrong) for n, wrong in wrong_images.items()},
        "file errors": {
            name: error(serve_bytes, image_bytes=tf.constant(files, tf.string))
            for name, files in wrong_files.items()
        },
        "one file": error(serve_bytes, image_bytes=tf.constant(png[0])),
        "fuzz": fuzz(serve_bytes, jpeg[:4] + png[:4] + [tf.io.encode_jpeg(rgb[0]).numpy()]),
        "keras": tf.keras.__version__[:2],
    }
    decoded = np.stack([tf.io.decode_jpeg(file, dct_method="INTEGER_ACCURATE") for file in jpeg])
    groups = {
        "images": ask(serve, images=tf.constant(images)),
        "one": ask(serve, images=tf.constant(images[:1])),
        "session": run_session(folder, images),
        "png": ask(serve_bytes, image_bytes=tf.constant(png)),
        "jpeg": ask(serve_bytes, image_bytes=tf.constant(jpeg)),
        "decoded": ask(serve, images=tf.constant(decoded)),
        "photo": ask(serve_bytes, image_bytes=[png[0], tf.io.encode_png(photo).numpy()]),
    }
    arrays = {f"{group} {n}": array for group in groups for n, array in groups[group].items()}
    np.savez(answers, **arrays)
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
