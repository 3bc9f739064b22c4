"""Signals: a command is stopped, and left alone while it answers that. Lines with flags."""

import os
import signal
import subprocess
import sys

import pytest
from absl import flags

from cpnas_tf.cli import app

SCRIPT = """'''A script.'''
from absl import flags
from cpnas_tf.cli import app

flags.DEFINE_integer("rounds", 3, "How often.")


def main():
    print("rounds", flags.FLAGS.rounds)


app.run(main)
"""


@pytest.fixture(autouse=True)
def without_alarm():
    yield
    signal.alarm(0)


def stop_again(number):
    """Sends a stop while another one, or an error amid it, is handled."""
    with pytest.raises(KeyboardInterrupt) as stop:
        app._stop(signal.SIGTERM, None)
    try:
        raise stop.value
    except KeyboardInterrupt:
        app._stop(number, None)
        try:
            raise OSError
        except OSError:
            app._stop(number, None)


def test_the_alarm_stops_a_command_that_dropped_the_exception():
    with pytest.raises(KeyboardInterrupt):
        app._stop(signal.SIGALRM, None)


def test_the_alarm_does_not_cut_off_what_answers_a_stop():
    stop_again(signal.SIGALRM)
    assert signal.alarm(0) == 2  # it is set again, for what may drop the exception later


def test_the_user_does():
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt):
            stop_again(number)


def test_what_the_library_calls_arguments_are_flags():
    line = "choose another, or replace it with {}: jit_compile=True is no flag"
    flags.DEFINE_bool("overwrites", False, "For this test.")
    try:
        assert app._with_flags(line.format("overwrites=True")) == line.format("--overwrites")
    finally:
        delattr(app.FLAGS, "overwrites")


@pytest.mark.parametrize(
    ("argument", "code", "shown"),
    [
        ("--rounds=4", 0, "rounds 4"),
        ("--rounds=many", 1, "error: flag --rounds=many: "),
        ("--help", 0, "A script."),
        ("--help", 0, "--rounds: How often."),
    ],
)
def test_a_script_may_define_flags_itself(tmp_path, argument, code, shown):
    (tmp_path / "script.py").write_text(SCRIPT)
    process = subprocess.run(
        [sys.executable, tmp_path / "script.py", argument],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert process.returncode == code
    assert shown in process.stdout + process.stderr
    assert "Traceback" not in process.stderr
