"""Serves an exported SavedModel over HTTP, in the REST form of TensorFlow Serving.

python benchmarks/kserve_server.py --saved_model=DIR --model_name=NAME --http_port=8080

The package indexes have no binary of TensorFlow Serving itself, only its client. KServe's server
speaks the same REST form ("V1 protocol": `instances`, `predictions`); what it leaves to a model,
`signature_name` and the `b64` of bytes, is here. It runs in an environment of its own, without this
package:

python -m venv DIR && DIR/bin/pip install kserve tensorflow
"""

import argparse
import base64
import binascii

import tensorflow as tf
from kserve import Model, ModelServer, model_server
from kserve.errors import InvalidInput


class SavedModel(Model):
    """A SavedModel whose signatures take one input with a row an instance."""

    def __init__(self, name, path):
        super().__init__(name)
        self._path = path

    def load(self):
        """Loads it; KServe does not answer before."""
        self._signatures = tf.saved_model.load(self._path).signatures
        self.ready = True
        return True

    def predict(self, payload, headers=None, response_headers=None):
        """Answers `{"signature_name": ..., "instances": [...]}`; what is wrong is code 400."""
        name = payload.get("signature_name", "serving_default")
        if name not in self._signatures:
            raise InvalidInput(f"signature_name must be one of {list(self._signatures)}: {name!r}")
        signature = self._signatures[name]
        ((argument, spec),) = signature.structured_input_signature[1].items()
        try:
            rows = [_decode(instance, argument) for instance in payload["instances"]]
            outputs = signature(**{argument: tf.constant(rows, spec.dtype)})
        except (tf.errors.InvalidArgumentError, binascii.Error, TypeError, ValueError) as error:
            raise InvalidInput(_reason(error)) from error
        columns = {key: _plain(output.numpy()) for key, output in outputs.items()}
        return {
            "predictions": [
                dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
            ]
        }


def _decode(instance, argument):
    """An instance's value: itself or what is under the input's name, and bytes for a `b64`."""
    if isinstance(instance, dict) and argument in instance:
        instance = instance[argument]
    if isinstance(instance, dict):
        if set(instance) != {"b64"} or not isinstance(instance["b64"], str):
            raise ValueError(f"an instance needs {argument!r}, or the one key 'b64'")
        return base64.b64decode(instance["b64"], validate=True)
    return instance


def _reason(error):
    """The line of an error that says what is wrong; TensorFlow's name nodes of the graph, too."""
    return [line for line in str(error).split("[[")[0].splitlines() if line.strip()][-1]


def _plain(array):
    """An array as lists, bytes as text."""
    if array.dtype == object:
        return [value.decode() for value in array]
    return array.tolist()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(parents=[model_server.parser], conflict_handler="resolve")
    parser.add_argument("--saved_model", required=True)
    arguments = parser.parse_args()
    model = SavedModel(arguments.model_name, arguments.saved_model)
    model.load()
    ModelServer().start([model])
