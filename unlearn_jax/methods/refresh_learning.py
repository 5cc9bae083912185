"""Refresh learning: a batch is unlearned by a natural step up, then it is learned."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.data.batch import sample
from unlearn_jax.loop import fori_loop
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request
from unlearn_jax.train.descent import (
    TrainState,
    begin,
    descend,
    shuffled,
    steps_per_pass,
)
from unlearn_jax.train.fit import training_loss
from unlearn_jax.train.objective import bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Params, PRNGKey, Variables


@entrance()
def refresh_learning(
    learner: Learner,
    *,
    ascent_rate: float = 0.02,
    ascent_steps: int = 1,
    damping: float = 1.0,
    noise: float = 0.0,
    epochs: int = 5,
    learning_rate: float = 0.01,
    batch_size: int = 64,
) -> Method:
    """For each batch to forget: steps up its loss, then a step down on a retained one.

    A step up is θ + γ (F + damping)⁻¹ ∇L + ξ, ξ ~ N(0, noise · 2 γ (F + damping)⁻¹),
    where F is the diagonal of the empirical Fisher over the training set at the
    original: what the training set hardly needs moves furthest.

    Args:
        learner: Optimiser, momentum and weight decay of the steps down are those of its
            recipe.
        ascent_rate: γ.
        ascent_steps: Steps up for each batch.
        damping: Added to F [loss² / parameter²]; 1 makes a step up nearly plain.
        noise: Of the steps up, 0 to 1 (no unit).
        epochs: Passes over the forget set.
        learning_rate: Constant step size of the steps down.
        batch_size: Examples of each kind.

    Batch statistics move by the retained batches alone.

    Returns:
        Method; its state is F.

    Raises:
        ValueError: no ``damping``, or no ``ascent_rate``: see :func:`ascend`.

    Cost: prepare, one gradient per training example; forget, epochs × forget examples
        × (1 + ascent_steps) gradients. Loops run on the device.
    Source: refresh learning of Wang et al. 2024, arXiv 2403.13249, by its abstract and
        its update, a plug-in for continual learners: :func:`refreshed_fit` is that.
        Differs here: what is unlearned is the forget set and what is learned the retain
        set; F is kept, not renewed; it is damped; the noise, there of size 1, is off.
    """
    ascend = stepping_up(learner, ascent_rate, ascent_steps, damping, noise)
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule="constant",
    )
    down = training_loss(learner._replace(recipe=recipe))

    def prepare(key: PRNGKey, original: Variables, train: Batch) -> Params:
        del key
        return importance(learner, original, train)

    def forget(
        key: PRNGKey, fisher: Params, variables: Variables, request: Request
    ) -> tuple[Variables, Params]:
        lost, kept = (jax.tree.map(jnp.asarray, part) for part in request)
        size = min(batch_size, kept.weights.shape[0])

        def one_batch(key: PRNGKey, state: TrainState, batch: Batch) -> TrainState:
            up_key, draw_key, down_key = jax.random.split(key, 3)
            moved = ascend(up_key, state.variables, fisher, batch)
            part = sample(draw_key, kept, size)
            return descend(
                down_key,
                state._replace(variables=moved),
                (part.inputs, part.targets),
                part.weights,
                down,
                recipe,
                total_steps=1,
            )

        state = over_batches(
            key, begin(variables, recipe), lost, recipe.epochs, batch_size, one_batch
        )
        return state.variables, fisher

    return Method(prepare, forget)


def refreshed_fit(
    key: PRNGKey,
    learner: Learner,
    data: Batch,
    *,
    start: Variables,
    fisher: Params,
    ascent_rate: float = 0.02,
    ascent_steps: int = 1,
    damping: float = 1.0,
    noise: float = 0.0,
) -> Variables:
    """Training as published: each batch is unlearned, then learned.

    Args:
        key: Order and noise.
        learner: Model, loss and recipe.
        data: What comes in.
        start: The model before.
        fisher: F, see :func:`importance`; of what was learned before.
        ascent_rate: As for :func:`refresh_learning`, with the other options.
        ascent_steps: As there.
        damping: As there.
        noise: As there.

    Cost: epochs × examples × (1 + ascent_steps) gradients.
    """
    ascend = stepping_up(learner, ascent_rate, ascent_steps, damping, noise)
    down, recipe = training_loss(learner), learner.recipe
    total = recipe.epochs * steps_per_pass(data.weights, recipe.batch_size)

    def one_batch(key: PRNGKey, state: TrainState, batch: Batch) -> TrainState:
        up_key, down_key = jax.random.split(key)
        moved = ascend(up_key, state.variables, fisher, batch)
        return descend(
            down_key,
            state._replace(variables=moved),
            (batch.inputs, batch.targets),
            batch.weights,
            down,
            recipe,
            total_steps=total,
        )

    state = begin(start, recipe)
    given = jax.tree.map(jnp.asarray, data)
    size = recipe.batch_size
    return over_batches(key, state, given, recipe.epochs, size, one_batch).variables


def importance(learner: Learner, variables: Variables, data: Batch) -> Params:
    """Diagonal of the empirical Fisher, mean squared gradient per example."""
    objective = bind(learner.model, variables.stats, learner.loss)
    return empirical_fisher_diagonal(objective, variables.params, data)


def stepping_up(
    learner: Learner, rate: float, steps: int, damping: float, noise: float
) -> Callable[[PRNGKey, Variables, Params, Batch], Variables]:
    """``(key, variables, fisher, batch) -> variables`` after so many steps up.

    Raises:
        ValueError: a damping or rate that is not positive.
    """
    if not damping > 0 or not rate > 0:
        raise ValueError(
            f"refresh learning got ascent_rate {rate} and damping {damping}, expected "
            "both positive: where F is zero, only damping bounds the step"
        )

    def ascend(
        key: PRNGKey, variables: Variables, fisher: Params, batch: Batch
    ) -> Variables:
        objective = bind(learner.model, variables.stats, learner.loss)

        def step(i: Any, params: Params) -> Params:
            slope = jax.grad(objective.risk)(params, batch)
            drawn = tree.random_like(
                jax.random.fold_in(key, i), params, jax.random.normal
            )

            def moved(theta: Any, f: Any, g: Any, xi: Any) -> Any:
                gain = rate / (f + damping)
                return theta + gain * g + jnp.sqrt(2 * noise * gain) * xi

            return jax.tree.map(moved, params, fisher, slope, drawn)

        params = fori_loop(0, steps, step, variables.params, fisher, batch)
        return variables._replace(params=params)

    return ascend


def over_batches(
    key: PRNGKey,
    state: TrainState,
    data: Batch,
    epochs: int,
    batch_size: int,
    one_batch: Callable[[PRNGKey, TrainState, Batch], TrainState],
) -> TrainState:
    """Passes in random order over the examples that are there, batch by batch."""
    size = min(batch_size, data.weights.shape[0])

    def one_pass(epoch: Any, state: TrainState) -> TrainState:
        own = jax.random.fold_in(key, epoch)
        order_key, step_key = jax.random.split(own)
        order, count = shuffled(order_key, data.weights)

        def at(i: Any, state: TrainState) -> TrainState:
            place = i * size + jnp.arange(size)
            batch: Batch = jax.tree.map(
                lambda leaf: leaf[order[place % jnp.maximum(count, 1)]], data
            )
            there = jnp.where(place < count, batch.weights, 0)
            batch = batch._replace(weights=there)
            return one_batch(jax.random.fold_in(step_key, i), state, batch)

        return fori_loop(0, (count + size - 1) // size, at, state, data)

    return fori_loop(0, epochs, one_pass, state, data)
