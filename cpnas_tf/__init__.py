"""CP-NAS: Child-Parent neural architecture search for binary networks, with TensorFlow and Keras.

A search samples architectures and trains each one twice for an epoch, as a 1-bit child and as a
full-precision parent. Both accuracies decide which operations every edge of a cell keeps. The
architecture that is left is a `Genotype`; `build_network` makes a Keras model of it in either
precision, and `ChildParentLoss` is the callback that trains a child.

Larq needs Keras 2, so importing this package sets `TF_USE_LEGACY_KERAS=1`. TensorFlow reads that
on its first import only: import `cpnas_tf` before `tensorflow`, or set the variable yourself. For
keras-tuner, which imports Keras 3 as well, it sets `KERAS_BACKEND=tensorflow`. The
public names are imported on first use, so `import cpnas_tf` alone loads no TensorFlow.

References:
    Zhuo et al., "CP-NAS: Child-Parent Neural Architecture Search for 1-bit CNNs", IJCAI 2020.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpnas_tf.data import load as load
    from cpnas_tf.genotypes import Genotype as Genotype
    from cpnas_tf.networks.cells import build_network as build_network
    from cpnas_tf.search.oracle import ChildParentOracle as ChildParentOracle
    from cpnas_tf.training import evaluate as evaluate
    from cpnas_tf.training import train as train
    from cpnas_tf.training.child_parent import ChildParentLoss as ChildParentLoss
    from cpnas_tf.training.models import load_model as load_model

__version__ = "0.2.0"

_MODULES = {
    "ChildParentLoss": "training.child_parent",
    "ChildParentOracle": "search.oracle",
    "Genotype": "genotypes",
    "build_network": "networks.cells",
    "evaluate": "training",
    "load": "data",
    "load_model": "training.models",
    "train": "training",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


def _check_system():
    """Raises an ImportError where locks, signals and the exchange of folders are not POSIX's."""
    if sys.platform == "win32":
        raise ImportError("cpnas_tf needs Linux or macOS: on Windows run it in WSL 2")


def _use_legacy_keras():
    """Makes `tf.keras` Keras 2, or raises an ImportError that says what to do if it is too late."""
    setting = os.environ.get("TF_USE_LEGACY_KERAS", "1")
    if setting not in ("1", "true", "True"):
        raise ImportError(
            f"cpnas_tf needs Keras 2, but the environment has TF_USE_LEGACY_KERAS={setting}: "
            "unset it, or set TF_USE_LEGACY_KERAS=1, and start Python again"
        )
    # TensorFlow's own record of what it found on import. `tf.keras` cannot be asked: it is resolved
    # on first use, so it may be Keras 2 by a variable set too late for the rest of TensorFlow.
    if not getattr(sys.modules.get("tensorflow"), "_tf_uses_legacy_keras", True):
        raise ImportError(
            "TensorFlow was already imported with Keras 3, and cpnas_tf needs Keras 2: "
            "import cpnas_tf before tensorflow, or set TF_USE_LEGACY_KERAS=1 before starting Python"
        )
    os.environ["TF_USE_LEGACY_KERAS"] = setting
    os.environ["KERAS_BACKEND"] = "tensorflow"


_check_system()
_use_legacy_keras()
