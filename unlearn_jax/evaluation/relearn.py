"""Relearn time: how few steps bring the forgotten back."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from unlearn_jax.data.accumulate import collect
from unlearn_jax.train.entrance import check_learnable
from unlearn_jax.train.fit import training_loss, weighted_mean
from unlearn_jax.train.recipe import Learner, optimizer
from unlearn_jax.types import Array, Batch, PRNGKey, Variables

PROBE = 256


def anamnesis_index(unlearned: int, oracle: int) -> float:
    """AIN: relearn steps of the unlearned model over those of the oracle.

    1 is the aim; less says that knowledge was hidden, more that the model was damaged.
    Both numbers come from :func:`relearn_steps`, which trains a copy: in the released
    code of deep regression unlearning the oracle itself is trained, so that every
    further index divides by what an oracle needs that has relearned already.

    Raises:
        ValueError: the oracle needs no step, so that there is nothing to divide by.
    """
    if oracle < 1:
        raise ValueError(
            f"the oracle needs {oracle} steps to relearn, expected at least one: its "
            "loss is under the threshold already; lower the threshold"
        )
    return unlearned / oracle


def relearn_steps(
    key: PRNGKey,
    learner: Learner,
    variables: Variables,
    forget: Batch,
    threshold: Any,
    *,
    max_steps: int = 200,
    batch_size: int = 64,
    slowdown: float = 0.1,
) -> Array:
    """Training steps on the forget set until its loss is back under a threshold.

    Few steps mean that the knowledge was hidden, not gone. The oracle's number is the
    aim: an unlearned model that relearns more slowly than the oracle was damaged.

    Args:
        key: Draws the batches.
        learner: Model, loss and optimiser.
        variables: The unlearned model; left as it is.
        forget: The forget set, weight zero on padding.
        threshold: Mean loss to reach, such as 1.05 times the original's [nats].
        max_steps: Give up here and return it; the number is censored there.
        batch_size: Examples per step, drawn with replacement, with odds by weight.
        slowdown: Factor on the recipe's learning rate, so that steps can be counted.

    Returns:
        Steps (int32 scalar); 0 when the loss is under the threshold at the start.

    Cost: per step one gradient of a batch and one forward pass over at most 256
        examples of the forget set, on which the loss is watched.
    Source: relearn time of Golatkar et al. 2020 and the anamnesis index of Chundawat et
        al. 2023. Differs: a fresh copy for every call, so that order does not matter.
    """
    check_learnable(learner, forget, name="forget set", variables=variables)
    recipe = replace(
        learner.recipe,
        learning_rate=slowdown * learner.recipe.learning_rate,
        schedule="constant",
        weight_decay=0.0,
        augment="none",
    )
    step_loss = training_loss(learner._replace(recipe=recipe))
    transformation = optimizer(recipe, 1)
    forget = jax.tree.map(jnp.asarray, forget)
    cumulative = jnp.cumsum(forget.weights)
    present = jnp.ones(batch_size, forget.weights.dtype)
    probe = jax.tree.map(lambda leaf: leaf[:PROBE], forget)

    def predict(inputs: Array, model: Variables) -> Array:
        return learner.model.apply(model, inputs)

    def watched_loss(model: Variables) -> Array:
        outputs = collect(predict, probe.inputs, model)
        return weighted_mean(learner.loss(outputs, probe.targets), probe.weights)

    def step(carried: Any) -> Any:
        count, model, state, _ = carried
        draw_key, loss_key = jax.random.split(jax.random.fold_in(key, count))
        # In (0, total], so that an example of weight zero is never met.
        drawn = cumulative[-1] * (1 - jax.random.uniform(draw_key, (batch_size,)))
        index = jnp.searchsorted(cumulative, drawn, side="left")
        examples = (forget.inputs[index], forget.targets[index])
        slope, stats = jax.grad(step_loss, argnums=1, has_aux=True)(
            loss_key, model.params, model.stats, examples, present
        )
        updates, state = transformation.update(slope, state, model.params)
        model = Variables(optax.apply_updates(model.params, updates), stats)
        return count + 1, model, state, watched_loss(model)

    start = (
        jnp.zeros((), jnp.int32),
        variables,
        transformation.init(variables.params),
        watched_loss(variables),
    )
    end = jax.lax.while_loop(
        lambda carried: (carried[0] < max_steps) & ~(carried[3] <= threshold),
        step,
        start,
    )
    return end[0]
