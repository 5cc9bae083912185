"""The forget set that is hardest to forget: a search over weights of examples."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Shaped

from unlearn_jax.data.accumulate import accumulate, collect, present
from unlearn_jax.data.hard_sets import highest_set
from unlearn_jax.loop import repeat, tracing
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params, PerExample, PRNGKey, Weights

_BISECTIONS = 80


class WorstCase(NamedTuple):
    """Value: what the search found.

    Attributes:
        weights: (n,) relaxed choice, between 0 and 1, with the sum ``size``.
        chosen: (size,) sorted indices of the largest weights.
        losses: (rounds,) Σ wₙ ℓₙ / size after unlearning, before each step of w.
    """

    weights: Float[Array, " n"]
    chosen: Int[Array, " s"]
    losses: Float[Array, " t"]


UNLEARN: Mapping[str, Callable[[Any], Any]] = {
    "finetune": lambda chosen: 1 - chosen,
    "gradient_ascent": lambda chosen: -chosen,
    "difference": lambda chosen: 1 - 2 * chosen,
}
"""How the lower level unlearns: the choice w -> factors of the examples' losses."""


def worst_case_set(
    key: PRNGKey,
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    size: int,
    rounds: int = 20,
    steps: int = 10,
    learning_rate: float = 1e-3,
    weight_rate: float = 1e-2,
    ridge: float = 0.0,
    unlearn: str = "finetune",
    reverse: bool = False,
    minibatch: int | None = None,
    binarise_every: int = 0,
    batch_size: int = 256,
) -> WorstCase:
    """Choose the examples that are still predicted well once they were unlearned.

    Two levels: from θ, ``steps`` steps of sign descent on the losses of what is not
    chosen give θ_u(w); then w moves to Proj(w − rate (ℓ(θ_u) + 2 ridge w)), the
    projection on 0 ≤ w ≤ 1, Σ w = size. The sign's derivative is zero almost
    everywhere, so θ_u counts as constant in w. Every round starts from θ again.

    Args:
        key: Draws the first choice, ``size`` random examples, and the minibatches.
        objective: Loss bound to frozen batch statistics; ``l2`` is left out.
        params: θ, the model that unlearns.
        data: The training set; examples of weight zero are never seen or chosen.
        size: Examples to choose; fewer than have weight.
        rounds: Steps of w.
        steps: Steps of θ in each round.
        learning_rate: Of the sign steps: every parameter moves by so much.
        weight_rate: Of w (per nat). Where the training set is fitted to small losses,
            the published rate moves the few examples of large loss only: raise it
            until rounds × rate × a typical loss is about 1.
        ridge: Pulls w together, so that fewer choices become hard.
        unlearn: "finetune" descends on the rest, "gradient_ascent" ascends on the
            chosen, "difference" does both.
        reverse: Search for the set that is easiest to forget instead.
        minibatch: Examples for each sign step, drawn with replacement; None takes all
            of them, and nothing but the first choice is random.
        binarise_every: Replace w by its ``size`` largest after so many rounds; 0 never
            does (the set returned is their choice anyway).
        batch_size: Examples whose activations are held at once.

    Returns:
        WorstCase.

    Raises:
        ValueError: an impossible number, or an unknown way to unlearn.

    Cost: rounds × (steps + 1) passes over the data, the last forward only.
    Source: Fan et al. 2024, arXiv 2403.07362, whose rates and binarisation every 20
        rounds are published for CIFAR-10. Differs: evaluation mode, no augmentation
        and frozen batch statistics (their code looks at augmented images with the
        statistics of each batch moving); whole passes by default, for minibatches.
    """
    _check(data, size, rounds, steps, minibatch, unlearn)
    data = jax.tree.map(jnp.asarray, data)
    factors = UNLEARN[unlearn]
    there = data.weights > 0
    caps = there.astype(data.weights.dtype)
    n = caps.shape[0]
    start_key, step_key = jax.random.split(key)
    guess = jnp.where(there, jax.random.uniform(start_key, (n,), caps.dtype), -1)
    start = _largest(guess, size)

    def unlearned(
        number: Any, chosen: Array, params: Params, data: Batch, key: PRNGKey
    ) -> Params:
        weighted = data._replace(weights=data.weights * factors(chosen))
        there = data.weights > 0

        def step(i: Any, at: Params, shared: Any) -> Params:
            seen, key = shared
            if minibatch is not None:
                own = jax.random.fold_in(key, number * steps + i)
                logits = jnp.where(there, 0.0, -jnp.inf)
                rows = jax.random.categorical(own, logits, shape=(minibatch,))
                seen = jax.tree.map(lambda leaf: leaf[rows], seen)
            slope = _slope(objective, at, seen, batch_size=batch_size)
            return jax.tree.map(
                lambda x, g: (x - learning_rate * jnp.sign(g)).astype(x.dtype),
                at,
                slope,
            )

        return repeat(steps, step, params, (weighted, key))

    def one_round(number: Any, state: Any, shared: Any) -> Any:
        chosen, history = state
        params, data, caps, key = shared
        moved = unlearned(number, chosen, params, data, key)
        losses = example_losses(objective, moved, data, batch_size=batch_size)
        losses = losses.astype(caps.dtype)
        history = history.at[number].set(jnp.sum(chosen * losses) / size)
        pull = (-losses if reverse else losses) + 2 * ridge * chosen
        chosen = project(chosen - weight_rate * pull, caps, size)
        if binarise_every:
            now = (number + 1) % binarise_every == 0
            whole = _largest(jnp.where(caps > 0, chosen, -1), size)
            chosen = jnp.where(now, whole, chosen)
        return chosen, history

    history = jnp.zeros((rounds,), caps.dtype)
    shared = (params, data, caps, step_key)
    weights, losses = repeat(rounds, one_round, (start, history), shared)
    ranked = jax.lax.top_k(jnp.where(there, weights, -1), size)[1]
    return WorstCase(weights, jnp.sort(ranked), losses)


def project(values: Weights, caps: Weights, total: Any) -> Weights:
    """The nearest w with 0 ≤ w ≤ caps and Σ w = total (at most Σ caps).

    w = clip(values − μ, 0, caps), where μ is found by bisection and then solved for
    among the entries that lie strictly between their bounds.

    Cost: 80 passes over the values.
    """
    dtype = values.dtype

    def clipped(shift: Any) -> Array:
        return jnp.clip(values - shift, 0, caps)

    def halve(_: Any, ends: Any, shared: Any) -> Any:
        values, caps, total = shared
        low, high = ends
        middle = (low + high) / 2
        too_much = jnp.sum(jnp.clip(values - middle, 0, caps)) > total
        return jnp.where(too_much, middle, low), jnp.where(too_much, high, middle)

    total = jnp.asarray(total, dtype)
    ends = (jnp.min(values - caps), jnp.max(values))
    low, high = repeat(_BISECTIONS, halve, ends, (values, caps, total))
    shift = (low + high) / 2
    near = clipped(shift)
    free = (near > 0) & (near < caps)
    count = jnp.sum(free)
    rest = jnp.sum(jnp.where(free, values, near)) - total
    exact = clipped(rest / jnp.maximum(count, 1).astype(dtype))
    better = jnp.abs(jnp.sum(exact) - total) <= jnp.abs(jnp.sum(near) - total)
    return jnp.where((count > 0) & better, exact, near)


def example_losses(
    objective: Objective, params: Params, data: Batch, *, batch_size: int = 256
) -> PerExample:
    """Loss of each example, zero where the weight is."""

    def part(batch: Batch, at: Params) -> Array:
        losses = objective.example_losses(at, present(batch))
        return jnp.where(batch.weights > 0, losses, 0)

    return collect(part, data, params, batch_size=batch_size)


def highest_influence_set(
    effects: Shaped[Array | np.ndarray, "q n"], size: int | float
) -> np.ndarray:
    """The training examples with the largest Σ_q |effect| on held-out outputs.

    Args:
        effects: From any ``Attribution.effects``, for held-out queries.
        size: A count, or a fraction of n in (0, 1).

    Returns:
        Sorted int64 indices.

    Raises:
        ValueError: effects are not finite, or a size that leaves nothing.
    """
    return highest_set(np.abs(np.asarray(effects, np.float64)).sum(axis=0), size)


def _slope(
    objective: Objective, params: Params, weighted: Batch, *, batch_size: int
) -> Params:
    """∇ Σ wₙ ℓₙ for weights of either sign; examples of weight zero are unseen."""

    def part(batch: Batch, at: Params) -> Params:
        return jax.grad(objective.total)(at, present(batch))

    return accumulate(part, weighted, params, batch_size=batch_size)


def _largest(values: Array, size: int) -> Array:
    """1 for the ``size`` largest values, 0 for the others."""
    rows = jax.lax.top_k(values, size)[1]
    return jnp.zeros_like(values).at[rows].set(1)


def _check(
    data: Batch, size: int, rounds: int, steps: int, minibatch: Any, unlearn: str
) -> None:
    n = len(data.weights)
    if not tracing(data.weights):
        n = int(np.count_nonzero(np.asarray(data.weights) > 0))
    if not 1 <= size < n:
        raise ValueError(
            f"size is {size} for {n} examples, expected 1 to {n - 1}: change the size"
        )
    if min(rounds, steps) < 1 or (minibatch is not None and minibatch < 1):
        raise ValueError(
            f"got {rounds} rounds of {steps} steps with minibatch {minibatch}, "
            "expected at least 1 of each"
        )
    if unlearn not in UNLEARN:
        raise ValueError(
            f"there is no way to unlearn called {unlearn!r}; choose from "
            f"{', '.join(UNLEARN)}"
        )
