"""More devices than one, through `tf.distribute`. Imports TensorFlow only to make a strategy.

- "none": one device, the first GPU or the CPU.
- "mirrored": all devices of this machine, its GPUs or else its logical CPUs, each on its part of
  every batch.
- "multi_worker": one process a machine, each started with the same command and the TF_CONFIG of its
  own: `{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}`. The
  worker of index 0 is the chief and alone writes files; the others read them, so that their
  --workdir must be the chief's, on a shared disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from cpnas_tf import settings

if TYPE_CHECKING:
    import tensorflow as tf


def check_strategy(name: str) -> tuple[int, int]:
    """The worker's number and how many there are, (0, 1) where there is one process.

    Raises:
        ValueError: if the name is unknown, or "multi_worker" has no TF_CONFIG that describes it.
    """
    settings.check(strategy=name)
    if name != "multi_worker":
        return 0, 1
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        workers, kind, index = jobs["worker"], task["type"], task["index"]
        addresses = [worker.rpartition(":") for worker in workers]
        fits = set(jobs) == {"worker"} and kind == "worker" and index in range(len(workers))
        fits = fits and all(
            host and port.isdigit() and 0 < int(port) < 65536 for host, _, port in addresses
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        fits = False
    if not fits:
        raise ValueError(
            "strategy multi_worker needs the environment variable TF_CONFIG to be like "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}, '
            f"received: {text!r}"
        )
    return index, len(workers)


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Makes the `tf.distribute.Strategy` of a name in `catalogue.STRATEGIES`.

    "multi_worker" waits for the other workers, and must be made before TensorFlow computes.

    Raises:
        ValueError: if the name is unknown, "mirrored" has fewer than two devices, or the cluster of
            "multi_worker" cannot be joined or the worker's port is taken.
    """
    index, workers = check_strategy(name)
    if workers > 1:
        _wait_for_others(json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"], index)
    import tensorflow as tf

    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if len(found) < 2:
            raise ValueError(
                "strategy mirrored needs two devices or more, found "
                f"{', '.join(device.name for device in found)}: use strategy none"
            )
        return tf.distribute.MirroredStrategy([device.name for device in found])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        raise ValueError(f"worker {index} of {workers} cannot join the others: {error}") from error
    finally:
        signal.signal(signal.SIGTERM, handler)  # TensorFlow's own would only note the signal


def _wait_for_others(addresses, index):
    """Returns when each other worker has listened at its address.

    TensorFlow waits for them as well, but answers no signal while it does.
    """
    missing = [address for address in addresses if address != addresses[index]]
    try:
        listening = socket.create_server(("", int(addresses[index].rpartition(":")[2])))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise ValueError(f"worker {index} cannot listen at {addresses[index]}: {reason}") from error
    with listening:
        while missing := [address for address in missing if not _listens(address)]:
            time.sleep(0.1)


def _listens(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def scope(
    strategy: tf.distribute.Strategy, *, policy: str | tf.keras.mixed_precision.Policy = "float32"
) -> Iterator[None]:
    """Where a model is made: on all devices of a strategy, under one of Keras's dtype policies.

    Args:
        strategy: a `tf.distribute.Strategy`.
        policy: a dtype policy or its name; under "mixed_float16" layers compute in float16 and keep
            float32 variables.
    """
    import tensorflow as tf

    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        with strategy.scope():
            yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


def check_batch_size(strategy: tf.distribute.Strategy, batch_size: int) -> None:
    """Raises ValueError unless a batch can be divided between the replicas."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise settings.SettingError(
            "batch_size",
            f"batch_size must be a multiple of the {replicas} devices, received: {batch_size}",
        )


def distribute(
    strategy: tf.distribute.Strategy, batches: tf.data.Dataset
) -> tf.data.Dataset | tf.distribute.DistributedDataset:
    """Gives each replica its part of every batch of a `tf.data.Dataset`: the first, the second...

    Returns:
        The dataset itself where there is one replica, else one of `tf.distribute`.
    """
    import tensorflow as tf

    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batches

    def parts(context):
        own = replicas // context.num_input_pipelines
        first = own * context.input_pipeline_id

        def split(*batch):
            return tf.data.Dataset.from_tensor_slices(
                tuple(
                    tf.reshape(part, [replicas, -1, *part.shape[1:]])[first : first + own]
                    for part in batch
                )
            )

        return batches.flat_map(split).prefetch(own)

    return strategy.distribute_datasets_from_function(parts)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files."""
    return not _task(strategy)


def is_alone(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the only one."""
    return _task(strategy) is None


def _task(strategy):
    """The number of this process among several, or None."""
    return getattr(strategy.cluster_resolver, "task_id", None)


def agreement(
    strategy: tf.distribute.Strategy, variables: Iterable[tf.Variable]
) -> Callable[[], None]:
    """A function that gives the variables of which each replica has its own their mean.

    A checkpoint holds the mean. If it is called after each one, a training is bit by bit the same
    whether it goes on from the checkpoint or was never stopped. All workers have to call it.
    """
    import tensorflow as tf

    if strategy.num_replicas_in_sync == 1:
        return lambda: None
    own = [each for each in variables if each.synchronization == tf.VariableSynchronization.ON_READ]

    @tf.function(autograph=False)
    def assign_means():
        for variable in own:
            variable.assign(tf.convert_to_tensor(variable))

    return assign_means


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when all workers have called it, if there are several."""
    if is_alone(strategy):
        return
    import tensorflow as tf

    @tf.function(autograph=False)
    def count():
        return strategy.reduce("sum", strategy.run(lambda: tf.constant(1.0)), axis=None)

    count()


def threads() -> int:
    """The number of threads that an operation on the CPU has; sums are rounded by how many add."""
    told = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    if told.isdigit() and int(told):
        return int(told)
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_bytes() -> int:
    """The memory that was in use at most: of the first GPU, or else of the process."""
    import tensorflow as tf

    if tf.config.list_logical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
