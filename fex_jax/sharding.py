"""Where arrays live: a mesh of data x fsdp devices and the rules that place parameters on it.

The batch is split over all devices. Parameters are copied to every device, or split over the fsdp
axis where one device cannot hold them; XLA inserts the communication.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

_SMALLEST_SPLIT = 2**16  # elements; smaller arrays are cheaper to copy than to gather


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
