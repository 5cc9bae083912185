"""Potion: dampen a growing share of all parameters until poison is forgotten."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.data.accumulate import collect, mass
from unlearn_jax.methods.dampening import (
    Importance,
    dampen,
    importance,
    pooled_ratios,
)
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, PRNGKey, Scalar, Variables


@entrance()
def potion(
    learner: Learner,
    *,
    rho: float = 0.2,
    growth: float = 1.1,
    tries: int = 500,
    importance_batch: int = 64,
) -> Method:
    """Dampen ever more of the original until few known bad labels are predicted.

    With p = ln(1 + 100 s) percent, alpha is the (100 - p)-th percentile of F_forget / F
    over all parameters together, and the original is dampened as by ``ssd``; s starts
    at (n_forget / n) / 25 and grows.

    Args:
        learner: Only its model is used.
        rho: Stop where the forget set's labels are predicted at most so large a part as
            often as by the original (no unit).
        growth: Factor of s between tries; above 1 (no unit).
        tries: Most tries.
        importance_batch: Examples averaged before the absolute value is taken.

    The retain set is not read; batch statistics stay.

    Raises:
        ValueError: ``growth`` of at most 1.

    Returns:
        Method; its state is the importance over the training set, and the set's size.

    Cost: prepare, one gradient per training example; forget, one per forget example, a
        sort of all parameters, and a forward pass over the forget set for each try.
    Source: Schoepf et al. 2024, arXiv 2406.09173. As released: the importance is the
        absolute gradient of the mean norm of the outputs, not squared.
    """
    if growth <= 1:
        raise ValueError(f"potion: growth must be above 1, got {growth!r}: raise it")

    def weigh(variables: Variables, data: Batch) -> Importance:
        return importance(learner, variables, data, "norm", importance_batch)

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Any:
        del key
        return weigh(original, train), jnp.sum(train.weights > 0)

    def forget(
        key: PRNGKey, state: Any, variables: Variables, request: Request
    ) -> tuple[Variables, Any]:
        del key
        overall, whole = state
        forgotten = weigh(variables, request.forget)
        ranked = jnp.sort(pooled_ratios(forgotten.value, overall.value))
        last = jnp.sum(~jnp.isnan(ranked)) - 1  # NaN stand behind it

        def attempt(share: Array) -> Variables:
            place = (1 - jnp.minimum(jnp.log1p(100 * share) / 100, 1)) * last
            low = jnp.floor(place).astype(jnp.int32)
            above, below = ranked[jnp.minimum(low + 1, last)], ranked[low]
            alpha = below + (place - low) * (above - below)
            params = dampen(
                variables.params, overall, forgotten, alpha=alpha, dampening=1.0
            )
            return variables._replace(params=params)

        def left(moved: Variables) -> Array:
            return label_agreement(learner, moved, request.forget)

        goal = rho * left(variables)

        def going(state: Any) -> Array:
            _, found, number = state
            return (found > goal) & (number < tries)

        def again(state: Any) -> Any:
            share, _, number = state
            return share * growth, left(attempt(share * growth)), number + 1

        known = jnp.sum(request.forget.weights > 0)
        first = (known / whole / 25).astype(ranked.dtype)
        begin = (first, left(attempt(first)), jnp.ones((), jnp.int32))
        share, _, _ = jax.lax.while_loop(going, again, begin)
        return attempt(share), state

    return Method(prepare, forget)


def label_agreement(learner: Learner, variables: Variables, data: Batch) -> Scalar:
    """Weighted share of examples whose given label is predicted, right or wrong."""

    def guesses(inputs: Any, at: Variables) -> Array:
        return jnp.argmax(learner.model.apply(at, inputs), axis=-1)

    hits = collect(guesses, data.inputs, variables) == data.targets
    return jnp.sum(hits * data.weights) / mass(data.weights)
