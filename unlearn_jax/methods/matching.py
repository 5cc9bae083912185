"""Fine-tune a model until its outputs are the given ones."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.data.accumulate import collect
from unlearn_jax.data.batch import concatenate, sample
from unlearn_jax.loop import Loop
from unlearn_jax.methods.method import Request
from unlearn_jax.train.descent import StepLoss, begin, optimise
from unlearn_jax.train.fit import choose_fit_loop, weighted_mean
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Array, Batch, Inputs, PRNGKey, Variables

Matcher = Callable[
    [PRNGKey, Variables, Request, Callable[[Batch], tuple[Array, Any]]],
    tuple[Variables, Any],
]
"""``(key, variables, request, targets_of) -> (variables, told)``."""


def matching(
    learner: Learner,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    retain_ratio: int,
    forget_copies: int,
) -> Matcher:
    """A fine-tune of the outputs on the forget set and a sample of the retain set.

    Minimises the mean over examples and outputs of (f(x) − target(x))², by Adam, the
    learning rate 5 % less with every epoch. No label is read.

    Args:
        learner: Only its model and its choice of loop are used.
        epochs: Passes over the matched examples.
        learning_rate: Of the first epoch.
        batch_size: Examples per step.
        retain_ratio: Retained examples that are drawn for each forgotten one.
        forget_copies: How often each forgotten example appears in a pass.

    Returns:
        Matcher; ``targets_of`` takes a batch of both kinds to their (n, k) targets, and
        whatever is to be told of how they were found, which the matcher passes on.

    Raises:
        ValueError: a count that is not positive.

    Cost: epochs × (forget_copies + retain_ratio) gradients for each forgotten example.
    Source: Georgiev et al. 2024, arXiv 2410.23232, with the fine-tune of its code.
        Differs: the sample of the retain set depends on the key; theirs is one for
        all models.
    """
    for name, value in (
        ("retain_ratio", retain_ratio),
        ("forget_copies", forget_copies),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        optimizer="adam",
        weight_decay=0.0,
        schedule="exponential",
        loop=learner.recipe.loop,
    )
    step_loss = _squared_distance(learner)

    def match(
        key: PRNGKey,
        variables: Variables,
        request: Request,
        targets_of: Callable[[Batch], tuple[Array, Any]],
    ) -> tuple[Variables, Any]:
        sample_key, order_key = jax.random.split(key)
        forgotten = request.forget.weights.shape[0]
        count = jnp.sum(request.forget.weights > 0)
        size = min(retain_ratio * forgotten, request.retain.weights.shape[0])
        kept = sample(sample_key, request.retain, size, retain_ratio * count)
        both = concatenate(request.forget, kept)
        targets, told = jax.lax.stop_gradient(targets_of(both))
        order = _layout(forgotten, size, forget_copies, retain_ratio)
        state = optimise(
            order_key,
            begin(variables, recipe),
            (jnp.asarray(both.inputs)[order], targets[order]),
            jnp.asarray(both.weights)[order],
            step_loss,
            recipe,
            loop=choose_fit_loop(learner, request.retain, key, variables),
        )
        return state.variables, told

    return match


def outputs_of(
    learner: Learner, variables: Variables, inputs: Inputs, *, loop: Loop = "device"
) -> Array:
    """Outputs (n, k) of a model on many examples, in batches."""

    def predict(inputs: Array, at: Variables) -> Array:
        return learner.model.apply(at, inputs)

    return collect(predict, inputs, variables, loop=loop)


def _layout(forgotten: int, kept: int, copies: int, ratio: int) -> Array:
    """Rows of a pass: copies of the forgotten examples, and the kept ones once.

    What has weight comes before the padding, so that a request padded to another size
    draws the same order.
    """
    lost = jnp.repeat(jnp.arange(forgotten), copies).reshape(forgotten, copies)
    held = forgotten + jnp.arange(kept)
    if kept < ratio * forgotten:
        return jnp.concatenate([held, lost.ravel()])
    return jnp.concatenate([lost, held.reshape(forgotten, ratio)], axis=1).ravel()


def _squared_distance(learner: Learner) -> StepLoss:
    def step_loss(
        key: Any, params: Any, stats: Any, examples: Any, weights: Any
    ) -> Any:
        inputs, targets = examples
        outputs, moved = learner.model.apply_train(
            key, Variables(params, stats), inputs
        )
        distance = jnp.mean(
            jnp.square(outputs - targets).reshape(outputs.shape[0], -1), axis=1
        )
        return weighted_mean(distance, weights), moved.stats

    return step_loss
