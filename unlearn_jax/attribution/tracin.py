"""TracIn: gradients of outputs and of losses, multiplied along the way of training.

A step of rate η on the weighted mean loss of a batch of weight W_B moves the parameters
by −η (∇ℓₙ − ḡ) / W_B for each unit of weight added to an example n of the batch, ḡ the
mean gradient: more weight on one is less on all others. Each example is met once in a
pass, so over a piece of the run whose rates sum to ρ this comes to

    ∂θ/∂wₙ = −ρ (∇ℓₙ − ḡ) / W,   W = Σ weights,

to first order in the rate, without what later steps make of the change. At a minimum
ḡ = −l2 θ, as in :mod:`unlearn_jax.attribution.influence`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import (
    Attribution,
    Evidence,
    kept_pairs,
    need,
)
from unlearn_jax.attribution.guard import entrance
from unlearn_jax.curvature.contractions import gram, squared_norms, weighted_sum
from unlearn_jax.curvature.per_example import loss_gradients, per_example
from unlearn_jax.data.accumulate import accumulate, collect, present
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables, Weights
from unlearn_kernels.precision import exact_product

KINDS = ("tracin", "grad_dot", "grad_cos")


class Points(NamedTuple):
    """Value: where gradients are multiplied, and how much each point counts.

    Attributes:
        variables: With one leading axis of points, over all runs.
        rates: Of each point, divided by the number of runs.
    """

    variables: Variables
    rates: Float[Array, " c"]


@entrance()
def tracin(
    learner: Learner,
    *,
    kind: str = "tracin",
    centred: bool = True,
    batch_size: int = 256,
    query_batch_size: int = 256,
) -> Attribution:
    """−Σ over points of rate · ∇f_q · (∇ℓₙ − ḡ) / W.

    Args:
        learner: Model and loss of the evidence's models.
        kind: "tracin": at the points of the trajectory, with their rates. "grad_dot":
            at the trained models with rate 1. "grad_cos": there, the cosine of ∇f_q
            and ∇ℓₙ, which ranks but has no units (neither centred nor over W).
        centred: Take the mean gradient ḡ off, which the derivative of a weighted mean
            does; False leaves it out, as published. It shifts each row by a constant.
        batch_size: Training examples whose layer inputs and slopes are held at once.
        query_batch_size: Queries for which they are.

    Returns:
        Attribution that reads ``evidence.trajectory`` for "tracin", else the models.
        Rates of momentum and schedules are in the trajectory; those of "adam" leave
        its scaling out, so that only the ranking is left.

    Raises:
        ValueError: an unknown kind, or a batch below 1.

    Cost: ``effects``: at each point a gradient of each query, one of each training
        example for each block of queries, and for each pair a product of each layer's
        factors. ``change``: a gradient of each training example and one forward
        derivative of each query. Never examples × parameters.
    Source: Pruthi et al. 2020, arXiv 2002.08484, eq. 1 for batches. Differs: any output
        function instead of the loss of the query; effects of weight, hence the sign and
        1 / W; centred. "grad_dot", "grad_cos": Charpiat et al. 2019, arXiv 2102.05262.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; choose from {', '.join(KINDS)}")
    if min(batch_size, query_batch_size) < 1:
        raise ValueError(
            f"got batches of {batch_size} and {query_batch_size}, expected at least 1"
        )
    cosine = kind == "grad_cos"
    centre = centred and not cosine

    def objective_at(at: Variables) -> Objective:
        return bind(learner.model, at.stats, learner.loss)

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> Points:
        del key
        if kind == "tracin":
            need(evidence, "trajectory")
            assert evidence.trajectory is not None
            way = evidence.trajectory
            checkpoints, rates = way.checkpoints, jnp.asarray(way.rates)
        else:
            checkpoints = jax.tree.map(lambda leaf: leaf[:, None], evidence.models)
            rates = jnp.ones(1, train.weights.dtype)
        runs = tree.leading_axis(checkpoints)
        joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), checkpoints)
        return Points(joined, jnp.tile(rates, runs) / runs)

    def effects(
        state: Points,
        train: Batch,
        queries: Batch,
        output_fn: Callable[[Any, Any], Any],
    ) -> Float[Array, "q n"]:
        train, queries = (jax.tree.map(jnp.asarray, b) for b in (train, queries))
        share = 1.0 if cosine else _share(train.weights)

        def columns(batch: Batch, at: Variables, own: Any) -> Array:
            _, found = loss_gradients(objective_at(at), at.params, batch)
            products = gram(found, own)
            if cosine:
                scales = _inverse_norms(found)[:, None] * _inverse_norms(own)[None]
                products = products * scales
            return products

        def rows(batch: Batch, at: Variables, train: Batch) -> Array:
            output = bind(learner.model, at.stats, output_fn)
            _, own = loss_gradients(output, at.params, batch)
            return collect(columns, train, at, own, batch_size=batch_size).T

        def at_point(at: Variables) -> Array:
            seen = present(queries), at, present(train)
            return collect(rows, *seen, batch_size=query_batch_size)

        scores = -share * _weighted(at_point, state)
        if centre:
            mean = exact_product(scores, train.weights) * _share(train.weights)
            scores = scores - mean[:, None]
        return kept_pairs(scores, train, queries)

    def change(
        state: Points, train: Batch, queries: Batch, weights_change: Weights
    ) -> Float[Array, "q k"]:
        train, queries = (jax.tree.map(jnp.asarray, b) for b in (train, queries))
        move = effective_change(train.weights, weights_change, centred=centre)
        share = 1.0 if cosine else _share(train.weights)
        moved, seen = present(train)._replace(weights=share * move), present(queries)

        def pull(batch: Batch, at: Variables) -> Params:
            taped, found = loss_gradients(objective_at(at), at.params, batch)
            scales = batch.weights * (_inverse_norms(found) if cosine else 1)
            return weighted_sum(taped, found, scales)

        def at_point(at: Variables) -> Array:
            direction = accumulate(pull, moved, at, batch_size=batch_size)
            scores = output_changes(
                learner, at, direction, seen.inputs, batch_size=query_batch_size
            )
            if cosine:
                norms = collect(
                    output_norms, seen.inputs, at, batch_size=query_batch_size
                )
                scores = scores * norms
            return scores

        def output_norms(inputs: Any, at: Variables) -> Array:
            linear = per_example(objective_at(at).predict, at.params, inputs)
            like = linear.outputs

            def of_output(one: Array) -> Array:
                whole = jnp.broadcast_to(one[None], like.shape)
                return _inverse_norms(linear.pull(whole))

            return jax.lax.map(of_output, jnp.eye(like.shape[1], dtype=like.dtype)).T

        return jnp.where(queries.weights[:, None] != 0, -_weighted(at_point, state), 0)

    return Attribution(prepare, effects, change)


def effective_change(weights: Any, change: Any, *, centred: bool) -> Array:
    """Δw of present examples, less what it takes from the others' share of the mean.

    Σₙ Δwₙ (∇ℓₙ − ḡ) = Σₙ (Δwₙ − wₙ ΣΔw / W) ∇ℓₙ.
    """
    weights = jnp.asarray(weights)
    move = jnp.where(weights > 0, jnp.asarray(change), 0).astype(weights.dtype)
    if not centred:
        return move
    return move - weights * jnp.sum(move) * _share(weights)


def output_changes(
    learner: Learner, at: Variables, direction: Params, inputs: Any, *, batch_size: int
) -> Float[Array, "q k"]:
    """Derivatives of all outputs when the parameters move along a direction."""

    def block(inputs: Any, at: Variables, direction: Params) -> Array:
        def outputs(params: Params) -> Array:
            return learner.model.apply(Variables(params, at.stats), inputs)

        return jax.jvp(outputs, (at.params,), (direction,))[1]

    return collect(block, inputs, at, direction, batch_size=batch_size)


def _weighted(function: Callable[[Variables], Array], state: Points) -> Array:
    """Σ over points of rate · function(variables), one point at a time."""

    def step(total: Array, point: Points) -> tuple[Array, None]:
        value = function(point.variables)
        return total + (point.rates * value).astype(total.dtype), None

    first = jax.tree.map(lambda leaf: leaf[0], state.variables)
    like = jax.eval_shape(function, first)
    leaves = jax.tree.leaves(state.variables.params)
    zero = jnp.zeros(like.shape, jnp.result_type(state.rates, *leaves))
    return jax.lax.scan(step, zero, state)[0]


def _share(weights: Any) -> Array:
    """1 / W; one where nothing has weight."""
    mass = jnp.sum(weights)
    return 1.0 / jnp.where(mass > 0, mass, 1)


def _inverse_norms(gradients: Any) -> Array:
    """1 / ‖gₙ‖, zero where the gradient is."""
    squares = squared_norms(gradients)
    safe = jnp.where(squares > 0, squares, 1)
    return jnp.where(squares > 0, jax.lax.rsqrt(safe), 0)
