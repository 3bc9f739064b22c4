"""Errors that a user reads."""


def assert_one_line(error, *parts):
    """Expects the message of a caught error to be one line that holds these parts."""
    message = str(error.value)
    assert len(message.splitlines()) == 1
    for part in parts:
        assert str(part) in message
