"""Adam on some of a denoiser's parameters: the loop of every method that is tuned."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from unlearn_jax.loop import repeat, tracing
from unlearn_jax.options import check_number, check_whole
from unlearn_jax.types import Array, Batch, Params, PRNGKey

Slope = Callable[[Any, Any, Any], Any]
"""``(key, params, constants) -> gradient``, like the parameters."""
Loss = Callable[[Any, Any, Any], Any]
"""``(key, params, constants) -> scalar``."""


def tune(
    key: PRNGKey,
    params: Params,
    slope: Slope,
    constants: Any,
    *,
    moves: Any,
    steps: int,
    learning_rate: float,
    rule: optax.GradientTransformation | None = None,
) -> Params:
    """``steps`` of Adam along minus ``slope``.

    Args:
        key: Split for each step.
        params: Where to start.
        slope: See :data:`Slope`; ``slope_of(loss)`` for a loss.
        constants: Arrays that it reads, passed on and never captured.
        moves: Tree like the parameters: True or False for a leaf, or a mask in its
            shape. What is masked moves by nothing at all, whatever Adam remembers.
        steps: Gradients.
        learning_rate: Constant.
        rule: Another rule than plain Adam of that rate.

    Raises:
        ValueError: no steps, or a rate that is not positive.
    """
    check_whole("steps", steps)
    check_number("learning_rate", learning_rate, positive=True)
    own_rule = optax.adam(learning_rate) if rule is None else rule

    def step(i: Any, state: Any, given: Any) -> Any:
        key, masks, constants = given
        params, memory = state
        own = slope(jax.random.fold_in(key, i), params, constants)
        updates, memory = own_rule.update(held(own, moves, masks), memory, params)
        updates = held(updates, moves, masks)
        return optax.apply_updates(params, updates), memory

    masks = jax.tree.map(jnp.asarray, moves)
    state = params, own_rule.init(params)
    return repeat(steps, step, state, (key, masks, constants))[0]


def slope_of(loss: Loss) -> Slope:
    """The gradient of a loss in the parameters."""
    return jax.grad(loss, argnums=1)


def held(vector: Params, moves: Any, masks: Any = None) -> Params:
    """A vector, zero where nothing moves.

    Args:
        vector: Like the parameters.
        moves: As of :func:`tune`.
        masks: The same as arrays, where ``moves`` must not be captured.
    """
    masks = moves if masks is None else masks

    def one(leaf: Array, known: Any, mask: Any) -> Array:
        # What is known beforehand costs nothing: its gradient is never computed.
        if isinstance(known, bool):
            return leaf if known else jnp.zeros_like(leaf)
        return jnp.where(mask, leaf, 0)

    return jax.tree.map(one, vector, moves, masks)


def left_out(weight: Any) -> bool:
    """Whether a term is known to weigh nothing; one whose weight is traced is there."""
    return not tracing(weight) and weight == 0


def picked(key: PRNGKey, data: Batch, count: int) -> Batch:
    """``count`` examples, drawn in proportion to their weights; each then weighs 1.

    Where none has weight, as many zeros of no weight.
    """
    weights = jnp.asarray(data.weights)
    total = jnp.sum(weights)
    shares = jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), 1)
    rows = jax.random.choice(key, len(weights), (count,), p=shares)
    inputs, targets = jax.tree.map(
        lambda leaf: jnp.where(total > 0, jnp.asarray(leaf)[rows], 0),
        (data.inputs, data.targets),
    )
    return Batch(inputs, targets, jnp.full(count, total > 0, weights.dtype))
