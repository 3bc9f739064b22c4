"""What can be named: data sets and reference networks, and their facts. Imports no TensorFlow."""

from typing import NamedTuple


class DataSet(NamedTuple):
    """A data set that TFDS knows by its name.

    Attributes:
        shape: (height, width, channels) of an image as `data.load` gives it by default.
        classes: the number of classes.
        train, test: the numbers of images.
        source: who made it and its licence, in words; None where that is not known.
    """

    shape: tuple[int, int, int]
    classes: int
    train: int
    test: int
    source: str | None = None


DATASETS = {
    "digits": DataSet(
        *((8, 8, 1), 10, 1437, 360),
        "UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak), CC BY 4.0",
    ),
    "fashion_mnist": DataSet(
        (28, 28, 1), 10, 60_000, 10_000, "Fashion-MNIST (Zalando), MIT licence"
    ),
    "cifar10": DataSet(
        (32, 32, 3), 10, 50_000, 10_000, "CIFAR-10 (Krizhevsky, 2009), no licence stated"
    ),
    # The test images are what ImageNet calls its validation images.
    "imagenet2012": DataSet((224, 224, 3), 1000, 1_281_167, 50_000),
}
FOLDER = "folder:"  # what the name of a folder of own images begins with
# The networks of `networks.reference`, and their precision.
REFERENCE_NETWORKS = {
    "wrn22": "parent",
    "wrn22_1bit": "child",
    "resnet18": "parent",
    "birealnet18": "child",
}


def shown_name(name: str) -> str:
    """A data set's name to show: of a folder its last part, since where it lies is private."""
    if not name.startswith(FOLDER):
        return name
    return FOLDER + name.removeprefix(FOLDER).rstrip("/").rpartition("/")[2]
