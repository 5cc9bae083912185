"""Descent over one set while batches of another go round beside it.

A method that forgets one set and keeps another sees both in every step. A pass walks
over one of them; of the other each step takes the next examples in an order of the
pass, and no step counts one of them twice.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from unlearn_jax.loop import Loop, rounds
from unlearn_jax.train.descent import (
    Rule,
    StepLoss,
    TrainState,
    begin,
    descend,
    shuffled,
    steps_per_pass,
)
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Array, Batch, PRNGKey, Variables

PairLoss: TypeAlias = Callable[..., Any]
"""``(key, params, stats, carried, walked, beside) -> (scalar, stats, carried)``."""


class Part(NamedTuple):
    """Value: examples and their weights: a whole set, or what a step sees of it."""

    examples: Any
    weights: Array


def part_of(data: Batch) -> Part:
    """Inputs and targets as the examples that a training loss takes."""
    return Part((data.inputs, data.targets), jnp.asarray(data.weights))


def paired_descent(
    key: PRNGKey,
    variables: Variables,
    walked: Part,
    beside: Part,
    pair_loss: PairLoss,
    recipe: Recipe,
    *,
    beside_batch: int,
    carried: Any = (),
    rule: Rule | None = None,
    loop: Loop = "device",
) -> tuple[Variables, Any, Any]:
    """``recipe.epochs`` passes over ``walked``.

    Args:
        key: Draws the orders and whatever the loss draws.
        variables: Where to start.
        walked: Every example of positive weight is seen once in a pass.
        beside: Goes round; where none of it has weight, the part that a step is handed
            weighs nothing and holds what must not be read.
        pair_loss: ``(key, params, stats, carried, walked, beside) -> (scalar, stats,
            carried)``, both sets as :class:`Part` of a step; a stable function object.
        recipe: Its batch size is that of ``walked``.
        beside_batch: Examples of the other set per step, or all there are if fewer.
        carried: What the loss reads and hands on from step to step; arrays.
        rule: As in :func:`unlearn_jax.train.descent.descend`, given ``carried``.
        loop: "device" or "host", see :mod:`unlearn_jax.loop`.

    Returns:
        (variables, carried, state of the optimiser) after the last step.

    Cost: epochs × walked × (1 + beside_batch / batch_size) gradients.
    """
    step_loss = _riding(pair_loss, beside_batch)
    riding_rule = None if rule is None else _riding_rule(rule)
    total = recipe.epochs * steps_per_pass(walked.weights, recipe.batch_size)

    # The other set and its order ride in the stats: arguments of the compiled steps.
    def ride(key: Any, stats: Any, carried: Any, beside: Part) -> Any:
        order, count = shuffled(key, beside.weights)
        place = jnp.zeros((), jnp.int32)
        told = {"beside": beside, "order": order, "count": count, "place": place}
        return {"stats": stats, "carried": carried, **told}

    def epoch(index: Any, state: TrainState, constants: Any) -> TrainState:
        key, walked, total = constants
        pass_key, order_key = jax.random.split(jax.random.fold_in(key, index))
        at = state.variables
        kept = at.stats["stats"], at.stats["carried"], at.stats["beside"]
        return descend(
            pass_key,
            state._replace(variables=at._replace(stats=ride(order_key, *kept))),
            walked.examples,
            walked.weights,
            step_loss,
            recipe,
            total_steps=total,
            rule=riding_rule,
            loop=loop,
        )

    beside = jax.tree.map(jnp.asarray, beside)
    riding = ride(key, variables.stats, carried, beside)
    start = Variables(variables.params, riding)
    first = None if rule is None else rule(recipe, 1, carried)
    state = begin(start, recipe, first)
    constants = (key, walked, total)
    state = rounds(recipe.epochs, epoch, state, constants, loop=loop)
    params, stats = state.variables
    return Variables(params, stats["stats"]), stats["carried"], state.optimizer_state


@functools.lru_cache(maxsize=64)
def _riding(pair_loss: PairLoss, size: int) -> StepLoss:
    def step_loss(
        key: Any, params: Any, riding: Any, examples: Any, weights: Any
    ) -> Any:
        data, order, count = riding["beside"], riding["order"], riding["count"]
        place = jnp.arange(min(size, order.shape[0]))
        taken = jnp.minimum(count, place.shape[0])
        index = order[(riding["place"] + place) % jnp.maximum(count, 1)]
        there = jnp.where(place < taken, data.weights[index], 0)
        other = Part(jax.tree.map(lambda leaf: leaf[index], data.examples), there)
        value, stats, carried = pair_loss(
            key,
            params,
            riding["stats"],
            riding["carried"],
            Part(examples, weights),
            other,
        )
        moved = {"stats": stats, "carried": carried, "place": riding["place"] + taken}
        return value, {**riding, **moved}

    return step_loss


@functools.lru_cache(maxsize=64)
def _riding_rule(rule: Rule) -> Rule:
    return lambda recipe, total, riding: rule(recipe, total, riding["carried"])
