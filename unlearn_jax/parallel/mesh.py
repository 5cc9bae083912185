"""A mesh whose axis runs over ensemble members; the mathematics never sees it."""

from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def member_mesh(devices: int | None = None) -> Mesh:
    """A mesh of one axis, ``"member"``.

    Args:
        devices: How many devices to use; None takes all.

    Raises:
        ValueError: more devices asked for than there are.
    """
    available = len(jax.devices())
    devices = available if devices is None else devices
    if not 1 <= devices <= available:
        raise ValueError(
            f"asked for a mesh of {devices} devices where {available} are visible"
        )
    # Explicit axes (the default of make_mesh) make gathers inside `fit` fail to trace.
    return jax.make_mesh((devices,), ("member",), axis_types=(AxisType.Auto,))


def shard_members(mesh: Mesh, stacked: Any) -> Any:
    """Lay the first axis of every leaf over the mesh; its length must divide evenly."""
    return jax.device_put(stacked, NamedSharding(mesh, PartitionSpec("member")))


def replicate(mesh: Mesh, values: Any) -> Any:
    """Copy every leaf to all devices of the mesh."""
    return jax.device_put(values, NamedSharding(mesh, PartitionSpec()))
