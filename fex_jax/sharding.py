"""Where arrays live: a mesh of data x fsdp devices and the rules that place parameters on it.

The batch is split over all devices. Parameters are copied to every device, or split over the fsdp
axis where one device cannot hold them; XLA inserts the communication.
"""

import contextlib
import functools
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fex_jax import errors

_HEARTBEAT = 40  # seconds without a word, after which a process counts as gone
_SMALLEST_SPLIT = 2**16  # elements; smaller arrays are cheaper to copy than to gather


def connect(address: str = "", count: int = 0, index: int = 0) -> None:
    """Makes this process one of several that train together; before anything is computed.

    Does nothing where it is one already, or where `address` is "".

    Args:
      address: "host:port" of process 0, which listens there; "auto": what Slurm, Open MPI,
        Kubernetes (with the package kubernetes) or a TPU pod say of this process.
      count: how many processes there are.
      index: which of them this is.

    Raises:
      ValueError: a number that cannot be, or processes that do not find each other.
      ImportError: Kubernetes is to be asked, and its package is not there.
    """
    if not address or jax.distributed.is_initialized():
        return
    given = {}
    if address != "auto":
        if not re.fullmatch(r"[^\s:]+:\d+", address) or count < 1 or not 0 <= index < count:
            raise ValueError(
                f"distributed.address is {address!r}, count {count}, index {index}; expected "
                "host:port of process 0, the number of processes, and this one's from 0 on; or "
                "auto"
            )
        given = {"coordinator_address": address, "num_processes": count, "process_id": index}
    try:
        jax.distributed.initialize(**given, heartbeat_timeout_seconds=_HEARTBEAT)
    except (RuntimeError, ValueError) as error:
        if address == "auto" and "KUBERNETES_SERVICE_HOST" in os.environ:
            errors.require("kubernetes")  # else JAX does not ask it
        raise ValueError(f"the processes of {address} do not find each other: {error}") from error


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Within it, a process that finds another of its run gone says so and ends."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        print(f"error: another process of this run has ended: {str(error)[:300]}", file=sys.stderr)
        os._exit(1)  # Python's own end would wait for it


def make_mesh(fsdp: int = 1) -> Mesh:
    """All devices as (data, fsdp); `fsdp` must divide their number."""
    count = jax.device_count()
    if fsdp < 1 or count % fsdp:
        raise ValueError(f"mesh.fsdp={fsdp} does not divide the {count} devices")
    return jax.make_mesh((count // fsdp, fsdp), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, P())


def split_batch(mesh: Mesh) -> NamedSharding:
    """The leading axis over all devices."""
    return NamedSharding(mesh, P(("data", "fsdp")))


def split_parameters(tree: Any, mesh: Mesh) -> Any:
    """A sharding per array of `tree`: large ones split along their longest axis that divides."""
    count = mesh.shape["fsdp"]

    def rule(array: jax.Array | jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [axis for axis, size in enumerate(array.shape) if size % count == 0]
        if count == 1 or not axes or np.prod(array.shape) < _SMALLEST_SPLIT:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: array.shape[axis])
        return NamedSharding(mesh, P(*(None,) * longest, "fsdp"))

    return jax.tree.map(rule, tree)


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Shapes that say where their arrays belong, as a checkpoint is restored to."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings
    )


def global_batch(local: Any, mesh: Mesh) -> Any:
    """The batch of all processes, from this process's part: a pytree of arrays [B, ...]."""
    split = split_batch(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), local)


def copied(params: Any) -> Any:
    """Parameters on each of this process's devices; within `jax.default_device`, on that one."""
    devices = _own_devices()
    if len(devices) == 1:
        return jax.tree.map(jnp.asarray, params)
    return jax.device_put(params, replicated(_mesh(devices)))


def spread(batch: Any) -> Any:
    """A batch, arrays [B, ...], split over the devices of `copied`, where they divide B."""
    devices = _own_devices()
    count = len(devices)
    if count == 1 or any(len(x) % count for x in jax.tree.leaves(batch)):
        return batch
    return jax.device_put(batch, split_batch(_mesh(devices)))


def _own_devices() -> list[jax.Device]:
    one = jax.default_device.value
    return [one] if isinstance(one, jax.Device) else jax.local_devices(backend=one)


def _mesh(devices: list[jax.Device]) -> Mesh:
    return Mesh(np.reshape(devices, (-1, 1)), ("data", "fsdp"))


def gather(tree: Any, mesh: Mesh) -> Any:
    """Arrays placed by `split_parameters` as NumPy's, in process 0; None for each in the others.

    Copied to memory shard by shard. Of what process 0 has no part of, its devices get one shard at
    a time.
    """
    first = jax.process_index() == 0

    def whole(array: jax.Array) -> np.ndarray | None:
        spec = tuple(cast(NamedSharding, array.sharding).spec)
        if "fsdp" not in spec:
            return np.asarray(array.addressable_data(0)) if first else None
        axis, parts = spec.index("fsdp"), []
        size = array.shape[axis] // mesh.shape["fsdp"]
        own = {shard.index[axis].start or 0: shard.data for shard in array.addressable_shards}
        for number, devices in enumerate(mesh.devices.T):  # each column holds one shard
            if any(device.process_index == 0 for device in devices):
                part = own.get(number * size)
            else:
                part = _shard(array, number, array.sharding).addressable_data(0)
            if first:
                parts.append(np.asarray(part))
        return np.concatenate(parts, axis) if first else None

    return jax.tree.map(whole, tree)


@functools.partial(jax.jit, static_argnums=2)
def _shard(array: jax.Array, number: int, sharding: NamedSharding) -> jax.Array:
    """One shard of the fsdp axis, on every device."""

    def send(own: jax.Array) -> jax.Array:
        here = jax.lax.axis_index("fsdp") == number
        return jax.lax.psum(jnp.where(here, own, jnp.zeros_like(own)), "fsdp")

    return jax.shard_map(send, mesh=sharding.mesh, in_specs=sharding.spec, out_specs=P())(array)
