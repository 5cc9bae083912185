"""Sharded, isolated, sliced and aggregated training (SISA)."""

from dataclasses import replace

import jax
import numpy as np

from unlearn_jax.methods.shard_layout import shard_layout
from unlearn_jax.methods.sharded import Plan, Sharded, describe_plan, sharded
from unlearn_jax.options import check_whole
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch


def sisa(
    learner: Learner,
    like: Batch,
    capacity: int,
    *,
    shards: int = 5,
    slices: int = 4,
    epochs: int | None = None,
    majority: bool = False,
    proportional: bool = False,
    drawn: bool = True,
    seed: int = 0,
) -> Sharded:
    """Train a model for each shard, slice after slice, and go back to forget.

    A shard's model learns its slices cumulatively and is kept after each. A row that
    goes takes the models with it that saw it: the shard goes on from the one before the
    row's slice. What is left is, bit for bit, what would have been trained without the
    row, since places, keys and shapes depend on row numbers alone.

    Args:
        learner: Trains a stage: its recipe, with ``epochs``.
        like: A few rows as all others are: shapes and dtypes are read, and the
            numbers of four of them enter the names of checkpoints.
        capacity: Row numbers 0 to capacity - 1.
        shards: S.
        slices: R.
        epochs: Passes of a stage over the slices so far; None for those that see as
            many rows as the recipe's E passes over all at once, 2 E / (R + 1), rounded.
        majority: Count votes for classes, instead of the mean of probabilities.
        proportional: Weigh a shard by its rows.
        drawn: See :func:`shard_layout`.
        seed: Draws places, initialisations and the order of rows.

    Raises:
        ValueError: more shards × slices than rows, or a number that is none; inputs
            that the model cannot take.

    Cost: one training; of a deletion, the stages from its slice on, on average
        E / S · (2/3 + 1/(3 R)) of the passes over all rows (R = 1: E / S). Disk: S × R
        models.
    Source: Bourtoule et al. 2021, arXiv 1912.03817. Differs: places are drawn (the
        released split is contiguous, ``drawn=False``); votes are probabilities unless
        asked; a shard without rows has no vote.
    """
    check_whole("slices", slices)
    layout = shard_layout(capacity, shards, slices, seed=seed, drawn=drawn)
    if epochs is None:
        epochs = max(1, round(2 * learner.recipe.epochs / (slices + 1)))
    tuned = learner._replace(recipe=replace(learner.recipe, epochs=epochs))
    plan = Plan(
        learner=tuned,
        layout=layout,
        orders=np.arange(slices)[None],
        cumulative=True,
        deactivates=False,
        start=None,
        paces=None,
        settings="",
        about="",
        key=jax.random.key(seed),
    )
    return sharded(
        describe_plan(plan, like), like, majority=majority, proportional=proportional
    )
