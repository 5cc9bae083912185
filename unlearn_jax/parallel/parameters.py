"""A model larger than a device: parameters split over a mesh by a rule.

The mathematics never sees it. Under ``jit`` the compiler sends what a product needs,
and sums over examples take ``mesh=`` as they do for data alone.
"""

import math
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from unlearn_jax.tree import leading_axis

SMALL = 2**12
"""Numbers up to which a parameter lies whole on every device: sending costs more."""


def model_mesh(*, model: int, devices: int | None = None) -> Mesh:
    """A mesh of two axes, ``"data"`` and ``"model"``.

    Args:
        model: Devices that share one copy of what passes through the model.
        devices: How many to use in all; None takes all that are visible.

    Returns:
        Mesh of shape (devices / model, model).

    Raises:
        ValueError: more devices than there are, or a number that ``model`` does not
            divide.
    """
    available = len(jax.devices())
    devices = available if devices is None else devices
    if not 1 <= devices <= available:
        raise ValueError(
            f"asked for a mesh of {devices} devices where {available} are visible"
        )
    if model < 1 or devices % model:
        raise ValueError(
            f"{devices} devices do not divide over a model axis of {model}, expected "
            f"a divisor of {devices}; give another number for model or for devices"
        )
    return jax.make_mesh(
        (devices // model, model),
        ("data", "model"),
        devices=jax.devices()[:devices],
        axis_types=(AxisType.Auto, AxisType.Auto),
    )


def parameter_shardings(
    mesh: Mesh | AbstractMesh, params: Any, *, small: int = SMALL
) -> Any:
    """How each parameter lies: its largest axis that divides, over the whole mesh.

    Where no axis divides over all devices, over those of ``"model"`` or of ``"data"``
    alone, whichever are more.

    Args:
        mesh: From :func:`model_mesh`; an abstract one plans for absent devices.
        params: Pytree of arrays or ``jax.ShapeDtypeStruct``: parameters, or whatever
            is shaped like them, such as the state of an optimiser.
        small: Up to so many numbers lie whole on every device.

    Returns:
        Tree like ``params`` of ``NamedSharding``: for ``jax.device_put``, for
        ``out_shardings`` of a ``jit`` that makes the parameters, so that they are never
        whole anywhere, and for the tree that ``checkpoint.load`` reads into.

    Raises:
        ValueError: a larger parameter has no axis that divides.
    """
    single = sorted(mesh.axis_names, key=lambda name: -mesh.shape[name])
    splits = [tuple(mesh.axis_names), *((name,) for name in single)]
    splits = [names for names in splits if _parts(mesh, names) > 1]

    def one(path: Any, leaf: Any) -> NamedSharding:
        if math.prod(leaf.shape) <= small or not splits:
            return NamedSharding(mesh, PartitionSpec())
        for names in splits:
            fits = [
                (size, -axis)
                for axis, size in enumerate(leaf.shape)
                if size % _parts(mesh, names) == 0
            ]
            if fits:
                axis = -max(fits)[1]
                return NamedSharding(mesh, PartitionSpec(*(None,) * axis, names))
        raise ValueError(
            f"no axis of {jax.tree_util.keystr(path) or 'the only parameter'}, shape "
            f"{tuple(leaf.shape)}, divides over a mesh of {dict(mesh.shape)}; take "
            f"another mesh, or raise small above {math.prod(leaf.shape)} so that it "
            f"lies whole on every device"
        )

    return jax.tree_util.tree_map_with_path(one, params)


def shard_rows(mesh: Mesh, data: Any) -> Any:
    """Lay the first axis of every leaf over the ``"data"`` axis of a mesh.

    Raises:
        ValueError: it does not divide.
    """
    rows, parts = leading_axis(data), mesh.shape["data"]
    if rows % parts:
        raise ValueError(
            f"{rows} examples do not divide over the {parts} devices of the axis "
            f"'data'; pad them with weight zero (data.batch.pad) to "
            f"{-(-rows // parts) * parts}"
        )
    return jax.device_put(data, NamedSharding(mesh, PartitionSpec("data")))


def _parts(mesh: Mesh | AbstractMesh, names: tuple[str, ...]) -> int:
    return math.prod(mesh.shape[name] for name in names)
