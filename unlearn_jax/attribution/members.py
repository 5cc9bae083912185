"""Attributions that are linear in the outputs of models trained on subsets."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import Attribution, Evidence, kept_pairs
from unlearn_jax.data.accumulate import collect, present
from unlearn_jax.models.model import Model
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Inputs, Variables
from unlearn_kernels.precision import exact_product


class MemberShares(NamedTuple):
    """Value: effects[q, n] wₙ = Σₘ outputs[m, q] shares[m, n], sums over members.

    Attributes:
        shares: (m, n); each column sums to zero, so that what all members have in
            common plays no part.
        models: Variables with a leading axis m.
    """

    shares: Float[Array, "m n"]
    models: Variables


def over_members(
    model: Model,
    models: Variables,
    inputs: Inputs,
    *,
    batch_size: int = 256,
    function: Callable[[Any], Any] | None = None,
) -> Array:
    """Outputs of each member, one member after another.

    Args:
        model: Their common model.
        models: Variables with a leading axis m.
        inputs: q examples.
        batch_size: Examples whose activations are held at once.
        function: Of one member's outputs (q, k); None keeps them.

    Returns:
        Shape (m, q, k), or as ``function`` has it.

    Cost: m forward passes over the examples.
    """

    def one(variables: Variables) -> Array:
        outputs = _outputs(model, variables, inputs, batch_size)
        return outputs if function is None else function(outputs)

    return jax.lax.map(one, models)


def explained(
    model: Model,
    models: Variables,
    queries: Batch,
    output_fn: Callable[[Any, Any], Any],
    *,
    batch_size: int,
) -> Array:
    """One number per member and query, (m, q); queries of weight zero are not seen."""
    seen = present(queries)
    return over_members(
        model,
        models,
        seen.inputs,
        batch_size=batch_size,
        function=lambda outputs: output_fn(outputs, seen.targets),
    )


def linear_in_members(
    learner: Learner,
    prepare: Callable[[Any, Evidence, Batch], MemberShares],
    *,
    batch_size: int = 256,
) -> Attribution:
    """The attribution of shares that do not depend on the queries.

    Args:
        learner: Its model is applied.
        prepare: As in ``Attribution``.
        batch_size: Queries whose activations are held at once.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")

    def effects(
        state: MemberShares, train: Batch, queries: Batch, output_fn: Any
    ) -> Array:
        values = explained(
            learner.model, state.models, queries, output_fn, batch_size=batch_size
        )
        centred = values - jnp.mean(values, axis=0, keepdims=True)
        scores = exact_product(centred.T, state.shares)
        return kept_pairs(per_weight(scores, train), train, queries)

    def change(
        state: MemberShares, train: Batch, queries: Batch, weights_change: Any
    ) -> Array:
        moved = per_weight(jnp.where(train.weights > 0, weights_change, 0), train)
        factors = exact_product(state.shares, moved.astype(state.shares.dtype))
        inputs = present(queries).inputs

        def add(total: Array, member: Any) -> tuple[Array, None]:
            variables, factor = member
            outputs = _outputs(learner.model, variables, inputs, batch_size)
            return total + factor.astype(outputs.dtype) * outputs, None

        first = tree.member(state.models, 0)
        like = jax.eval_shape(learner.model.apply, first, inputs)
        zero = jnp.zeros(like.shape, like.dtype)
        total, _ = jax.lax.scan(add, zero, (state.models, factors))
        return jnp.where(queries.weights[:, None] != 0, total, 0)

    return Attribution(prepare, effects, change)


def per_weight(values: Any, train: Batch) -> Array:
    """Values (…, n) for a change of masks as those for a change of weights.

    A mask of one is the whole weight of the example.
    """
    weights = jnp.asarray(train.weights)
    scales = 1 / jnp.where(weights > 0, weights, 1)
    return values * scales.astype(values.dtype).reshape(*(1,) * (values.ndim - 1), -1)


def masks_of(evidence: Evidence, train: Batch) -> Array:
    """Masks of the members in floating point, zero at examples of weight zero.

    Raises:
        ValueError: they are not of one row per member, one column per example.
    """
    assert evidence.ensemble is not None
    masks, models = evidence.ensemble
    expected = (tree.leading_axis(models), len(train.weights))
    if masks.shape != expected:
        raise ValueError(
            f"the ensemble's masks have shape {masks.shape}, expected {expected}: one "
            f"row per member, one column per training example"
        )
    dtype = jnp.result_type(jnp.asarray(train.weights).dtype, jnp.float32)
    return jnp.where((train.weights > 0)[None], jnp.asarray(masks).astype(dtype), 0)


def _outputs(model: Model, variables: Variables, inputs: Any, batch_size: int) -> Array:
    def apply(part: Any, variables: Variables) -> Array:
        return model.apply(variables, part)

    return collect(apply, inputs, variables, batch_size=batch_size)
