import io

import matplotlib.figure
import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf.runs.tensorboard import Summaries


def events(folder):
    """The values that a folder's logs hold, by step and name, with the plugin they are for."""
    found = {}
    for path in folder.iterdir():
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                metadata = value.metadata
                key = event.step, value.tag
                kind = metadata.plugin_data.plugin_name, metadata.data_class
                found[key] = *kind, tf.make_ndarray(value.tensor)
    return found


def test_a_folder_that_cannot_be_written(tmp_path):
    file = tmp_path / "logs"
    file.touch()
    with pytest.raises(OSError, match=f"^cannot write {file}: ") as error:
        Summaries(file).write(1, {"z": 0.5})
    assert "\n" not in str(error.value)


def test_scalars_and_pictures(tmp_path):
    file = io.BytesIO()
    matplotlib.figure.Figure(figsize=(3, 2), dpi=10).savefig(file, format="png")
    summaries = Summaries(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
    summaries.write(1, {"z": 0.5, "seconds": 3})
    summaries.write(2, {"z": np.float64(0.25)}, pictures={"indicator": file.getvalue()})
    found = events(tmp_path / "logs")
    assert found[1, "z"] == ("scalars", 1, pytest.approx(0.5))
    assert found[1, "seconds"][2] == 3
    assert found[2, "z"][2] == 0.25
    assert found[2, "indicator"][:2] == ("images", 3)
    assert list(found[2, "indicator"][2]) == [b"30", b"20", file.getvalue()]
    assert len(found) == 4
