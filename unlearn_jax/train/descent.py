"""Stochastic descent over weighted examples: the one loop that everything trains with.

Fitting, fine-tuning, ascent and distillation differ in their loss alone, so they share
these steps. An example of weight zero is never drawn: it costs nothing and it cannot
reach the batch statistics of a batch-norm.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from unlearn_jax import tree
from unlearn_jax.loop import Loop, repeat, rounds
from unlearn_jax.train.recipe import Recipe, optimizer
from unlearn_jax.types import Variables

StepLoss: TypeAlias = Callable[..., Any]
"""``(key, params, stats, examples, weights) -> (scalar, stats)``."""
Rule: TypeAlias = Callable[[Recipe, Any, Any], optax.GradientTransformation]
"""``(recipe, total_steps, stats) -> optax transformation``; see :func:`descend`."""


class TrainState(NamedTuple):
    """Value: a training run between two steps.

    Attributes:
        variables: Parameters and batch statistics.
        optimizer_state: Of the optax transformation.
        step: Steps taken so far, the schedule's clock.
        loss: Mean of the step losses of the latest pass.
    """

    variables: Variables
    optimizer_state: Any
    step: Any
    loss: Any


def begin(
    variables: Variables,
    recipe: Recipe,
    transformation: optax.GradientTransformation | None = None,
) -> TrainState:
    """The state before the first step; of the recipe's optimiser unless another is."""
    if transformation is None:
        transformation = optimizer(recipe, 1)
    return TrainState(
        variables,
        transformation.init(variables.params),
        jnp.zeros((), jnp.int32),
        jnp.zeros((), jnp.float32),
    )


def steps_per_pass(weights: Any, batch_size: int) -> Any:
    """Steps that visit every example of positive weight once."""
    count = jnp.sum(weights > 0).astype(jnp.int32)
    size = min(batch_size, weights.shape[0])
    return (count + size - 1) // size


def shuffled(key: Any, weights: Any) -> tuple[Any, Any]:
    """A random order with the examples of positive weight in front, and how many."""
    present = weights > 0
    count = jnp.sum(present).astype(jnp.int32)
    drawn = jax.random.uniform(key, weights.shape, jnp.float32)
    return jnp.argsort(jnp.where(present, drawn, 2.0)), count


def descend(
    key: Any,
    state: TrainState,
    examples: Any,
    weights: Any,
    step_loss: StepLoss,
    recipe: Recipe,
    *,
    total_steps: Any,
    pace: Any = None,
    shrink: Any = None,
    rule: Rule | None = None,
    home: Any = None,
    loop: Loop = "device",
) -> TrainState:
    """One pass in random order over the examples whose weight is positive.

    Args:
        key: Draws the order and whatever the loss draws.
        state: Where to start.
        examples: Pytree of arrays with a common first axis n, data always an argument.
        weights: (n,) non-negative; the last step of a pass may hold fewer examples.
        step_loss: ``(key, params, stats, examples, weights) -> (scalar, stats)``; a
            stable function object, since compiled steps are remembered by it.
        recipe: Optimiser, batch size and schedule.
        total_steps: Length of the schedule, over all passes.
        pace: Tree like the parameters that multiplies every update, after momentum and
            decay: what is 0 there never moves. None for 1 everywhere.
        shrink: After every update each parameter is moved towards zero by so much, and
            rests there: the proximal step of an l1 penalty. None for not at all.
        rule: Makes the optimiser of a step from what ``step_loss`` has left in the
            stats, for one that reads curvature; None for the recipe's. A stable
            function object.
        home: Tree like the parameters, and a count. After every update all move towards
            that tree by the size of the count-th smallest difference from it, and what
            is no further rests there. None for not at all.
        loop: "device" or "host", see :mod:`unlearn_jax.loop`.

    Cost: one gradient per example; the steps are one compiled loop.
    """
    size = min(recipe.batch_size, weights.shape[0])
    order_key, step_key = jax.random.split(key)
    order, count = shuffled(order_key, weights)
    rests = (pace, shrink, home)
    constants = (step_key, examples, weights, order, count, total_steps, rests)
    body = training_step(step_loss, recipe, size, rule)
    state = state._replace(loss=jnp.zeros((), jnp.float32))
    steps = steps_per_pass(weights, size)
    state = repeat(steps, body, state, constants, loop=loop)
    return state._replace(loss=state.loss / jnp.maximum(steps, 1))


def optimise(
    key: Any,
    state: TrainState,
    examples: Any,
    weights: Any,
    step_loss: StepLoss,
    recipe: Recipe,
    *,
    pace: Any = None,
    loop: Loop = "device",
) -> TrainState:
    """``recipe.epochs`` passes of :func:`descend`, each with a key of its own."""
    total = recipe.epochs * steps_per_pass(weights, recipe.batch_size)

    def one_pass(epoch: Any, carried: TrainState, constants: Any) -> TrainState:
        key, examples, weights, total, pace = constants
        return descend(
            jax.random.fold_in(key, epoch),
            carried,
            examples,
            weights,
            step_loss,
            recipe,
            total_steps=total,
            pace=pace,
            loop=loop,
        )

    constants = (key, examples, weights, total, pace)
    return rounds(recipe.epochs, one_pass, state, constants, loop=loop)


@functools.lru_cache(maxsize=64)
def training_step(
    step_loss: StepLoss, recipe: Recipe, size: int, rule: Rule | None = None
) -> Callable[..., Any]:
    """The body of the loop over steps; one function object for each choice."""

    def step(i: Any, state: TrainState, constants: Any) -> TrainState:
        key, examples, weights, order, count, total_steps, rests = constants
        pace, shrink, home = rests
        position = i * size + jnp.arange(size)
        index = order[position % jnp.maximum(count, 1)]
        chosen = jax.tree.map(lambda leaf: leaf[index], examples)
        kept = jnp.where(position < count, weights[index], 0)
        variables = state.variables
        gradient = jax.value_and_grad(step_loss, argnums=1, has_aux=True)
        (value, stats), slope = gradient(
            jax.random.fold_in(key, i), variables.params, variables.stats, chosen, kept
        )
        if rule is None:
            transformation = optimizer(recipe, total_steps)
        else:
            transformation = rule(recipe, total_steps, stats)
        updates, optimizer_state = transformation.update(
            slope, state.optimizer_state, variables.params
        )
        if pace is not None:
            updates = jax.tree.map(lambda u, p: u * p.astype(u.dtype), updates, pace)
        params = optax.apply_updates(variables.params, updates)
        if shrink is not None:
            params = jax.tree.map(lambda p: soft_threshold(p, shrink), params)
        if home is not None:
            params = homeward(params, *home)
        return TrainState(
            Variables(params, stats),
            optimizer_state,
            state.step + 1,
            state.loss + value.astype(jnp.float32),
        )

    return step


def soft_threshold(x: Any, by: Any) -> Any:
    """``x`` moved towards zero by ``by``, and exactly zero where it is no larger."""
    size = jnp.abs(x)
    left = jnp.maximum(size - jnp.asarray(by).astype(size.dtype), 0)
    return jnp.sign(x) * left


def homeward(params: Any, home: Any, count: Any) -> Any:
    """``params`` moved towards ``home`` until ``count`` of them rest there.

    The proximal step of an l1 penalty on the difference, as strong as it takes.
    """
    change = tree.subtract(params, home)
    sizes = jnp.concatenate([jnp.abs(leaf).ravel() for leaf in jax.tree.leaves(change)])
    by = jnp.where(count > 0, jnp.sort(sizes)[jnp.maximum(count, 1) - 1], 0)
    # What rests is home to the last bit, and what no one pulls is left as it is.
    return jax.tree.map(
        lambda p, d, h: jnp.where(by > 0, h + soft_threshold(d, by), p),
        params,
        change,
        home,
    )
