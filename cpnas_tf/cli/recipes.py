"""What several commands do with the sections of their config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from cpnas_tf import devices, settings
from cpnas_tf.catalogue import BINARIZATIONS, COMPARED, FOLDER, METHODS, binary_settings
from cpnas_tf.cli.config import call, flagged
from cpnas_tf.runs.progress import show

if TYPE_CHECKING:
    import tensorflow as tf

    from cpnas_tf.catalogue import Method
    from cpnas_tf.data import AnyImages
    from cpnas_tf.genotypes import Genotype
    from cpnas_tf.training import Training

FLAGS = flags.FLAGS
_SHOWN_CLASSES = 5
# The sections of a training's config.
TRAINING_SECTIONS = (
    *("strategy", "mixed_precision", "data", "split"),
    *("network", "training", "child_parent"),
)


def make_deterministic(section: str) -> None:
    """Makes runs repeatable: the same seed on the same machine gives the same result.

    But for rounding where XLA compiles, which does not know how to be deterministic.

    Args:
        section: the section of --config that has the seed; it is 0 where there is none.

    Raises:
        ValueError: if the seed is not in 0..2^32 - 1.
    """
    values = FLAGS.config.get(section, {})
    seed = values.get("seed", 0)
    with flagged(section):
        settings.check(seed=seed)
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    if not values.get("jit_compile"):
        tf.config.experimental.enable_op_determinism()
    # It makes `AddN` of additions, whose order of summation depends on which buffer is free.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


def make_strategy() -> tf.distribute.Strategy:
    """The `tf.distribute.Strategy` of --config.strategy; says so if it waits for other workers."""
    worker, workers = devices.check_strategy(FLAGS.config.strategy)
    if workers > 1:
        show(f"worker {worker} of {workers} waits for the others")
    return devices.make_strategy(FLAGS.config.strategy)


def load_images() -> tuple[AnyImages, AnyImages]:
    """The training and the test images of --config.data."""
    from cpnas_tf.data import datasets

    images = call(datasets.load, section="data", data_dir=FLAGS.data_dir)
    with flagged("data"):
        test = datasets.load(**{**FLAGS.config.data, "split": "test"}, data_dir=FLAGS.data_dir)
    shape, other = images.image_shape, test.image_shape
    if shape != other:
        raise ValueError(
            f"the training images are {shape[0]}x{shape[1]}, the test images "
            f"{other[0]}x{other[1]}: --config.data.image_size makes them the same"
        )
    return images, test


def load_validation() -> AnyImages | None:
    """The images of --config.data to validate on; None if they are to be drawn."""
    from cpnas_tf.data import datasets

    section = {key: value for key, value in FLAGS.config.data.items() if key != "split"}
    with flagged("data"):
        return datasets.load_validation(**section, data_dir=FLAGS.data_dir)


def say_images(**parts: AnyImages | None) -> None:
    """Says of own images how many there are of each use, of which size, and their classes."""
    if not FLAGS.config.data.name.startswith(FOLDER):
        return
    found = {use: part for use, part in parts.items() if part is not None}
    first = next(iter(found.values()))
    height, width, _ = first.image_shape
    counts = ", ".join(f"{len(part)} to {use}" for use, part in found.items())
    names = ", ".join(first.class_names[:_SHOWN_CLASSES])
    more = ", ..." if first.classes > _SHOWN_CLASSES else ""
    show(f"images of {height}x{width} pixels: {counts}; {first.classes} classes: {names}{more}")


def plan_training(
    network: Genotype | str,
    images: AnyImages,
    test: AnyImages,
    *,
    precision: str = "child",
    strategy: tf.distribute.Strategy | None = None,
    teacher: str | None = None,
    **given: Any,
) -> Training:
    """Builds a network and plans its training, by the config's sections.

    Args:
        network: a `Genotype`, or the name of one of `reference_networks`.
        images, test: what to train and to validate on.
        precision: "child" or "parent"; a child has the loss of its binarization.
        strategy: the `tf.distribute.Strategy` to train under; by default one device.
        teacher: the workdir of a finished training to learn from as well, or None.
        given: arguments of `training.Training` that do not come from the config.

    Returns:
        A `training.Training`.

    Raises:
        ValueError: if a setting is impossible.
    """
    import tensorflow as tf

    from cpnas_tf.networks import cells, reference
    from cpnas_tf.runs.trained import TrainedRun
    from cpnas_tf.training import LOSSES, Training

    shape: dict[str, Any] = {"input_shape": images.image_shape, "classes": images.classes}
    policy = "mixed_float16" if FLAGS.config.get("mixed_precision") else "float32"
    with devices.scope(strategy or tf.distribute.get_strategy(), policy=policy):
        if isinstance(network, str):
            with flagged("network"):
                model = reference.build(network, **shape, **binary_settings(FLAGS.config.network))
        else:
            shape["precision"] = precision
            model = call(cells.build_network, network, section="network", **shape)
        if teacher is not None:
            given["teacher"] = TrainedRun(teacher, data_dir=FLAGS.data_dir).network()
    loss = BINARIZATIONS[FLAGS.config.network.get("binarization", "cpnas")].loss
    if precision == "child" and loss is not None:
        given["child_parent"] = call(LOSSES[loss], section=loss)
    return call(Training, model, images, section="training", validation=test, **given)


def search_method() -> Method:
    """The `Method` of --config.method, found possible with --config.strategy.

    Raises:
        ValueError: if there is no such method, or it runs on one device alone.
    """
    name, strategy = FLAGS.config.method, FLAGS.config.strategy
    method = METHODS[name]
    if strategy != "none" and not method.several_devices:
        raise ValueError(f"{name} takes strategy none alone, received: {strategy!r}")
    if method.beta is not None:
        with FLAGS.config.unlocked():
            FLAGS.config[method.section].beta = method.beta
    return method


def load_search_images(run: dict[str, Any]) -> tuple[AnyImages, AnyImages]:
    """The images that a search trains and validates on; adds them to the record `run`."""
    from cpnas_tf import data
    from cpnas_tf.runs.images import record

    images = call(data.load, section="data", data_dir=FLAGS.data_dir)
    validation = load_validation()
    run["images"] = record(images, validation)
    parts = call(data.split_for_search, images, section="split", validation=validation)
    say_images(train=parts[0], validate=parts[1])
    return parts


def plan_search(method: Method, parts: Sequence[AnyImages | None], **given: Any) -> Any:
    """Plans a search, by its method's section of the config.

    Args:
        method: a `Method`.
        parts: the images to train and to validate on.
        given: settings that do not come from the config.

    Raises:
        ValueError: if a setting is impossible.
    """
    section = FLAGS.config.get(method.section, {})
    defaults = {name: each for name, each in method.defaults.items() if name not in section}
    return call(method.load(), *parts, section=method.section, **{**defaults, **given})


def plan_ablation(
    run: dict[str, Any],
) -> tuple[Callable[..., dict[str, Any]], Callable[..., dict[str, Any]]]:
    """Plans how an ablation's methods find a genotype and how that is trained, by the config.

    Args:
        run: the ablation's record; its images are added to it.

    Returns:
        `(find, train)`, see `ablation.grid.AblationTuner`.

    Raises:
        ValueError: if a search or the training is impossible.
    """
    import tensorflow as tf

    from cpnas_tf import data, training
    from cpnas_tf.genotypes import CHOICES, Genotype
    from cpnas_tf.runs.images import record

    make_deterministic("grid")
    images, test = load_images()
    validation = load_validation()
    run["images"] = record(images, validation, test)
    parts = call(data.split_for_search, images, section="split", validation=validation)

    def start(seed):
        tf.keras.backend.clear_session()
        tf.keras.utils.set_random_seed(seed)

    def plan(name, *, beta, seed):
        start(seed)
        return plan_search(
            METHODS[name], parts, seed=seed, **({} if beta is None else {"beta": beta})
        )

    def plan_child(genotype, *, seed):
        start(seed)
        return plan_training(genotype, images, test, seed=seed)

    def find(name, *, directory, beta, seed):
        return plan(name, beta=beta, seed=seed).run(directory)

    def train(genotype, *, directory, seed):
        planned = plan_child(genotype, seed=seed)
        history = planned.run(directory)
        evaluation = training.evaluate(planned.model, test)
        reached = {name: evaluation[name] for name in ("accuracy", "loss")}
        return {**reached, "images": len(history) * len(images)}

    for name in FLAGS.config.grid.get("methods", COMPARED):
        plan(name, beta=0.0 if METHODS[name].varies_beta else METHODS[name].beta, seed=0)
    # What is impossible for one genotype is so for all: this one is built in the shortest time.
    plan_child(Genotype.from_choices(["none"] * len(CHOICES)), seed=0)
    return find, train
