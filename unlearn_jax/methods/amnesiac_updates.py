"""Amnesiac unlearning proper: take back the updates of batches that held an example.

A family of functions and no entry of METHODS, since a request is served from what the
training run kept: one copy of the parameters for each of its steps, far more than a
:class:`unlearn_jax.attribution.trace.Trace`, whose checkpoints are a few.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Int

from unlearn_jax import tree
from unlearn_jax.loop import scan
from unlearn_jax.train.descent import begin, shuffled, steps_per_pass, training_step
from unlearn_jax.train.fit import order_stream, training_loss
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Scalar, Variables


class Updates(NamedTuple):
    """Value: one training run, step by step; s steps of b examples.

    Attributes:
        changes: What each step added to the parameters, leading axis s.
        examples: (s, b) rows of the training set in its batch, -1 where it had fewer.
    """

    changes: Params
    examples: Int[Array, "s b"]


def fit_updates(
    key: PRNGKey, learner: Learner, data: Batch
) -> tuple[Variables, Updates]:
    """The run of ``fit`` with this key, and its updates.

    Args:
        key: As in ``fit``; the same key gives the same run, up to rounding.
        learner: Model, loss, l2 and recipe.
        data: Examples with weights.

    Cost: ``fit``; memory epochs × steps × parameters.
    """
    recipe, loss = learner.recipe, training_loss(learner)
    weights = jnp.asarray(data.weights)
    size = min(recipe.batch_size, weights.shape[0])
    bound = -(-weights.shape[0] // size)
    steps = steps_per_pass(weights, size)
    body = training_step(loss, recipe, size)
    examples = jax.tree.map(jnp.asarray, (data.inputs, data.targets))

    def one(state: Any, place: Any) -> Any:
        epoch, i = place
        order_key, step_key = jax.random.split(
            jax.random.fold_in(order_stream(key), epoch)
        )
        order, count = shuffled(order_key, weights)
        total = recipe.epochs * steps
        constants = (step_key, examples, weights, order, count, total, (None,) * 3)
        after = jax.lax.cond(
            i < steps, lambda s: body(i, s, constants), lambda s: s, state
        )
        spot = i * size + jnp.arange(size)
        rows = jnp.where(spot < count, order[spot % jnp.maximum(count, 1)], -1)
        change = tree.subtract(after.variables.params, state.variables.params)
        return after, (change, rows)

    places = jnp.indices((recipe.epochs, bound)).reshape(2, -1)
    start = begin(learner.model.init(jax.random.fold_in(key, 0)), recipe)
    state, (changes, rows) = scan(one, start, tuple(places), examples, weights)
    return state.variables, Updates(changes, rows)


def take_back(variables: Variables, updates: Updates, forget: Any) -> Variables:
    """The parameters without the updates of every batch that held one of ``forget``.

    Args:
        variables: What the run gave; batch statistics stay.
        updates: Of the run.
        forget: (f,) rows of the training set.

    Cost: one pass over the updates.
    Source: Graves et al. 2021, arXiv 2010.10981. As published: updates that came later
        stay as they were, though they were computed from the ones that go; a fine-tune
        on the retain set is theirs to follow.
    """
    hit = batches_hit(updates, forget)

    def less(now: Array, changes: Array) -> Array:
        mask = hit.reshape(-1, *(1,) * (changes.ndim - 1))
        return now - jnp.sum(jnp.where(mask, changes, 0), axis=0)

    params = jax.tree.map(less, variables.params, updates.changes)
    return variables._replace(params=params)


def batches_hit(updates: Updates, forget: Any) -> Array:
    """(s,) whether a batch held one of the rows."""
    return jnp.any(jnp.isin(updates.examples, jnp.asarray(forget)), axis=1)


def share_hit(batch_size: int, examples: int, forgotten: int) -> Scalar:
    """Chance that a batch holds one of the forgotten examples.

    1 − C(n − f, b) / C(n, b) for batches drawn without replacement: with 1 % forgotten
    and 64 examples in a batch almost half of a run is taken back.
    """
    left = jnp.arange(batch_size)
    stays = (examples - forgotten - left) / (examples - left)
    return 1 - jnp.prod(jnp.maximum(stays, 0))
