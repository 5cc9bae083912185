"""One contract for every attribution: what training weights do to outputs."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Float, Shaped

from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Variables


class Trajectory(NamedTuple):
    """Value: points on the way of the training runs that gave ``Evidence.models``.

    Attributes:
        checkpoints: Variables with two leading axes: m runs, c points in time. Point
            0 lies before the first segment's end; see ``train.trajectory``.
        rates: (c,) sum of the learning rates of the steps that a point stands for.
        steps: (c,) how many steps it stands for.
    """

    checkpoints: Variables
    rates: Float[Array, " c"]
    steps: Float[Array, " c"]


class Subsets(NamedTuple):
    """Value: models trained on subsets.

    Attributes:
        masks: (m, n), 0 or 1: each member was trained with these times the weights of
            the training set.
        models: Variables with a leading axis m.
    """

    masks: Shaped[Array, "m n"]
    models: Variables


class Evidence(NamedTuple):
    """Value: what training has left for attribution to read.

    Attributes:
        models: Variables with a leading axis m: models trained on all examples, whose
            outputs are to be explained. Effects are means over them.
        keys: (m,) the keys of ``fit`` that gave ``models``; None where unknown.
        trajectory: The way to ``models``; None where it was not kept.
        ensemble: Models of subsets; None where there are none.
    """

    models: Variables
    keys: Any = None
    trajectory: Trajectory | None = None
    ensemble: Subsets | None = None


class Attribution(NamedTuple):
    """Description: an estimate of ∂ output / ∂ training weight.

    All functions are pure: wrap them in ``jit``. Adding weight Δw to the training
    examples is predicted to change output f of query q by Σₙ effects[q, n] Δwₙ; taking
    example n out is Δwₙ = −wₙ.

    Attributes:
        prepare: ``(key, evidence, train) -> state``; once, before any query or request
            is known. The state holds all of the evidence that the other two need.
        effects: ``(state, train, queries, output_fn) -> (q, n)``. ``output_fn`` gives
            one number per example, ``(outputs, targets) -> (n,)``, see
            ``attribution.output_functions``. A row is zero where the query's weight
            is, a column where the training example's is.
        change: ``(state, train, queries, weights_change) -> (q, k)``: predicted change
            of all raw outputs of the queries for one Δw (n,). Never forms q × n × k.
        reported: As ``change``, with a second result, the
            :class:`unlearn_jax.solvers.solution.Report` of its solver; None where no
            solver is.
        effects_reported: As ``effects``, in the same way, for the solves of all
            queries: their steps, and the first that failed.
    """

    prepare: Callable[[Any, Evidence, Batch], Any]
    effects: Callable[[Any, Batch, Batch, Callable[[Any, Any], Any]], Array]
    change: Callable[[Any, Batch, Batch, Any], Array]
    reported: Callable[[Any, Batch, Batch, Any], Any] | None = None
    effects_reported: Callable[[Any, Batch, Batch, Any], Any] | None = None


def as_trained(learner: Learner) -> Learner:
    """The learner whose objective training descended: weight decay of SGD is l2.

    It trains as before: what is part of the objective is taken off the recipe.
    """
    recipe = learner.recipe
    if recipe.optimizer != "sgd":
        return learner
    return learner._replace(
        l2=learner.l2 + recipe.weight_decay,
        recipe=dataclasses.replace(recipe, weight_decay=0.0),
    )


def need(evidence: Evidence, *fields: str) -> None:
    """Refuse evidence that lacks what an attribution reads.

    Raises:
        ValueError: names the missing field and where it comes from.
    """
    origins = {
        "keys": "the keys that the models were trained with",
        "trajectory": "train.trajectory.fit_trajectory keeps it",
        "ensemble": "train models on subsets with train.ensemble.fit_ensemble",
    }
    for field in fields:
        if getattr(evidence, field) is None:
            raise ValueError(
                f"the evidence has no {field}, which this attribution reads; "
                f"{origins[field]}"
            )


def kept_pairs(scores: Any, train: Batch, queries: Batch) -> Array:
    """Scores (q, n) with zeros where a query or a training example has no weight."""
    kept = (queries.weights[:, None] != 0) & (train.weights[None] != 0)
    return jnp.where(kept, scores, 0)
