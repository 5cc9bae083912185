"""Influence with the EK-FAC matrix, scores of pairs from factored gradients."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.attribution.attribution import (
    Attribution,
    Evidence,
    as_trained,
    kept_pairs,
)
from unlearn_jax.attribution.curvature_influence import (
    InfluenceState,
    mean_over_models,
    objective_of,
    outputs_along,
)
from unlearn_jax.attribution.guard import entrance
from unlearn_jax.curvature.contractions import along
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.kronecker_blocks import (
    block_means,
    eigendecompose,
    mean_eigenvalue,
)
from unlearn_jax.curvature.kronecker_inverse import kronecker_inverse
from unlearn_jax.curvature.kronecker_scores import prepare_queries, score_block
from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_jax.data.accumulate import collect, mass, present
from unlearn_jax.train.recipe import Learner
from unlearn_jax.train.trajectory import training_time
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Array, Batch, PRNGKey, Variables

RELATIVE_DAMPING = 0.1
"""Of a mean eigenvalue, as kronfluence has it, where training has no rates."""


@entrance()
def ekfac_influence(
    learner: Learner,
    *,
    damping: float | None = None,
    damping_by: str = "matrix",
    labels: str = "sampled",
    samples: int = 1,
    rank: int | None = None,
    batch_size: int = 256,
    query_batch_size: int = 64,
) -> Attribution:
    """Influence with the EK-FAC matrix, scores of pairs from factored gradients.

    effects[q, n] = −∇f_q (F + λ I)⁻¹ (∇ℓₙ + l2 θ) / W; a mean over
    ``evidence.models``. By default λ = l2 + 1 / T, T the sum of the learning rates of
    the training run: along an eigenvector with value σ, descent for so long has come
    (1 − exp(−σT)) / σ ≈ 1 / (σ + 1/T) of the way that influence takes for done.

    Args:
        learner: Model, loss, l2 and recipe that the models were trained with; weight
            decay of SGD is l2.
        damping: λ = l2 + damping · (mean eigenvalue of F) instead (no unit). None takes
            the sum of the rates from the recipe, with lr / (1 − momentum) for SGD; for
            Adam, whose steps have no rate, it is 0.1.
        damping_by: What the mean eigenvalue is of. "matrix": all of F. "block": each
            parameter's own block, so that layers of small curvature move more; a
            damping of None is 0.1 then.
        labels: Of the Fisher matrix: "sampled" from the model, "exact" over all labels,
            or "true", the empirical one.
        samples: Draws for each example under "sampled".
        rank: None: exact. Else that many separable terms of the inverse in layers with
            one position; ``change`` stays exact.
        batch_size: Training examples whose factors are held at once.
        query_batch_size: Queries whose gradients are held at once.

    Raises:
        ValueError: an unknown name, or an impossible setting.

    Cost: prepare: two passes of ``ekfac`` for each model. Effects: gradients of the
        training examples once for each block of queries and, exact, 2 q n i o
        operations for a layer with one position.
    Source: Grosse et al. 2023, arXiv 2308.03296, eq. 28 with damping as in §2.2.
        Differs: l2 where training has it, the damping by the length of training (theirs
        is damping_by="block", but for l2), any output function, a mean over models.
    """
    if damping is not None and not damping > 0:
        raise ValueError(
            f"damping is {damping}, expected a positive share of the mean eigenvalue"
        )
    learner = as_trained(learner)
    recipe = learner.recipe
    if damping_by not in ("matrix", "block"):
        raise ValueError(
            f"damping_by {damping_by!r} is unknown; choose 'matrix' or 'block'"
        )
    if labels not in ("sampled", "exact", "true"):
        raise ValueError(
            f"labels {labels!r} is unknown; choose 'sampled', 'exact' or 'true'"
        )
    for what, given in (
        ("samples", samples),
        ("rank", rank),
        ("batch_size", batch_size),
        ("query_batch_size", query_batch_size),
    ):
        if given is not None and given < 1:
            raise ValueError(f"{what} must be at least 1, got {given}")

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> InfluenceState:
        seen = jax.tree.map(jnp.asarray, train)
        keys = jax.random.split(key, leading_axis(evidence.models))

        def one(pair: Any) -> Any:
            key, variables = pair
            objective = objective_of(learner, variables)
            options: dict[str, Any] = {"labels": labels, "samples": samples}
            return eigendecompose(
                ekfac(key, objective, variables.params, seen, **options)
            )

        return InfluenceState(
            evidence.models, jax.lax.map(one, (keys, evidence.models))
        )

    def damping_of(matrix: Any, train: Batch) -> Any:
        share = RELATIVE_DAMPING if damping is None else damping
        if damping_by == "block":
            whole = mean_eigenvalue(matrix)  # for blocks that are zero
            means = [jnp.where(m > 0, m, whole) for m in block_means(matrix)]
            return tuple(learner.l2 + share * mean for mean in means)
        if damping is None and recipe.optimizer == "sgd":
            return learner.l2 + 1 / training_time(recipe, train.weights)
        return learner.l2 + share * mean_eigenvalue(matrix)

    def effects(
        state: InfluenceState, train: Batch, queries: Batch, output_fn: Any
    ) -> Array:
        train, queries = (jax.tree.map(jnp.asarray, b) for b in (train, queries))

        def against(batch: Batch, at: Variables, matrix: Any, prepared: Any) -> Array:
            _, found = loss_gradients(
                objective_of(learner, at), at.params, present(batch)
            )
            return score_block(matrix, prepared, found).T

        def rows(block: Batch, variables: Variables, matrix: Any, train: Batch) -> Any:
            # The gradient of the output to be explained, in place of the loss.
            explained = objective_of(learner, variables)._replace(loss=output_fn)
            taped, found = loss_gradients(explained, variables.params, block)
            prepared = prepare_queries(
                matrix, found, damping=damping_of(matrix, train), rank=rank
            )
            scores = collect(
                against, train, variables, matrix, prepared, batch_size=batch_size
            ).T
            if not learner.l2:
                return scores
            moved = kronecker_inverse(matrix, damping=damping_of(matrix, train))(
                variables.params
            )
            return scores + learner.l2 * along(taped, found, moved)[:, None]

        def one(variables: Variables, matrix: Any) -> Array:
            scores = collect(
                rows,
                present(queries),
                variables,
                matrix,
                train,
                batch_size=query_batch_size,
            )
            return -scores / mass(train.weights)

        return kept_pairs(mean_over_models(one, state), train, queries)

    def change(
        state: InfluenceState, train: Batch, queries: Batch, weights_change: Any
    ) -> Array:
        def one(variables: Variables, matrix: Any) -> Array:
            apply = kronecker_inverse(matrix, damping=damping_of(matrix, train))
            return outputs_along(
                learner, variables, train, queries, weights_change, apply, batch_size
            )

        return mean_over_models(one, state)

    return Attribution(prepare, effects, change)
