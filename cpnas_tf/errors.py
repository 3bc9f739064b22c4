"""Any error in one line: what the user can mend, without the names of TensorFlow's graph nodes."""

import re
import sys

# What TensorFlow puts before and around an error's message.
_TENSORFLOW = re.compile(
    r"^Graph execution error:|^Detected at node.*|^ +File .*|^<stack traces unavailable>"
    r"|^\d+ root error.*|\[\[\{\{.*?\}\}\]\]|\{\{.*?\}\}|\[Op:.*",
    re.MULTILINE,
)
# The part of TensorFlow's DataLossError that says what is wrong with a file of records.
_DAMAGE = re.compile(r"\w+ record at \d+")
_OTHERS_ENDED = "another worker has ended: start all of them again, and they go on from here"
# What to do about other errors of TensorFlow.
_ADVICE = {
    "ResourceExhaustedError": "out of memory: try a smaller batch_size, or fewer channels",
    "UnavailableError": _OTHERS_ENDED,
    "AbortedError": _OTHERS_ENDED,
}


def first_line(error: BaseException) -> str:
    """What an error says, in one line, without the graph nodes that TensorFlow names."""
    lines = _TENSORFLOW.sub("", str(error)).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def explain(error: BaseException) -> str | None:
    """What the user can mend, in a line, or None: of a bug a traceback says most."""
    keras_tuner = sys.modules.get("keras_tuner.errors")  # importing it takes seconds
    if isinstance(error, (ValueError, OSError, *([keras_tuner.FatalError] if keras_tuner else []))):
        return message(error)
    name = type(error).__name__
    if name == "DataLossError" and (damage := _DAMAGE.search(str(error))):
        return f"a file of the data set is damaged ({damage[0]}): prepare it again"
    return _ADVICE.get(name)


def message(error: BaseException) -> str:
    """What an error says, or its kind if it says nothing."""
    return str(error) or type(error).__name__
