"""Imitates, on the forget set, a model that was blind to it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from unlearn_jax.data.accumulate import collect
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.train.descent import begin, optimise
from unlearn_jax.train.fit import choose_fit_loop, fit, weighted_mean
from unlearn_jax.train.recipe import Learner, Recipe
from unlearn_jax.types import Array, PRNGKey, Variables

Maps: TypeAlias = Callable[[Variables, Any], tuple[Any, ...]]
"""(variables, inputs) -> activations (n, positions…, channels) of some layers."""


@entrance()
def blindspot(
    learner: Learner,
    *,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    blind_epochs: int = 2,
    blind_rate: float = 1e-2,
) -> Method:
    """Train a model on the retain set for a while, and imitate what it is blind to.

    Args:
        learner: Its model is drawn afresh as the blind one.
        epochs: Passes over all examples.
        learning_rate: Step size of Adam, constant.
        batch_size: Examples per step.
        blind_epochs: Passes of the blind model over the retain set.
        blind_rate: Step size of Adam of these.

    A step descends on the mean absolute error, to the true targets where an example
    stays and to the blind model's outputs where it is forgotten. Weighted by the share
    of forgotten examples in a batch, as published, that is the plain mean over the
    batch. Batch statistics move.

    Cost: blind_epochs × retain + epochs × all examples gradients.
    Source: Tarun et al. 2023, arXiv 2210.08196. Differs: no attention term, for which
        see :func:`attentive_blindspot`.
    """
    return _method(
        learner,
        None,
        0.0,
        _adam(learner, epochs, learning_rate, batch_size),
        _adam(learner, blind_epochs, blind_rate, batch_size),
    )


@entrance()
def attentive_blindspot(
    learner: Learner,
    maps: Maps,
    *,
    beta: float = 50.0,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    batch_size: int = 256,
    blind_epochs: int = 2,
    blind_rate: float = 1e-2,
) -> Method:
    """:func:`blindspot` that attends, on the forget set, where the blind model does.

    The attention of a layer is the mean over channels of its squared activations, of
    length 1 over positions. To the loss of a forgotten example comes ``beta`` × the
    mean squared difference of the two attentions, summed over layers.

    Args:
        learner: As for ``blindspot``.
        maps: Gives the activations. A dense layer has one position, whose attention is
            1 whatever it does: it makes no sense there, and is refused.
        beta: Weight of the attention.
        epochs: As for ``blindspot``.
        learning_rate: As for ``blindspot``.
        batch_size: As for ``blindspot``.
        blind_epochs: As for ``blindspot``.
        blind_rate: As for ``blindspot``.

    Raises:
        ValueError: from ``forget``, activations of fewer than three axes.

    Cost: as ``blindspot``, and one forward pass over the forget set. Memory: maps of
        the forget set.
    Source: as ``blindspot``. As published.
    """
    return _method(
        learner,
        maps,
        beta,
        _adam(learner, epochs, learning_rate, batch_size),
        _adam(learner, blind_epochs, blind_rate, batch_size),
    )


def attention(activations: Any) -> Array:
    """(n, positions…, channels) to (n, positions): mean squares, of length 1.

    Raises:
        ValueError: there are no positions.
    """
    if activations.ndim < 3:
        raise ValueError(
            f"got activations of shape {activations.shape}, expected (n, positions, "
            "channels): a dense layer has one position, so nothing to attend to; take "
            "blindspot"
        )
    power = jnp.mean(jnp.square(activations), axis=-1).reshape(len(activations), -1)
    length = jnp.sqrt(jnp.sum(jnp.square(power), axis=1, keepdims=True))
    return power / jnp.where(length > 0, length, 1)


def _adam(learner: Learner, epochs: int, rate: float, batch_size: int) -> Recipe:
    return replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=rate,
        batch_size=batch_size,
        optimizer="adam",
        weight_decay=0.0,
        schedule="constant",
    )


def _method(
    learner: Learner, maps: Maps | None, beta: float, recipe: Recipe, blind: Recipe
) -> Method:
    model = learner.model
    teacher = learner._replace(recipe=blind, loss=_absolute_error)

    def attend(variables: Variables, inputs: Any) -> tuple[Array, ...]:
        found = () if maps is None else maps(variables, inputs)
        return tuple(attention(layer) for layer in found)

    def step_loss(
        key: Any, params: Any, stats: Any, examples: Any, weights: Any
    ) -> Any:
        inputs, targets, attended, forgotten = examples
        variables = Variables(params, stats)
        outputs, moved = model.apply_train(key, variables, inputs)
        losses = _absolute_error(outputs, targets)
        for ours, theirs in zip(attend(variables, inputs), attended, strict=True):
            gap = jnp.mean(jnp.square(ours - theirs), axis=1)
            losses = losses + beta * forgotten * gap
        return weighted_mean(losses, weights), moved.stats

    def teach(inputs: Array, blind: Variables) -> Any:
        return model.apply(blind, inputs), attend(blind, inputs)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        blind_key, order_key = jax.random.split(key)
        kept, lost = request.retain, request.forget
        loop = choose_fit_loop(learner, kept, key, variables)
        blind = fit(blind_key, teacher, kept)
        told, attended = collect(teach, lost.inputs, blind, loop=loop)
        blank = jax.tree.map(
            lambda x: jnp.zeros((len(kept.weights), *x.shape[1:]), x.dtype), attended
        )
        flags = [jnp.zeros_like(kept.weights), jnp.ones_like(lost.weights)]
        examples = jax.tree.map(
            lambda a, b: jnp.concatenate([a, b]),
            (kept.inputs, kept.targets, blank, flags[0]),
            (lost.inputs, told.astype(kept.targets.dtype), attended, flags[1]),
        )
        weights = jnp.concatenate([kept.weights, lost.weights])
        state = begin(variables, recipe)
        return optimise(
            order_key, state, examples, weights, step_loss, recipe, loop=loop
        ).variables

    return stateless(forget)


def _absolute_error(outputs: Any, targets: Any) -> Any:
    return jnp.mean(jnp.abs(outputs - targets), axis=-1)
