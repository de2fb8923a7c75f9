"""Where arrays live: a mesh of data x fsdp devices and the rules that place parameters on it.

The batch is split over all devices. Parameters are copied to every device, or split over the fsdp
axis where one device cannot hold them; XLA inserts the communication.
"""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

_HEARTBEAT = 40  # seconds without a word, after which a process counts as gone
_SMALLEST_SPLIT = 2**16  # elements; smaller arrays are cheaper to copy than to gather


def connect(address: str = "", count: int = 0, index: int = 0) -> None:
    """Makes this process one of several that train together; before anything is computed.

    Does nothing where it is one already, or where `address` is "".

    Args:
      address: "host:port" of process 0, which listens there; "auto": what Slurm, Open MPI,
        Kubernetes or a TPU pod say of this process.
      count: how many processes there are.
      index: which of them this is.

    Raises:
      ValueError: a number that cannot be, or processes that do not find each other.
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
        raise ValueError(f"the processes of {address} do not find each other: {error}") from error


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


def gather(tree: Any, mesh: Mesh) -> Any:
    """Arrays that any processes hold as NumPy's in each, one after the other."""
    copy = jax.jit(lambda x: x, out_shardings=replicated(mesh))
    return jax.tree.map(lambda x: np.asarray(copy(x)), tree)
