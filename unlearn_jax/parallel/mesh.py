"""Meshes over ensemble members or over data; the mathematics never sees them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from unlearn_jax.tree import leading_axis


def member_mesh(devices: int | None = None) -> Mesh:
    """A mesh of one axis, ``"member"``.

    Args:
        devices: How many devices to use; None takes all.

    Raises:
        ValueError: more devices asked for than there are.
    """
    return _mesh(devices, "member")


def data_mesh(devices: int | None = None) -> Mesh:
    """A mesh of one axis, ``"data"``, for everything built on ``accumulate``.

    Args:
        devices: How many devices to use; None takes all.

    Raises:
        ValueError: more devices asked for than there are.
    """
    return _mesh(devices, "data")


def own_mesh() -> Mesh:
    """A mesh of one axis, ``"member"``, over the devices of this process alone."""
    own = jax.local_devices()
    return Mesh(np.array(own), ("member",), axis_types=(AxisType.Auto,))


def shard_members(mesh: Mesh, stacked: Any) -> Any:
    """Lay the first axis of every leaf over the mesh.

    Raises:
        ValueError: its length does not divide over the devices.
    """
    members, devices = leading_axis(stacked), mesh.shape["member"]
    if members % devices:
        raise ValueError(
            f"{members} members do not divide over {devices} devices; take a multiple "
            f"of {devices}, or a mesh of fewer devices"
        )
    return jax.device_put(stacked, NamedSharding(mesh, PartitionSpec("member")))


def replicate(mesh: Mesh, values: Any) -> Any:
    """Copy every leaf to all devices of the mesh."""
    return jax.device_put(values, NamedSharding(mesh, PartitionSpec()))


def sum_over_data(
    mesh: Mesh, function: Callable[[Any, Any], Any], data: Any, constants: Any
) -> Any:
    """Σ over devices of ``function(part, constants)``, the data split over the mesh.

    Args:
        mesh: From :func:`data_mesh`, or with further axes, over which the compiler
            splits the work as the constants lie: see ``parallel.parameters``.
        function: From a part of the data and the constants to a pytree of arrays.
        data: Pytree whose first axis divides over the mesh.
        constants: Pytree that every device gets whole.

    Returns:
        The sum, the same on all devices.

    Raises:
        ValueError: the mesh has no axis called ``"data"``.
    """
    if "data" not in mesh.axis_names:
        raise ValueError(
            f"got a mesh with the axes {mesh.axis_names}, expected ('data',) among "
            f"them; make it with data_mesh"
        )

    others = mesh.size // mesh.shape["data"]
    if mesh.shape["data"] == 1 and others > 1:
        return function(data, constants)  # XLA fails on such a sum beside other axes

    def part(own: Any, shared: Any) -> Any:
        return jax.lax.psum(function(own, shared), "data")

    return jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(PartitionSpec("data"), PartitionSpec()),
        out_specs=PartitionSpec(),
        axis_names={"data"} if others > 1 else set(mesh.axis_names),
        check_vma=others > 1,
    )(data, constants)


def _mesh(devices: int | None, axis: str) -> Mesh:
    available = len(jax.devices())
    devices = available if devices is None else devices
    if not 1 <= devices <= available:
        raise ValueError(
            f"asked for a mesh of {devices} devices where {available} are visible"
        )
    # Explicit axes (the default of make_mesh) make gathers inside `fit` fail to trace.
    return jax.make_mesh((devices,), (axis,), axis_types=(AxisType.Auto,))
