"""TRAK without projection: the kernel over pairs of training examples.

For rows B = √w φ of the training examples, (BᵀB + λ)⁻¹ Bᵀ = Bᵀ (B Bᵀ + λ)⁻¹, so that
only inner products of gradients are needed, which their factors give exactly.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.attribution.attribution import Attribution, Evidence, kept_pairs
from unlearn_jax.attribution.trak_kernels import (
    CURVATURES,
    KERNELS,
    centre,
    effective_change,
    mean_over_models,
    outputs_along,
    outputs_like,
    pairs_like,
    pulled_rows,
    query_gradients,
)
from unlearn_jax.curvature.contractions import gram
from unlearn_jax.curvature.per_example import Gradients, per_example
from unlearn_jax.data.accumulate import accumulate, collect, present
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables, Weights
from unlearn_kernels.precision import EXACT


class GramFactors(NamedTuple):
    """Value: the factored kernel over rows of training examples, r rows each.

    Attributes:
        models: Variables with a leading axis m.
        factor: (m, n r, n r) lower Cholesky factor of B Bᵀ + λ, rows of an example
            together.
        members: (m, n, r) what a row counts in its loss's gradient, over √w; ones
            over √w for "margin".
        shares: (n,) mean over models of a row's count for "margin"; else ones.
        weights: (n,) that B was made with: the examples that had weight then are read
            again, also where they have none any more.
    """

    models: Variables
    factor: Float[Array, "m s s"]
    members: Float[Array, "m n r"]
    shares: Float[Array, " n"]
    weights: Float[Array, " n"]


def gram_trak(
    learner: Learner,
    *,
    kernel: str,
    damping: float,
    centred: bool,
    batch_size: int,
    query_batch_size: int,
) -> Attribution:
    """As :func:`unlearn_jax.attribution.trak.trak` with ``projection="gram"``.

    Cost: n² r² inner products of gradients and n³ r³ / 3 for each model; training
        gradients once for each block of others. ``effects``: q n r inner products.
    """
    rows_of = KERNELS[kernel]

    def rows(batch: Batch, at: Variables) -> tuple[Gradients, Array, Array]:
        """Gradients of r b rows, what they count for (r, b), and √w (r b)."""
        objective, seen = bind(learner.model, at.stats, learner.loss), present(batch)
        linear = per_example(objective.predict, at.params, seen.inputs)
        cotangents, shares = rows_of(objective, linear.outputs, seen.targets)
        roots = jnp.sqrt(jnp.maximum(batch.weights, 0)).astype(shares.dtype)
        return pulled_rows(linear, cotangents), shares, jnp.tile(roots, len(shares))

    def against(batch: Batch, at: Variables, others: Gradients) -> Array:
        """√w ⟨φ, others⟩, (b, r, others); zero where there is no weight."""
        found, shares, roots = rows(batch, at)
        products = roots[:, None] * gram(found, others)
        products = jnp.where(roots[:, None] > 0, products, 0)
        return products.reshape(*shares.shape, -1).swapaxes(0, 1)

    def columns(batch: Batch, at: Variables, train: Batch) -> tuple[Array, Array]:
        """For a block: (b, r, n r) of B Bᵀ, and what the rows count for (b, r)."""
        found, shares, roots = rows(batch, at)
        many, b = shares.shape
        products = collect(against, train, at, found, batch_size=batch_size)
        # (n, r, r b) -> (b, r, n r)
        products = jnp.where(roots[None, None] > 0, products * roots[None, None], 0)
        products = products.reshape(-1, many, b).transpose(2, 1, 0)
        kept = batch.weights > 0
        return products, jnp.where(kept[None], shares, 0).T

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> GramFactors:
        del key
        train = jax.tree.map(jnp.asarray, train)
        roots = jnp.sqrt(jnp.where(train.weights > 0, train.weights, 1))

        def one(at: Variables) -> tuple[Array, Array, Array]:
            total, counts = collect(columns, train, at, train, batch_size=batch_size)
            total = total.reshape(counts.size, -1)
            # A ridge relative to the mean eigenvalue, as in the other form.
            there = jnp.maximum(jnp.sum(train.weights > 0), 1) * counts.shape[1]
            size = sum(x.size for x in jax.tree.leaves(at.params))
            rank = jnp.minimum(there, size)
            ridge = damping * jnp.trace(total) / rank
            if kernel in CURVATURES:
                ridge = ridge + learner.l2 * jnp.sum(train.weights)
            # Rows without weight are zero; a one on the diagonal keeps them apart.
            absent = jnp.repeat(train.weights <= 0, counts.shape[1])
            diagonal = jnp.where(absent, 1, ridge).astype(total.dtype)
            factor = jnp.linalg.cholesky(total + jnp.diag(diagonal))
            apart = kernel == "margin"
            shares = counts[:, 0] if apart else jnp.ones_like(counts[:, 0])
            members = jnp.ones_like(counts) if apart else counts
            return factor, members / roots[:, None].astype(counts.dtype), shares

        factor, members, shares = jax.lax.map(one, evidence.models)
        shares = jnp.mean(shares, axis=0)
        return GramFactors(
            evidence.models, factor, members, shares, jnp.asarray(train.weights)
        )

    def effects(
        state: GramFactors,
        train: Batch,
        queries: Batch,
        output_fn: Callable[[Any, Any], Any],
    ) -> Float[Array, "q n"]:
        train, queries = (jax.tree.map(jnp.asarray, b) for b in (train, queries))
        held = train._replace(weights=state.weights)

        def block(batch: Batch, at: Variables, train: Batch) -> Array:
            predict = bind(learner.model, at.stats, learner.loss).predict
            _, found = query_gradients(predict, at.params, batch, output_fn)
            products = collect(against, train, at, found, batch_size=batch_size)
            return products.reshape(-1, products.shape[2]).T

        def one(at: Variables, factor: Array, members: Array) -> Array:
            products = collect(block, queries, at, held, batch_size=query_batch_size)
            solved = jax.scipy.linalg.cho_solve((factor, True), products.T)
            return jnp.einsum(
                "nrq,nr->qn",
                solved.reshape(*members.shape, -1),
                members,
                precision=EXACT,
            )

        like = pairs_like(queries, train, state.factor.dtype)
        scores = mean_over_models(one, like, state.models, state.factor, state.members)
        scores = -scores * state.shares[None]
        if centred:
            scores = centre(scores, train)
        return kept_pairs(scores, train, queries)

    def change(
        state: GramFactors, train: Batch, queries: Batch, weights_change: Weights
    ) -> Float[Array, "q k"]:
        train, queries = (jax.tree.map(jnp.asarray, b) for b in (train, queries))
        held = train._replace(weights=state.weights)
        moved = -effective_change(train, weights_change, centred) * state.shares

        def pull(examples: Any, at: Variables) -> Array:
            """Cotangents of the outputs that a block's rows come to, (b, k)."""
            batch, amounts = examples
            objective = bind(learner.model, at.stats, learner.loss)
            seen = present(batch)
            outputs = objective.predict(at.params, seen.inputs)
            cotangents, _ = rows_of(objective, outputs, seen.targets)
            flat = cotangents.reshape(*cotangents.shape[:2], -1)
            found = jnp.einsum(
                "br,rbk->bk", amounts.astype(flat.dtype), flat, precision=EXACT
            )
            return found.reshape(outputs.shape)

        def slope(batch: Batch, at: Variables) -> Params:
            kept = (batch.weights > 0).reshape(-1, *(1,) * (batch.targets.ndim - 1))
            inputs, shares = present(batch).inputs, jnp.where(kept, batch.targets, 0)

            def total(params: Params) -> Array:
                outputs = learner.model.apply(at._replace(params=params), inputs)
                return jnp.sum(shares * outputs)

            return jax.grad(total)(at.params)

        def one(at: Variables, factor: Array, members: Array) -> Array:
            right = (members * moved.astype(members.dtype)[:, None]).reshape(-1)
            solved = jax.scipy.linalg.cho_solve((factor, True), right)
            roots = jnp.sqrt(jnp.maximum(held.weights, 0))[:, None]
            amounts = solved.reshape(members.shape) * roots.astype(solved.dtype)
            shares = collect(pull, (held, amounts), at, batch_size=batch_size)
            pulled = Batch(held.inputs, shares, held.weights)
            direction = accumulate(slope, pulled, at, batch_size=batch_size)
            return outputs_along(
                learner, at, queries, direction, batch_size=query_batch_size
            )

        like = outputs_like(learner, state.models, queries)
        found = mean_over_models(one, like, state.models, state.factor, state.members)
        return jnp.where(queries.weights[:, None] != 0, found, 0)

    return Attribution(prepare, effects, change)
