"""Parameters in the forms their curvature blocks act on, without the traced program.

A tape knows how each parameter is brought to the form (g, i, o) of its layer, but holds
a program and cannot cross ``jit``. These are the same rearrangements as plain numbers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.curvature.per_example import factored_site, sites_of, to_form
from unlearn_jax.curvature.program import PARAMETER, Operation, flatten
from unlearn_jax.curvature.tapping import Tape
from unlearn_jax.types import Array, Params


class View(NamedTuple):
    """Description: a parameter's shape, and the steps from it to a form.

    Attributes:
        shape: Of the parameter.
        steps: Pairs ("reshape", sizes), ("transpose", order) or ("flip", axes).
    """

    shape: tuple[int, ...]
    steps: tuple[tuple[str, tuple[int, ...]], ...]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Places:
    """Description: how each leaf of a tree is brought to the form of its block.

    Hashable and without arrays: part of the structure of a value that crosses ``jit``.
    """

    structure: Any
    views: tuple[View, ...]


def find_places(taped: Tape) -> Places:
    """The forms of all leaves: (g, i, o) of products, (v, d) of tables, else (s,)."""
    views = []
    for leaf, sites in enumerate(sites_of(taped)):
        shape = taped.program.shapes[taped.program.inputs[leaf]]
        site = factored_site(sites)
        if site is None:
            steps = [("reshape", (shape.size,))]
        else:
            steps = _steps(taped, leaf, shape)
            if site.kind == "rows":
                rows = _result(taped, leaf, shape).shape[0]
                steps.append(("reshape", (rows, shape.size // rows)))
        views.append(View(tuple(shape.shape), tuple(steps)))
    return Places(taped.structure, tuple(views))


def table_rows(view: View) -> int:
    """How many rows the table of a looked-up parameter has."""
    return view.steps[-1][1][0]


def to_forms(places: Places, tree: Params) -> list[Array]:
    """Each leaf in the form of its block.

    Raises:
        ValueError: the tree is not like the parameters.
    """
    leaves, structure = jax.tree.flatten(tree)
    shapes = [view.shape for view in places.views]
    given = [jnp.shape(leaf) for leaf in leaves]
    if structure != places.structure or given != shapes:
        raise ValueError(
            f"got a tree {structure} with shapes {given}, expected "
            f"{places.structure} with shapes {shapes}; give a tree like the parameters"
        )
    pairs = zip(places.views, leaves, strict=True)
    return [_forward(view, jnp.asarray(leaf)) for view, leaf in pairs]


def from_forms(places: Places, forms: Sequence[Array]) -> Params:
    """The inverse of :func:`to_forms`; dtypes are kept."""
    leaves = []
    for view, form in zip(places.views, forms, strict=True):
        like = jax.ShapeDtypeStruct(view.shape, form.dtype)
        back = jax.linear_transpose(lambda x, v=view: _forward(v, x), like)
        leaves.append(back(form)[0])
    return jax.tree.unflatten(places.structure, leaves)


def _result(taped: Tape, leaf: int, shape: jax.ShapeDtypeStruct) -> Any:
    return jax.eval_shape(lambda value: to_form(taped, leaf, value), shape)


def _forward(view: View, value: Array) -> Array:
    for kind, numbers in view.steps:
        if kind == "reshape":
            value = value.reshape(numbers)
        elif kind == "transpose":
            value = value.transpose(numbers)
        else:
            value = jnp.flip(value, numbers)
    return value


def _steps(
    taped: Tape, leaf: int, shape: jax.ShapeDtypeStruct
) -> list[tuple[str, tuple[int, ...]]]:
    """Read the rearrangement off the program of ``to_form``; casts are left out."""
    closed = jax.make_jaxpr(lambda value: to_form(taped, leaf, value))(shape)
    program = flatten(closed, [PARAMETER])
    steps: list[tuple[str, tuple[int, ...]]] = []
    for operation in program.operations:
        result = program.shapes[operation.outputs[0]]
        steps += _step(operation, tuple(result.shape))
    return steps


def _step(
    operation: Operation, shape: tuple[int, ...]
) -> list[tuple[str, tuple[int, ...]]]:
    name, params = operation.name, operation.params
    if name in ("convert_element_type", "copy", "copy_p"):
        return []
    if name == "transpose":
        return [("transpose", tuple(params["permutation"]))]
    if name == "rev":
        return [("flip", tuple(params["dimensions"]))]
    if name == "reshape" and params.get("dimensions") is not None:
        return [("transpose", tuple(params["dimensions"])), ("reshape", shape)]
    if name in ("reshape", "squeeze", "expand_dims", "broadcast_in_dim"):
        return [("reshape", shape)]
    raise AssertionError(f"{name} is not a rearrangement of a parameter")
