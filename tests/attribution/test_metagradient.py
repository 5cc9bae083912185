"""Metagradients: finite differences of true retraining, and forward against back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.attribution.attribution import Evidence
from unlearn_jax.attribution.metagradient import (
    metagradient,
    objective_metagradient,
    replay,
)
from unlearn_jax.attribution.output_functions import component
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import cross_entropy
from unlearn_jax.types import Batch

N, Q = 18, 5


@pytest.fixture(scope="module")
def problem():
    """(learner, data with uneven weights and two absent, broken examples, queries)."""
    learner = tiny.learner(
        "mlp", l2=0.02, epochs=4, batch_size=5, learning_rate=0.3, weight_decay=0.01
    )
    data = jax.tree.map(jnp.asarray, tiny.examples(count=N))
    weights = jnp.asarray(np.random.default_rng(3).uniform(0.5, 2.0, N))
    weights = weights.at[jnp.array([4, 9])].set(0.0)
    broken = data.inputs.at[4].set(jnp.nan).at[9].set(jnp.inf)
    queries = jax.tree.map(jnp.asarray, tiny.examples(count=Q, seed=8))
    hidden = queries.inputs.at[2].set(jnp.nan)
    queries = Batch(hidden, queries.targets, jnp.ones(Q).at[2].set(0.0))
    return learner, Batch(broken, data.targets, weights), queries


@pytest.fixture(scope="module")
def compiled(problem):
    learner, data, _ = problem
    both = metagradient(learner, query_batch_size=2)
    keys = jax.random.split(jax.random.key(5), 2)
    state = both.prepare(jax.random.key(0), Evidence(None, keys), data)
    assert state.shape == (2,)

    @tiny.quick_jit
    def all_of_it(keys, data, queries, moves):
        rows = both.effects(keys, data, queries, component(0))
        changes = jax.vmap(lambda move: both.change(keys, data, queries, move))(moves)
        return rows, changes

    return keys, all_of_it


@pytest.fixture(scope="module")
def retrain(problem):
    """The outputs at the queries of the mean run, by ``fit`` itself."""
    learner, data, queries = problem
    inputs = jnp.where(queries.weights[:, None] > 0, queries.inputs, 0)

    @tiny.quick_jit
    def outputs(keys, weights):
        def one(key):
            variables = fit(key, learner, data._replace(weights=weights))
            return learner.model.apply(variables, inputs)

        return jax.vmap(one)(keys)

    return outputs


def test_a_replay_is_the_run_itself(problem, key):
    learner, data, _ = problem

    @tiny.quick_jit
    def two(key, data):
        return fit(key, learner, data), replay(key, learner, data)

    for weights in (data.weights, data.weights.at[:9].set(0.0)):
        expected, found = two(key, data._replace(weights=weights))
        assert_trees_close(found, expected, rtol=1e-12, atol=1e-14)


def test_both_ways_equal_finite_differences_of_retraining(problem, compiled, retrain):
    _, data, queries = problem
    keys, run = compiled
    random = np.random.default_rng(0)
    moves = jnp.asarray(random.normal(size=(2, N)))
    moves = moves.at[1].set(0.0).at[1, 7].set(1.0)
    rows, changes = run(keys, data, queries, moves)
    assert changes.shape == (2, Q, tiny.CLASSES)
    kept = data.weights > 0
    step = 2e-5
    for move, change in zip(moves, changes, strict=True):
        along = step * jnp.where(kept, move, 0)
        ends = [retrain(keys, data.weights + sign * along) for sign in (1, -1)]
        truth = jnp.mean(ends[0] - ends[1], axis=0) / (2 * step)
        truth = truth.at[2].set(0.0)
        scale = float(jnp.max(jnp.abs(truth)))
        np.testing.assert_allclose(change, truth, rtol=1e-6, atol=1e-7 * scale)
        # Back against forward, for one of the outputs.
        np.testing.assert_allclose(rows @ move, change[:, 0], rtol=1e-8, atol=1e-12)


def test_absent_examples_and_queries_have_no_part(problem, compiled):
    _, data, queries = problem
    keys, run = compiled
    rows, _ = run(keys, data, queries, jnp.zeros((2, N)))
    assert rows.shape == (Q, N)
    assert np.all(np.isfinite(rows))
    assert not np.any(rows[:, [4, 9]])
    assert not np.any(rows[2])
    assert np.count_nonzero(rows) == (Q - 1) * (N - 2)
    # Weights that all grow by one factor change nothing in a mean.
    np.testing.assert_allclose(rows @ data.weights, 0, atol=1e-12)


def test_weight_on_a_class_raises_its_logit(problem, compiled):
    _, data, queries = problem
    keys, run = compiled
    rows, _ = run(keys, data, queries, jnp.zeros((2, N)))
    scores = np.asarray(rows)[np.asarray(queries.weights) > 0]
    first = np.asarray(data.targets) == 0
    present = np.asarray(data.weights) > 0
    own, other = scores[:, first & present], scores[:, ~first & present]
    assert np.mean(own) > 0 > np.mean(other)


def test_the_derivative_of_a_validation_loss_is_that_of_retraining(problem, retrain):
    learner, data, queries = problem
    judged = queries._replace(weights=queries.weights.at[0].set(3.0))
    keys = jax.random.split(jax.random.key(6), 2)

    @tiny.quick_jit
    def compiled(key, data, judged):
        return objective_metagradient(key, learner, data, judged)

    def judge(weights):
        losses = cross_entropy(retrain(keys, weights)[1], judged.targets)
        return float(jnp.average(losses, weights=judged.weights))

    value, slope = compiled(keys[1], data, judged)
    np.testing.assert_allclose(value, judge(data.weights), rtol=1e-10)
    move = jnp.asarray(np.random.default_rng(1).normal(size=N))
    step = 2e-5 * jnp.where(data.weights > 0, move, 0)
    truth = (judge(data.weights + step) - judge(data.weights - step)) / 4e-5
    np.testing.assert_allclose(slope @ move, truth, rtol=1e-6)
    assert not np.any(slope[jnp.array([4, 9])])


def test_what_is_missing_is_refused(problem):
    learner, data, _ = problem
    with pytest.raises(ValueError, match="no keys"):
        metagradient(learner).prepare(jax.random.key(0), Evidence(None), data)
    with pytest.raises(ValueError, match="at least 1"):
        metagradient(learner, query_batch_size=0)
