"""A part of a request to an inverse: its rows, its cost, and what becomes of it."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from unlearn_jax.solvers.refusal import (
    APPLIED,
    ILL_CONDITIONED,
    INDEFINITE,
    TOO_LARGE,
    TOO_MUCH,
)
from unlearn_jax.solvers.ridge_checks import too_large
from unlearn_jax.types import Array, Batch


class Limits(NamedTuple):
    """Description: relative errors that forgetting may leave."""

    row: float
    all: float


LIMITS = {
    jnp.dtype("float64"): Limits(2.0**-13, 2.0**-5),
    jnp.dtype("float32"): Limits(2.0**-6, 2.0**-3),
}


class Judged(NamedTuple):
    """Value: code, count, margin, error and reserve after a part of a request."""

    code: Array
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]
    margin: Array
    error: Array
    reserve: Array


class Part(NamedTuple):
    """Value: √w x and √w y of a part of a request; absent rows are 0.

    Attributes:
        inputs: At most f rows: the triangle T of X = Q T stands for X.
        targets: Qᵀ Y for Y.
        own: X.
        answers: Y.
        mass: Σ w.
        finite: Whether all is.
        noise: ε Σ s, which a removal has before it is divided by its pivot.
        cost: ε Σ s (1 + s): what a removal costs at most.
        large: Whether no removal could be right.
    """

    inputs: Array
    targets: Array
    own: Array
    answers: Array
    mass: Array
    finite: Array
    noise: Array
    cost: Array
    large: Array


def judge(before: Judged, part: Part, sign: int, pivot: Any, bound: Any) -> Judged:
    """What becomes of a part with this smallest pivot."""
    code, count, margin, error, reserve = before
    mass, limit = part.mass, LIMITS[jnp.dtype(part.mass.dtype)].all
    if sign > 0:
        reserve = reserve + part.cost
        code = first(code, ~(error + reserve <= limit), TOO_LARGE)
        code = first(code, ~(pivot > 0), INDEFINITE)
        return Judged(code, count + mass, margin, error, reserve)
    # Sums of weights are rounded too, once for each request.
    slack = 64 * jnp.finfo(mass.dtype).eps * mass
    code = first(code, mass > count + slack, TOO_MUCH)
    code = first(code, ~(pivot > bound), INDEFINITE)
    error = error + jnp.minimum(part.noise / pivot, part.cost)
    code = first(code, ~(error <= limit), ILL_CONDITIONED)
    reserve = jnp.maximum(reserve - part.cost, 0)
    left = jnp.maximum(count - mass, 0)
    return Judged(code, left, jnp.minimum(pivot, 1), error, reserve)


def scaled_rows(rows: Batch, weight: Array, l2: Array) -> Part:
    """The rows in the dtype of ``weight``, with what it costs to forget them."""
    inputs, targets, weights = (jnp.asarray(leaf, weight.dtype) for leaf in rows)
    finite = jnp.all((weights >= 0) & jnp.isfinite(weights))
    there = (weights > 0)[:, None]
    root = jnp.sqrt(jnp.where(weights > 0, weights, 0))[:, None]
    inputs = jnp.where(there, root * inputs, 0)
    targets = jnp.where(there, root * targets, 0)
    finite &= jnp.all(jnp.isfinite(inputs)) & jnp.all(jnp.isfinite(targets))
    mass = jnp.sum(jnp.where(there[:, 0], weights, 0))
    both = jnp.where(finite, jnp.concatenate([inputs, targets], axis=1), 0)
    f = inputs.shape[1]
    own, answers = both[:, :f], both[:, f:]
    eps = float(jnp.finfo(weight.dtype).eps)
    share = jnp.sum(jnp.square(own), axis=1) / l2
    costs = eps * share * (1 + share)
    large = jnp.any(costs > LIMITS[jnp.dtype(weight.dtype)].row)
    large |= too_large(own, answers, l2)
    if both.shape[0] > f:
        both = jnp.linalg.qr(both, mode="r")[:f]
    noise, cost = eps * jnp.sum(share), jnp.sum(costs)
    return Part(
        both[:, :f], both[:, f:], own, answers, mass, finite, noise, cost, large
    )


def root_of(core: Array) -> tuple[Array, Array]:
    """Cholesky root, I where there is none, and its smallest pivot, NaN if none."""
    root = jnp.linalg.cholesky(core, symmetrize_input=False)
    pivot = jnp.min(jnp.diagonal(root)) ** 2
    return jnp.where(pivot > 0, root, jnp.eye(core.shape[0], dtype=core.dtype)), pivot


def first(code: Array, wrong: Array, reason: int) -> Array:
    """The code, or the reason where nothing was wrong before and now is."""
    return jnp.where((code == APPLIED) & wrong, reason, code).astype(jnp.int32)
