"""A convex risk minimised to machine precision: the truth that others predict.

Written apart from the library's curvature and influence, so that an error there cannot
hide in the truth as well.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.operator import linear_operator
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params

FORCING = 1e-3
"""Relative residual at which a Newton direction is good enough."""
_HALVINGS = 30


class Minimum(NamedTuple):
    """Value: where a risk is least, and the norm of its gradient there."""

    params: Params
    slope: Array


def minimise(
    objective: Objective,
    start: Params,
    data: Batch,
    *,
    preconditioner: Callable[[Any], Any] | None = None,
    tol: float = 1e-11,
    max_steps: int = 60,
) -> Minimum:
    """The minimum of a strictly convex risk, by Newton's method.

    Directions by preconditioned conjugate gradients; steps are halved until the
    gradient is shorter, which an exact or inexact Newton direction always reaches.

    Args:
        objective: Strictly convex in its parameters.
        start: Where to begin.
        data: Examples with weights; finite even where the weight is zero.
        preconditioner: About the inverse of the Hessian.
        tol: Norm of the gradient to reach.
        max_steps: Most Newton steps.

    Source: Dembo, Eisenstat & Steihaug 1982, Inexact Newton methods.
    """
    gradient = jax.grad(lambda at: objective.risk(at, data))

    def step(state: Any) -> Any:
        params, slope, length, count = state
        _, bend = jax.linearize(gradient, params)
        direction = conjugate_gradient(
            linear_operator(bend, params),
            slope,
            preconditioner=preconditioner,
            tol=FORCING,
            max_steps=400,
        ).value

        def moved(share: Any) -> Any:
            new = tree.axpy(-share, direction, params)
            new_slope = gradient(new)
            return new, new_slope, tree.norm(new_slope)

        def shorter(state: Any) -> Any:
            share, _, halvings = state
            return share / 2, moved(share / 2), halvings + 1

        def too_long(state: Any) -> Any:
            share, (_, _, norm), halvings = state
            return (norm > (1 - 1e-4 * share) * length) & (halvings < _HALVINGS)

        one = jnp.ones_like(length)
        whole = (one, moved(one), 0)
        _, found, _ = jax.lax.while_loop(too_long, shorter, whole)
        return *found, count + 1

    def going(state: Any) -> Any:
        _, _, length, count = state
        return (length > tol) & (count < max_steps)

    slope = gradient(start)
    state = (start, slope, tree.norm(slope), 0)
    params, _, length, _ = jax.lax.while_loop(going, step, state)
    return Minimum(params, length)
