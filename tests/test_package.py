import ast
import configparser
import importlib.metadata
import os
import pathlib
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cpnas_tf

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted((ROOT / "cpnas_tf").rglob("*.py"))
# A room imports only rooms before it.
ROOMS = (
    *("files", "errors", "operations", "genotypes", "catalogue", "settings", "devices"),
    *("networks", "data", "runs", "training", "plots", "search", "export", "zoo", "reports"),
    *("ablation", "cli", "commands", "__main__"),
)
STDLIB_ONLY = ("__init__", "files", "errors", "operations", "genotypes", "catalogue", "settings")
STDLIB_ONLY += ("runs.workdir", "runs.search_log", "runs.history", "runs.progress")
STDLIB_ONLY += ("runs.images", "runs.trained", "reports.paper_tables")
# Reading logs, drawing and reporting need no TensorFlow.
WITHOUT_TENSORFLOW = (
    *("files", "errors", "operations", "genotypes", "catalogue"),
    *("settings", "cli.app", "cli.config"),
    *("runs.workdir", "runs.search_log", "runs.history", "runs.progress"),
    *("runs.images", "runs.trained"),
    *("plots.figures", "plots.cells", "plots.guided", "plots.search", "plots.photos"),
    *("plots.training", "reports.html", "reports.search", "reports.pc_darts", "reports.guided"),
    *("reports.pages", "reports.training"),
    *("ablation.table", "ablation.plots", "ablation.report"),
)
LAZY = {"matplotlib", "larq_compute_engine", "tensorboard"}


def run(code, **environment):
    """Runs Python code in a process of its own and returns what it printed."""
    inherited = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_what_is_not_a_module_is_installed_too():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = {
        ROOT.joinpath(*package.split("."), name)
        for package, names in config["options.package_data"].items()
        for name in names.split()
    }
    files = {path for path in (ROOT / "cpnas_tf").rglob("*") if path.is_file()}
    compiled = {path for path in files if path.suffix == ".pyc"}
    assert listed == files - compiled - set(MODULES)


def test_every_room_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    rooms = {f"cpnas_tf.{path.parent.name}" for path in (ROOT / "cpnas_tf").glob("*/__init__.py")}
    assert listed == {"cpnas_tf", "cpnas_tf.configs", *rooms}


IMPORT_ERROR = """
try:
    import cpnas_tf
except ImportError as error:
    print(error)
"""


def test_importing_the_package_settles_keras_2_and_loads_no_tensorflow():
    print_modules = "print(*{name.partition('.')[0] for name in sys.modules})"
    code = f"import os, sys, cpnas_tf; print(os.environ['TF_USE_LEGACY_KERAS']); {print_modules}"
    setting, modules = run(code).splitlines()
    assert setting == "1"
    assert not {"tensorflow", "keras", "tf_keras", "larq", "numpy"} & set(modules.split())


def test_keras_tuner_works_when_keras_3_is_to_have_another_backend():
    code = "import cpnas_tf, keras_tuner, keras; print(keras.backend.backend())"
    assert run(code, KERAS_BACKEND="not_installed") == "tensorflow"


def test_larq_works_when_the_package_comes_first():
    code = """
import cpnas_tf, larq, tensorflow as tf
print(tf.keras.Model.__module__, issubclass(larq.layers.QuantConv2D, tf.keras.layers.Layer))
"""
    module, is_layer = run(code).split()
    assert module.startswith("tf_keras.")
    assert is_layer == "True"


def test_tensorflow_with_keras_3_first_is_one_clear_line():
    set_too_late = "import os; os.environ['TF_USE_LEGACY_KERAS'] = '1'"
    attempts = ["import tensorflow", "import tf_keras", set_too_late, "tensorflow.keras.layers"]
    lines = run(IMPORT_ERROR.join([*attempts, ""])).splitlines()
    assert len(lines) == len(attempts)
    for line in lines:
        assert "import cpnas_tf before tensorflow, or set TF_USE_LEGACY_KERAS=1" in line


def test_tensorflow_with_keras_2_first_is_accepted():
    code = f"import tensorflow as tf{IMPORT_ERROR}print(tf.keras.Model.__module__)"
    (module,) = run(code, TF_USE_LEGACY_KERAS="1").splitlines()
    assert module.startswith("tf_keras.")


def test_windows_is_refused_in_one_line():
    (line,) = run(f"import sys; sys.platform = 'win32'{IMPORT_ERROR}").splitlines()
    assert line == "cpnas_tf needs Linux or macOS: on Windows run it in WSL 2"


def test_the_other_spellings_of_keras_2_are_kept():
    code = "import os, cpnas_tf; print(os.environ['TF_USE_LEGACY_KERAS'])"
    assert run(code, TF_USE_LEGACY_KERAS="True") == "True"


@pytest.mark.parametrize("setting", ["0", ""])
def test_asking_for_keras_3_is_one_clear_line(setting):
    (line,) = run(IMPORT_ERROR, TF_USE_LEGACY_KERAS=setting).splitlines()
    assert f"TF_USE_LEGACY_KERAS={setting}: unset it" in line


@pytest.mark.parametrize("name", cpnas_tf.__all__)
def test_public_names_resolve(name):
    assert getattr(cpnas_tf, name).__name__ == name
    assert name in dir(cpnas_tf)


def test_type_checkers_find_each_public_name_in_its_module():
    (block,) = (node for node in parse(pathlib.Path(cpnas_tf.__file__)).body if is_for_types(node))
    found = {name.rpartition(".") for name in imported(block.body)}
    assert {name: module for module, _, name in found} == {
        name: f"cpnas_tf.{module}" for name, module in cpnas_tf._MODULES.items()
    }


def test_no_public_name_hides_a_module():
    assert not set(cpnas_tf.__all__) & {module_name(path) for path in MODULES}


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="'cpnas_tf' has no attribute 'nothing'"):
        cpnas_tf.nothing  # noqa: B018


def imported(nodes):
    """The dotted names that the import statements among some syntax nodes may import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = ".".join(filter(None, ["cpnas_tf" if node.level else "", node.module]))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def packages(nodes):
    return {name.partition(".")[0] for name in imported(nodes)}


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def is_for_types(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def executed(node, *, functions=True):
    """The syntax nodes but those that only a type checker reads and, if wanted, functions'."""
    for child in ast.iter_child_nodes(node):
        function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        if not is_for_types(child) and (functions or not function):
            yield child
            yield from executed(child, functions=functions)


def outside_functions(node):
    return executed(node, functions=False)


def module_name(path):
    """The dotted name of a module below `cpnas_tf`, "__init__" for the package itself."""
    parts = path.relative_to(ROOT / "cpnas_tf").with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def test_every_room_is_listed():
    found = {module_name(path).split(".")[0] for path in MODULES}
    assert found == {"__init__", *ROOMS}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_layering(path):
    name = module_name(path)
    room = name.split(".")[0]
    tree = parse(path)
    names = imported(executed(tree) if room == "__init__" else ast.walk(tree))
    own = {name.split(".")[1] for name in names if name.startswith("cpnas_tf.")}
    assert own <= {room, *ROOMS[: ROOMS.index(room)]} if room in ROOMS else not own
    others = packages(executed(tree)) - {"cpnas_tf"}
    assert not others & {"bin", "configs", "tests", "benchmarks"}
    if name in STDLIB_ONLY:
        assert others <= sys.stdlib_module_names
    assert not packages(outside_functions(tree)) & LAZY


def test_logs_figures_and_reports_load_no_tensorflow():
    code = f"""
import importlib, sys
for name in {WITHOUT_TENSORFLOW}:
    importlib.import_module(f"cpnas_tf.{{name}}")
    if "tensorflow" in sys.modules:
        print(name)
        break
"""
    assert run(code) == ""


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_nothing_runs_data_as_code(path):
    nodes = list(ast.walk(parse(path)))
    assert not packages(nodes) & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    assert not names & {"eval", "exec", "compile", "__import__"}


def test_the_import_rules_see_what_they_forbid():
    nodes = list(
        ast.walk(ast.parse("from . import search\nfrom cpnas_tf.cli import main\nimport a.b"))
    )
    assert list(imported(nodes)) == ["cpnas_tf.search", "cpnas_tf.cli.main", "a.b"]
    lazily = ast.parse(
        "try:\n  import a\nexcept E: pass\ndef f():\n  import matplotlib\n"
        "if TYPE_CHECKING:\n  import tensorboard"
    )
    assert packages(outside_functions(lazily)) == {"a"}
    assert packages(executed(lazily)) == {"a", "matplotlib"}


def pins():
    """The constraints for this Python: requirements by package."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    all_pins = map(Requirement, (line for line in lines if line and not line.startswith("#")))
    usable = [pin for pin in all_pins if pin.marker is None or pin.marker.evaluate()]
    by_name = {canonicalize_name(pin.name): pin for pin in usable}
    assert len(by_name) == len(usable), "two constraints for one package"
    return by_name


def declared_requirements():
    """What setup.cfg asks for, its extras included."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    values = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    lines = "\n".join(values).splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def requirements_of(name, extras):
    """What an installed package requires here; nothing for one that is not installed."""
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    requirements = map(Requirement, lines)
    return [
        needed
        for needed in requirements
        if needed.marker is None
        or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def test_everything_that_is_installed_is_pinned():
    pinned, seen, queue = pins(), set(), declared_requirements()
    while queue:
        needed = queue.pop()
        name = canonicalize_name(needed.name)
        assert name in pinned, f"{needed} has no line in constraints.txt"
        (version,) = pinned[name].specifier
        assert version.operator == "=="
        assert needed.specifier.contains(version.version, prereleases=True)
        if (name, *needed.extras) not in seen:
            seen.add((name, *needed.extras))
            queue += requirements_of(name, needed.extras)
    assert ("tensorflow", "and-cuda") in seen
    assert len(seen) > 50
