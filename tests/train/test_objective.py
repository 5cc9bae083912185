import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from problems import batch_norm_net, quadratic, ridge

from unlearn_jax import tree
from unlearn_jax.train.objective import bind
from unlearn_jax.types import Variables

WEIGHTS = np.linspace(0.0, 2.0, 12)


@pytest.fixture(scope="module")
def problem():
    objective, data, optimum, hessian = quadratic()
    params = {"weight": jnp.array([[1.5], [0.0], [-2.0]])}
    return objective._replace(l2=0.4), data, optimum, hessian, params


def test_the_total_is_the_weighted_sum_and_the_risk_the_weighted_mean_plus_l2(problem):
    objective, data, _, _, params = problem
    losses = np.asarray(objective.example_losses(params, data))
    assert losses.shape == (12,)
    weighted = data._replace(weights=jnp.asarray(WEIGHTS))
    total = WEIGHTS @ losses
    np.testing.assert_allclose(objective.total(params, weighted), total, rtol=1e-12)
    penalty = 0.5 * 0.4 * (1.5**2 + 2.0**2)
    np.testing.assert_allclose(
        objective.risk(params, weighted), total / WEIGHTS.sum() + penalty, rtol=1e-12
    )


def test_the_losses_leave_weights_out(problem):
    objective, data, _, _, params = problem
    weighted = data._replace(weights=jnp.asarray(WEIGHTS))
    assert_trees_close(
        objective.example_losses(params, weighted),
        objective.example_losses(params, data),
        rtol=0,
    )


def test_the_risk_does_not_change_when_all_weights_are_scaled(problem):
    objective, data, _, _, params = problem
    scaled = data._replace(weights=7.0 * data.weights)
    np.testing.assert_allclose(
        objective.risk(params, scaled), objective.risk(params, data), rtol=1e-12
    )


def test_without_any_weight_only_the_l2_term_is_left(problem):
    objective, data, _, _, params = problem
    empty = data._replace(weights=jnp.zeros(12))
    value, slope = jax.value_and_grad(objective.risk)(params, empty)
    np.testing.assert_allclose(value, 0.2 * 6.25, rtol=1e-12)
    assert_trees_close(slope, tree.scale(0.4, params), rtol=1e-12)
    assert float(objective.total(params, empty)) == 0.0


def test_the_quadratic_has_the_curvature_and_the_minimum_it_promises(problem):
    objective, data, optimum, hessian, params = problem
    bare = objective._replace(l2=0.0)
    away = np.asarray(tree.subtract(params, optimum)["weight"])[:, 0]
    np.testing.assert_allclose(
        bare.risk(params, data), 0.5 * away @ hessian @ away, rtol=1e-12
    )
    slope = jax.jit(jax.grad(bare.risk))(optimum, data)
    np.testing.assert_allclose(slope["weight"], 0, atol=1e-12)


def test_the_ridge_solution_has_no_gradient():
    learner, data, solve = ridge()
    objective = bind(learner.model, {}, learner.loss, learner.l2)
    weighted = data._replace(weights=jnp.linspace(0.0, 1.0, 20))
    slope = jax.jit(jax.grad(objective.risk))(solve(weighted.weights), weighted)
    assert float(tree.norm(slope)) < 1e-12


def test_binding_holds_the_batch_statistics_fixed():
    learner, data = batch_norm_net()
    like = jax.eval_shape(learner.model.init, jax.random.key(0))
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), like)
    fours = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 4.0), like.stats)
    first = bind(learner.model, ones.stats, learner.loss)
    second = bind(learner.model, fours, learner.loss)
    apply = jax.jit(learner.model.apply)
    assert_trees_close(
        jax.jit(second.predict)(ones.params, data.inputs),
        apply(Variables(ones.params, fours), data.inputs),
        rtol=1e-12,
    )
    moved = second.predict(ones.params, data.inputs)
    assert np.any(moved != first.predict(ones.params, data.inputs))


def test_data_may_rest_in_numpy(problem):
    objective, data, _, _, params = problem
    resting = jax.tree.map(np.asarray, data)
    np.testing.assert_allclose(
        objective.risk(params, resting), objective.risk(params, data), rtol=1e-14
    )
