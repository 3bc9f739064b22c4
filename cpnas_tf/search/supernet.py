"""The shared weights of the search, and an engine that changes architecture at no cost.

A search trains 105 different architectures for one epoch each. Traced by TensorFlow in the usual
way each would cost seconds before its first step. Here one graph serves them all:

- The parameters of every operation on every edge lie in *banks*. A bank holds the edges of one
  width and stride as `[edges, operations, parameters]`, each row one operation's kernels and BN
  parameters, flat. What is no edge's (stem, preprocessing, classifier) is a bank of one row.
- A step gathers one row per edge. The edge's function, shared by all edges of that width and stride
  and kept out of line, dispatches on the operation's index and splits the row into the kernels it
  needs. Since every operation takes the same flat row, the gradient is one row too: operations that
  were not taken cost nothing, not even a zero gradient.
- The update writes back the gathered rows of the weights and of the optimizer's slots. What was not
  sampled is not touched, bit for bit.

TensorFlow differentiates a dispatch inside a function from its stored form, where a
`tf.custom_gradient` closure is lost: what needs a gradient of its own has a *registered* one, see
`networks.formulations`.

Measured by `benchmarks/search_engine.py` (see docs/results): a new architecture costs about 1% of
what it costs as a Keras model of its own, and the one trace 11 to 41 s. On an H200 the paper's
search would take 25 minutes, by 7 of its 105 architectures, 3% of that for the trace.

References:
    CP-NAS, section 2.3 and Algorithm 1.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from cpnas_tf.catalogue import Unit
from cpnas_tf.genotypes import CELL_TYPES, EDGES, OPERATIONS, Genotype
from cpnas_tf.networks.cells import (
    build_network,
    check_network,
    edge_operation,
    edge_scope,
    reduction_cells,
    walk,
)
from cpnas_tf.networks.units import find_unit
from cpnas_tf.operations import OPERATION_FUNCTIONS
from cpnas_tf.search.banks import BankUnits, Layout, check_partial, connect_partially
from cpnas_tf.search.row_optimizers import find_row_optimizer

# The key of the bank that holds all that is no edge's: stem, preprocessing, classifier.
_TRUNK = "trunk"


class Supernet:
    """All architectures of the search space over shared weights, in one precision.

    Decision: child and parent have a supernet each. Decision: batch normalization uses the batch's
    own statistics in training and in validation, since moving averages would mix architectures.

    Under a `tf.distribute.Strategy` every replica trains on its own part of the batch and takes its
    BN statistics from that, and all make the same update with the mean of their gradients. Create
    the supernet in the strategy's scope.

    Args:
        input_shape: `(height, width, channels)` of an image.
        classes: number of classes.
        cells: number of cells (the paper's search: 6).
        channels: C of the first cell (the paper's search: 16).
        precision: "child" or "parent".
        stem, real_inputs, unit, activations: as in `build_network`.
        partial: K: an operation gets 1/K of the channels, and the others go past it, see
            `banks.connect_partially`; 1 for all.
        operations: those of `OPERATIONS` that an architecture may have.
        optimizer: "sgd" or "adam", see `search.row_optimizers`.
        seed: of the initial weights; the same seed gives child and parent the same ones.
        dtype: of the convolutions, "float32" or "bfloat16"; weights, BN statistics and logits are
            always float32.

    Attributes:
        variables: the weights and the optimizer's slots, everything that training changes.

    Raises:
        ValueError: if a size, the precision or the optimizer is impossible, or the images cannot be
            halved.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        classes: int,
        cells: int = 6,
        channels: int = 16,
        precision: str = "child",
        stem: str = "cifar",
        real_inputs: Sequence[str] = (),
        unit: str | Unit = "paper",
        activations: int = 1,
        partial: int = 1,
        operations: Sequence[str] = OPERATIONS,
        optimizer: str = "sgd",
        seed: int = 0,
        dtype: str = "float32",
    ) -> None:
        self._settings: dict[str, Any] = {
            "cells": cells,
            "channels": channels,
            "classes": classes,
            "stem": stem,
        }
        check_network(input_shape=input_shape, **self._settings)
        self._optimizer = find_row_optimizer(optimizer)
        self._input_shape, self._operations = tuple(input_shape), tuple(operations)
        self._precision, self._real_inputs = precision, real_inputs
        self._unit, self._activations, self._partial = find_unit(unit), activations, partial
        check_partial(channels, partial)
        self._units = functools.partial(
            BankUnits,
            precision,
            dtype=dtype,
            real_inputs=real_inputs,
            unit=self._unit,
            activations=activations,
        )
        self._plan_edges()
        self._banks = {
            key: tf.Variable(values, name=_bank_name(key))
            for key, values in self._initial_banks(seed).items()
        }
        self._slots = {key: self._make_slots(key) for key in self._banks}
        self._edge_functions = {key: self._edge_function(*key) for key in self._bank_edges}
        self.variables = [*self._banks.values(), *itertools.chain(*self._slots.values())]

    def _plan_edges(self):
        """Walks the network once to see the trunk's parameters, and each edge's bank and row."""
        self._trunk_layout = Layout()
        self._edge_rows, self._bank_edges = {}, {}

        def edge(cell, number, x, stride):
            key = (x.shape[-1], stride)
            edges = self._bank_edges.setdefault(key, [])
            self._edge_rows[cell, number] = key, len(edges)
            edges.append((cell, number))
            return x[:, ::stride, ::stride]

        with tf.Graph().as_default():
            units = self._units(self._trunk_layout.take)
            walk(units, tf.zeros([1, *self._input_shape]), edge=edge, **self._settings)
        self._row_layouts = {
            key: [self._operation_layout(*key, operation) for operation in self._operations]
            for key in self._bank_edges
        }

    def _operation_layout(self, width, stride, operation):
        layout = Layout()
        with tf.Graph().as_default():
            units = self._units(layout.take, dtype="float32")
            part = tf.zeros([1, 4, 4, width // self._partial])
            OPERATION_FUNCTIONS[operation](units, part, stride)
        return layout

    def _initial_banks(self, seed):
        """Initial weights, float32 arrays `[edges, operations, parameters]` by the banks' keys."""
        random = np.random.default_rng(seed)
        return {
            _TRUNK: _initial_rows([self._trunk_layout], 1, random),
            **{
                key: _initial_rows(self._row_layouts[key], len(edges), random)
                for key, edges in self._bank_edges.items()
            },
        }

    def _make_slots(self, key):
        return [
            tf.Variable(zeros, name=f"{_bank_name(key)}_{name}")
            for name, zeros in self._optimizer.slots(self._banks[key]).items()
        ]

    def reset(self, seed: int) -> None:
        """Gives all variables the values that they have in a new supernet of that seed.

        Functions that were traced with this supernet stay valid.
        """
        for key, values in self._initial_banks(seed).items():
            self._banks[key].assign(values)
            for slot in self._slots[key]:
                slot.assign(tf.zeros_like(slot))

    def _edge_function(self, width, stride):
        """One function for all edges of a width and stride: `(operation, row, x) -> y`."""
        layouts = self._row_layouts[width, stride]

        def apply(operation, row, x):
            part = x[..., : width // self._partial] if self._partial > 1 else x

            def branch(name, layout):
                units = self._units(layout.values(row))
                return OPERATION_FUNCTIONS[name](units, part, stride)

            # Each splits the row itself: of pieces from outside each would give all a gradient.
            pairs = zip(self._operations, layouts, strict=True)
            branches = [functools.partial(branch, *pair) for pair in pairs]
            y = tf.switch_case(operation, branches)
            return connect_partially(x, y, partial=self._partial, stride=stride)

        return tf.function(apply, autograph=False, experimental_attributes={"_noinline": True})

    def _edge_choice(self, cell, number):
        """Where the 28 choices hold the operation of an edge."""
        cell_type = "reduce" if cell in reduction_cells(self._settings["cells"]) else "normal"
        return CELL_TYPES.index(cell_type) * len(EDGES) + number

    def _on_host(self, choices):
        """Where each choice stands in the banks; on the host, which dispatches also for a GPU."""
        places = [
            self._operations.index(name) if name in self._operations else -1 for name in OPERATIONS
        ]
        with tf.device("CPU"):
            return tf.unstack(tf.gather(places, choices))

    def _positions(self, choices):
        """Where the sampled rows stand in each bank: `{key: int [rows, 2]}`."""
        positions = {_TRUNK: tf.zeros([1, 2], tf.int32)}
        with tf.device("CPU"):
            for key, edges in self._bank_edges.items():
                operations = [choices[self._edge_choice(*edge)] for edge in edges]
                positions[key] = tf.stack([tf.range(len(edges)), operations], axis=1)
        return positions

    def _logits(self, images, choices, sampled):
        rows = {key: tf.unstack(values) for key, values in sampled.items()}

        def edge(cell, number, x, stride):
            del stride
            key, row = self._edge_rows[cell, number]
            operation = choices[self._edge_choice(cell, number)]
            return self._edge_functions[key](operation, rows[key][row], x)

        units = self._units(self._trunk_layout.values(rows[_TRUNK][0]))
        if self._unit.mean_nodes and "none" in self._operations and self._partial == 1:
            units.edge_counts = self._edge_counts(choices)
        return walk(units, images, edge=edge, **self._settings)

    def _edge_counts(self, choices):
        """How many edges of each node carry an operation: `{(cell, target): int scalar}`."""
        none = self._operations.index("none")
        counts = {}
        for cell in range(self._settings["cells"]):
            for number, (_, target) in enumerate(EDGES):
                carries = tf.cast(choices[self._edge_choice(cell, number)] != none, tf.int32)
                counts[cell, target] = counts.get((cell, target), 0) + carries
        return counts

    def logits(self, images: tf.Tensor, choices: tf.Tensor) -> tf.Tensor:
        """The logits of one architecture, to be called in a `tf.function`.

        Args:
            images: float, `[batch, height, width, channels]` in [-1, 1], of static shape.
            choices: int32 `[28]`, the operations' positions in `OPERATIONS` (`Genotype.indices`).

        Returns:
            float `[batch, classes]`.
        """
        choices = self._on_host(choices)
        return self._logits(images, choices, _gather(self._banks, self._positions(choices)))

    def train_step(
        self,
        images: tf.Tensor,
        labels: tf.Tensor,
        choices: tf.Tensor,
        *,
        learning_rate: tf.Tensor,
        momentum: float,
        weight_decay: float,
    ) -> tf.Tensor:
        """One step of the optimizer on the sampled path's weights, to be called in a `tf.function`.

        It changes the trunk and the sampled operations only, by the gradient of the cross-entropy.
        In a replica of a strategy that is the mean over all replicas.

        Args:
            images, choices: as in `logits`.
            labels: integer `[batch]`.
            learning_rate, weight_decay: scalars; weight decay is L2 added to the gradient.
            momentum: a scalar, of SGD; Adam has its own.

        Returns:
            The mean cross-entropy before the step, a float scalar.
        """
        choices = self._on_host(choices)
        positions = self._positions(choices)
        weights = _gather(self._banks, positions)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels, self._logits(images, choices, weights)
        )
        loss = tf.reduce_mean(losses)
        gradients = tf.gradients(
            loss,
            list(weights.values()),
            # `AddN` of more than two sums in an order that depends on which buffer is free.
            aggregation_method=tf.AggregationMethod.EXPERIMENTAL_TREE,
            # Of a bank whose operations have no parameters.
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        gradients = tf.distribute.get_replica_context().all_reduce("mean", gradients)
        for (key, old), gradient in zip(weights.items(), gradients, strict=True):
            slots = self._slots[key]
            new = self._optimizer.step(
                old,
                gradient,
                [tf.gather_nd(slot, positions[key]) for slot in slots],
                learning_rate=learning_rate,
                momentum=momentum,
                weight_decay=weight_decay,
            )
            for variable, rows in zip((self._banks[key], *slots), new, strict=True):
                _scatter(variable, positions[key], rows)
        return loss

    def derive(self, genotype: Genotype) -> tf.keras.Model:
        """The ordinary Keras network of a genotype, with the supernet's weights.

        Its BN layers have fresh moving averages: call it with `training=True` to get what
        `logits` gives, or train it on.

        Raises:
            ValueError: if its operations get a part of the channels, a network's all.
        """
        if self._partial > 1:
            raise ValueError(
                f"a network's operations have all channels, the supernet's 1/{self._partial}"
            )
        network = build_network(
            genotype,
            input_shape=self._input_shape,
            precision=self._precision,
            real_inputs=self._real_inputs,
            unit=self._unit,
            activations=self._activations,
            **self._settings,
        )
        layers = self._trunk_layout.layers(self._banks[_TRUNK].numpy()[0, 0])
        for (cell, number), (key, row) in self._edge_rows.items():
            operation = edge_operation(
                genotype, cell=cell, number=number, cells=self._settings["cells"]
            )
            index = self._operations.index(operation)
            parts = self._row_layouts[key][index].layers(self._banks[key][row, index].numpy())
            scope = edge_scope(cell, number, operation)
            layers.update({f"{scope}_{name}": arrays for name, arrays in parts.items()})
        for layer in network.layers:  # an input that no edge of a cell uses left none
            if layer.weights:
                arrays = layers[layer.name]
                layer.set_weights(arrays + layer.get_weights()[len(arrays) :])
        return network


def _initial_rows(layouts, count, random):
    """Initial float32 values `[count, operations, parameters]`, each row padded with zeros.

    A row has one at least: TensorFlow writes no empty rows, of operations without parameters.
    """
    width = max(1, *(sum(layout.sizes) for layout in layouts))
    rows = np.zeros([count, len(layouts), width])
    for row in rows:
        for values, layout in zip(row, layouts, strict=True):
            values[: sum(layout.sizes)] = layout.initial_values(random)
    return rows.astype("float32")


def _bank_name(key):
    return key if key == _TRUNK else "bank_{}_{}".format(*key)


def _gather(variables, positions):
    return {key: tf.gather_nd(variable, positions[key]) for key, variable in variables.items()}


def _scatter(variable, positions, rows):
    """Writes rows into the variable, in a replica into its own copy of it."""
    tf.raw_ops.ResourceScatterNdUpdate(ref=variable.handle, indices=positions, updates=rows)
