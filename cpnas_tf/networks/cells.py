"""Networks of cells: the one walk that the supernet and the derived networks share.

References:
    CP-NAS, sections 2.2 and 3.1; DARTS (Liu et al., 2019) for the preprocessing of a cell's inputs,
    the stem for ImageNet, the auxiliary tower and drop path.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tensorflow as tf

from cpnas_tf import settings
from cpnas_tf.catalogue import Unit
from cpnas_tf.genotypes import CELL_TYPES, EDGES, INPUT_NODES, NODES, Genotype
from cpnas_tf.networks.layers import DropPath
from cpnas_tf.networks.units import LarqUnits, check_keras
from cpnas_tf.operations import OPERATION_FUNCTIONS

_Function = TypeVar("_Function", bound=Callable[..., Any])
STEM_MULTIPLIER = 3
_EDGE_SCOPE = re.compile(r"cell(\d+)_(\d+)_(\d+)_")  # how the names of an edge's layers begin


def reduction_cells(cells: int) -> set[int]:
    """The positions of the reduction cells, at one third and two thirds of `cells`.

    Decision: n // 3 and 2n // 3, as in DARTS; the paper says "in the second and the fourth layers".
    """
    return {cells // 3, 2 * cells // 3}


def check_network(
    *, input_shape: Sequence[int], classes: int, cells: int, channels: int, stem: str = "cifar"
) -> None:
    """Checks the sizes of a network before anything is built.

    Raises:
        ValueError: naming the size that cannot be, and what can.
    """
    settings.check(classes=classes, cells=cells, channels=channels, stem=stem)
    if len(input_shape) != 3 or any(map(settings.whole(1).expected, input_shape)):
        raise ValueError(
            "input_shape must be three whole numbers >= 1, (height, width, channels), "
            f"received: {input_shape!r}"
        )
    if stem == "imagenet" and channels % 2:
        raise settings.SettingError(
            "channels", f"channels must be even for the stem imagenet, received: {channels}"
        )
    height, width = input_shape[:2]
    reductions = len(reduction_cells(cells))
    multiple = 2**reductions * (8 if stem == "imagenet" else 1)
    if height % multiple or width % multiple:
        raise settings.SettingError(
            "input_shape",
            f"{'the stem and ' if stem == 'imagenet' else ''}{reductions} reductions cannot halve "
            f"images of {height}x{width} pixels: height and width must be multiples of {multiple}",
        )


def walk(
    units: Any,
    images: tf.Tensor,
    *,
    cells: int,
    channels: int,
    classes: int,
    edge: Callable[[int, int, tf.Tensor, int], tf.Tensor | None],
    stem: str = "cifar",
) -> tf.Tensor:
    """Runs a network of cells over `units`.

    Args:
        units: `LarqUnits`, or the supernet's.
        images: `[batch, height, width, channels]`.
        cells: number of cells.
        channels: C of the first cell; doubled at each reduction.
        classes: number of classes.
        edge: function `(cell, number, x, stride)` giving edge `number` of `EDGES` applied to `x`,
            or None where the edge carries no operation.
        stem: as in `build_network`.

    Returns:
        Logits, `[batch, classes]`.
    """
    units.scope = "stem"
    s0, s1 = _stem(units, images, channels, stem)
    after_reduction = stem == "imagenet"  # s0 is twice as large as s1
    for cell in range(cells):
        reduction = cell in reduction_cells(cells)
        cell_stride = 2 if reduction else 1
        channels *= cell_stride
        units.scope = f"cell{cell}_input0"
        preprocess = units.factorized_reduction if after_reduction else units.pointwise
        nodes = [preprocess(s0, channels, kind="preprocessing")]
        units.scope = f"cell{cell}_input1"
        nodes.append(units.pointwise(s1, channels, kind="preprocessing"))
        for target in range(INPUT_NODES, NODES):
            incoming = []
            for number, (source, edge_target) in enumerate(EDGES):
                if edge_target == target:
                    stride = cell_stride if source < INPUT_NODES else 1
                    incoming.append(edge(cell, number, nodes[source], stride))
            incoming = [x for x in incoming if x is not None]
            if incoming:
                nodes.append(units.node(incoming, cell=cell, target=target))
            else:
                nodes.append(tf.zeros_like(nodes[0][:, ::cell_stride, ::cell_stride]))
        name = f"cell{cell}_{'reduction' if reduction else 'normal'}"
        s0, s1 = s1, units.concatenate(nodes[INPUT_NODES:], name=name)
        after_reduction = reduction
    units.scope = "classifier"
    return units.classifier(s1, classes)


def _stem(units, images, channels, stem):
    """The first cell's inputs; DARTS' stem for ImageNet halves the images' size thrice."""
    if stem == "cifar":
        x = units.stem(images, STEM_MULTIPLIER * channels)
        return x, x
    x = units.stem(images, channels // 2, stride=2)
    x = units.stem(x, channels, stride=2, relu=True)
    return x, units.stem(x, channels, stride=2, relu=True)


def edge_operation(genotype: Genotype, *, cell: int, number: int, cells: int) -> str:
    """The name of the operation on edge `number` of cell `cell` in a network of `cells` cells."""
    operations = genotype.reduce if cell in reduction_cells(cells) else genotype.normal
    return operations[number]


def edge_scope(cell: int, number: int, operation: str) -> str:
    """The prefix of the names of an edge's layers, such as `cell0_1_3_sep_conv_3x3`."""
    source, target = EDGES[number]
    return f"cell{cell}_{source}_{target}_{operation}"


def layer_choices(network: tf.keras.Model) -> dict[str, int]:
    """Which of the 28 choices the layers of a network's edges are of: `{layer's name: position}`.

    Layers of the trunk are left out.
    """
    names = {layer.name for layer in network.layers}
    choices = {}
    for name in names:
        if found := _EDGE_SCOPE.match(name):
            cell, source, target = map(int, found.groups())
            cell_type = "reduce" if f"cell{cell}_reduction" in names else "normal"
            edge = EDGES.index((source, target))
            choices[name] = CELL_TYPES.index(cell_type) * len(EDGES) + edge
    return choices


def _without_autograph(function: _Function) -> _Function:
    """Autograph finds nothing to do in Keras's and Larq's layers, and takes its time for that."""
    return tf.autograph.experimental.do_not_convert(function)


@_without_autograph
@settings.checked("network")
def build_network(
    genotype: Genotype,
    *,
    input_shape: Sequence[int],
    classes: int,
    cells: int = 10,
    channels: int = 56,
    precision: str = "child",
    stem: str = "cifar",
    real_inputs: Sequence[str] = (),
    unit: str | Unit = "paper",
    binarization: str = "cpnas",
    activations: int = 1,
    drop_path: float = 0.0,
) -> tf.keras.Model:
    """Builds the network of a genotype as a functional Keras model.

    Child and parent of one genotype differ in precision only: their kernels have the same names,
    shapes and order.

    Args:
        genotype: a `Genotype`.
        input_shape: `(height, width, channels)` of an image, scaled to [-1, 1].
        classes: number of classes.
        cells: number of cells, two of them reductions (the paper's networks: 10).
        channels: C of the first cell (the paper's Small, Medium, Large: 56, 72, 112; ImageNet: 102,
            with the stem for ImageNet any even number).
        precision: "child" (1-bit) or "parent" (full precision).
        stem: "cifar", a 3x3 convolution to 3C channels, or "imagenet", three of stride 2 to C / 2,
            C and C, the first cell's inputs being the outputs of the last two. Decision: both are
            real, as is the classifier, in the child too; for CIFAR-10 the paper's memory figures
            imply it.
        real_inputs: the convolutions whose input a child leaves real, of `catalogue.REAL_INPUTS`:
            ("depthwise",) is the paper's `*`, ("depthwise", "preprocessing") its `**`. A parent's
            are all real.
        unit: how the units are built: "paper"; "residual" (nodes are means, shortcuts around the
            convolutions, a BN in front of each activation, the kernels' gradient without alpha);
            these and single parts joined by commas, such as "residual,rprelu"; or a
            `catalogue.Unit`, which says what the parts are.
        binarization: how a child's kernels and signs are made, of `catalogue.BINARIZATIONS`: as in
            "cpnas", or as in the papers "xnor", "bireal", "pcnn" or "bonn".
        activations: the bits of a child's, 1 or 32. With 32, where the kernels alone are 1-bit, it
            has the parent's ReLU.
        drop_path: the probability with which training drops an edge's operation for an image, all
            but a skip_connect that passes its input on; 0 for no such layers. See
            `scale_drop_path`.

    Returns:
        A `tf.keras.Model` from images `[batch, height, width, channels]` to logits
        `[batch, classes]`.

    Raises:
        ValueError: if a setting is impossible, of Keras as well, or the images cannot be halved.

    Examples:
        >>> import cpnas_tf
        >>> genotype = cpnas_tf.Genotype.load("darts")
        >>> network = cpnas_tf.build_network(
        ...     genotype, input_shape=(8, 8, 1), classes=10, cells=3, channels=4
        ... )
        >>> network.input_shape, network.output_shape
        ((None, 8, 8, 1), (None, 10))
    """
    if not isinstance(genotype, Genotype):
        raise ValueError(f"genotype must be a Genotype, received: {settings.shown(genotype)}")
    check_network(
        input_shape=input_shape, classes=classes, cells=cells, channels=channels, stem=stem
    )
    check_keras()
    units = LarqUnits(
        precision,
        real_inputs=real_inputs,
        unit=unit,
        binarization=binarization,
        activations=activations,
    )

    def edge(cell, number, x, stride):
        operation = edge_operation(genotype, cell=cell, number=number, cells=cells)
        if operation == "none":
            return None
        units.scope = edge_scope(cell, number, operation)
        y = OPERATION_FUNCTIONS[operation](units, x, stride)
        if drop_path and y is not x:
            y = DropPath(drop_path, name=units.name("drop_path"))(y)
        return y

    images = tf.keras.Input(input_shape, name="images")
    logits = walk(
        units, images, cells=cells, channels=channels, classes=classes, edge=edge, stem=stem
    )
    return tf.keras.Model(images, logits, name=precision)


def scale_drop_path(model: tf.keras.Model, scale: float) -> None:
    """Scales the rates of a network's drop path, in [0, 1]; DARTS raises it by epoch / epochs."""
    for layer in model.layers:
        if isinstance(layer, DropPath):
            layer.scale.assign(scale)


def add_auxiliary_tower(model: tf.keras.Model) -> tf.keras.Model:
    """Gives a network a second classifier for training, behind its last reduction cell.

    Args:
        model: a network of `build_network`; it stays as it is, without the tower.

    Returns:
        A `tf.keras.Model` from the same images to `[logits, auxiliary logits]`, both
        `[batch, classes]`, of the given model's layers and the tower's. Its outputs' names are
        `classifier_logits` and `auxiliary_logits`. The tower is real in child and parent.

    Raises:
        ValueError: if the model has no reduction cell, or maps of one pixel behind the last one.

    References:
        CP-NAS, section 3.1; DARTS (Liu et al., 2019), whose weight of the auxiliary loss is 0.4.
    """
    reductions = [layer for layer in model.layers if layer.name.endswith("_reduction")]
    if not reductions:
        raise ValueError(f"the model {model.name!r} has no reduction cell for an auxiliary tower")
    maps = reductions[-1].output
    if min(maps.shape[1:3]) < 2:
        raise ValueError(
            "an auxiliary tower needs maps of at least 2x2 pixels behind the last reduction cell, "
            f"received: {maps.shape[1]}x{maps.shape[2]}"
        )
    units = LarqUnits("parent")
    units.scope = "auxiliary"
    auxiliary = units.auxiliary_classifier(maps, model.output_shape[-1])
    return tf.keras.Model(model.input, [model.output, auxiliary], name=f"{model.name}_with_tower")
