"""What several commands do with the sections of their config."""

from absl import flags

from cpnas_tf import devices
from cpnas_tf.cli.config import call
from cpnas_tf.runs.progress import show

FLAGS = flags.FLAGS


def make_deterministic(section):
    """Makes runs repeatable: the same seed on the same machine gives the same result.

    But for rounding where XLA compiles, which does not know how to be deterministic.

    Args:
        section: the section of --config that has the seed; it is 0 where there is none.

    Raises:
        ValueError: if the seed is not in 0..2^32 - 1.
    """
    seed = FLAGS.config[section].get("seed", 0)
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"--config.{section}.seed must be in 0..{2**32 - 1}, received: {seed!r}")
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    if not FLAGS.config[section].get("jit_compile"):
        tf.config.experimental.enable_op_determinism()
    # It makes `AddN` of additions, whose order of summation depends on which buffer is free.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


def make_strategy():
    """The `tf.distribute.Strategy` of --config.strategy; says so if it waits for other workers."""
    worker, workers = devices.check_strategy(FLAGS.config.strategy)
    if workers > 1:
        show(f"worker {worker} of {workers} waits for the others")
    return devices.make_strategy(FLAGS.config.strategy)


def load_images():
    """The training and the test images of --config.data."""
    from cpnas_tf.data import datasets

    images = call(datasets.load, section="data", data_dir=FLAGS.data_dir)
    test = datasets.load(**{**FLAGS.config.data, "split": "test"}, data_dir=FLAGS.data_dir)
    shape, other = images.image_shape, test.image_shape
    if shape != other:
        raise ValueError(
            f"the training images are {shape[0]}x{shape[1]}, the test images "
            f"{other[0]}x{other[1]}: --config.data.image_size makes them the same"
        )
    return images, test


def train(network, images, test, *, precision="child", strategy=None, **given):
    """Builds a network and trains it, by the config's sections.

    Args:
        network: a `Genotype`, or the name of one of `reference_networks`.
        images, test: what to train and to validate on.
        precision: of a genotype's network, "child" or "parent"; a child has the Child-Parent loss.
        strategy: the `tf.distribute.Strategy` to train under; by default one device.
        given: arguments of `training.train` that do not come from the config.

    Returns:
        `(model, history)`.

    Raises:
        ValueError: if a setting is impossible.
    """
    import tensorflow as tf

    from cpnas_tf.networks import cells, reference
    from cpnas_tf.training import loop
    from cpnas_tf.training.child_parent import ChildParentLoss

    shape = {"input_shape": images.image_shape, "classes": images.classes}
    policy = "mixed_float16" if FLAGS.config.get("mixed_precision") else "float32"
    with devices.scope(strategy or tf.distribute.get_strategy(), policy=policy):
        if isinstance(network, str):
            model = reference.build(network, **shape)
        else:
            shape["precision"] = precision
            model = call(cells.build_network, network, section="network", **shape)
    loss = call(ChildParentLoss, section="child_parent")
    given["child_parent"] = loss if precision == "child" else None
    history = call(loop.train, model, images, section="training", validation=test, **given)
    return model, history
