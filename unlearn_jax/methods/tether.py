"""What holds a model near its original: distances of weights, matrix by matrix."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax import tree
from unlearn_jax.types import Array, Params, PRNGKey, Scalar
from unlearn_kernels.precision import EXACT

Tether: TypeAlias = Callable[[PRNGKey, Params, Params], Scalar]
"""``(key, params, home) -> distance``, differentiable in the first parameters."""

Rows = Float[Array, "m d"]


def sliced_wasserstein(key: PRNGKey, a: Rows, b: Rows, *, directions: int) -> Scalar:
    """Squared distance of two sets of rows, mean over random directions.

    Rows are projected on a direction and sorted; the squares of the differences are
    added up. So it does not see rows that change places. While none do, its mean over
    directions is ‖a - b‖² / d: the plain squared distance, a constant times.

    Args:
        key: Draws directions, uniform on the sphere.
        a: m rows of d numbers.
        b: The same of another matrix.
        directions: How many.

    Cost: directions × m × (d + log m), twice; memory directions × m.
    Source: Choi et al. 2025, Opt-Out, arXiv 2406.12329. As released: no root, and no
        division by the number of rows.
    """
    drawn = jax.random.normal(key, (a.shape[1], directions), a.dtype)
    drawn = drawn / jnp.sqrt(jnp.sum(jnp.square(drawn), axis=0, keepdims=True))
    first, second = (
        jnp.sort(jnp.matmul(rows, drawn, precision=EXACT), axis=0) for rows in (a, b)
    )
    return jnp.mean(jnp.sum(jnp.square(first - second), axis=0))


def wasserstein(directions: int) -> Tether:
    """Sum over all arrays of :func:`sliced_wasserstein` to the original's.

    Rows are outputs: the last axis of a kernel, the first of an embedding. Kernels that
    are stacked are taken one by one; a row of numbers counts as one row.
    """

    def distance(key: PRNGKey, params: Params, home: Params) -> Scalar:
        def one(path: Any, now: Array, before: Array) -> Scalar:
            own = jax.random.fold_in(key, places[tree.path_names(path)])
            pair = [_rows(tree.path_names(path), leaf) for leaf in (now, before)]

            def of(a: Any, b: Any) -> Scalar:
                return sliced_wasserstein(own, a, b, directions=directions)

            return jnp.sum(jax.vmap(of)(*pair))

        paths = jax.tree_util.tree_leaves_with_path(params)
        places = {tree.path_names(path): i for i, (path, _) in enumerate(paths)}
        parts = jax.tree_util.tree_map_with_path(one, params, home)
        return jax.tree.reduce(jnp.add, parts)

    return distance


def squares() -> Tether:
    """Sum over all arrays of ‖now - before‖² / d, d the length of a row: the control.

    What :func:`wasserstein` is while no rows change places.
    """

    def distance(key: PRNGKey, params: Params, home: Params) -> Scalar:
        del key

        def one(path: Any, now: Array, before: Array) -> Scalar:
            gap = _rows(tree.path_names(path), now - before)
            return jnp.sum(jnp.square(gap)) / gap.shape[-1]

        parts = jax.tree_util.tree_map_with_path(one, params, home)
        return jax.tree.reduce(jnp.add, parts)

    return distance


TETHERS: Mapping[str, Callable[[int], Tether]] = {
    "wasserstein": wasserstein,
    "squares": lambda directions: squares(),
}
"""Name -> ``directions -> Tether``."""


def _rows(path: Any, leaf: Array) -> Array:
    """(matrices, rows, numbers of a row)."""
    if leaf.ndim < 2:
        return leaf.reshape(1, 1, -1)
    if "embedding" in map(str, path):
        return leaf.reshape(1, *leaf.shape)
    return jnp.swapaxes(leaf.reshape(-1, *leaf.shape[-2:]), -1, -2)
