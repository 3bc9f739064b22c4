"""What the user's environment says of other programs changes no run."""

import json

import forked
import pytest
from commands import (
    SEARCH_OF_3,
    TRAIN,
    check_equal_searches,
    check_equal_trainings,
    run_process,
    succeed,
)

# Of Keras 2 and 3: what is in ~/.keras/keras.json.
KERAS = {
    "floatx": "float16",
    "epsilon": 0.1,
    "image_data_format": "channels_first",
    "backend": "theano",
}


VARIABLES = {
    "KERAS_BACKEND": "torch",
    "KERASTUNER_TUNER_ID": "chief",
    "KERASTUNER_ORACLE_IP": "127.0.0.1",
    "KERASTUNER_ORACLE_PORT": "1",
}


@pytest.mark.parametrize(
    ("command", "check"),
    [
        (("search", *SEARCH_OF_3), check_equal_searches),
        (("train", *TRAIN, "--genotype=darts"), check_equal_trainings),
    ],
)
def test_a_run_is_the_same_whatever_keras_is_set_to(
    tmp_path, data_dir, monkeypatch, command, check
):
    data = f"--data_dir={data_dir}"
    succeed(forked.run(*command, data, f"--workdir={tmp_path}/a"))
    (tmp_path / "home" / ".keras").mkdir(parents=True)
    (tmp_path / "home" / ".keras" / "keras.json").write_text(json.dumps(KERAS))
    for name, value in {**VARIABLES, "HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    succeed(run_process(*command, data, f"--workdir={tmp_path}/b"))
    check(tmp_path / "a", tmp_path / "b")
