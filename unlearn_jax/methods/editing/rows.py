"""The rows of an edit: keys, and by how much their outputs should move.

A row asks that the change D = W − W₀ satisfy c D = v − c W₀; it is a ``Batch`` of keys
(n, d), shifts (n, K) and weights. A preserved row has the shift 0. So a request is a
value: what was added can be withdrawn with the same value.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from unlearn_jax.loop import tracing
from unlearn_jax.methods.editing.maps import as_keys, outputs, stacked
from unlearn_jax.types import Array, Batch, Params


def edit_rows(maps: Params, keys: Any, targets: Any, weights: Any = 1.0) -> Batch:
    """Rows whose outputs are to be ``targets``.

    Args:
        maps: W₀, as they are before any edit.
        keys: C, (n, d).
        targets: V, (n, K), in the order of ``maps.outputs``.
        weights: One number, or (n,); 0 is absent, whatever the row holds.

    Raises:
        ValueError: shapes that do not fit, no rows, a negative weight.
    """
    matrix = stacked(maps)
    keys = as_keys(keys, matrix)
    expected = (keys.shape[0], matrix.shape[1])
    if jnp.shape(targets) != expected:
        raise ValueError(
            f"expected targets {expected}, a row for each key and a column for each "
            f"output of all maps, got {jnp.shape(targets)}: see maps.outputs"
        )
    shifts = jnp.asarray(targets, matrix.dtype) - outputs(maps, keys)
    return Batch(keys, shifts, _weights(weights, keys))


def anchor_rows(maps: Params, keys: Any, anchors: Any, weights: Any = 1.0) -> Batch:
    """Rows whose outputs are to be those of other keys: v = W₀ of the anchor.

    Args:
        maps: W₀.
        keys: (n, d).
        anchors: (n, d), or (1, d) for all.
        weights: As of :func:`edit_rows`.

    Raises:
        ValueError: as :func:`edit_rows`, or neither n anchors nor one.
    """
    matrix = stacked(maps)
    keys, anchors = as_keys(keys, matrix), as_keys(anchors, matrix)
    if anchors.shape[0] not in (1, keys.shape[0]):
        raise ValueError(
            f"got {anchors.shape[0]} anchors for {keys.shape[0]} keys, expected one "
            f"for each, or one for all"
        )
    shifts = outputs(maps, jnp.broadcast_to(anchors, keys.shape) - keys)
    return Batch(keys, shifts, _weights(weights, keys))


def preserve_rows(maps: Params, keys: Any, weights: Any = 1.0) -> Batch:
    """Rows whose outputs are to stay: the penalty w ‖c D‖² and no target.

    Raises:
        ValueError: as :func:`edit_rows`.
    """
    matrix = stacked(maps)
    keys = as_keys(keys, matrix)
    shifts = jnp.zeros((keys.shape[0], matrix.shape[1]), matrix.dtype)
    return Batch(keys, shifts, _weights(weights, keys))


def join_rows(*parts: Batch | None) -> Batch:
    """One request of several sets of rows; None is a set that is not there.

    Raises:
        ValueError: no set at all.
    """
    there = [part for part in parts if part is not None]
    if not there:
        raise ValueError("got no rows, expected at least one set of rows to join")
    return Batch(*(jnp.concatenate(leaves) for leaves in zip(*there, strict=True)))


def _weights(weights: Any, keys: Array) -> Array:
    if jnp.shape(weights) not in ((), (keys.shape[0],)):
        raise ValueError(
            f"expected one weight, or one for each of {keys.shape[0]} keys, got shape "
            f"{jnp.shape(weights)}"
        )
    if not tracing(weights) and not bool(np.all(np.asarray(weights) >= 0)):
        raise ValueError(
            "got a weight that is negative or NaN, expected 0 (absent) or more: to "
            "take rows back, use edit_remove"
        )
    return jnp.broadcast_to(jnp.asarray(weights, keys.dtype), (keys.shape[0],))
