"""Data-diet scores: how much each training example pulls, early in training.

Scores rank examples by how hard they are to learn. They say nothing of what an example
does to the model's outputs elsewhere: not an attribution, but a cheap way to choose
hard forget sets.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.attribution.guard import check_examples
from unlearn_jax.curvature.contractions import squared_norms
from unlearn_jax.curvature.per_example import loss_gradients, output_slopes
from unlearn_jax.data.accumulate import collect, present
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PerExample, Variables

_Norms = Callable[[Objective, Params, Batch], Any]


def grand(
    learner: Learner, models: Variables, train: Batch, *, batch_size: int = 256
) -> PerExample:
    """GraNd: mean over models of the norm of each example's gradient, ‖∇ℓₙ(θ)‖.

    Args:
        learner: How the models were trained; its loss, without l2.
        models: Variables with a leading axis m: runs of other seeds, stopped after a
            few epochs (the paper: 1 to 20 of 200, ten runs).
        train: Examples to score; the weight only says whether an example is there.
        batch_size: Examples whose layer inputs and slopes are held at once.

    Returns:
        One score per example, in units of loss per unit of parameter; 0 where the
        weight is.

    Raises:
        ValueError: what ``attribution.guard.check_examples`` tells.

    Cost: for each model one gradient per example; see ``contractions.squared_norms``.
        Gradients are never formed, models are taken one after another.
    Source: Paul et al. 2021, arXiv 2107.07075, definition 2.1. Differs: models in
        evaluation mode, batch averages frozen.
    """

    def norms(objective: Objective, params: Params, batch: Batch) -> Array:
        _, gradients = loss_gradients(objective, params, batch)
        return jnp.sqrt(squared_norms(gradients))

    return _mean_over_models("grand", norms, learner, models, train, batch_size)


def el2n(
    learner: Learner, models: Variables, train: Batch, *, batch_size: int = 512
) -> PerExample:
    """EL2N: mean over models of ‖∂ℓₙ / ∂outputs‖, for cross-entropy ‖softmax − onehot‖.

    For squared error it is the norm of the residual.

    Args:
        learner: How the models were trained.
        models: Variables with a leading axis m; see :func:`grand`.
        train: Examples to score; the weight only says whether an example is there.
        batch_size: Examples per forward pass.

    Returns:
        One score per example; for cross-entropy from 0 to √2, no unit; 0 where the
        weight is.

    Raises:
        ValueError: what ``attribution.guard.check_examples`` tells.

    Cost: one forward pass over the examples for each model.
    Source: Paul et al. 2021, arXiv 2107.07075, definition 2.2. Differs: models in
        evaluation mode, batch averages frozen; any loss.
    """

    def norms(objective: Objective, params: Params, batch: Batch) -> Array:
        outputs = objective.predict(params, batch.inputs)
        slopes = output_slopes(objective, outputs, batch.targets)
        return jnp.sqrt(jnp.sum(jnp.square(slopes), axis=tuple(range(1, slopes.ndim))))

    return _mean_over_models("el2n", norms, learner, models, train, batch_size)


def _mean_over_models(
    what: str,
    norms: _Norms,
    learner: Learner,
    models: Variables,
    train: Batch,
    batch_size: int,
) -> PerExample:
    """One model after another, each in blocks of examples."""
    first = jax.eval_shape(lambda stack: tree.member(stack, 0), models)
    check_examples(what, learner, first, train, learner.loss)
    dtype = jnp.result_type(*jax.tree.leaves(models.params))
    data = jax.tree.map(jnp.asarray, train)

    def block(batch: Batch, one: Variables) -> Array:
        objective = bind(learner.model, one.stats, learner.loss)
        found = norms(objective, one.params, present(batch))
        return jnp.where(batch.weights != 0, found, 0).astype(dtype)

    def add(total: Array, one: Variables) -> tuple[Array, None]:
        return total + collect(block, data, one, batch_size=batch_size), None

    zero = jnp.zeros(data.weights.shape, dtype)
    total, _ = jax.lax.scan(add, zero, models)
    return total / tree.leading_axis(models)
