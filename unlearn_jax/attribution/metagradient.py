"""Exact effect of training weights: derivatives through the training run itself.

The run of a key is a function θ(w) of the weights: initialisation, order of examples
and schedule depend on the key and on which weights are positive, not on their size. Its
derivative needs no minimum, no convergence and no approximation of the curvature; it is
what other attributions estimate. It includes that a step's loss is a weighted *mean*.

Each effect costs as much as training again: for small nets. Steps run inside compiled
loops, where XLA's own convolutions are slow on CPU.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.attribution.attribution import (
    Attribution,
    Evidence,
    kept_pairs,
    need,
)
from unlearn_jax.attribution.guard import entrance
from unlearn_jax.data.accumulate import present
from unlearn_jax.train.descent import (
    TrainState,
    shuffled,
    steps_per_pass,
    training_step,
)
from unlearn_jax.train.fit import fit, order_stream, start_fit, training_loss
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, PRNGKey, Scalar, Variables, Weights


@entrance()
def metagradient(learner: Learner, *, query_batch_size: int = 32) -> Attribution:
    """∂ output / ∂ weight through training from the keys of the evidence.

    ``change`` is one forward derivative of the run, at the cost of about two trainings
    for each key. ``effects`` goes backwards through a replay of it. Models of the
    evidence are not read: they are trained again.

    Args:
        learner: What the models were trained with.
        query_batch_size: Queries whose derivatives go back together; each holds one
            cotangent of the training state.

    Returns:
        Attribution that reads ``evidence.keys``.

    Raises:
        ValueError: a batch of queries below 1.

    Cost: for each key, ``effects`` takes one training and, for each block of queries,
        one more training and a backward pass for each query (two to three trainings);
        memory as :func:`replay`.
    Source: Engstrom et al. 2025, arXiv 2503.13751; Ilyas & Engstrom 2025,
        arXiv 2504.16430. Differs: checkpoints once an epoch, not in a tree; many
        queries at once.
    """
    if query_batch_size < 1:
        raise ValueError(f"query_batch_size must be at least 1, got {query_batch_size}")
    recipe = dataclasses.replace(learner.recipe, loop="device")
    learner = learner._replace(recipe=recipe)

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> Array:
        del key, train
        need(evidence, "keys")
        return evidence.keys

    def effects(
        state: Array,
        train: Batch,
        queries: Batch,
        output_fn: Callable[[Any, Any], Any],
    ) -> Float[Array, "q n"]:
        train, queries = (jax.tree.map(jnp.asarray, b) for b in (train, queries))
        seen = present(queries)

        def of_run(key: PRNGKey) -> Array:
            def outputs(weights: Array) -> Array:
                variables = replay(key, learner, train._replace(weights=weights))
                return output_fn(
                    learner.model.apply(variables, seen.inputs), seen.targets
                )

            values, pull = jax.vjp(outputs, train.weights)
            rows = jnp.eye(values.shape[0], dtype=values.dtype)
            return jax.lax.map(
                lambda row: pull(row)[0], rows, batch_size=query_batch_size
            )

        scores = jnp.mean(jax.lax.map(of_run, state), axis=0)
        return kept_pairs(scores, train, queries)

    def change(
        state: Array, train: Batch, queries: Batch, weights_change: Weights
    ) -> Float[Array, "q k"]:
        train, queries = (jax.tree.map(jnp.asarray, b) for b in (train, queries))
        seen = present(queries)
        move = jnp.where(train.weights > 0, jnp.asarray(weights_change), 0)

        def of_run(key: PRNGKey) -> Array:
            def outputs(weights: Array) -> Array:
                variables = fit(key, learner, train._replace(weights=weights))
                return learner.model.apply(variables, seen.inputs)

            weights = train.weights
            return jax.jvp(outputs, (weights,), (move.astype(weights.dtype),))[1]

        moved = jnp.mean(jax.lax.map(of_run, state), axis=0)
        return jnp.where(queries.weights[:, None] != 0, moved, 0)

    return Attribution(prepare, effects, change)


def objective_metagradient(
    key: PRNGKey,
    learner: Learner,
    data: Batch,
    judged: Batch,
    output_fn: Callable[[Any, Any], Any] | None = None,
) -> tuple[Scalar, Weights]:
    """A mean over judged examples after training, and its derivative by the weights.

    One replay forward and one back, whatever the number of judged examples: how
    training weights are chosen by descent on a validation loss.

    Args:
        key: Of the run, as in ``fit``.
        learner: Model, loss, l2 and recipe.
        data: Training examples with weights; zero where the weight is.
        judged: Examples with weights, such as a validation set.
        output_fn: ``(outputs, targets) -> (n,)``; None takes the learner's loss.

    Returns:
        The weighted mean of ``output_fn`` over ``judged``, and (n,) its derivative.

    Cost: four to five trainings; memory as :func:`replay`.
    Source: Engstrom et al. 2025, arXiv 2503.13751. Differs: checkpoints once an epoch.
    """
    data, judged = (jax.tree.map(jnp.asarray, batch) for batch in (data, judged))
    seen = present(judged)
    value = learner.loss if output_fn is None else output_fn

    def summary(weights: Array) -> Array:
        variables = replay(key, learner, data._replace(weights=weights))
        values = value(learner.model.apply(variables, seen.inputs), seen.targets)
        mass = jnp.sum(seen.weights)
        return jnp.sum(seen.weights * values) / jnp.where(mass > 0, mass, 1)

    mean, slope = jax.value_and_grad(summary)(data.weights)
    return mean, jnp.where(data.weights > 0, slope, 0)


def replay(key: PRNGKey, learner: Learner, data: Batch) -> Variables:
    """The run of ``fit`` with the same result, in a form that can be gone back through.

    ``fit`` loops over as many steps as there are examples of positive weight; here the
    number of steps is that of all examples, and those in excess do nothing.

    Args:
        key: As in ``fit``.
        learner: Model, loss, l2 and recipe.
        data: Examples with weights.

    Returns:
        Variables after ``recipe.epochs`` passes.

    Cost: ``fit``. Going back: every epoch is computed once more. Memory: one training
        state for each epoch, and those of the steps of one epoch with what their
        gradients keep.
    """
    recipe = learner.recipe
    data = jax.tree.map(jnp.asarray, data)
    weights, n = data.weights, data.weights.shape[0]
    size = min(recipe.batch_size, n)
    steps = steps_per_pass(weights, size)
    step = training_step(training_loss(learner), recipe, size)
    total = recipe.epochs * steps

    def one_epoch(state: TrainState, epoch: Array) -> tuple[TrainState, None]:
        order_key, step_key = jax.random.split(
            jax.random.fold_in(order_stream(key), epoch)
        )
        order, count = shuffled(order_key, weights)
        examples = (data.inputs, data.targets)
        rests = (None, None, None)  # no pace, no shrinking, no home
        constants = (step_key, examples, weights, order, count, total, rests)

        def one_step(state: TrainState, i: Array) -> tuple[TrainState, None]:
            taken = jax.lax.cond(
                i < steps, lambda s: step(i, s, constants), lambda s: s, state
            )
            return taken, None

        return jax.lax.scan(one_step, state, jnp.arange(-(-n // size)))[0], None

    # Inside a scan nothing can merge the two computations of an epoch.
    kept = jax.checkpoint(one_epoch, prevent_cse=False)
    begun = start_fit(key, learner).train
    state, _ = jax.lax.scan(kept, begun, jnp.arange(recipe.epochs))
    return state.variables
