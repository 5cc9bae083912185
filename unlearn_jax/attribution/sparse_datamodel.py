"""Sparse datamodels: effects as lasso coefficients over an ensemble."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.attribution.attribution import Attribution, Evidence, kept_pairs, need
from unlearn_jax.attribution.guard import entrance
from unlearn_jax.attribution.members import (
    explained,
    masks_of,
    over_members,
    per_weight,
)
from unlearn_jax.data.accumulate import present
from unlearn_jax.solvers.lasso import (
    RATIOS,
    LassoSolution,
    held_out_errors,
    largest_l1,
    lasso,
)
from unlearn_jax.solvers.solution import Report, all_reports
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, PRNGKey, Variables
from unlearn_kernels.precision import exact_product


class SparseState(NamedTuple):
    """Value: the ensemble.

    Attributes:
        masks: (m, n) in floating point.
        models: Variables with a leading axis m.
    """

    masks: Float[Array, "m n"]
    models: Variables


@entrance()
def sparse_datamodel(
    learner: Learner,
    *,
    l1: float | None = None,
    held_out: float = 0.2,
    tol: float = 1e-4,
    max_steps: int = 500,
    batch_size: int = 256,
) -> Attribution:
    """Effects as the coefficients of a lasso regression over the ensemble.

    Each output of each query has a regression of its own, so that an effect does not
    depend on what else is asked.

    Args:
        learner: Its model is applied.
        l1: Over the smallest that makes all coefficients of an output zero (no unit,
            0 to 1). None: for each output that of ``lasso.RATIOS`` with the least error
            on members kept apart, then fitted to all.
        held_out: Share of the members that are kept apart, the last ones.
        tol: Relative duality gap of the regressions.
        max_steps: Most iterations for each; at the end what is reached is taken, and
            told by ``effects_reported`` (its residual is the duality gap). The fits
            that choose l1 are not told of.
        batch_size: Queries whose activations are held at once.

    Reads ``evidence.ensemble`` alone.

    Raises:
        ValueError: an impossible setting; when prepared, no ensemble.

    Cost: prepare: none. Effects: a forward pass of each member over the queries and
        4 m n q operations for each iteration of ``lasso``, ten times as many when l1
        is chosen; change: that for each raw output, one after another.
    Source: Ilyas et al. 2022, arXiv 2202.00622, §2. Differs: l1 is chosen by one set of
        members kept apart and the fit repeated on all; iterations as in ``lasso``.
    """
    if l1 is not None and not 0 < l1 <= 1:
        raise ValueError(
            f"l1 is {l1}, expected a number in (0, 1]: a share of the smallest that "
            f"makes all coefficients zero"
        )
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}, expected a share in (0, 1)")
    if max_steps < 1 or batch_size < 1:
        raise ValueError(
            f"max_steps and batch_size must be at least 1, got {max_steps} and "
            f"{batch_size}"
        )

    def fitted(masks: Array, values: Array) -> LassoSolution:
        options: dict[str, Any] = {"tol": tol, "max_steps": max_steps}
        ratio: Any = l1
        if l1 is None:
            m = len(masks)
            first = min(max(1, round(m * (1 - held_out))), m - 1)
            apart = jnp.arange(m) >= first
            errors = held_out_errors(masks, values, apart, **options)
            grid = jnp.asarray(RATIOS, masks.dtype)
            ratio = grid[jnp.argmin(errors, axis=0)]
        level = ratio * largest_l1(masks, values)
        return lasso(masks, values, l1=level, **options)

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> SparseState:
        del key
        need(evidence, "ensemble")
        assert evidence.ensemble is not None
        return SparseState(masks_of(evidence, train), evidence.ensemble.models)

    def effects_reported(
        state: SparseState, train: Batch, queries: Batch, output_fn: Any
    ) -> tuple[Array, Report]:
        values = explained(
            learner.model, state.models, queries, output_fn, batch_size=batch_size
        )
        found = fitted(state.masks, values)
        scores = kept_pairs(per_weight(found.coef, train), train, queries)
        return scores, told(found)

    def effects(
        state: SparseState, train: Batch, queries: Batch, output_fn: Any
    ) -> Array:
        return effects_reported(state, train, queries, output_fn)[0]

    def reported(
        state: SparseState, train: Batch, queries: Batch, weights_change: Any
    ) -> tuple[Array, Report]:
        moved = per_weight(jnp.where(train.weights > 0, weights_change, 0), train)
        inputs = present(queries).inputs
        outputs = over_members(
            learner.model, state.models, inputs, batch_size=batch_size
        )

        def one(values: Array) -> tuple[Array, Report]:
            found = fitted(state.masks, values)
            return exact_product(found.coef, moved.astype(found.coef.dtype)), told(
                found
            )

        changes, reports = jax.lax.map(one, jnp.moveaxis(outputs, -1, 0))
        return jnp.where(queries.weights[:, None] != 0, changes.T, 0), all_reports(
            reports
        )

    def change(
        state: SparseState, train: Batch, queries: Batch, weights_change: Any
    ) -> Array:
        return reported(state, train, queries, weights_change)[0]

    return Attribution(prepare, effects, change, reported, effects_reported)


def told(found: LassoSolution) -> Report:
    """Of regressions side by side: all steps, and the first that failed."""
    gap, steps = found.gap.astype(jnp.float32), found.steps.astype(jnp.int32)
    return all_reports(Report(gap, steps, found.code.astype(jnp.int32)))
