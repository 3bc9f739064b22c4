"""Runs commands of bin/ that are refused before TensorFlow is imported, which here fails.

Each is a fork of a process that has imported what they need: hundreds take seconds.
"""

import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import traceback

ROOT = pathlib.Path(__file__).parents[2]


def run_all(commands):
    """Runs commands, each a name and its arguments.

    Returns:
        For each its exit code and what it wrote on standard error.
    """
    process = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(commands),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return json.loads(process.stdout)


def _run(name, arguments):
    with tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            os.dup2(errors.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(_exit_code(name, arguments))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        errors.seek(0)
        return code, errors.read()


def _exit_code(name, arguments):
    sys.argv = [f"bin/{name}.py", *arguments]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 2
    finally:
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    import cpnas_tf.cli.app
    import cpnas_tf.cli.recipes
    import cpnas_tf.commands.train  # noqa: F401

    assert "tensorflow" not in sys.modules
    sys.modules["tensorflow"] = None
    json.dump([_run(name, arguments) for name, arguments in json.load(sys.stdin)], sys.stdout)
