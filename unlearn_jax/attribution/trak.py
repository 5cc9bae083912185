"""TRAK: influence of a linearised model, with gradients projected at random.

With φₙ the projected gradient of an example's margin at the trained parameters and
cₙ φₙ that of its loss (cₙ = −(1 − p) for cross-entropy), the effect of weight added to
example n on an output f is

    −(P ∇f) · (Σₘ wₘ φₘ φₘᵀ + λ)⁻¹ cₙ φₙ.

The sum over examples stands for W times the curvature of the mean loss, so units are
those of :mod:`unlearn_jax.attribution.influence`.
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
    as_trained,
    kept_pairs,
)
from unlearn_jax.attribution.guard import entrance
from unlearn_jax.attribution.projection import check_projection, lift, project
from unlearn_jax.attribution.trak_gram import gram_trak
from unlearn_jax.attribution.trak_kernels import (
    CURVATURES,
    KERNELS,
    centre,
    check_kernel,
    effective_change,
    mean_over_models,
    outputs_along,
    outputs_like,
    pairs_like,
    pulled_rows,
    query_gradients,
    rows_of_example,
)
from unlearn_jax.curvature.per_example import loss_gradients, per_example
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.data.accumulate import accumulate, collect, present
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, PRNGKey, Variables, Weights
from unlearn_kernels.precision import EXACT, exact_product


class Features(NamedTuple):
    """Value: what TRAK keeps of the training examples.

    Attributes:
        models: Variables with a leading axis m.
        keys: (m,) of the projections.
        solved: (m, n, r): the kernel's inverse times projected gradients; zero where
            an example has no weight.
        shares: (n,) mean over models of cₙ for "margin"; else ``solved`` holds it.
    """

    models: Variables
    keys: Any
    solved: Float[Array, "m n r"]
    shares: Float[Array, " n"]


@entrance()
def trak(
    learner: Learner,
    *,
    width: int = 2048,
    projection: str = "sketch",
    kernel: str = "margin",
    damping: float = 1.0,
    centred: bool = False,
    batch_size: int = 256,
    query_batch_size: int = 256,
) -> Attribution:
    """TRAK scores of one or several models, for any output function.

    Args:
        learner: Model, loss, l2 and recipe of the evidence's models.
        width: Numbers that a gradient is projected to; each model draws its own.
        projection: "sketch", "dense", "gaussian" or "none", see
            :func:`unlearn_jax.attribution.projection.project`; or "gram": no projection
            and no parameters-sized matrix, but one kernel over pairs of training
            examples for each model, n² numbers (r² n² for r rows an example).
        kernel: What the curvature is made of. "margin": gradients of the margin, as
            published. "newton": these times p (1 − p), exact for softmax of two
            classes. "outputs": the Gauss-Newton matrix, from all outputs, for any
            convex loss; the one to take for regression. "loss": gradients of the loss
            (empirical Fisher). To "newton" and "outputs" the learner's l2 is added.
        damping: Added to the kernel, in units of its mean eigenvalue (trace over the
            smaller of width and rows of examples with weight). Where examples are not
            many times ``width`` the score rests on it: one hundredth predicts
            retraining half as well as one. Zero, as published, needs more examples
            than ``width``; a kernel that is singular gives NaN.
        centred: Take wₙ Δw-weighted means off: more weight on one example is less on
            all others. At a minimum with l2 this is the pull of l2. Not published.
        batch_size: Training examples whose inputs and slopes are held at once.
        query_batch_size: Queries for which they are.

    Returns:
        Attribution that reads ``evidence.models``. It explains by one linear map, so
        ``change`` is ``effects @ Δw``; it needs no projection of queries, but one
        derivative along Pᵀ u.

    Raises:
        ValueError: unknown names, impossible sizes, a kernel for another loss.

    Cost: a gradient and a projection for each training example (for "outputs" k + 1)
        and a factorisation of width³ / 3 for each model; ``effects`` the same for each
        query and 2 q n width; memory m n width numbers.
    Source: Park et al. 2023, arXiv 2303.14186, eqs. 12–17: products of features and
        the factors 1 − p are averaged over models apart, as published (for kernels
        other than "margin": the product is). Differs: any output function of the
        queries; effects of weight, hence weights and the sign; damping; no soft
        threshold. "gram" is the same in its dual form, with P the identity.
    """
    learner = as_trained(learner)
    check_kernel(learner, kernel, damping, batch_size, query_batch_size)
    if projection == "gram":
        return gram_trak(
            learner,
            kernel=kernel,
            damping=damping,
            centred=centred,
            batch_size=batch_size,
            query_batch_size=query_batch_size,
        )
    check_projection(projection, width)
    kind: dict[str, Any] = {"kind": projection, "width": width}
    rows_of = KERNELS[kernel]

    def rows(batch: Batch, key: PRNGKey, at: Variables) -> tuple[Array, Array]:
        """Projected gradients (b, r, width) and shares (b, r)."""
        objective, seen = bind(learner.model, at.stats, learner.loss), present(batch)
        linear = per_example(objective.predict, at.params, seen.inputs)
        cotangents, shares = rows_of(objective, linear.outputs, seen.targets)
        found = project(key, linear.tape, pulled_rows(linear, cotangents), **kind)
        found = found.reshape(*shares.shape, -1)
        kept = (batch.weights > 0)[None]
        found = jnp.where(kept[..., None], found, 0)
        return found.swapaxes(0, 1), jnp.where(kept, shares, 0).T

    def products(batch: Batch, key: PRNGKey, at: Variables) -> Array:
        found, _ = rows(batch, key, at)
        return _kernel(found, batch.weights)

    def slopes(batch: Batch, key: PRNGKey, at: Variables) -> Array:
        objective = bind(learner.model, at.stats, learner.loss)
        taped, gradients = loss_gradients(objective, at.params, present(batch))
        found = project(key, taped, gradients, **kind)
        return jnp.where((batch.weights > 0)[:, None], found, 0)

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> Features:
        train = jax.tree.map(jnp.asarray, train)
        n, members = len(train.weights), tree.leading_axis(evidence.models)
        keys = jax.random.split(key, members)
        count = jnp.maximum(jnp.sum(train.weights > 0), 1)
        many = rows_of_example(learner, rows_of, evidence.models, train)

        def one(own: Any) -> tuple[Array, Array]:
            passed = (train, *own)
            if many == 1:
                found, shares = collect(rows, *passed, batch_size=batch_size)
                total, right = _kernel(found, train.weights), found[:, 0]
                shares = shares[:, 0]
                if kernel != "margin":
                    right, shares = right * shares[:, None], jnp.ones_like(shares)
            else:
                total = accumulate(products, *passed, batch_size=batch_size)
                right = collect(slopes, *passed, batch_size=batch_size)
                shares = jnp.ones(n, right.dtype)
            rank = jnp.minimum(len(total), count * many)
            ridge = damping * jnp.trace(total) / rank
            if kernel in CURVATURES:
                ridge = ridge + learner.l2 * jnp.sum(train.weights)
            identity = jnp.eye(len(total), dtype=total.dtype)
            total = total + ridge.astype(total.dtype) * identity
            factor = jax.scipy.linalg.cho_factor(total, lower=True)
            return jax.scipy.linalg.cho_solve(factor, right.T).T, shares

        solved, shares = jax.lax.map(one, (keys, evidence.models))
        return Features(evidence.models, keys, solved, jnp.mean(shares, axis=0))

    def effects(
        state: Features,
        train: Batch,
        queries: Batch,
        output_fn: Callable[[Any, Any], Any],
    ) -> Float[Array, "q n"]:
        train, queries = (jax.tree.map(jnp.asarray, b) for b in (train, queries))

        def features(batch: Batch, key: PRNGKey, at: Variables) -> Array:
            predict = _predict(learner, at)
            found = query_gradients(predict, at.params, batch, output_fn)
            return project(key, *found, **kind)

        def one(key: PRNGKey, at: Variables, solved: Array) -> Array:
            found = collect(features, queries, key, at, batch_size=query_batch_size)
            return jnp.matmul(found, solved.T, precision=EXACT)

        like = pairs_like(queries, train, state.solved.dtype)
        scores = mean_over_models(one, like, state.keys, state.models, state.solved)
        scores = -scores * state.shares[None]
        if centred:
            scores = centre(scores, train)
        return kept_pairs(scores, train, queries)

    def change(
        state: Features, train: Batch, queries: Batch, weights_change: Weights
    ) -> Float[Array, "q k"]:
        queries = jax.tree.map(jnp.asarray, queries)
        moved = effective_change(train, weights_change, centred) * state.shares

        def one(key: PRNGKey, at: Variables, solved: Array) -> Array:
            taped = tape(_predict(learner, at), at.params, queries.inputs)
            vector = -exact_product(moved.astype(solved.dtype), solved)
            direction = lift(key, taped, vector, kind=projection)
            return outputs_along(
                learner, at, queries, direction, batch_size=query_batch_size
            )

        like = outputs_like(learner, state.models, queries)
        found = mean_over_models(one, like, state.keys, state.models, state.solved)
        return jnp.where(queries.weights[:, None] != 0, found, 0)

    return Attribution(prepare, effects, change)


def _predict(learner: Learner, at: Variables) -> Callable[[Any, Any], Any]:
    return bind(learner.model, at.stats, learner.loss).predict


def _kernel(rows: Array, weights: Any) -> Array:
    """Σₙᵣ wₙ φₙᵣ φₙᵣᵀ."""
    flat = rows.reshape(-1, rows.shape[-1])
    scales = jnp.repeat(weights.astype(flat.dtype), rows.shape[1])
    return jnp.matmul((flat * scales[:, None]).T, flat, precision=EXACT)
