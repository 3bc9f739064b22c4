"""What a run records of its images, and which images go with each other. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

    from cpnas_tf.data import AnyImages


def record(images: AnyImages, *others: AnyImages | None) -> dict[str, Any]:
    """What `config.json` holds of the images that a run reads.

    Args:
        images: `Images` or `StoredImages` as `data.load` read them.
        others: those of other splits, of the same classes; None of a split that there is not.

    Returns:
        A dict: `classes`, the names in the order of the labels; `shape`, `[height, width,
        channels]`; and `origin`, see `Images`, of all splits together.
    """
    splits = [images, *(split for split in others if split is not None)]
    return {
        "classes": list(images.class_names),
        "shape": list(images.image_shape),
        "origin": {part: text for split in splits for part, text in split.origin.items()},
    }


def check_alike(images: AnyImages, validation: AnyImages) -> None:
    """Refuses images to validate on of other classes or another size than those to train on.

    Raises:
        ValueError: naming the difference.
    """
    _check_images(images, validation)
    there, here = (record(each) | {"origin": {}} for each in (images, validation))
    if found := difference(there, here):
        raise ValueError(
            f"validation must have the classes and the size of the images to train on: {found}"
        )


def check_fits(model: tf.keras.Model, images: AnyImages) -> None:
    """Refuses images of another size, or of another number of classes, than a model is for.

    A subclassed model is for any.

    Raises:
        ValueError: naming both.
    """
    _check_images(images)
    if not model.outputs:
        return
    takes, gives = model.inputs[0].shape[1:], model.outputs[0].shape[1:]
    fits = takes.is_compatible_with(images.image_shape)
    if not fits or not gives.is_compatible_with([images.classes]):
        raise ValueError(
            f"the model {model.name!r} takes images {takes.as_list()} and gives outputs "
            f"{gives.as_list()}, received: images {list(images.image_shape)} of "
            f"{images.classes} classes"
        )


def _check_images(*given):
    for images in given:
        if not hasattr(images, "class_names"):
            raise ValueError(f"images must be a data.Images, received: {type(images).__name__}")


def difference(there: Mapping[str, Any] | None, here: Mapping[str, Any] | None) -> str | None:
    """The first difference of two records in words; None if there is none.

    A part that only one of them holds does not count: an evaluation reads the test images alone.

    Args:
        there, here: as `record` gives them; None where nothing was recorded, which equals all.
    """
    if not there or not here:
        return None
    found = other_classes(there["classes"], here["classes"])
    if not found and there["shape"] != here["shape"]:
        shapes = ("x".join(map(str, images["shape"])) for images in (there, here))
        found = "images of {} there, of {} here".format(*shapes)
    both = [part for part in there["origin"] if part in here["origin"]]
    parts = (_other_text(part, there["origin"][part], here["origin"][part]) for part in both)
    return found or next(filter(None, parts), None)


def other_classes(there: Sequence[str], here: Sequence[str]) -> str | None:
    """The difference of two lists of class names in words; None if there is none."""
    gone, new = ([name for name in a if name not in b] for a, b in ((there, here), (here, there)))
    if gone and new:
        return f"the class {_first(gone)} there, {_first(new)} here"
    if gone or new:
        return f"the class {_first(gone or new)} is missing {'here' if gone else 'there'}"
    return None if there == here else "the classes in another order"


def _first(names):
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"


def _other_text(part, there, here):
    return None if there == here else f"{part}: {there} there, {here} here"
