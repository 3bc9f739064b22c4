"""The history of a training: `history.csv`, a dict per epoch, and the line that a user sees of it.

Imports no TensorFlow.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from typing import Any

from cpnas_tf.files import write_csv
from cpnas_tf.runs.progress import duration

# What a run that goes on does not repeat: how long an epoch took.
TIMES = ("images_per_second", "seconds")


def write(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows, dicts with the same keys, atomically."""
    write_csv(path, rows)


def read(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Reads `history.csv`: a dict per epoch, all values numbers."""
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {name: int(value) if name == "epoch" else float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        ]


def best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The row of the highest validation accuracy, the first of equal ones."""
    return max(rows, key=lambda row: row["val_accuracy"])


def line(
    rows: Sequence[Mapping[str, Any]], *, name: str, epochs: int, left: float | None = None
) -> str:
    """One line that tells of the last epoch, and when the training will be done.

    Args:
        name: of the network.
        rows: the history up to now.
        epochs: of the whole training.
        left: the seconds until then; by default as the last epoch took.
    """
    row = rows[-1]
    left = (epochs - row["epoch"]) * row["seconds"] if left is None else left
    return (
        f"{name} [{row['epoch']:{len(str(epochs))}d}/{epochs}] loss {row['loss']:.4f}  "
        f"accuracy {row['accuracy']:6.2%}  validation {row['val_accuracy']:6.2%}  "
        f"{row['images_per_second']:6.0f} images/s  ETA {duration(left)}"
    )
