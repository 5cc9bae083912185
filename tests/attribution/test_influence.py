"""Influence: the dense formula, retraining, and what weights of zero hide."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.attribution.influence import (
    influence_on_outputs,
    influence_on_parameters,
)
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.operator import dense
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.train.objective import bind
from unlearn_jax.types import Batch


def margin(outputs, targets):
    picked = jnp.take_along_axis(outputs, targets[:, None], axis=1)[:, 0]
    return picked - jax.nn.logsumexp(outputs, axis=1)


def dense_inverse(objective, params, data):
    """A solve with the Hessian written out; build it inside ``jit``."""
    matrix = dense(hessian(objective, params, data))

    def inverse(vector):
        flat, unflatten = jax.flatten_util.ravel_pytree(vector)
        return unflatten(jnp.linalg.solve(matrix, flat))

    return inverse


@pytest.fixture(scope="module")
def regression():
    """Softmax regression, uneven weights, and its minimum for any weights."""
    learner, data = problems.softmax()
    objective = bind(learner.model, {}, learner.loss, learner.l2)
    weights = jnp.asarray(np.random.default_rng(1).uniform(0.5, 2.0, 24))
    start = learner.model.init(jax.random.key(0)).params

    @tiny.quick_jit
    def minimum(weights):
        batch = data._replace(weights=weights)

        def newton(_, params):
            slope = jax.grad(objective.risk)(params, batch)
            return tree.subtract(params, dense_inverse(objective, params, batch)(slope))

        return jax.lax.fori_loop(0, 12, newton, start)

    data = data._replace(weights=weights)
    params = minimum(weights)
    slope = jax.grad(objective.risk)(params, data)
    assert float(tree.norm(slope)) < 1e-12
    return objective, params, data, minimum


@pytest.fixture(scope="module")
def on_parameters(regression):
    objective = regression[0]

    @tiny.quick_jit
    def compiled(params, data, change):
        inverse = dense_inverse(objective, params, data)
        return influence_on_parameters(
            objective, params, data, change, inverse, batch_size=7
        )

    return compiled


@pytest.fixture(scope="module")
def on_outputs(regression):
    objective = regression[0]

    @tiny.quick_jit
    def compiled(params, train, queries):
        inverse = dense_inverse(objective, params, train)
        return influence_on_outputs(
            objective,
            params,
            train,
            queries,
            margin,
            inverse,
            batch_size=7,
            query_batch_size=4,
        )

    return compiled


def flat_gradients(values, params, batch):
    """Per-example gradients of ``values(params, x, y)`` in rows, formed one by one."""
    slopes = jax.vmap(jax.grad(values), in_axes=(None, 0, 0))(
        params, batch.inputs, batch.targets
    )
    return jax.vmap(lambda s: jax.flatten_util.ravel_pytree(s)[0])(slopes)


def dense_influence(objective, params, train, queries):
    """−∇f_q H⁻¹ (∇ℓₙ + l2 θ) / W by automatic differentiation of the whole risk."""
    theta, unflatten = jax.flatten_util.ravel_pytree(params)
    matrix = jax.hessian(lambda t: objective.risk(unflatten(t), train))(theta)

    def loss(p, x, y):
        return objective.loss(objective.predict(p, x[None]), y[None])[0]

    def output(p, x, y):
        return margin(objective.predict(p, x[None]), y[None])[0]

    pulls = flat_gradients(loss, params, train) + objective.l2 * theta[None]
    moves = jnp.linalg.solve(matrix, pulls.T) / jnp.sum(train.weights)
    return -flat_gradients(output, params, queries) @ moves, moves.T


def test_both_equal_the_dense_formula(regression, on_outputs, on_parameters):
    objective, params, data, _ = regression
    queries = Batch(data.inputs[:9] + 0.3, data.targets[:9], jnp.ones(9))
    expected, moves = dense_influence(objective, params, data, queries)
    scores = on_outputs(params, data, queries)
    assert scores.shape == (9, 24)
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-13)
    change = jnp.asarray(np.random.default_rng(0).normal(size=24))
    moved = jax.flatten_util.ravel_pytree(on_parameters(params, data, change))[0]
    np.testing.assert_allclose(moved, -change @ moves, rtol=1e-9, atol=1e-13)


def test_retraining_differs_by_second_order(regression, on_parameters):
    _, params, data, minimum = regression

    def gap(share):
        change = jnp.zeros(24).at[5].set(-share * data.weights[5])
        truth = tree.subtract(minimum(data.weights + change), params)
        predicted = on_parameters(params, data, change)
        return float(tree.norm(tree.subtract(predicted, truth)) / tree.norm(predicted))

    # The relative error is of first order in the weight taken away.
    assert gap(0.1) < 0.1
    np.testing.assert_allclose(gap(0.02) / gap(0.01), 2.0, rtol=0.05)


def test_leave_one_out_changes_outputs_as_predicted(regression, on_outputs):
    objective, params, data, minimum = regression
    queries = Batch(data.inputs[:9] + 0.3, data.targets[:9], jnp.ones(9))
    scores = on_outputs(params, data, queries)

    def outputs(at):
        return margin(objective.predict(at, queries.inputs), queries.targets)

    step = 1e-4
    for n in (0, 11):
        less = minimum(data.weights.at[n].add(-step))
        truth = (outputs(params) - outputs(less)) / step
        np.testing.assert_allclose(scores[:, n], truth, rtol=2e-3, atol=1e-7)


def test_outputs_follow_the_moved_parameters(regression, on_outputs, on_parameters):
    """Two roads: rows of scores against a derivative along the moved parameters."""
    objective, params, data, _ = regression
    queries = Batch(data.inputs[:9] + 0.3, data.targets[:9], jnp.ones(9))
    change = jnp.asarray(np.random.default_rng(0).normal(size=24))
    moved = on_parameters(params, data, change)

    def outputs(at):
        return margin(objective.predict(at, queries.inputs), queries.targets)

    _, along = jax.jvp(outputs, (params,), (moved,))
    scores = on_outputs(params, data, queries)
    np.testing.assert_allclose(scores @ change, along, rtol=1e-9, atol=1e-13)


def test_weight_zero_hides_what_an_example_holds(regression, on_outputs, on_parameters):
    _, params, data, _ = regression
    absent = data._replace(weights=data.weights.at[3].set(0.0))
    broken = absent._replace(inputs=absent.inputs.at[3].set(jnp.nan))
    queries = Batch(data.inputs[:9] + 0.3, data.targets[:9], jnp.ones(9).at[2].set(0))
    unseen = queries._replace(inputs=queries.inputs.at[2].set(jnp.nan))
    scores = on_outputs(params, broken, unseen)
    assert np.all(np.isfinite(scores))
    assert not np.any(scores[2])
    assert not np.any(scores[:, 3])
    np.testing.assert_allclose(scores, on_outputs(params, absent, queries), rtol=1e-12)
    change = jnp.zeros(24).at[7].set(-1.0)
    assert_trees_close(
        on_parameters(params, broken, change), on_parameters(params, absent, change)
    )


def test_conjugate_gradients_serve_a_net_and_the_loss_is_the_default():
    learner, data = problems.two_layer()
    objective = bind(learner.model, {}, learner.loss, 0.5)
    params = learner.model.init(jax.random.key(3)).params

    @tiny.quick_jit
    def both(params, data):
        matrix = gauss_newton(objective, params, data)

        def inverse(v):
            return conjugate_gradient(matrix, v, tol=1e-12, max_steps=200).value

        scores = influence_on_outputs(objective, params, data, data, None, inverse)
        change = jnp.zeros(18).at[4].set(1.0)
        moved = influence_on_parameters(objective, params, data, change, inverse)
        _, along = jax.jvp(
            lambda p: objective.example_losses(p, data), (params,), (moved,)
        )
        return scores, along

    scores, along = both(params, data)
    np.testing.assert_allclose(scores[:, 4], along, rtol=1e-8, atol=1e-12)
    # Without l2 in the pull, scores would be symmetric; with it they are not.
    assert float(jnp.max(jnp.abs(scores - scores.T))) > 1e-6


def test_changes_of_another_length_are_refused(regression):
    objective, params, data, _ = regression
    with pytest.raises(ValueError, match="one change for each example"):
        influence_on_parameters(objective, params, data, jnp.ones(3), lambda v: v)
