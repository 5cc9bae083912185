"""Parameters in the forms their curvature blocks act on, without the traced program.

A tape knows how each parameter is brought to the form (g, i, o) of its layer, but holds
a program and cannot cross ``jit``. These are the same rearrangements as plain numbers.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.curvature.layouts import Lookup
from unlearn_jax.curvature.per_example import factored_site, sites_of
from unlearn_jax.curvature.steps import Steps, backward, forward
from unlearn_jax.curvature.tapping import Tape
from unlearn_jax.types import Array, Params


class View(NamedTuple):
    """Description: a parameter's shape, and the steps from it to a form.

    Attributes:
        shape: Of the parameter.
        steps: Rearrangements, in order.
    """

    shape: tuple[int, ...]
    steps: Steps


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
        if site is None or site.steps is None:
            steps: Steps = (("reshape", (shape.size,)),)
        else:
            steps = site.steps
            if isinstance(site.layout, Lookup):
                rows = site.layout.rows
                steps = (*steps, ("reshape", (rows, shape.size // rows)))
        views.append(View(tuple(shape.shape), steps))
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
    return [forward(view.steps, jnp.asarray(leaf)) for view, leaf in pairs]


def from_forms(places: Places, forms: Sequence[Array]) -> Params:
    """The inverse of :func:`to_forms`; dtypes are kept."""
    pairs = zip(places.views, forms, strict=True)
    leaves = [backward(view.steps, view.shape, form) for view, form in pairs]
    return jax.tree.unflatten(places.structure, leaves)
