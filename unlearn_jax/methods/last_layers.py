"""Forgetting by the last layers alone, anew or from where they stand (EU-k, CF-k)."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.curvature.layers import layers_of
from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.models.model import Model
from unlearn_jax.train.fit import fit, start_fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import PRNGKey, Variables


@entrance()
def retrain_last(learner: Learner, *, layers: int = 1) -> Method:
    """Initialise the last layers anew and train them on the retain set (EU-k).

    Args:
        learner: Its recipe is repeated, as ``retrain`` does.
        layers: k, how many; what a layer is, says
            :func:`unlearn_jax.curvature.layers.layers_of`. Published for several k;
            one is what every model has.

    Frozen layers keep parameters and batch statistics bit for bit. Where no trained
    layer has batch statistics but a frozen one has, all run in evaluation mode (and
    without dropout); else a batch is normalised by itself in frozen layers too.

    Raises:
        ValueError: from ``forget``, when the model has fewer layers.

    Cost: one training run; gradients end at the last frozen layer.
    Source: EU-k of Goel et al. 2022, arXiv 2201.06640. Differs: in released code the
        batch statistics of frozen layers go on moving. What the frozen layers learned
        from the forget set stays.
    """
    tuned = learner._replace(model=_held(learner.model, layers))

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        last = _last(learner.model, variables, request.retain.inputs, layers)
        fresh = start_fit(key, learner).train.variables
        start = jax.tree.map(
            lambda new, anew, old: anew if new else old, last, fresh, variables
        )
        return _fit_last(key, tuned, request, start, last)

    return stateless(forget)


@entrance()
def finetune_last(
    learner: Learner,
    *,
    layers: int = 1,
    epochs: int = 10,
    learning_rate: float = 0.01,
    batch_size: int = 256,
    schedule: str = "constant",
) -> Method:
    """Train the last layers on, on the retain set alone (CF-k).

    Args:
        learner: Optimiser, momentum and weight decay are those of its recipe.
        layers: As for :func:`retrain_last`.
        epochs: Passes over the retain set.
        learning_rate: Step size, the largest one under a schedule that falls.
        batch_size: Examples per step.
        schedule: As in ``Recipe``.

    Frozen layers stay as :func:`retrain_last` says.

    Raises:
        ValueError: from ``forget``, when the model has fewer layers.

    Cost: epochs × retain examples gradients, which end at the last frozen layer.
    Source: CF-k of Goel et al. 2022, arXiv 2201.06640, with the schedule of
        ``finetune``. Differs as ``retrain_last``.
    """
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule=schedule,  # pyright: ignore[reportArgumentType] - Recipe refuses others
    )
    model = _held(learner.model, layers)
    tuned = learner._replace(model=model, recipe=recipe)

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        last = _last(learner.model, variables, request.retain.inputs, layers)
        return _fit_last(key, tuned, request, variables, last)

    return stateless(forget)


def _fit_last(
    key: PRNGKey, learner: Learner, request: Request, start: Variables, last: Variables
) -> Variables:
    """Train on the retain set; updates of frozen parameters, decay too, are zero."""
    pace = jax.tree.map(lambda moves: jnp.asarray(moves, jnp.float32), last.params)
    return fit(key, learner, request.retain, start=start, pace=pace)


def _last(model: Model, variables: Variables, inputs: Any, layers: int) -> Variables:
    """Tree of booleans like ``variables``: whether the leaf is of the last layers."""
    number = layers_of(model.apply, variables, inputs)
    depth = 1 + max(jax.tree.leaves(number), default=-1)
    if layers > depth:
        raise ValueError(
            f"layers must be at most {depth}, the depth of this model, got {layers}: "
            "lower it, or take retrain or finetune, which train all of it"
        )
    return jax.tree.map(lambda layer: layer >= depth - layers, number)


def _held(model: Model, layers: int) -> Model:
    """The same model, in training mode closed to gradients of its first layers."""

    def apply_train(
        key: PRNGKey, variables: Variables, inputs: Any
    ) -> tuple[Any, Variables]:
        last = _last(model, variables, inputs, layers)
        held = jax.tree.map(
            lambda moves, p: p if moves else jax.lax.stop_gradient(p), last, variables
        )
        moving = jax.tree.leaves(last.stats)
        if moving and not any(moving):
            return model.apply(held, inputs), variables
        outputs, after = model.apply_train(key, held, inputs)
        stats = jax.tree.map(
            lambda moves, new, old: new if moves else old,
            last.stats,
            after.stats,
            variables.stats,
        )
        return outputs, variables._replace(stats=stats)

    return model._replace(apply_train=apply_train)
