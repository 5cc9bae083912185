"""Ways to take one request after another: what each keeps, and what it gives."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from unlearn_jax.methods.editing.rows import anchor_rows, join_rows, preserve_rows
from unlearn_jax.methods.editing.solve import edit
from unlearn_jax.methods.editing.spans import least_used
from unlearn_jax.methods.editing.state import EditState, edit_add, edit_start, edited
from unlearn_jax.types import Array, Batch, Params


class Given(NamedTuple):
    """Value: what all ways share.

    Attributes:
        maps: W₀.
        kept: (p, d), keys whose outputs should stay.
        weight: Of each of them.
    """

    maps: Params
    kept: Array
    weight: Any


class Way(NamedTuple):
    """Description: one way; all of it is traced, but λ and the number of directions.

    Attributes:
        start: Given, λ, and how many directions are free, to a state.
        step: (given, λ, state, keys, anchors, weights) to the state after the request.
        maps: (given, state) to the maps.
    """

    start: Callable[[Given, float, int], Any]
    step: Callable[[Given, float, Any, Array, Array, Array], Any]
    maps: Callable[[Given, Any], Params]


def _reset(
    given: Given, l2: float, now: Params, keys: Any, anchors: Any, weights: Any
) -> Params:
    """As published: the maps of the request before are the prior, and give targets."""
    rows = join_rows(
        anchor_rows(now, keys, anchors, weights),
        preserve_rows(now, given.kept, given.weight),
    )
    return edit(now, rows, l2=l2, refine=False)


def _added(
    given: Given, l2: float, state: EditState, keys: Any, anchors: Any, weights: Any
) -> EditState:
    del l2  # of the state
    rows = anchor_rows(given.maps, keys, anchors, weights)
    return edit_add(state, rows, digits=None, slices=0, refine=False)


def _carried(given: Given, l2: float, free: int) -> EditState:
    del free
    kept = preserve_rows(given.maps, given.kept, given.weight)
    start = edit_start(given.maps, l2=l2)
    return edit_add(start, kept, digits=None, slices=0, refine=False)


def _confined(given: Given, l2: float, free: int) -> EditState:
    basis = least_used(given.kept, free)
    return edit_start(given.maps, l2=l2, basis=basis)


def _edited(given: Given, state: EditState) -> Params:
    del given
    return edited(state)


WAYS: Mapping[str, Way] = {
    "reset": Way(lambda given, *_: given.maps, _reset, lambda _, maps: maps),
    "carried": Way(_carried, _added, _edited),
    "null space": Way(_confined, _added, _edited),
}
"""Name of a row -> how it takes requests."""


def batch(given: Given, l2: float, rows: Batch) -> Params:
    """All requests at once, which carried sums should equal."""
    kept = preserve_rows(given.maps, given.kept, given.weight)
    return edit(given.maps, join_rows(rows, kept), l2=l2, road="primal", refine=False)
