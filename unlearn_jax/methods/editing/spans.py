"""Orthonormal bases of what keys span, and of what they leave free."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from unlearn_jax.types import Array
from unlearn_kernels.precision import exact_product


def span(
    rows: Float[Array | np.ndarray, "n d"], weights: Any = None
) -> Float[Array, "r d"]:
    """Orthonormal rows that span the given ones, zeros below their rank.

    By singular values, the smallest of which are left out by numpy's rule: below
    max(n, d) ε of the largest. Shapes are fixed: it runs under ``jit``.

    Args:
        rows: (n, d).
        weights: (n,); a row of weight 0 is not there, other weights make no difference.
    """
    rows = jnp.asarray(rows)
    if weights is not None:
        rows = jnp.where((jnp.asarray(weights) != 0)[:, None], rows, 0)
    _, values, basis = jnp.linalg.svd(rows, full_matrices=False)
    least = max(rows.shape) * float(jnp.finfo(rows.dtype).eps) * values[0]
    return jnp.where((values > least)[:, None], basis, 0)


def onto(
    basis: Float[Array, "r d"], rows: Float[Array | np.ndarray, "n d"]
) -> Float[Array, "n d"]:
    """Orthogonal projection of rows onto a span."""
    return exact_product(exact_product(rows, basis.T), basis)


def off(
    basis: Float[Array, "r d"], rows: Float[Array | np.ndarray, "n d"]
) -> Float[Array, "n d"]:
    """What the projection onto a span leaves."""
    return jnp.asarray(rows) - onto(basis, rows)


def null_space(
    keys: Any, weights: Any = None, *, threshold: float | None = None
) -> Float[np.ndarray, "d m"]:
    """Directions that no preserved key has: orthonormal columns for ``edit(basis=)``.

    Args:
        keys: Preserved keys (n, d), concrete: m depends on their values.
        weights: (n,); keys are multiplied by √w first, and 0 is absent.
        threshold: Directions whose singular value is at most this part of the largest
            count as free. None: max(n, d) ε, so that outputs of preserved keys stay to
            rounding. Above, the outputs of all preserved keys together (weighted, root
            of the sum of squares) move by at most threshold · σ₁ · ‖D‖₂, and more
            directions are free: embeddings of real prompts often fill all d.

    Returns:
        (d, m), float64 or the dtype of the keys.

    Raises:
        ValueError: no keys, keys that are not finite, a threshold outside of 0 to 1, or
            preserved keys that leave no direction free.

    Cost: the singular vectors of (n, d), in numpy.
    Source: the constraint of SPEED, arXiv 2503.07392, without its refinement of the
        preserved set.
    """
    keys = np.asarray(keys)
    if keys.ndim != 2 or not len(keys):
        raise ValueError(
            f"expected preserved keys (n, d), n at least 1, got {keys.shape}"
        )
    if weights is not None:
        weights = np.asarray(weights)
        keys = np.sqrt(weights[weights > 0])[:, None] * keys[weights > 0]
    if not np.all(np.isfinite(keys)):
        raise ValueError("a preserved key is NaN or infinite; clean it, or weigh it 0")
    if threshold is not None and not 0 <= threshold < 1:
        raise ValueError(
            f"threshold is {threshold}, expected a part of the largest singular value, "
            f"0 to 1"
        )
    kind = keys.dtype if keys.dtype.kind == "f" else np.dtype(np.float64)
    _, values, basis = np.linalg.svd(keys.astype(kind), full_matrices=True)
    part = (
        max(keys.shape) * float(np.finfo(kind).eps) if threshold is None else threshold
    )
    taken = int(np.sum(values > part * values.max(initial=0)))
    if taken == keys.shape[1]:
        raise ValueError(
            f"the preserved keys span all {taken} dimensions, so no edit is left that "
            f"keeps them all: preserve fewer, or raise the threshold above {part:.2g}"
        )
    return basis[taken:].T


def least_used(
    keys: Float[Array | np.ndarray, "n d"], count: int, weights: Any = None
) -> Float[Array, "d m"]:
    """The directions that preserved keys have least of, for ``edit(basis=)``.

    Of a fixed number, so that it runs under ``jit``, where :func:`null_space` tells how
    many directions are free. What preserved outputs move by is then bounded by the
    largest of the ``count`` smallest singular values times ‖D‖₂.

    Args:
        keys: Preserved keys (n, d).
        count: m, from 1 to d.
        weights: (n,); keys are multiplied by √w first, and 0 is absent.

    Raises:
        ValueError: as many directions as that are not there.
    """
    keys = jnp.asarray(keys)
    if not 1 <= count <= keys.shape[1]:
        raise ValueError(
            f"count is {count}, expected 1 to {keys.shape[1]}, the dimensions of keys"
        )
    if weights is not None:
        weights = jnp.asarray(weights)[:, None]
        keys = jnp.where(weights > 0, jnp.sqrt(jnp.maximum(weights, 0)) * keys, 0)
    # At least d rows, so that every direction comes out, those of no key among them.
    missing = max(keys.shape[1] - keys.shape[0], 0)
    _, _, basis = jnp.linalg.svd(jnp.pad(keys, ((0, missing), (0, 0))), False)
    return basis[-count:].T
