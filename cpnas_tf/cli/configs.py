"""The configs that come with the package, by name: `--config=digits` is that of digits."""

import os
import pathlib

import cpnas_tf
from cpnas_tf.files import local_path

_PACKAGE = pathlib.Path(cpnas_tf.__file__).parent
# In the package once it is installed, beside it in a checkout.
FOLDER = next(filter(pathlib.Path.is_dir, (_PACKAGE / "configs", _PACKAGE.parent / "configs")))


def names(recipe: str) -> list[str]:
    """The configs of a recipe, "search", "train" or "ablate"."""
    return sorted(path.stem.removeprefix(f"{recipe}_") for path in FOLDER.glob(f"{recipe}_*.py"))


def find(config: str, recipe: str) -> str:
    """The file of a config.

    Args:
        config: its name or a path, with `:VARIANT` behind it where there are several.
        recipe: see `names`.

    Returns:
        A path, with the variant.

    Raises:
        ValueError: if there is no such config, or the path is a URL.
    """
    name, *variant = config.split(":", 1)
    if name in names(recipe):
        return ":".join([str(FOLDER / f"{recipe}_{name}.py"), *variant])
    path = local_path(config)
    if not os.path.isfile(path.split(":", 1)[0]):
        known = ", ".join(names(recipe))
        raise ValueError(f"config not found: {name!r} is neither a file nor one of {known}")
    return path
