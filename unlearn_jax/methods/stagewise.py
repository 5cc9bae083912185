"""Layers trained slice by slice (S3T): a deletion ends stages, and trains nothing."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.curvature.layers import layers_of
from unlearn_jax.methods.shard_layout import shard_layout
from unlearn_jax.methods.sharded import Plan, Sharded, describe_plan, sharded
from unlearn_jax.methods.slice_orders import assigned_orders, rotated_orders
from unlearn_jax.models.model import Model
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch, Variables


def stagewise(
    learner: Learner,
    like: Batch,
    capacity: int,
    *,
    start: Variables | None = None,
    shards: int = 5,
    slices: int = 3,
    orders: int = 1,
    risk: Any = None,
    requests: float = 100.0,
    epochs: int | None = None,
    cumulative: bool = False,
    keep_head: bool = True,
    majority: bool = False,
    proportional: bool = False,
    drawn: bool = True,
    seed: int = 0,
) -> Sharded:
    """Train the last layers one by one, each on a slice of its own, in several orders.

    Stage i trains layer i from the top on the i-th slice of an order, while the stages
    before stay as they are (with ``keep_head`` the last layer moves with every stage).
    A row that goes ends, in every order, the stages from its slice on: what the stages
    before left never saw it, and answers at once. A shard answers by its longest order.
    Where none is left the shard is silent until ``renew`` trains it again.

    Args:
        learner: Trains a stage, always in evaluation mode: batch statistics stay.
        like: As for :func:`sisa`.
        capacity: Row numbers 0 to capacity - 1.
        start: Where every stage chain begins: a backbone that saw none of the rows.
            None draws it.
        shards: m.
        slices: L, so many last layers are trained.
        orders: B per shard, at most L.
        risk: (L,) chance that a deletion falls into each slice; None for all alike,
            with rotations.
        requests: See :func:`assigned_orders`.
        epochs: Passes of a stage; None for the recipe's.
        cumulative: A stage sees the slices before it too, as in the released code.
        keep_head: Stages train the last layer beside their own, as released. The last
            layer is then part of each stage's checkpoint, as it must be.
        majority: As for :func:`sisa`.
        proportional: As for :func:`sisa`.
        drawn: See :func:`shard_layout`.
        seed: Draws places, initialisations and the order of rows.

    Raises:
        ValueError: more shards × slices than rows, more orders than slices, or more
            slices than the model has layers.

    Cost: B trainings; a deletion trains nothing. Disk: m × B × L models. Lifetime: see
        :func:`deletion_capacity`.
    Source: S3T, Basu Roy Chowdhury et al. 2024, arXiv 2406.16257. Differs: whole
        layers, no low-rank ones beside frozen ones; disjoint slices as in the paper
        (the released code trains on cumulative ones); the best checkpoint is not chosen
        by the test split.
    """
    layout = shard_layout(capacity, shards, slices, seed=seed, drawn=drawn)
    if risk is None:
        ways = rotated_orders(slices, orders)
    else:
        ways = assigned_orders(risk, orders, requests=requests)
        if ways.shape[1] != slices:
            raise ValueError(
                f"risk has {ways.shape[1]} entries for {slices} slices, expected one "
                "for each slice"
            )
    recipe = replace(learner.recipe, epochs=epochs or learner.recipe.epochs)
    tuned = learner._replace(model=_evaluated(learner.model), recipe=recipe)
    plan = Plan(
        learner=tuned,
        layout=layout,
        orders=ways,
        cumulative=cumulative,
        deactivates=True,
        start=start,
        paces=_paces(learner.model, like, slices, keep_head=keep_head),
        settings="",
        about="",
        key=jax.random.key(seed),
    )
    return sharded(
        describe_plan(plan, like), like, majority=majority, proportional=proportional
    )


def _paces(
    model: Model, like: Batch, slices: int, *, keep_head: bool
) -> tuple[Any, ...]:
    """For each stage the tree of ones and zeros that says what moves."""
    variables = jax.eval_shape(model.init, jax.random.key(0))
    layers = layers_of(model.apply, variables, like.inputs[:2]).params
    depth = 1 + max(jax.tree.leaves(layers), default=-1)
    if slices > depth:
        raise ValueError(
            f"got {slices} slices for a model of {depth} layers, expected at most one "
            "slice for each layer: take fewer slices or a deeper model"
        )

    def pace(stage: int) -> Any:
        moving = {depth - 1 - stage} | ({depth - 1} if keep_head else set())
        return jax.tree.map(lambda n: jnp.asarray(n in moving, jnp.float32), layers)

    return tuple(pace(stage) for stage in range(slices))


def _evaluated(model: Model) -> Model:
    """The same model, whose batch statistics training leaves alone."""

    def apply_train(key: Any, variables: Variables, inputs: Any) -> Any:
        del key
        return model.apply(variables, inputs), variables

    return model._replace(apply_train=apply_train)
