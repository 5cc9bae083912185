"""Softmax regression minimised to machine precision: the truth that others predict.

Written apart from the library's curvature and influence, so that an error there cannot
hide in the truth as well.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.frame.progress import progress
from unlearn_jax import tree
from unlearn_jax.curvature.operator import linear_operator
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params

FORCING = 1e-3
"""Relative residual at which a Newton direction is good enough."""
_HALVINGS = 30
_BLOCK = 64


class Minimum(NamedTuple):
    """Value: where a risk is least.

    Attributes:
        params: There.
        slope: Norm of the risk's gradient there.
        steps: Newton steps taken.
    """

    params: Params
    slope: Array
    steps: Array


class Truth(NamedTuple):
    """Value: losses of the queries by retrained models, in rows.

    Attributes:
        full: (q,) of the model trained on everything.
        without: (left out, q).
        subsets: (subsets, q).
        masks: (subsets, n) weights of each subset.
        slope: Largest gradient norm at any of the minima.
    """

    full: np.ndarray
    without: np.ndarray
    subsets: np.ndarray
    masks: np.ndarray
    slope: float


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
        first = (one, moved(one), jnp.zeros((), jnp.int32))
        _, (params, slope, length), _ = jax.lax.while_loop(too_long, shorter, first)
        return params, slope, length, count + 1

    def going(state: Any) -> Any:
        _, _, length, count = state
        return (length > tol) & (count < max_steps)

    slope = gradient(start)
    state = (start, slope, tree.norm(slope), jnp.zeros((), jnp.int32))
    params, _, length, count = jax.lax.while_loop(going, step, state)
    return Minimum(params, length, count)


def matrix_product(matrix: Any, like: Params) -> Callable[[Any], Any]:
    """The map from a tree like ``like`` to the matrix times it."""
    _, unflatten = ravel_pytree(like)
    return lambda v: unflatten(matrix @ ravel_pytree(v)[0])


def retrain(
    objective: Objective,
    params: Params,
    train: Batch,
    queries: Batch,
    without: np.ndarray,
    masks: np.ndarray,
    inverse: Any,
) -> Truth:
    """Minimise the risk for every row of weights.

    Args:
        objective: Strictly convex.
        params: The minimum with all examples, where each search begins.
        train: Training examples.
        queries: Whose losses are kept.
        without: Weights, a row for each example left out.
        masks: Weights, a row for each subset.
        inverse: Of the Hessian at ``params``, the preconditioner of all.
    """

    @jax.jit
    def losses(weights: Any, at: Params, data: Batch, asked: Batch, near: Any) -> Any:
        def one(own: Any) -> Any:
            found = minimise(
                objective,
                at,
                data._replace(weights=own),
                preconditioner=matrix_product(near, at),
            )
            return objective.example_losses(found.params, asked), found.slope

        return jax.vmap(one)(weights)

    results = []
    for title, rows in (("leave one out", without), ("random subsets", masks)):
        parts = []
        with progress(f"retrain: {title} ({len(rows)} models)", len(rows)) as advance:
            for begin in range(0, len(rows), _BLOCK):
                block = rows[begin : begin + _BLOCK]
                fill = np.ones((min(_BLOCK, len(rows)), rows.shape[1]))
                fill[: len(block)] = block
                done = jax.block_until_ready(
                    losses(jnp.asarray(fill), params, train, queries, inverse)
                )
                parts.append([np.asarray(a)[: len(block)] for a in done])
                advance(len(block))
        results.append([np.concatenate(column) for column in zip(*parts, strict=True)])
    full = np.asarray(objective.example_losses(params, queries))
    slope = float(max(result[1].max() for result in results))
    return Truth(full, results[0][0], results[1][0], masks, slope)
