"""What can be named: data sets, networks, search methods and more. Imports no TensorFlow."""

import importlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple


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
SPLITS = ("train", "test")
SPLIT = re.compile(rf"({'|'.join(SPLITS)})(?:\[:([1-9]\d*)\])?")  # all, or so many images
SMALLEST_SIDE = 8  # of an image, in pixels
FOLDER = "folder:"  # what the name of a folder of own images begins with
PRECISIONS = ("child", "parent")
STEMS = ("cifar", "imagenet")
REAL_INPUTS = ("depthwise", "preprocessing")  # convolutions whose input a child may leave real
OPTIMIZERS = ("sgd", "adam", "bop")  # the last one of trainings alone
SAMPLINGS = ("epoch", "step")  # how long CP-NAS trains an architecture before the next one
INDICATORS = ("mean", "additive")  # by what CP-NAS drops operations
SCHEDULES = ("cosine", "restarts")  # of a search's learning rate
SCORES = ("loss", "accuracy")  # of the validation, by which a guided search compares genotypes
STRATEGIES = ("none", "mirrored", "multi_worker")  # see `devices`
# The networks of `networks.reference`, and their precision.
REFERENCE_NETWORKS = {
    "wrn22": "parent",
    "wrn22_1bit": "child",
    "resnet18": "parent",
    "resnet18_1bit": "child",
    "birealnet18": "child",
}


class Binarization(NamedTuple):
    """How a child binarizes, after one of the papers, and what its loss adds to the cross-entropy.

    Attributes:
        kernel: the 1-bit kernels: "scaled" (alpha * sign(H), alpha constant in the gradient),
            "unscaled" (the gradient without the factor alpha), "xnor" (alpha not constant), "pcnn"
            or "bonn", see `networks.binarizations`.
        sign: Larq's name of the sign of 1-bit activations; real ones have a ReLU in its place.
        loss: the section of --config of the loss that it adds, or None.
        activations: how many bits its activations can have.
    """

    kernel: str
    sign: str = "ste_sign"
    loss: str | None = None
    activations: tuple[int, ...] = (1, 32)


BINARIZATIONS = {
    "cpnas": Binarization("scaled", loss="child_parent"),
    "xnor": Binarization("xnor"),
    "bireal": Binarization("scaled", sign="approx_sign", activations=(1,)),
    # As its authors' released code has it, which differs from the text.
    "bireal_code": Binarization("unscaled", sign="approx_sign", activations=(1,)),
    "pcnn": Binarization("pcnn", loss="pcnn"),
    "bonn": Binarization("bonn", loss="bonn", activations=(1,)),
}
ACTIVATIONS = (1, 32)  # bits
OTHER_LOSSES = ("pcnn", "bonn")  # sections of --config that need not be there


def binary_settings(section: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a network that one of `REFERENCE_NETWORKS` takes as well, where given."""
    names = ("binarization", "activations")
    return {name: section[name] for name in names if section.get(name) is not None}


class Unit(NamedTuple):
    """How a network's units are built, in child and parent alike: the paper's way and these parts.

    Attributes:
        mean_nodes: whether a node is the mean, not the sum, of its edges. A sum of up to five BN
            outputs leaves the window |x| <= 1 in which the straight-through estimator passes
            gradients.
        shortcuts: whether each convolution's input is added to its BN's output: averaged over 2x2
            pixels at stride 2, and over groups of channels where there are fewer filters.
        norm_first: whether a BN is in front of each activation as well.
        unscaled_gradient: whether the gradient of a 1-bit kernel alpha * sign(H) leaves out the
            factor alpha that follows from the forward pass. So SGD moves more signs.
        rsign: whether a learned number per channel is added in front of each activation: the
            threshold of a sign.
        rprelu: whether a PReLU follows each convolution's BN and shortcut, between two learned
            shifts per channel.
        approx_sign: whether the gradient of a sign of maps is 2 (1 - |x|) instead of 1 where
            |x| <= 1.
        aligned: whether the dilated convolutions of stride 2 see what the other operations of
            stride 2 see. The windows of padding "same" are around the pixels 1, 3, ..., those of
            the paper's units around 0, 2, ... there, a pixel apart from what they are added to.

    References:
        Bi-Real Net (Liu et al., 2018) for the shortcuts, the unscaled gradient and `approx_sign`;
        ReActNet (Liu et al., 2020) for `rsign` and `rprelu`.
    """

    mean_nodes: bool = False
    shortcuts: bool = False
    norm_first: bool = False
    unscaled_gradient: bool = False
    rsign: bool = False
    rprelu: bool = False
    approx_sign: bool = False
    aligned: bool = False


UNITS = {
    "paper": Unit(),
    "residual": Unit(mean_nodes=True, shortcuts=True, norm_first=True, unscaled_gradient=True),
}
UNIT_NAMES = (*UNITS, *Unit._fields)


def named_unit(names: str) -> Unit:
    """The unit of some `UNIT_NAMES` joined by commas, such as "residual,rprelu"."""
    given = names.split(",")
    units = [UNITS.get(name) or Unit(**{name: True}) for name in given]
    return Unit(*map(any, zip(*units, strict=True)))


class Method(NamedTuple):
    """A search method.

    Attributes:
        planned: "module:Class" of its planned searches. The class takes the images to train and to
            validate on (None if it needs none) and its settings, and refuses impossible ones before
            it builds anything. Its `plan()` says in words what a search will do and cost. Its
            `run(directory, verbose=...)` searches, or goes on with it, and returns a dict of the
            `genotype`, the `scores` (for each of the 28 edges a dict, operation -> score, or None),
            the `seconds`, and the `images` trained on. A log that it writes is `search.csv`, of a
            kind of `runs.search_log.KINDS`.
        section: of --config, with the settings of that class.
        beta: the beta_P of Eq. 1 that makes it this method, or None.
        defaults: other settings that it has where the config does not say.
        varies_beta: whether an ablation gives it one beta_P after another.
        needs_images: whether it searches with images.
        several_devices: whether it takes another one of `STRATEGIES` than none.
    """

    planned: str
    section: str
    beta: float | None = None
    varies_beta: bool = False
    needs_images: bool = True
    several_devices: bool = False
    defaults: Mapping[str, Any] = {}

    def load(self) -> type:
        """The class of its planned searches."""
        module, _, name = self.planned.partition(":")
        return getattr(importlib.import_module(module), name)


_CPNAS = "cpnas_tf.search.cpnas:ChildParentSearch"
METHODS = {
    "random": Method("cpnas_tf.search.random_draw:RandomDraw", "search", needs_images=False),
    "bnas": Method(_CPNAS, "search", beta=0.0, several_devices=True),
    # As published: 1-bit kernels alone, and a part of the channels through the sampled operation.
    "bnas_w1a32": Method(
        _CPNAS,
        "search",
        beta=0.0,
        several_devices=True,
        defaults={"activations": 32, "partial": 4},
    ),
    "cpnas": Method(_CPNAS, "search", varies_beta=True, several_devices=True),
    "pc_darts": Method("cpnas_tf.search.pc_darts:PCDarts", "pc_darts"),
    "best_of_n": Method("cpnas_tf.search.baselines:BestOfN", "guided", several_devices=True),
    "evolution": Method("cpnas_tf.search.baselines:Evolution", "guided", several_devices=True),
    "guided": Method("cpnas_tf.search.guided:GuidedSearch", "guided", several_devices=True),
}
COMPARED = ("random", "bnas", "cpnas", "pc_darts")  # by an ablation: CP-NAS, Fig. 6
BASELINE = "random"  # what an ablation compares the other methods with


def method_sections() -> tuple[str, ...]:
    """The sections of --config with the methods' settings."""
    return tuple(dict.fromkeys(method.section for method in METHODS.values()))


def shown_name(name: str) -> str:
    """A data set's name to show: of a folder its last part, since where it lies is private."""
    if not name.startswith(FOLDER):
        return name
    return FOLDER + name.removeprefix(FOLDER).rstrip("/").rpartition("/")[2]
