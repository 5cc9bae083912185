"""Merging models, each parameter by how sure each model is of it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.types import Array, Params


def fisher_merge(
    params: Sequence[Params], fishers: Sequence[Params], weights: Sequence[Any]
) -> Params:
    """The minimiser of Σₘ wₘ Σᵢ Fₘᵢ (θᵢ − θₘᵢ)²: Σ w F θₘ / Σ w F per parameter.

    Args:
        params: One tree per model.
        fishers: Non-negative trees like them, the diagonals of their Fishers.
        weights: Non-negative scalar per model (no unit); numbers or traced.

    Returns:
        Tree like ``params[0]``; where every w F is zero nothing is known, and the mean
        weighted by w alone is taken.

    Raises:
        ValueError: no model, or not one Fisher and one weight for each.

    Cost: memory of one model.
    Source: Matena & Raffel 2022, arXiv 2111.09832, eq. 5. As published, except where
        the denominator vanishes.
    """
    counts = len(params), len(fishers), len(weights)
    if not counts[0] or len(set(counts)) != 1:
        raise ValueError(
            f"got {counts[0]} models, {counts[1]} Fishers and {counts[2]} weights; "
            f"expected at least one model, with one Fisher and one weight for each"
        )
    mass = sum(weights)

    def merge(*leaves: Array) -> Array:
        thetas, stiffness = leaves[: counts[0]], leaves[counts[0] :]
        shares = [w * f for w, f in zip(weights, stiffness, strict=True)]
        total = sum(shares[1:], shares[0])
        unknown = total <= 0  # false for NaN, which comes out
        plain = [w / jnp.where(mass > 0, mass, 1) for w in weights]
        merged = jnp.zeros_like(thetas[0])
        for theta, share, w in zip(thetas, shares, plain, strict=True):
            part = jnp.where(unknown, w, share / jnp.where(unknown, 1, total))
            merged = merged + (part * theta).astype(theta.dtype)
        return merged

    return jax.tree.map(merge, *params, *fishers)
