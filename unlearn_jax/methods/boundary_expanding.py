"""Moves what is to be forgotten into a class of its own, and drops that class."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.methods.guard import entrance
from unlearn_jax.methods.method import Method, Request, stateless
from unlearn_jax.models.model import Model
from unlearn_jax.train.descent import begin, optimise
from unlearn_jax.train.fit import choose_fit_loop, weighted_mean
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Params, PRNGKey, Variables


@entrance()
def boundary_expanding(
    learner: Learner,
    *,
    epochs: int = 10,
    learning_rate: float = 5e-6,
    batch_size: int = 256,
) -> Method:
    """Fit the forget set to one class more than there is; then drop its logit.

    That logit is features · kernel + bias, all drawn from ±1/√width.

    Args:
        learner: Its loss takes class indices. Optimiser, momentum and weight decay are
            those of its recipe; no augmentation, no l2.
        epochs: Passes over the forget set.
        learning_rate: Constant step size.
        batch_size: Examples per step.

    No label is read. The model runs in evaluation mode: batch statistics stay.

    Cost: epochs × forget examples gradients.
    Source: Chen et al. 2023, arXiv 2303.11570, with the schedule of the code of Fan et
        al. 2024, arXiv 2310.12508. Differs: that code evaluates with the new logit
        (:func:`expanded`), so that the model has a class more than its oracle; and
        batch statistics move there.
    """
    run = expanded(
        learner, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size
    )

    def forget(key: PRNGKey, variables: Variables, request: Request) -> Variables:
        return run(key, variables, request).variables

    return stateless(forget)


class Expanded(NamedTuple):
    """Value: a model and the logit of one class more.

    Attributes:
        variables: Of the model, whose outputs are the classes that there were.
        extra: Kernel (f,) and bias () of the new one.
    """

    variables: Variables
    extra: Params


def expanded(
    learner: Learner,
    *,
    epochs: int = 10,
    learning_rate: float = 5e-6,
    batch_size: int = 256,
) -> Callable[[PRNGKey, Variables, Request], Expanded]:
    """:func:`boundary_expanding` with the new logit kept, as its released code has it.

    No method of the table, since such a model has a class more than its oracle; its
    outputs are :func:`wide_outputs`.

    Args:
        learner: As there.
        epochs: As there.
        learning_rate: As there.
        batch_size: As there.
    """
    model = learner.model
    recipe = replace(
        learner.recipe,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        schedule="constant",
        augment="none",
    )

    def step_loss(
        key: Any, params: Any, stats: Any, examples: Any, weights: Any
    ) -> Any:
        del key
        own, extra = params
        inputs, labels = examples
        at = Expanded(Variables(own, stats), extra)
        losses = learner.loss(wide_outputs(model, at, inputs), labels)
        return weighted_mean(losses, weights), stats

    def run(key: PRNGKey, variables: Variables, request: Request) -> Expanded:
        draw_key, order_key = jax.random.split(key)
        lost = request.forget
        outputs, features = (
            jax.eval_shape(of, variables, lost.inputs)
            for of in (model.apply, model.features)
        )
        labels = jnp.full_like(lost.targets, outputs.shape[-1])
        extra = draw_logit(draw_key, features.shape[-1], features.dtype)
        state = optimise(
            order_key,
            begin(Variables((variables.params, extra), variables.stats), recipe),
            (lost.inputs, labels),
            lost.weights,
            step_loss,
            recipe,
            loop=choose_fit_loop(learner, lost, key, variables),
        )
        own, extra = state.variables.params
        return Expanded(variables._replace(params=own), extra)

    return run


def wide_outputs(model: Model, at: Expanded, inputs: Any) -> Array:
    """(n, k + 1) outputs: those of the model, and features · kernel + bias."""
    outputs = model.apply(at.variables, inputs)
    features = model.features(at.variables, inputs)
    new = jnp.sum(features * at.extra["kernel"][None], axis=1) + at.extra["bias"]
    return jnp.concatenate([outputs, new[:, None].astype(outputs.dtype)], axis=1)


def draw_logit(key: PRNGKey, width: int, dtype: Any) -> Params:
    """Kernel (width,) and bias () of a new logit, uniform between ±1/√width."""
    drawn = jax.random.uniform(key, (width + 1,), dtype, -1, 1) * width**-0.5
    return {"kernel": drawn[:-1], "bias": drawn[-1]}
