"""The supernet of PC-DARTS: every edge runs all operations at once, on a part of the channels.

An edge (i, j) carries the mixture

    f_ij(x) = shuffle([sum over o of share_o(alpha_ij) o(x[..., :C/K]), x[..., C/K:]])

and node j is the sum over i < j of share_i(beta_j) f_ij(x_i). The shares are softmaxes: those of
alpha over an edge's operations, those of beta over a node's edges. All normal cells have one alpha
and beta, all reduction cells another.

The weights lie in banks as in `supernet`, and edges of one width and stride share a function: as
Keras layers the 26 convolutions and pools of each edge would take minutes to build and to trace.

References:
    PC-DARTS (Xu et al., ICLR 2020), section 3.2 (partial channels), section 3.3 (edge
    normalization).
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cpnas_tf.catalogue import Unit
from cpnas_tf.genotypes import CELL_TYPES, EDGES, INPUT_NODES, NODES
from cpnas_tf.networks.cells import reduction_cells, walk
from cpnas_tf.networks.units import BN_EPSILON, find_unit
from cpnas_tf.operations import OPERATION_FUNCTIONS
from cpnas_tf.search.banks import BankUnits, Layout, connect_partially

INITIAL_STDDEV = 1e-3


def shares(alpha: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What alpha and beta make of their edges.

    Args:
        alpha: `[cell types, edges, operations]`.
        beta: `[cell types, edges]`.

    Returns:
        The operations' shares, of the shape of alpha, which sum to 1 on each edge; and the edges',
        of the shape of beta, which sum to 1 over the edges into each node.
    """
    by_node = tf.split(beta, range(INPUT_NODES, NODES), axis=1)
    return tf.nn.softmax(alpha), tf.concat([tf.nn.softmax(node) for node in by_node], axis=1)


class _MixedUnits(BankUnits):
    """The units with a batch normalization that learns nothing, as in DARTS.

    So alpha alone weighs an edge's operations against each other.
    """

    def _batch_norm(self, x):
        width = x.shape[-1]
        return tf.compat.v1.nn.fused_batch_norm(
            x, tf.ones(width), tf.zeros(width), epsilon=BN_EPSILON, is_training=True
        )[0]


class MixedSupernet(tf.keras.Model):
    """All operations of all edges at once, as a Keras model with the training step of PC-DARTS.

    It is fitted on pairs of batches, each of images in [-1, 1] and integer labels: the weights see
    the first, alpha and beta the second. After its warm-up each step moves alpha and beta, then the
    weights (first order: each by its own plain gradient).

    Decision: alpha and beta start as in the original, normal with a standard deviation of 0.001.
    Decision: batch normalization uses the batch's own statistics, as in CP-NAS' supernet.

    Args:
        input_shape: `(height, width, channels)` of an image.
        classes: number of classes.
        cells: number of cells.
        channels: C of the first cell, a multiple of `partial`.
        precision: of all operations, "child" (1-bit) or "parent" (full precision).
        operations: the names of those that an edge mixes.
        partial: K: 1/K of the channels are mixed.
        seed: of all initial values.
        unit: as in `build_network`. A node is a mean in any unit: the shares of its edges sum to 1.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        classes: int,
        cells: int,
        channels: int,
        precision: str,
        operations: Sequence[str],
        partial: int,
        seed: int,
        unit: str | Unit = "paper",
    ) -> None:
        super().__init__(name=precision)
        self._settings: dict[str, Any] = {"cells": cells, "channels": channels, "classes": classes}
        self._operations, self._partial = operations, partial
        self._units = functools.partial(
            _MixedUnits, precision, unit=find_unit(unit)._replace(mean_nodes=False)
        )
        self._plan(input_shape)
        random = np.random.default_rng(seed)
        edges = [len(CELL_TYPES), len(EDGES)]
        self.alpha, self.beta = (
            self._variable(name, INITIAL_STDDEV * random.standard_normal(shape))
            for name, shape in (("alpha", [*edges, len(operations)]), ("beta", edges))
        )
        trunk = self._trunk_layout.initial_values(random)[np.newaxis]
        self._weights, self._edges = [self._variable("trunk", trunk)], {}
        for (width, stride), (layout, numbers) in self._banks.items():
            function = self._edge_function(layout, stride)
            for row, number in enumerate(numbers):
                self._edges[number] = function, len(self._weights), row
            values = [layout.initial_values(random) for _ in numbers]
            self._weights.append(self._variable(f"bank_{width}_{stride}", np.stack(values)))
        self.built = True

    def _variable(self, name, values):
        initial = tf.keras.initializers.Constant(values)
        return self.add_weight(name=name, shape=values.shape, initializer=initial)

    def _plan(self, input_shape):
        """Walks the network once to see the trunk's parameters, and which edges are alike."""
        self._trunk_layout, self._banks = Layout(), {}

        def edge(cell, number, x, stride):
            key = (x.shape[-1], stride)
            if key not in self._banks:
                layout = Layout()
                self._mix(self._units(layout.take), x, stride)
                self._banks[key] = layout, []
            self._banks[key][1].append((cell, number))
            return x[:, ::stride, ::stride]

        with tf.Graph().as_default():
            units = self._units(self._trunk_layout.take)
            walk(units, tf.zeros([1, *input_shape]), edge=edge, **self._settings)

    def _mix(self, units, x, stride):
        """The outputs of all operations on an edge's first channels."""
        part = x[..., : x.shape[-1] // self._partial]
        return [OPERATION_FUNCTIONS[name](units, part, stride) for name in self._operations]

    def _edge_function(self, layout, stride):
        """One function for edges of a width and stride: `(row, operation shares, x) -> f(x)`."""

        def apply(row, operation_shares, x):
            units = self._units(layout.values(row))
            outputs = self._mix(units, x, stride)
            weighted = zip(tf.unstack(operation_shares), outputs, strict=True)
            mixed = sum(share * y for share, y in weighted)
            return connect_partially(x, mixed, partial=self._partial, stride=stride)

        return tf.function(apply, autograph=False, experimental_attributes={"_noinline": True})

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """The logits, `[batch, classes]`, of images `[batch, height, width, channels]`."""
        operation_shares, edge_shares = shares(self.alpha, self.beta)
        reductions = reduction_cells(self._settings["cells"])
        rows = [tf.unstack(bank) for bank in self._weights]

        def edge(cell, number, x, stride):
            function, bank, row = self._edges[cell, number]
            cell_type = CELL_TYPES.index("reduce" if cell in reductions else "normal")
            y = function(rows[bank][row], operation_shares[cell_type, number], x)
            return edge_shares[cell_type, number] * y

        units = self._units(self._trunk_layout.values(rows[0][0]))
        return walk(units, images, edge=edge, **self._settings)

    def compile(
        self,
        optimizer: tf.keras.optimizers.Optimizer,
        *,
        architecture_optimizer: tf.keras.optimizers.Optimizer,
        warmup_steps: int,
    ) -> None:
        """Sets what `fit` uses.

        Args:
            optimizer: of the weights.
            architecture_optimizer: of alpha and beta.
            warmup_steps: how many steps train the weights alone.
        """
        super().compile(optimizer)
        self._descents = {
            "": (optimizer, self._weights),
            "architecture_": (architecture_optimizer, [self.alpha, self.beta]),
        }
        for optimizer_of_part, variables in self._descents.values():
            optimizer_of_part.build(variables)  # within the step's condition it would be too late
        self._warmup_steps = warmup_steps
        names = [f"{prefix}{name}" for prefix in self._descents for name in ("loss", "accuracy")]
        self._means = {name: tf.keras.metrics.Mean(name) for name in names}

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """The means of an epoch, which Keras begins anew with each."""
        return list(self._means.values())

    def state(self) -> list[tf.Variable]:
        """All variables that training changes, in a fixed order."""
        parts = self._descents.values()
        return [v for optimizer, part in parts for v in (*part, *optimizer.variables)]

    def train_step(
        self, batches: tuple[tuple[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    ) -> dict[str, tf.Tensor]:
        """One step; the logs are `loss` and `accuracy` so far, also with `architecture_` before."""
        batch, architecture_batch = batches
        tf.cond(
            self.optimizer.iterations >= self._warmup_steps,
            lambda: self._descend("architecture_", *architecture_batch),
            lambda: tf.constant(False),
        )
        self._descend("", *batch)
        return {name: mean.result() for name, mean in self._means.items()}

    def _descend(self, prefix, images, labels):
        """Moves one part of the variables down its gradient."""
        optimizer, variables = self._descents[prefix]
        logits = self(images)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        gradients = tf.gradients(
            tf.reduce_mean(losses),
            variables,
            # Operations without weights leave an empty bank.
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
            # `AddN` of more than two sums in an order that depends on which buffer is free.
            aggregation_method=tf.AggregationMethod.EXPERIMENTAL_TREE,
        )
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        hits = tf.argmax(logits, axis=1, output_type=labels.dtype) == labels
        for name, values in (("loss", losses), ("accuracy", hits)):
            self._means[f"{prefix}{name}"].update_state(tf.cast(values, tf.float32))
        return tf.constant(True)
