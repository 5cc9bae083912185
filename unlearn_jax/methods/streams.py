"""Learners of a stream that keep no row: what was learned is held by importances.

What the neighbours of unlearning in continual learning were made for: rows come in, or
are to be forgotten, in any order, and each time there is nothing but those rows and a
state. Approximate, all of them; :mod:`unlearn_jax.methods.analytic` is exact.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.methods.anchored_finetune import anchored
from unlearn_jax.methods.gradient_ascent import gradient_ascent
from unlearn_jax.methods.merging import fisher_merge
from unlearn_jax.methods.method import Request
from unlearn_jax.methods.refresh_learning import (
    importance,
    over_batches,
    refreshed_fit,
    stepping_up,
)
from unlearn_jax.options import check_number
from unlearn_jax.train.descent import begin
from unlearn_jax.train.fit import fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Params, PRNGKey, Scalar, Variables

Step = Callable[[PRNGKey, "Remembered", Batch], "Remembered"]


class Remembered(NamedTuple):
    """Value: all that is kept of what was learned.

    Attributes:
        variables: The model.
        squares: Σ over rows of squared gradients, each at the model that had just
            learned it: rows × the diagonal of the Fisher.
        rows: How many (count, float).
    """

    variables: Variables
    squares: Params
    rows: Scalar


class StreamLearner(NamedTuple):
    """Description: a model that learns and forgets rows and keeps none of them.

    Attributes:
        start: ``key -> state``: nothing learned.
        learn: ``(key, state, batch) -> state``; rows of weight zero are not there.
        forget: ``(key, state, batch) -> state``, of rows that were learned.
    """

    start: Callable[[PRNGKey], Remembered]
    learn: Step
    forget: Step


def ewc_stream(
    learner: Learner,
    *,
    strength: float = 100.0,
    epochs: int = 5,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
) -> StreamLearner:
    """Elastic weight consolidation: new rows are learned under a spring to the old.

    Args:
        learner: Its recipe trains on what comes in first, and after it under the
            spring strength/2 · Σᵢ Fᵢ (θᵢ − θᵢ before)², F of all rows within.
        strength: Of the spring [loss / F / parameter²].
        epochs: Passes up the loss of what is to be forgotten, under the same spring.
        learning_rate: Of these.
        batch_size: Of these.

    Raises:
        ValueError: a strength below zero.

    Source: Kirkpatrick et al. 2017, arXiv 1612.00796. Differs: one spring to the latest
        model for all tasks; ascent under it for what is to be forgotten.
    """
    check_number("ewc_stream: strength", strength, least=0.0)
    recipe = learner.recipe
    further = anchored(
        learner,
        "retain",
        recipe.epochs,
        recipe.learning_rate,
        recipe.batch_size,
    )
    up = anchored(learner, "ascend", epochs, learning_rate, batch_size)

    def moving(move: Callable[..., Variables]) -> Callable[..., Variables]:
        def moved(key: PRNGKey, state: Remembered, batch: Batch) -> Variables:
            stiffness = tree.scale(strength, _fisher(state))
            return move(key, state.variables, batch, stiffness)

        return moved

    return _learner(learner, moving(further), moving(up))


def sequential_stream(
    learner: Learner,
    *,
    epochs: int = 5,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
) -> StreamLearner:
    """Control: trains on with the new rows alone, held by nothing.

    Args:
        learner: Its recipe trains.
        epochs: Passes up the loss of what is to be forgotten.
        learning_rate: Of these.
        batch_size: Of these.

    What the others keep is to be measured against it: :func:`ewc_stream` without its
    spring.
    """
    return ewc_stream(
        learner,
        strength=0.0,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )


def merging_stream(
    learner: Learner,
    *,
    floor: float = 1e-6,
    epochs: int = 5,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
) -> StreamLearner:
    """Fisher merging: new rows are learned apart, and merged by importances and rows.

    Args:
        learner: Its recipe trains on from the model before.
        floor: Added to every Fisher [loss² / parameter²].
        epochs: Passes up the loss of what is to be forgotten; what comes of it is
            merged with the model before by the Fisher of these rows.
        learning_rate: Of these.
        batch_size: Of these.

    Raises:
        ValueError: a floor that is not positive.

    Source: Matena & Raffel 2022, arXiv 2111.09832, as a continual learner. Differs: the
        weights are rows; the ascent is ours.
    """
    check_number("merging_stream: floor", floor, positive=True)
    ascent = gradient_ascent(
        learner, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size
    )

    def merged(state: Remembered, moved: Variables, batch: Batch) -> Variables:
        count = jnp.sum(batch.weights > 0).astype(state.rows.dtype)
        fishers = (_fisher(state), importance(learner, moved, batch))
        params = fisher_merge(
            [state.variables.params, moved.params],
            [jax.tree.map(lambda f: f + floor, fisher) for fisher in fishers],
            [state.rows, count],
        )
        return moved._replace(params=params)

    def learned(key: PRNGKey, state: Remembered, batch: Batch) -> Variables:
        moved = fit(key, learner, batch, start=state.variables)
        return merged(state, moved, batch)

    def forgotten(key: PRNGKey, state: Remembered, batch: Batch) -> Variables:
        alone = Request(forget=batch, retain=batch)  # the ascent reads no retain set
        moved: Any = ascent.forget(key, (), state.variables, alone)[0]
        return merged(state, moved, batch)

    return _learner(learner, learned, forgotten)


def refresh_stream(
    learner: Learner,
    *,
    ascent_rate: float = 0.02,
    ascent_steps: int = 1,
    damping: float = 1.0,
    epochs: int = 5,
    batch_size: int = 256,
) -> StreamLearner:
    """Refresh learning: each batch that comes in is unlearned, then learned.

    Args:
        learner: Its recipe trains.
        ascent_rate: Of the steps up, see ``refresh_learning``.
        ascent_steps: Steps up for each batch.
        damping: Added to the Fisher of all rows within.
        epochs: Passes of steps up alone, over what is to be forgotten: nothing is kept
            that could be learned after them.
        batch_size: Of these.

    Raises:
        ValueError: a rate or damping that is not positive.

    Source: Wang et al. 2024, arXiv 2403.13249, see ``refreshed_fit``.
    """
    ascend = stepping_up(learner, ascent_rate, ascent_steps, damping, 0.0)

    def learned(key: PRNGKey, state: Remembered, batch: Batch) -> Variables:
        return refreshed_fit(
            key,
            learner,
            batch,
            start=state.variables,
            fisher=_fisher(state),
            ascent_rate=ascent_rate,
            ascent_steps=ascent_steps,
            damping=damping,
        )

    def forgotten(key: PRNGKey, state: Remembered, batch: Batch) -> Variables:
        fisher = _fisher(state)

        def one(key: PRNGKey, at: Any, part: Batch) -> Any:
            return at._replace(variables=ascend(key, at.variables, fisher, part))

        first = begin(state.variables, learner.recipe)
        return over_batches(key, first, batch, epochs, batch_size, one).variables

    return _learner(learner, learned, forgotten)


def _learner(
    learner: Learner,
    learned: Callable[[PRNGKey, Remembered, Batch], Variables],
    forgotten: Callable[[PRNGKey, Remembered, Batch], Variables],
) -> StreamLearner:
    def start(key: PRNGKey) -> Remembered:
        variables = learner.model.init(key)
        squares = tree.zeros_like(variables.params)
        return Remembered(variables, squares, jnp.zeros((), jnp.float32))

    def learn(key: PRNGKey, state: Remembered, batch: Batch) -> Remembered:
        batch = jax.tree.map(jnp.asarray, batch)
        first = fit(key, learner, batch, start=state.variables)
        later = learned(key, state, batch)
        moved = tree.where(state.rows > 0, later, first)
        return _counted(learner, state, moved, moved, batch, 1.0)

    def forget(key: PRNGKey, state: Remembered, batch: Batch) -> Remembered:
        batch = jax.tree.map(jnp.asarray, batch)
        moved = forgotten(key, state, batch)
        # Subtracted at the model that still knew them.
        return _counted(learner, state, state.variables, moved, batch, -1.0)

    return StreamLearner(start, learn, forget)


def _fisher(state: Remembered) -> Params:
    return tree.scale(1 / jnp.maximum(state.rows, 1), state.squares)


def _counted(
    learner: Learner,
    state: Remembered,
    known: Variables,
    moved: Variables,
    batch: Batch,
    sign: float,
) -> Remembered:
    """The state with these rows counted in or out; squares never fall below zero."""
    count = jnp.sum(batch.weights > 0).astype(state.rows.dtype)
    own = importance(learner, known, batch)
    squares = jax.tree.map(
        lambda s, f: jnp.maximum(s + sign * count.astype(f.dtype) * f, 0),
        state.squares,
        own,
    )
    return Remembered(moved, squares, jnp.maximum(state.rows + sign * count, 0))
