"""A training run that keeps points on its way, with the rates of the steps between."""

import itertools
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.loop import rounds
from unlearn_jax.train.descent import steps_per_pass
from unlearn_jax.train.entrance import check_learnable
from unlearn_jax.train.fit import FitState, choose_fit_loop, fit_epoch, start_fit
from unlearn_jax.train.recipe import Learner, Recipe, rate_at
from unlearn_jax.types import Array, Batch, PRNGKey, Variables, Weights

Pieces: TypeAlias = tuple[Variables, Array, Array]
"""Checkpoints, rates and steps: the fields of ``attribution.Trajectory``, in order."""


def fit_trajectory(
    key: PRNGKey,
    learner: Learner,
    data: Batch,
    *,
    points: int | tuple[int, ...] = 6,
    place: str = "middle",
    start: Variables | None = None,
) -> tuple[Variables, Pieces]:
    """The run of :func:`unlearn_jax.train.fit.fit`, and checkpoints on its way.

    The run is cut into pieces of whole epochs; each has one checkpoint, which stands
    for all of its steps. Pure when the loop is on the device: wrap it in ``jit`` or
    ``vmap``; :func:`fit_trajectories` does the latter for runs of one recipe.

    Args:
        key: As in ``fit``; the same key gives the same run.
        learner: Model, loss, l2 and recipe.
        data: Examples with weights.
        points: Number of pieces, as equal as whole epochs allow; or the epochs at
            which the pieces end, the last being ``recipe.epochs``.
        place: Where in its piece a checkpoint is taken: "middle" (rounded up to whole
            epochs), or "end", where the last one is the trained model.
        start: Variables to start from instead of a fresh initialisation.

    Returns:
        What ``fit`` returns, and ``(checkpoints, rates, steps)`` with a leading axis of
        pieces. The rate of a step is how far it moves the parameters under a constant
        gradient of one: the schedule's learning rate times 1 + β + … + βˢ at step s
        under momentum β, soon 1 / (1 − β). Rates of "adam" leave its scaling out.

    Raises:
        ValueError: the pieces do not fit the epochs, ``place`` is unknown, or data that
            ``fit`` refuses.

    Cost: ``fit``, and one copy of the variables for each piece.
    """
    ends = _ends(points, learner.recipe.epochs)
    kept = _epochs_kept(ends, place)
    check_learnable(learner, data, name="training set", variables=start)
    loop = choose_fit_loop(learner, data, key, start)
    begun = start_fit(key, learner, start)
    slots = np.full(learner.recipe.epochs + 1, len(ends))
    slots[list(kept)] = np.arange(len(ends))

    def one_epoch(epoch: Any, carried: Any, constants: Any) -> Any:
        (state, checkpoints), (key, data, slots) = carried, constants
        state = fit_epoch(key, learner, state, data, loop=loop)
        at = slots[epoch + 1]
        # Epochs that are not kept have a slot past the end, which is dropped.
        checkpoints = jax.tree.map(
            lambda kept, now: kept.at[at].set(now, mode="drop"),
            checkpoints,
            state.train.variables,
        )
        return state, checkpoints

    empty = jax.tree.map(
        lambda leaf: jnp.zeros((len(ends), *leaf.shape), leaf.dtype),
        begun.train.variables,
    )
    carried: tuple[FitState, Variables] = (begun, empty)
    state, checkpoints = rounds(
        learner.recipe.epochs, one_epoch, carried, (key, data, slots), loop=loop
    )
    rates, steps = piece_rates(learner.recipe, data.weights, ends)
    return state.train.variables, (checkpoints, rates, steps)


def fit_trajectories(
    keys: Array,
    learner: Learner,
    data: Batch,
    *,
    points: int | tuple[int, ...] = 6,
    place: str = "middle",
) -> tuple[Variables, Pieces]:
    """:func:`fit_trajectory` for several keys as one program; wrap it in ``jit``.

    Args:
        keys: (m,) random keys.
        learner: Model, loss, l2 and recipe.
        data: Examples with weights, shared by all runs.
        points: As in :func:`fit_trajectory`.
        place: As in :func:`fit_trajectory`.

    Returns:
        Variables with a leading axis of runs, and pieces whose checkpoints have axes of
        runs and pieces; rates and steps are common to all runs::

            models, pieces = fit_trajectories(keys, learner, data)
            Evidence(models, keys, Trajectory(*pieces))

    Raises:
        ValueError: as :func:`fit_trajectory`.
    """
    check_learnable(learner, data, name="training set")

    def run(key: PRNGKey) -> tuple[Variables, Pieces]:
        return fit_trajectory(key, learner, data, points=points, place=place)

    return jax.vmap(run, out_axes=(0, (0, None, None)))(keys)


def piece_rates(
    recipe: Recipe, weights: Weights, ends: tuple[int, ...]
) -> tuple[Array, Array]:
    """Sum of the rates of the steps of each piece, and the number of those steps.

    Args:
        recipe: Learning rate, schedule, momentum, epochs and batch size.
        weights: (n,); how many are positive decides the steps of an epoch.
        ends: Epochs at which the pieces end, rising.
    """
    weights = jnp.asarray(weights)
    epochs, n = recipe.epochs, weights.shape[0]
    steps = steps_per_pass(weights, recipe.batch_size)
    within = jnp.arange(-(-n // min(recipe.batch_size, n)))[None]
    number = jnp.arange(epochs)[:, None] * steps + within
    progress = number.astype(jnp.float32) / jnp.maximum(epochs * steps, 1)
    rates = rate_at(recipe, progress)
    if recipe.optimizer == "sgd":
        rates = rates.astype(weights.dtype) * _gain(recipe.momentum, number)
    by_epoch = jnp.sum(jnp.where(within < steps, rates, 0), axis=1)
    piece = np.searchsorted(np.asarray(ends), np.arange(epochs), side="right")
    zero = jnp.zeros(len(ends), weights.dtype)
    counts = jnp.broadcast_to(steps, (epochs,)).astype(weights.dtype)
    return (
        zero.at[piece].add(by_epoch.astype(weights.dtype)),
        zero.at[piece].add(counts),
    )


def training_time(recipe: Recipe, weights: Weights) -> Array:
    """Sum of the rates of all steps of SGD: how long the gradient was followed."""
    (rate,), _ = piece_rates(recipe, weights, (recipe.epochs,))
    return rate


def _gain(momentum: float, number: Array) -> Array:
    """1 + β + … + βˢ."""
    if momentum == 1:
        return number + 1
    return (1 - jnp.power(momentum, number + 1)) / (1 - momentum)


def _ends(points: int | tuple[int, ...], epochs: int) -> tuple[int, ...]:
    if isinstance(points, int):
        if not 1 <= points <= epochs:
            raise ValueError(
                f"got {points} points for {epochs} epochs, expected between 1 and "
                f"{epochs}: each stands for whole epochs"
            )
        return tuple(round(epochs * (i + 1) / points) for i in range(points))
    ends = tuple(points)
    rising = all(a < b for a, b in itertools.pairwise((0, *ends)))
    if not ends or not rising or ends[-1] != epochs:
        raise ValueError(
            f"got points {ends}, expected rising epochs from 1 to {epochs} that end "
            f"with {epochs}"
        )
    return ends


def _epochs_kept(ends: tuple[int, ...], place: str) -> tuple[int, ...]:
    if place == "end":
        return ends
    if place != "middle":
        raise ValueError(f"place {place!r} is unknown; choose 'middle' or 'end'")
    return tuple((a + b + 1) // 2 for a, b in itertools.pairwise((0, *ends)))
