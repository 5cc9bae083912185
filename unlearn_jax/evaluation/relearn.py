"""Relearning: how few steps bring the forgotten back, and how far other facts do."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

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
    relearner = _relearner(
        learner, slowdown * learner.recipe.learning_rate, forget, batch_size
    )
    watched_loss = _watched(learner, forget)

    def step(carried: Any) -> Any:
        count, model, state, _ = carried
        model, state = relearner.step(jax.random.fold_in(key, count), model, state)
        return count + 1, model, state, watched_loss(model)

    start = (
        jnp.zeros((), jnp.int32),
        variables,
        relearner.begin(variables.params),
        watched_loss(variables),
    )
    end = jax.lax.while_loop(
        lambda carried: (carried[0] < max_steps) & ~(carried[3] <= threshold),
        step,
        start,
    )
    return end[0]


def relearning_curve(
    key: PRNGKey,
    learner: Learner,
    variables: Variables,
    attack: Batch,
    probe: Batch,
    *,
    points: int = 10,
    every: int = 5,
    learning_rate: float = 1e-3,
    batch_size: int = 16,
) -> Array:
    """Loss of a forgotten set while training goes on, on other examples.

    With facts of the same kind as ``attack``, but none of the probe's, what comes back
    had only been hidden. With text of another domain, that is benign fine-tuning.

    Args:
        key: Draws the batches.
        learner: Model, loss and optimiser; no l2, no decay.
        variables: The unlearned model; left as it is.
        attack: What is trained on, weight zero on padding.
        probe: What is watched, at most 256 examples of it.
        points: How often it is looked at after the start.
        every: Steps between.
        learning_rate: Constant step size.
        batch_size: Examples per step, drawn with replacement.

    Returns:
        (points + 1,) mean losses of the probe [nats], the first before any step.
        Direction: towards the oracle's curve; one that falls faster has hidden the
        facts, one that falls more slowly was damaged. :func:`mean_height` sums it up.

    Cost: points × every gradients of a batch, and a forward pass over the probe for
        each point.
    Source: disjoint facts as Deeb and Roger 2024, arXiv 2410.08827; steps and watching
        as Fan et al. 2025, arXiv 2502.05374. Differs: the recipe's optimiser.
    """
    check_learnable(learner, attack, name="attack", variables=variables)
    check_learnable(learner, probe, name="probe", variables=variables)
    relearner = _relearner(learner._replace(l2=0.0), learning_rate, attack, batch_size)
    watched_loss = _watched(learner, probe)

    def step(count: Any, carried: Any) -> Any:
        return relearner.step(jax.random.fold_in(key, count), *carried)

    def point(carried: Any, index: Any) -> Any:
        first = index * every
        carried = jax.lax.fori_loop(first, first + every, step, carried)
        return carried, watched_loss(carried[0])

    start = variables, relearner.begin(variables.params)
    _, losses = jax.lax.scan(point, start, jnp.arange(points))
    return jnp.concatenate([watched_loss(variables)[None], losses])


def mean_height(curve: Any) -> Any:
    """Area under a curve over its length, by the trapezoid rule; of the last axis."""
    curve = jnp.asarray(curve)
    return (0.5 * (curve[..., 1:] + curve[..., :-1])).mean(-1)


class _Relearner(NamedTuple):
    """Description: ``step`` (key, model, state) -> (model, state), and its begin."""

    begin: Callable[[Any], Any]
    step: Callable[[Any, Variables, Any], tuple[Variables, Any]]


def _relearner(
    learner: Learner, learning_rate: float, data: Batch, batch_size: int
) -> _Relearner:
    recipe = replace(
        learner.recipe,
        learning_rate=learning_rate,
        schedule="constant",
        weight_decay=0.0,
        augment="none",
    )
    step_loss = training_loss(learner._replace(recipe=recipe))
    transformation = optimizer(recipe, 1)
    data = jax.tree.map(jnp.asarray, data)
    cumulative = jnp.cumsum(data.weights)
    present = jnp.ones(batch_size, data.weights.dtype)

    def step(key: Any, model: Variables, state: Any) -> tuple[Variables, Any]:
        draw_key, loss_key = jax.random.split(key)
        # In (0, total], so that an example of weight zero is never met.
        drawn = cumulative[-1] * (1 - jax.random.uniform(draw_key, (batch_size,)))
        index = jnp.searchsorted(cumulative, drawn, side="left")
        examples = (data.inputs[index], data.targets[index])
        slope, stats = jax.grad(step_loss, argnums=1, has_aux=True)(
            loss_key, model.params, model.stats, examples, present
        )
        updates, state = transformation.update(slope, state, model.params)
        return Variables(optax.apply_updates(model.params, updates), stats), state

    return _Relearner(transformation.init, step)


def _watched(learner: Learner, data: Batch) -> Callable[[Variables], Array]:
    """Mean loss of the first examples of a set."""
    probe = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:PROBE], data)

    def predict(inputs: Array, model: Variables) -> Array:
        return learner.model.apply(model, inputs)

    def loss(model: Variables) -> Array:
        outputs = collect(predict, probe.inputs, model)
        return weighted_mean(learner.loss(outputs, probe.targets), probe.weights)

    return loss
