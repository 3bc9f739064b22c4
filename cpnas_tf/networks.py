"""Networks of cells: the one walk that the supernet and the derived networks share.

References:
    CP-NAS, sections 2.2 and 3.1; DARTS (Liu et al., 2019) for the preprocessing of a cell's inputs.
"""

import tensorflow as tf

from cpnas_tf.genotypes import EDGES, INPUT_NODES, NODES
from cpnas_tf.operations import OPERATION_FUNCTIONS, LarqUnits

STEM_MULTIPLIER = 3


def reduction_cells(cells):
    """The positions of the reduction cells, at one third and two thirds of `cells`.

    Decision: n // 3 and 2n // 3, as in DARTS; the paper says "in the second and the fourth layers".
    """
    return {cells // 3, 2 * cells // 3}


def check_network(*, input_shape, classes, cells, channels):
    """Checks the sizes of a network before anything is built.

    Raises:
        ValueError: naming the size that cannot be, and what can.
    """
    for name, value, least in (
        ("classes", classes, 2),
        ("cells", cells, 1),
        ("channels", channels, 1),
    ):
        if not _is_whole(value, least):
            raise ValueError(f"{name} must be a whole number >= {least}, received: {value!r}")
    if len(input_shape) != 3 or not all(_is_whole(size, 1) for size in input_shape):
        raise ValueError(
            "input_shape must be three whole numbers >= 1, (height, width, channels), "
            f"received: {input_shape!r}"
        )
    height, width = input_shape[:2]
    halvings = len(reduction_cells(cells))
    if height % 2**halvings or width % 2**halvings:
        raise ValueError(
            f"{halvings} reductions cannot halve images of {height}x{width} pixels: "
            f"height and width must be multiples of {2**halvings}"
        )


def _is_whole(value, least):
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def walk(units, images, *, cells, channels, classes, edge):
    """Runs a network of cells over `units`.

    Args:
        units: `LarqUnits`, or the supernet's.
        images: `[batch, height, width, channels]`.
        cells: number of cells.
        channels: C of the first cell; doubled at each reduction.
        classes: number of classes.
        edge: function `(cell, number, x, stride)` giving edge `number` of `EDGES` applied to `x`,
            or None where the edge carries no operation.

    Returns:
        Logits, `[batch, classes]`.
    """
    units.scope = "stem"
    s0 = s1 = units.stem(images, STEM_MULTIPLIER * channels)
    after_reduction = False
    for cell in range(cells):
        reduction = cell in reduction_cells(cells)
        channels *= 2 if reduction else 1
        units.scope = f"cell{cell}_input0"
        preprocess = units.factorized_reduction if after_reduction else units.pointwise
        nodes = [preprocess(s0, channels)]
        units.scope = f"cell{cell}_input1"
        nodes.append(units.pointwise(s1, channels))
        for target in range(INPUT_NODES, NODES):
            incoming = []
            for number, (source, edge_target) in enumerate(EDGES):
                if edge_target == target:
                    stride = 2 if reduction and source < INPUT_NODES else 1
                    incoming.append(edge(cell, number, nodes[source], stride))
            nodes.append(_sum_or_zeros(incoming, nodes[0], 2 if reduction else 1))
        s0, s1 = s1, tf.keras.layers.concatenate(nodes[INPUT_NODES:])
        after_reduction = reduction
    units.scope = "classifier"
    return units.classifier(s1, classes)


def _sum_or_zeros(incoming, like, stride):
    incoming = [x for x in incoming if x is not None]
    if not incoming:
        return tf.zeros_like(like[:, ::stride, ::stride])
    return incoming[0] if len(incoming) == 1 else tf.keras.layers.add(incoming)


def edge_operation(genotype, *, cell, number, cells):
    """The name of the operation on edge `number` of cell `cell` in a network of `cells` cells."""
    operations = genotype.reduce if cell in reduction_cells(cells) else genotype.normal
    return operations[number]


def edge_scope(cell, number, operation):
    """The prefix of the names of an edge's layers, such as `cell0_1_3_sep_conv_3x3`."""
    source, target = EDGES[number]
    return f"cell{cell}_{source}_{target}_{operation}"


def build_network(genotype, *, input_shape, classes, cells=10, channels=56, precision="child"):
    """Builds the network of a genotype as a functional Keras model.

    Child and parent of one genotype differ in precision only: their kernels have the same names,
    shapes and order.

    Args:
        genotype: a `Genotype`.
        input_shape: `(height, width, channels)` of an image, scaled to [-1, 1].
        classes: number of classes.
        cells: number of cells, two of them reductions (the paper's CIFAR-10 networks: 10).
        channels: C of the first cell (the paper's Small, Medium, Large: 56, 72, 112).
        precision: "child" (1-bit) or "parent" (full precision).

    Returns:
        A `tf.keras.Model` from images `[batch, height, width, channels]` to logits
        `[batch, classes]`. The stem and the classifier are real in both (Decision: as the paper's
        memory figures imply).

    Raises:
        ValueError: if a size or the precision is impossible, or the images cannot be halved.
    """
    check_network(input_shape=input_shape, classes=classes, cells=cells, channels=channels)
    units = LarqUnits(precision)

    def edge(cell, number, x, stride):
        operation = edge_operation(genotype, cell=cell, number=number, cells=cells)
        if operation == "none":
            return None
        units.scope = edge_scope(cell, number, operation)
        return OPERATION_FUNCTIONS[operation](units, x, stride)

    images = tf.keras.Input(input_shape, name="images")
    logits = walk(units, images, cells=cells, channels=channels, classes=classes, edge=edge)
    return tf.keras.Model(images, logits, name=precision)
