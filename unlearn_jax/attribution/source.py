"""SOURCE: unrolled training, approximated by a few segments of constant curvature.

A step of rate η on the risk turns a change δ of the parameters into (I − η H) δ. Over a
segment whose rates sum to ρ, with H and the gradients taken as constant, steps become a
flow, and the effect of weight on example n obeys

    δ ← S δ − F (∇ℓₙ − ḡ) / W,   S = exp(−ρ H),   F = (I − exp(−ρ H)) H⁻¹,

W = Σ weights, ḡ the mean gradient (more weight on one is less on all others). A short
segment has S = I and F = ρ: TracIn. A long one has S = 0 and F = H⁻¹: influence. Where
H is zero F = ρ, so no damping is needed. H is the EK-FAC matrix plus l2 and weight
decay, and S and F act on its eigenvalues.
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
from unlearn_jax.attribution.flow import divide, mean_ekfac, propagators
from unlearn_jax.attribution.guard import entrance
from unlearn_jax.attribution.tracin import effective_change, output_changes
from unlearn_jax.curvature.contractions import along
from unlearn_jax.curvature.kronecker_blocks import Kronecker
from unlearn_jax.curvature.label_slopes import LABELS
from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_jax.data.accumulate import accumulate, collect, present
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables, Weights
from unlearn_kernels.precision import exact_product


class Segments(NamedTuple):
    """Value: runs in segments; l segments of c / l points each.

    Attributes:
        models: Trained models, with a leading axis m.
        points: Checkpoints, with leading axes m, l and c / l.
        shares: Of a point in its segment, by rates; they sum to one.
        rates: ρ of each segment.
        curvatures: EK-FAC matrices with leading axes m and l.
    """

    models: Variables
    points: Variables
    shares: Float[Array, "l c"]
    rates: Float[Array, " l"]
    curvatures: Kronecker


@entrance()
def source(
    learner: Learner,
    *,
    segments: int = 3,
    labels: str = "exact",
    centred: bool = True,
    batch_size: int = 256,
    query_batch_size: int = 16,
) -> Attribution:
    """Effects of weights through training, unrolled in segments.

    Args:
        learner: Model, loss, l2 and recipe that the models were trained with.
        segments: How many; the points of the trajectory are divided among them.
        labels: Of the EK-FAC matrices: "exact", "sampled" or "true".
        centred: Take the mean gradient ḡ off, which the derivative of a weighted mean
            does; False leaves it out, as published. It shifts each row by a constant.
        batch_size: Training examples whose layer inputs and slopes are held at once.
        query_batch_size: Queries pulled back at once; each holds a vector like the
            parameters for each segment.

    Returns:
        Attribution that reads ``evidence.trajectory``; its effects are means over the
        runs, of derivatives of the outputs of ``evidence.models``.

    Raises:
        ValueError: no segments, a batch below 1, unknown labels, or a recipe of "adam",
            whose steps are no multiple of the gradient. From ``prepare``: the points of
            the trajectory do not divide among the segments.

    Cost: ``prepare``: ``ekfac`` at every point, without its eigenproblems, and those
        for each segment. ``effects``: for each block of queries a gradient of every
        training example at every point, for each pair a product with each layer's
        factors; memory segments × query_batch_size vectors like the parameters.
        ``change``: one gradient of each training example at every point.
    Source: Bae et al. 2024, arXiv 2405.12186, §3. Differs: momentum by its rates;
        points weighted by their rates, not equally; weight decay part of H; any output
        function; effects of weight, hence the sign and 1 / W; centred.
    """
    if segments < 1 or min(batch_size, query_batch_size) < 1:
        raise ValueError(
            f"got {segments} segments and batches of {batch_size} and "
            f"{query_batch_size}, expected at least 1"
        )
    if labels not in LABELS:
        raise ValueError(f"labels {labels!r} is unknown; choose from {LABELS}")
    if learner.recipe.optimizer != "sgd":
        raise ValueError(
            f"source got a recipe of {learner.recipe.optimizer!r}, expected 'sgd': "
            "rates times curvature have no meaning otherwise; take metagradient"
        )
    decay = learner.l2 + learner.recipe.weight_decay

    def objective_at(at: Variables) -> Objective:
        return bind(learner.model, at.stats, learner.loss)

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> Segments:
        need(evidence, "trajectory")
        assert evidence.trajectory is not None
        train = jax.tree.map(jnp.asarray, train)
        checkpoints, rates, steps = evidence.trajectory
        shares, totals, first = divide(
            (tree.member(checkpoints, 0), rates, steps), segments
        )
        points = jax.tree.map(
            lambda x, one: x.reshape(len(x), *one.shape), checkpoints, first
        )

        def of_segment(given: Any) -> Kronecker:
            points, shares = given
            return mean_ekfac(key, objective_at, points, shares, train, labels=labels)

        curvatures = jax.lax.map(
            lambda run: jax.lax.map(of_segment, (run, shares)), points
        )
        return Segments(evidence.models, points, shares, totals, curvatures)

    def effects(
        state: Segments,
        train: Batch,
        queries: Batch,
        output_fn: Callable[[Any, Any], Any],
    ) -> Float[Array, "q n"]:
        train, queries = (jax.tree.map(jnp.asarray, b) for b in (train, queries))
        seen = present(train)

        def slopes(batch: Batch, at: Variables, direction: Params) -> Array:
            taped, found = loss_gradients(objective_at(at), at.params, batch)
            return along(taped, found, direction)

        def of_run(run: Segments) -> Array:
            def explain(query: Batch) -> Array:
                def output(params: Params) -> Array:
                    at = Variables(params, run.models.stats)
                    alone = jax.tree.map(lambda leaf: leaf[None], query)
                    outputs = learner.model.apply(at, alone.inputs)
                    return output_fn(outputs, alone.targets)[0]

                def back(vector: Params, segment: Any) -> tuple[Params, Params]:
                    curvature, rate = segment
                    stay, pull = propagators(curvature, rate, vector, decay=decay)
                    return stay(vector), pull(vector)

                slope = jax.grad(output)(run.models.params)
                segment = (run.curvatures, run.rates)
                _, pulled = jax.lax.scan(back, slope, segment, reverse=True)

                def in_segment(total: Array, given: Any) -> tuple[Array, None]:
                    points, shares, direction = given

                    def at_point(total: Array, point: Any) -> tuple[Array, None]:
                        at, share = point
                        found = collect(
                            slopes, seen, at, direction, batch_size=batch_size
                        )
                        return total + (share * found).astype(total.dtype), None

                    return jax.lax.scan(at_point, total, (points, shares))

                zero = jnp.zeros(train.weights.shape, jnp.result_type(run.rates))
                given = (run.points, run.shares, pulled)
                return jax.lax.scan(in_segment, zero, given)[0]

            return jax.lax.map(explain, present(queries), batch_size=query_batch_size)

        scores = -_share(train.weights) * _mean_over_runs(of_run, state)
        if centred:
            mean = exact_product(scores, train.weights) * _share(train.weights)
            scores = scores - mean[:, None]
        return kept_pairs(scores, train, queries)

    def change(
        state: Segments, train: Batch, queries: Batch, weights_change: Weights
    ) -> Float[Array, "q k"]:
        train, queries = (jax.tree.map(jnp.asarray, b) for b in (train, queries))
        move = effective_change(train.weights, weights_change, centred=centred)
        moved = present(train)._replace(weights=_share(train.weights) * move)
        inputs = present(queries).inputs

        def part(batch: Batch, at: Variables) -> Params:
            return jax.grad(objective_at(at).total)(at.params, batch)

        def of_run(run: Segments) -> Array:
            def forth(change: Params, given: Any) -> tuple[Params, None]:
                points, shares, curvature, rate = given

                def one(total: Params, point: Any) -> tuple[Params, None]:
                    at, share = point
                    slope = accumulate(part, moved, at, batch_size=batch_size)
                    return tree.axpy(share, slope, total), None

                slope, _ = jax.lax.scan(one, tree.zeros_like(change), (points, shares))
                stay, pull = propagators(curvature, rate, change, decay=decay)
                return tree.subtract(stay(change), pull(slope)), None

            given = (run.points, run.shares, run.curvatures, run.rates)
            zero = tree.zeros_like(run.models.params)
            direction, _ = jax.lax.scan(forth, zero, given)
            return output_changes(
                learner, run.models, direction, inputs, batch_size=batch_size
            )

        changes = _mean_over_runs(of_run, state)
        return jnp.where(queries.weights[:, None] != 0, changes, 0)

    return Attribution(prepare, effects, change)


def _mean_over_runs(function: Callable[[Segments], Array], state: Segments) -> Array:
    """One run after another: memory of one."""

    def of_run(given: Any) -> Array:
        models, points, curvatures = given
        run = state._replace(models=models, points=points, curvatures=curvatures)
        return function(run)

    found = jax.lax.map(of_run, (state.models, state.points, state.curvatures))
    return jnp.mean(found, axis=0)


def _share(weights: Any) -> Array:
    mass = jnp.sum(weights)
    return 1.0 / jnp.where(mass > 0, mass, 1)
