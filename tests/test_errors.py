import pytest

from cpnas_tf import errors

GRAPH_ERROR = """Graph execution error:

Detected at node MatMul defined at (most recent call last):
  File "search.py", line 4, in <module>

  File "search.py", line 3, in step

OOM when allocating a tensor
\t [[{{node MatMul}}]]
Hint: something else [Op:__inference_step_8]"""


class TestFirstLine:
    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (ValueError("one"), "one"),
            (ValueError("\n one \ntwo"), "one"),
            (ValueError(), "ValueError"),
            (RuntimeError(" \n"), "RuntimeError"),
            (KeyError("name"), "'name'"),
            (
                RuntimeError("{{function_node __wrapped__SaveV2}} x; disk full [Op:SaveV2]"),
                "x; disk full",
            ),
            (RuntimeError(GRAPH_ERROR), "OOM when allocating a tensor"),
        ],
    )
    def test_is_what_the_error_says(self, error, line):
        assert errors.first_line(error) == line
