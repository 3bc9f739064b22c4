"""A minute of concurrent requests to a served SavedModel, broken ones in between.

python benchmarks/serving.py --url=http://localhost:8080/v1/models/NAME:predict [--seconds=60]

Sends CIFAR-10's test images as JPEG files (`b64`, one a request) to the signature `serve_bytes` of
a server that speaks TensorFlow Serving's REST form, such as kserve_server.py, from --clients
threads with a connection each. Every 20th request of a client is malformed, each kind in turn; its
answer must have a code from 400 to 499 and say what is wrong. Every other one must have code 200
and the prediction that the same file had in the first request of all, also right after a malformed
one. Anything else ends the run with an error.

Prints a table of the latency's percentiles and, as the last line, one JSON object: `requests`,
`malformed`, `errors` (unexpected answers, always 0 in a run that ends well), `requests_per_second`,
`latency_ms`: percentiles.
"""

import base64
import http.client
import itertools
import json
import os
import threading
import time
import urllib.parse

from absl import app, flags

import cpnas_tf  # noqa: F401  (before TensorFlow: Keras 2)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from cpnas_tf import data

FLAGS = flags.FLAGS
flags.DEFINE_string("url", None, "Where to send requests.", required=True)
flags.DEFINE_string("data_dir", None, "TFDS data directory, TFDS's own by default.")
flags.DEFINE_integer("seconds", 60, "How long to send.")
flags.DEFINE_integer("clients", 8, "Clients that send at the same time.")
flags.DEFINE_integer("images", 200, "Different images.")

MALFORMED_EVERY = 20
PERCENTILES = (50, 90, 99, 100)


def request_body(content):
    """A request for the prediction of one image file."""
    instance = {"image_bytes": {"b64": base64.b64encode(content).decode()}}
    return json.dumps({"signature_name": "serve_bytes", "instances": [instance]})


def malformed_bodies(jpeg):
    """What a server has to refuse."""
    bitmap = b"BM" + bytes(100)
    return [
        request_body(jpeg[: len(jpeg) // 2]),
        request_body(b"no image"),
        request_body(b""),
        request_body(bitmap),
        request_body(jpeg)[:-20],
        json.dumps({"signature_name": "serve_bytes", "instances": []}),
        json.dumps({"signature_name": "serve_bytes", "instances": [{"image_bytes": {"b64": "?"}}]}),
        json.dumps({"signature_name": "other", "instances": [1]}),
        json.dumps({"instances": [[[0]]]}),
    ]


class Client:
    """Sends requests over one connection, and keeps the seconds that the good ones took."""

    def __init__(self, url):
        self._url = urllib.parse.urlsplit(url)
        self._connection = http.client.HTTPConnection(self._url.netloc, timeout=60)
        self.seconds, self.malformed, self.failure = [], 0, None

    def post(self, body):
        """The code and the text of the answer."""
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", self._url.path, body, headers)
        response = self._connection.getresponse()
        return response.status, response.read().decode()

    def predict(self, body):
        """The prediction; raises RuntimeError if there is none."""
        code, answer = self.post(body)
        if code != 200:
            raise RuntimeError(f"code {code}: {answer}")
        (prediction,) = json.loads(answer)["predictions"]
        return prediction

    def run(self, bodies, expected, malformed, until):
        """Sends until a point of time; an answer that must not be ends it with a `failure`."""
        try:
            for number in itertools.count():
                if time.perf_counter() >= until:
                    break
                if number % MALFORMED_EVERY == MALFORMED_EVERY - 1:
                    self._send_malformed(malformed[self.malformed % len(malformed)])
                index = number % len(bodies)
                started = time.perf_counter()
                prediction = self.predict(bodies[index])
                self.seconds.append(time.perf_counter() - started)
                if prediction["classes"] != expected[index]["classes"]:
                    raise RuntimeError(f"image {index} has another class: {prediction}")
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            self.failure = error

    def _send_malformed(self, body):
        code, answer = self.post(body)
        if not 400 <= code < 500 or not json.loads(answer)["error"]:
            raise RuntimeError(f"code {code} for the malformed request {body[:100]}: {answer}")
        self.malformed += 1


def main(_):
    """Sends, prints a table, and as the last line one JSON object."""
    images = data.load("cifar10", "test", data_dir=FLAGS.data_dir).images[: FLAGS.images]
    files = [tf.io.encode_jpeg(image, quality=95).numpy() for image in images]
    bodies, malformed = [request_body(file) for file in files], malformed_bodies(files[0])
    first = Client(FLAGS.url)
    expected = [first.predict(body) for body in bodies]
    for body in malformed:
        print(*first.post(body))
    clients = [Client(FLAGS.url) for _ in range(FLAGS.clients)]
    started = time.perf_counter()
    arguments = (bodies, expected, malformed, started + FLAGS.seconds)
    threads = [threading.Thread(target=client.run, args=arguments) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    failures = [client.failure for client in clients if client.failure]
    if failures:
        raise RuntimeError(f"{len(failures)} clients failed, one by: {failures[0]}")
    seconds = np.concatenate([client.seconds for client in clients])
    result = {
        "requests": len(seconds),
        "malformed": sum(client.malformed for client in clients),
        "errors": len(failures),
        "clients": FLAGS.clients,
        "requests_per_second": round(len(seconds) / elapsed, 1),
        "latency_ms": {
            f"p{percentile}": round(1e3 * float(np.percentile(seconds, percentile)), 2)
            for percentile in PERCENTILES
        },
    }
    for key, value in result.items():
        print(f"{key:20}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    app.run(main)
