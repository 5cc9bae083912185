"""Influence functions as attributions, by any curvature and inverse."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.attribution.attribution import (
    Attribution,
    Evidence,
    as_trained,
)
from unlearn_jax.attribution.guard import entrance
from unlearn_jax.attribution.influence import (
    influence_and_told,
    influence_on_parameters,
)
from unlearn_jax.data.accumulate import collect, present
from unlearn_jax.solvers.inverse import (
    INVERSES,
    Curvature,
    Settings,
    check_choice,
    curvature_of,
)
from unlearn_jax.solvers.solution import (
    Report,
    Solution,
    all_reports,
    both_reports,
    no_report,
    report,
    usable,
)
from unlearn_jax.train.objective import Objective, bind
from unlearn_jax.train.recipe import Learner
from unlearn_jax.train.trajectory import training_time
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables


class InfluenceState(NamedTuple):
    """Value: models and what their inverses share between vectors.

    Attributes:
        models: Variables with a leading axis m.
        inverses: State of ``solvers.inverse.INVERSES`` or an EK-FAC matrix, with that
            axis.
    """

    models: Variables
    inverses: Any


@entrance(negative=True)
def influence(
    learner: Learner,
    *,
    curvature: str = "gauss_newton",
    inverse: str = "cg",
    damping: float | None = None,
    tol: float = 1e-4,
    max_steps: int = 100,
    rank: int = 20,
    batch_size: int | None = None,
    query_batch_size: int = 64,
) -> Attribution:
    """Influence functions, a mean over ``evidence.models``.

    effects[q, n] = −∇f_q (H + damping I)⁻¹ (∇ℓₙ + l2 θ) / W, H the curvature of the
    risk, l2 included; ``change`` by one solve and one derivative along it.

    Args:
        learner: Model, loss, l2 and recipe that the models were trained with; weight
            decay of SGD is l2.
        curvature: "gauss_newton", "hessian" or "empirical_fisher".
        inverse: A name in ``solvers.inverse.INVERSES``.
        damping: Added to the curvature, in its units. None takes 1 / T, T the sum of
            the learning rates of training as in :func:`ekfac_influence`; Adam's steps
            have none: give a number then.
        tol: Relative residual at which the solver stops (no unit).
        max_steps: Most products of the solver.
        rank: Eigenvectors of "low_rank".
        batch_size: Examples linearised at once; None takes all where that fits.
        query_batch_size: Queries solved for at once, each a vector like the parameters.

    Raises:
        ValueError: an unknown name, or an impossible setting.

    Cost: effects: a solve for each query and model, each step some two gradients per
        training example, and a product of factors for each pair; change: one solve for
        each model whatever the queries. "dense", "low_rank", "diagonal" and "ekfac"
        pay at prepare.
    Source: Koh & Liang 2017, arXiv 1703.04730, eq. 2. Differs: Gauss-Newton by default;
        a weighted mean with l2, a mean over models.
    """
    learner = as_trained(learner)
    by_time = damping is None
    if by_time and learner.recipe.optimizer != "sgd":
        raise ValueError(
            f"damping is None, which reads the learning rates of SGD; the recipe says "
            f"{learner.recipe.optimizer!r}: give a damping"
        )
    settings = Settings(1.0 if by_time else damping, tol, max_steps, rank, batch_size)
    check_choice(curvature, inverse, settings)
    if query_batch_size < 1:
        raise ValueError(f"query_batch_size must be at least 1, got {query_batch_size}")
    examples = batch_size or 256

    def settings_for(train: Batch) -> Settings:
        if not by_time:
            return settings
        time: Any = training_time(learner.recipe, train.weights)
        return settings._replace(damping=1 / time)

    def matrix(variables: Variables, train: Batch) -> Curvature:
        objective = objective_of(learner, variables)
        return curvature_of(
            curvature, objective, variables.params, train, batch_size=batch_size
        )

    def prepare(key: PRNGKey, evidence: Evidence, train: Batch) -> InfluenceState:
        keys = jax.random.split(key, leading_axis(evidence.models))

        def one(pair: Any) -> Any:
            key, variables = pair
            known = matrix(variables, present(train))
            return INVERSES[inverse].prepare(key, known, settings_for(train))

        return InfluenceState(
            evidence.models, jax.lax.map(one, (keys, evidence.models))
        )

    def solver(
        variables: Variables, state: Any, train: Batch
    ) -> Callable[[Any], Solution]:
        known = matrix(variables, present(train))

        def apply(vector: Params) -> Solution:
            return INVERSES[inverse].apply(state, known, vector, settings_for(train))

        return apply

    def effects_reported(
        state: InfluenceState, train: Batch, queries: Batch, output_fn: Any
    ) -> tuple[Array, Report]:
        def one(variables: Variables, inverse_state: Any) -> tuple[Array, Report]:
            solved = solver(variables, inverse_state, train)

            def inverse(vector: Params) -> tuple[Params, Report]:
                solution = solved(vector)
                return usable(solution), report(solution)

            found, told = influence_and_told(
                objective_of(learner, variables),
                variables.params,
                train,
                queries,
                output_fn,
                inverse,
                batch_size=examples,
                query_batch_size=query_batch_size,
            )
            there = jnp.asarray(queries.weights) != 0
            told = jax.tree.map(partial(jnp.where, there), told, no_report())
            return found, all_reports(told)

        return told_over_models(one, state)

    def effects(
        state: InfluenceState, train: Batch, queries: Batch, output_fn: Any
    ) -> Array:
        return effects_reported(state, train, queries, output_fn)[0]

    def reported(
        state: InfluenceState, train: Batch, queries: Batch, weights_change: Any
    ) -> tuple[Array, Report]:
        def one(variables: Variables, inverse_state: Any) -> tuple[Array, Report]:
            solution = moved_by(
                learner,
                variables,
                train,
                weights_change,
                solver(variables, inverse_state, train),
                examples,
            )
            found = tangents(learner, variables, queries, usable(solution), examples)
            return found, report(solution)

        return told_over_models(one, state)

    def change(
        state: InfluenceState, train: Batch, queries: Batch, weights_change: Any
    ) -> Array:
        return reported(state, train, queries, weights_change)[0]

    return Attribution(prepare, effects, change, reported, effects_reported)


def outputs_along(
    learner: Learner,
    variables: Variables,
    train: Batch,
    queries: Batch,
    weights_change: Any,
    inverse: Callable[[Any], Any],
    batch_size: int,
) -> Array:
    """Change (q, k) of the outputs along ``influence_on_parameters``, by one JVP."""
    moved = moved_by(learner, variables, train, weights_change, inverse, batch_size)
    return tangents(learner, variables, queries, moved, batch_size)


def moved_by(
    learner: Learner,
    variables: Variables,
    train: Batch,
    weights_change: Any,
    inverse: Callable[[Any], Any],
    batch_size: int,
) -> Any:
    """``influence_on_parameters`` for arrays of any kind: what the inverse returns."""
    train = jax.tree.map(jnp.asarray, train)
    return influence_on_parameters(
        objective_of(learner, variables),
        variables.params,
        train,
        jnp.where(train.weights != 0, weights_change, 0).astype(train.weights.dtype),
        inverse,
        batch_size=batch_size,
    )


def tangents(
    learner: Learner,
    variables: Variables,
    queries: Batch,
    moved: Params,
    batch_size: int,
) -> Array:
    """Change (q, k) of the outputs of the queries along one direction."""
    objective = objective_of(learner, variables)
    queries = jax.tree.map(jnp.asarray, queries)

    def tangent(inputs: Any, at: Params, direction: Params) -> Array:
        _, out = jax.jvp(lambda p: objective.predict(p, inputs), (at,), (direction,))
        return out

    inputs = present(queries).inputs
    found = collect(tangent, inputs, variables.params, moved, batch_size=batch_size)
    return jnp.where(queries.weights[:, None] != 0, found, 0)


def objective_of(learner: Learner, variables: Variables) -> Objective:
    """The loss as a function of parameters, at these statistics."""
    return bind(learner.model, variables.stats, learner.loss, learner.l2)


def told_over_models(
    function: Callable[[Variables, Any], tuple[Array, Report]], state: InfluenceState
) -> tuple[Array, Report]:
    """Mean of the first result, and what all solves told; memory of one model."""
    count = leading_axis(state.models)
    first = tree.member(state, 0)
    if count == 1:
        return function(*first)
    like = jax.eval_shape(lambda s: function(*s)[0], first)

    def add(
        total: tuple[Array, Report], one: InfluenceState
    ) -> tuple[tuple[Array, Report], None]:
        found, told = function(*one)
        return (total[0] + found, both_reports(total[1], told)), None

    begun = jnp.zeros(like.shape, like.dtype), no_report()
    (total, told), _ = jax.lax.scan(add, begun, state)
    return total / count, told


def mean_over_models(
    function: Callable[[Variables, Any], Array], state: InfluenceState
) -> Array:
    """The same of what no solver is in."""
    return told_over_models(lambda *one: (function(*one), no_report()), state)[0]
