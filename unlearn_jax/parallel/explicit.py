"""Arrays over explicit axes of a mesh, for functions whose inside is automatic."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from unlearn_jax.placement import explicit_mesh

Given = ParamSpec("Given")
Found = TypeVar("Found")


def automatic(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """The function, also of arrays on a mesh with axes of type ``Explicit``.

    Such an axis wants to be told how the result of every contraction and every gather
    lies. Inside of ``function`` all axes are automatic: the compiler finds that out.

    Returns:
        A function whose results, where arguments lie on such a mesh, lie whole on all
        of its devices; functions among the results are made like this one.

    Raises:
        ValueError: JAX's own, where ``function`` has captured an array of such a type.
    """

    @functools.wraps(function)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        arrays = [x for x in jax.tree.leaves((args, kwargs)) if _is_array(x)]
        if explicit_mesh(arrays) is None:
            return function(*args, **kwargs)
        known = not any(isinstance(leaf, Tracer) for leaf in arrays)
        if known and jax.sharding.get_abstract_mesh().empty:
            return _relabelled(function, args, kwargs)
        return _inside(function, args, kwargs, explicit_mesh(arrays))

    return run


def _relabelled(function: Any, args: Any, kwargs: Any) -> Any:
    """Outside of any trace: the same buffers under another type, and back."""
    meshes: list[Mesh] = []

    def there(leaf: Any) -> Any:
        if not _is_array(leaf) or explicit_mesh(leaf) is None:
            return leaf
        mesh = leaf.sharding.mesh
        meshes.append(mesh)
        types = (AxisType.Auto,) * len(mesh.axis_names)
        auto = Mesh(mesh.devices, mesh.axis_names, axis_types=types)
        return jax.device_put(leaf, NamedSharding(auto, leaf.sharding.spec))

    def back(leaf: Any) -> Any:
        if isinstance(leaf, Tracer) or not _is_array(leaf):
            return automatic(leaf) if callable(leaf) else leaf
        return jax.device_put(leaf, NamedSharding(meshes[0], PartitionSpec()))

    args, kwargs = jax.tree.map(there, (args, kwargs))
    return jax.tree.map(back, function(*args, **kwargs))


def _inside(function: Any, args: Any, kwargs: Any, mesh: Any) -> Any:
    """Within a trace, or the mesh of ``jax.set_mesh``: a region whose axes are Auto."""
    leaves, structure = jax.tree.flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]
    kept: list[Any] = []

    def arrays(*given: Any) -> list[Any]:
        filled = list(leaves)
        for place, value in zip(places, given, strict=True):
            filled[place] = value
        args, kwargs = jax.tree.unflatten(structure, filled)
        found, result = jax.tree.flatten(function(*args, **kwargs))
        kept.extend((found, result))
        return [leaf for leaf in found if _is_array(leaf)]

    whole = jax.sharding.auto_axes(arrays, out_sharding=PartitionSpec())
    given = [leaves[place] for place in places]
    if jax.sharding.get_abstract_mesh().empty:
        with jax.sharding.use_abstract_mesh(mesh):
            results: Any = whole(*given)
    else:
        results = whole(*given)
    left = iter(results)
    found, result = kept

    def back(leaf: Any) -> Any:
        if _is_array(leaf):
            return next(left)
        if not callable(leaf):
            return leaf
        return lambda *args, **kwargs: _inside(leaf, args, kwargs, mesh)

    return jax.tree.unflatten(result, [back(leaf) for leaf in found])


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array)
