"""The mixture, its shares and the training step, against NumPy and against plain gradients."""

import numpy as np
import pytest
import tensorflow as tf

from cpnas_tf.genotypes import CELL_TYPES, EDGES
from cpnas_tf.search.mixed_supernet import MixedSupernet, connect_partially, shares
from cpnas_tf.training.optimizers import SGD, Adam

REDUCE = CELL_TYPES.index("reduce")
LEARNING_RATE = 0.01


def make_supernet(
    *, operations=("none", "skip_connect", "avg_pool_3x3"), precision="parent", partial=2
):
    """One cell, which is a reduction, of width 8."""
    return MixedSupernet(
        input_shape=(4, 4, 1),
        classes=2,
        cells=1,
        channels=4,
        precision=precision,
        operations=operations,
        partial=partial,
        seed=0,
    )


def make_batch(seed, count=16):
    """Images of two classes, one brighter above and one below."""
    random = np.random.default_rng(seed)
    labels = random.integers(2, size=count).astype(np.int32)
    images = random.uniform(-1, 1, size=(count, 4, 4, 1)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 2] += 1
    return tf.constant(images), tf.constant(labels)


def edge(supernet, nodes):
    """The function of an edge of the first cell, its bank of weights and its row there."""
    function, bank, row = supernet._edges[0, EDGES.index(nodes)]
    return function, supernet._weights[bank], row


def loss(supernet, images, labels):
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, supernet(images))
    return tf.reduce_mean(losses)


@pytest.mark.parametrize("partial", [2, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_other_channels_pass_untouched_and_all_are_shuffled(partial, stride):
    random, width = np.random.default_rng(0), 8 // partial
    x = random.normal(size=(3, 4, 4, 8)).astype(np.float32)
    size = 4 // stride
    mixed = random.normal(size=(3, size, size, width)).astype(np.float32)
    rest = x[..., width:].reshape(3, size, stride, size, stride, 8 - width).max(axis=(2, 4))
    channels = [mixed[..., n] for n in range(width)] + [rest[..., n] for n in range(8 - width)]
    y = connect_partially(tf.constant(x), tf.constant(mixed), partial=partial, stride=stride)
    for place in range(8):
        position, group = divmod(place, partial)
        np.testing.assert_array_equal(y[..., place], channels[group * width + position])


def test_with_all_channels_mixed_nothing_is_shuffled():
    x = tf.random.stateless_uniform([2, 4, 4, 8], seed=[0, 1])
    np.testing.assert_array_equal(connect_partially(x, x, partial=1, stride=1), x)


def test_shares_are_softmaxes_over_operations_and_over_a_nodes_edges():
    random = np.random.default_rng(0)
    alpha, beta = random.normal(size=(2, 14, 3)), random.normal(size=(2, 14))
    operation_shares, edge_shares = shares(tf.constant(alpha), tf.constant(beta))
    expected = np.exp(alpha) / np.exp(alpha).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(operation_shares, expected)
    for node in range(2, 6):
        edges = [number for number, (_, target) in enumerate(EDGES) if target == node]
        expected = np.exp(beta[:, edges]) / np.exp(beta[:, edges]).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(edge_shares.numpy()[:, edges], expected)


def pooled_3x3(x):
    """Average pooling of stride 1 that does not count the padding."""
    sums, counts = np.zeros_like(x), np.zeros_like(x)
    height, width = x.shape[1:3]
    for row in range(height):
        for column in range(width):
            rows, columns = slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2)
            sums[:, rows, columns] += x[:, row : row + 1, column : column + 1]
            counts[:, rows, columns] += 1
    return sums / counts


def test_an_edge_mixes_its_operations_by_their_shares():
    supernet = make_supernet()
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 8)).astype(np.float32)
    apply, bank, row = edge(supernet, (2, 3))
    y = apply(bank[row], tf.constant([0.5, 0.3, 0.2]), x)
    pooled = pooled_3x3(x[..., :4])
    mean, variance = pooled.mean(axis=(0, 1, 2)), pooled.var(axis=(0, 1, 2))
    mixed = 0.3 * x[..., :4] + 0.2 * (pooled - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(y[..., 0::2], mixed, atol=1e-5)
    np.testing.assert_array_equal(y[..., 1::2], x[..., 4:])


def test_an_edge_with_a_share_of_0_counts_for_nothing():
    """What the network makes of its images depends on each edge's weights by its shares."""
    supernet = make_supernet(operations=("none", "dil_conv_3x3"))
    images, _ = make_batch(0)
    before = supernet(images).numpy()
    _, bank, row = edge(supernet, (1, 2))
    changed = tf.tensor_scatter_nd_add(bank, [[row]], [tf.ones(bank.shape[1])])
    beta = supernet.beta.numpy()
    for share_is_0 in (False, True):
        beta[REDUCE, EDGES.index((1, 2))] = -1e9 if share_is_0 else 0.0
        supernet.beta.assign(beta)
        before, kept = supernet(images).numpy(), bank.numpy()
        bank.assign(changed)
        assert np.allclose(before, supernet(images), atol=1e-6) == share_is_0
        bank.assign(kept)


def compiled(warmup_steps, **settings):
    supernet = make_supernet(**settings)
    supernet.compile(
        SGD(LEARNING_RATE),
        architecture_optimizer=Adam(LEARNING_RATE, 0.5, 0.999),
        warmup_steps=warmup_steps,
    )
    return supernet


def values(supernet):
    return {variable.name: variable.numpy() for variable in supernet.trainable_variables}


def fit(supernet, *batches, epochs=1):
    """A step for each pair of batches; returns the epochs' logs."""
    pairs = tf.data.Dataset.from_generator(
        lambda: iter(batches),
        output_signature=((tf.TensorSpec([16, 4, 4, 1]), tf.TensorSpec([16], tf.int32)),) * 2,
    )
    return supernet.fit(pairs, epochs=epochs, verbose=0).history


def test_the_first_steps_train_the_weights_alone():
    supernet = compiled(warmup_steps=2)
    initial = values(supernet)
    fit(supernet, *[(make_batch(n), make_batch(n + 10)) for n in range(2)])
    warm = values(supernet)
    for name in ("alpha:0", "beta:0"):
        np.testing.assert_array_equal(warm[name], initial[name])
    assert not np.array_equal(warm["trunk:0"], initial["trunk:0"])
    fit(supernet, (make_batch(2), make_batch(12)))
    assert not np.array_equal(supernet.alpha[REDUCE], warm["alpha:0"][REDUCE])
    assert not np.array_equal(supernet.beta[REDUCE], warm["beta:0"][REDUCE])


def test_a_step_moves_each_part_down_its_gradient_on_its_own_images():
    """Adam's first step is the sign of the gradient; SGD's is the gradient, at the new alpha."""
    supernet, weight_batch, architecture_batch = compiled(0), make_batch(0), make_batch(1)
    trunk, *banks = supernet._weights
    before = values(supernet)

    @tf.function(autograph=False)
    def gradients(images, labels):
        variables = [supernet.alpha, supernet.beta, trunk]
        return tf.gradients(loss(supernet, images, labels), variables)

    alpha, beta, _ = (np.asarray(g) for g in gradients(*architecture_batch))
    logs = fit(supernet, (weight_batch, architecture_batch))
    for variable, gradient in ((supernet.alpha, alpha), (supernet.beta, beta)):
        moved = variable.numpy() - before[variable.name]
        clear = abs(gradient) > 1e-3
        assert clear.any()
        np.testing.assert_allclose(
            moved[clear], -LEARNING_RATE * np.sign(gradient[clear]), rtol=0.01
        )
    moved = trunk.numpy() - before["trunk:0"]
    trunk.assign(before["trunk:0"])
    for bank in banks:
        assert bank.shape[1] == 0 or not np.array_equal(bank, before[bank.name])
    assert np.corrcoef(moved, -gradients(*weight_batch)[2])[0, 1] > 0.99
    assert 0 < logs["architecture_loss"][0] < 5


def test_alpha_moves_to_the_operation_that_lowers_the_loss():
    """Nothing of the images passes an edge of `none`, so the edges that count do without it."""
    supernet = compiled(0, operations=("none", "skip_connect"), partial=1)
    batches = [(make_batch(n), make_batch(n + 50)) for n in range(10)]
    logs = fit(supernet, *batches, epochs=5)
    assert logs["architecture_loss"][-1] < logs["architecture_loss"][0]
    alpha, beta = supernet.alpha.numpy(), supernet.beta.numpy()
    preference = alpha[REDUCE, :, 1] - alpha[REDUCE, :, 0]
    for node in range(2, 6):
        edges = [number for number, (_, target) in enumerate(EDGES) if target == node]
        assert preference[max(edges, key=lambda number: beta[REDUCE, number])] > 0.5
    assert abs(alpha[CELL_TYPES.index("normal")]).max() < 0.01  # there is no normal cell


@pytest.mark.parametrize("precision", ["child", "parent"])
def test_operations_are_of_the_precision(precision):
    """A child's convolution sees of its input the signs alone."""
    supernet = make_supernet(operations=("none", "dil_conv_3x3"), precision=precision)
    apply, bank, row = edge(supernet, (2, 3))
    random = np.random.default_rng(0)
    x = random.normal(size=(5, 4, 4, 8)).astype(np.float32)
    larger = x * random.uniform(1, 2, size=x.shape).astype(np.float32)
    y, other = (
        apply(bank[row], tf.constant([0.5, 0.5]), image)[..., 0::2] for image in (x, larger)
    )
    assert np.array_equal(y, other) == (precision == "child")
    assert np.std(y) > 0.1
