"""What the user's environment says of other programs changes no run."""

import json

import pytest
from commands import (
    FOUND,
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


@pytest.mark.parametrize("command", ["search", "train"])
def test_a_run_is_the_same_whatever_keras_is_set_to(runs, tmp_path, data_dir, monkeypatch, command):
    (tmp_path / "home" / ".keras").mkdir(parents=True)
    (tmp_path / "home" / ".keras" / "keras.json").write_text(json.dumps(KERAS))
    for name, value in {**VARIABLES, "HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    arguments = SEARCH_OF_3 if command == "search" else (*TRAIN, f"--genotype={runs}/{FOUND}")
    folders = (f"--data_dir={data_dir}", f"--workdir={tmp_path}/run")
    succeed(run_process(command, *arguments, *folders))
    check_equal = check_equal_searches if command == "search" else check_equal_trainings
    check_equal(tmp_path / "run", runs / command)
