"""Diagonals against dense Jacobians, and how the batch moment depends on its batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import (
    batch_gradient_moment,
    empirical_fisher_diagonal,
)
from unlearn_jax.train.objective import bind
from unlearn_jax.types import Variables

COUNT = 24


class Problem:
    """An objective at moved statistics, and the Jacobian of its example losses."""

    def __init__(self, net):
        learner = tiny.learner(net)
        self.data = tiny.examples(count=COUNT)
        init = learner.model.init(jax.random.key(3))
        # Any running averages but zero and one, where batch-norm does nothing.
        stats = jax.tree.map(lambda leaf: leaf + 0.3, init.stats)
        self.params = init.params
        self.objective = bind(learner.model, stats, learner.loss, l2=0.7)
        jacobian = tiny.quick_jit(jax.jacobian(self.objective.example_losses))
        self.jacobian = jax.tree.map(np.asarray, jacobian(self.params, self.data))

    def diagonal(self, data, **options):
        return tiny.quick_jit(
            lambda params, data: empirical_fisher_diagonal(
                self.objective, params, data, **options
            )
        )(self.params, data)

    def moment(self, data, params=None, **options):
        return tiny.quick_jit(
            lambda params, data: batch_gradient_moment(
                self.objective, params, data, **options
            )
        )(self.params if params is None else params, data)

    def weighted(self, weights):
        return self.data._replace(weights=np.asarray(weights, np.float64))

    def mean(self, weights, moment):
        """The moment of the mean loss's gradient, from the Jacobian."""
        share = np.asarray(weights) / np.sum(weights)
        return jax.tree.map(lambda j: moment(np.tensordot(share, j, 1)), self.jacobian)

    def fisher(self, weights):
        share = np.asarray(weights) / np.sum(weights)
        return jax.tree.map(lambda j: np.tensordot(share, j**2, 1), self.jacobian)


@pytest.fixture(scope="module", params=["softmax", "mlp", "norm"])
def problem(request):
    return Problem(request.param)


@pytest.fixture(scope="module")
def softmax():
    return Problem("softmax")


@pytest.fixture(scope="module")
def fractions():
    weights = np.random.default_rng(5).uniform(0.1, 2.0, COUNT)
    weights[[0, 7, 23]] = 0
    return weights


def test_fisher_diagonal_equals_dense_jacobian(problem, fractions):
    value = problem.diagonal(problem.weighted(fractions), batch_size=10)
    assert_trees_close(value, problem.fisher(fractions), rtol=1e-10, atol=1e-15)


def test_batch_norm_uses_the_frozen_statistics():
    # The hand computation above could share a mistake: move the statistics, nothing
    # else, and the diagonal of a net with batch-norm has to move.
    learner, data = tiny.learner("norm"), tiny.examples(count=COUNT)
    init = learner.model.init(jax.random.key(3))

    @tiny.quick_jit
    def diagonal(stats):
        objective = bind(learner.model, stats, learner.loss)
        return empirical_fisher_diagonal(objective, init.params, data)

    here = diagonal(init.stats)
    there = diagonal(jax.tree.map(lambda leaf: leaf + 1.0, init.stats))
    assert float(tree.norm(tree.subtract(here, there))) > 0.1 * float(tree.norm(here))


@pytest.mark.parametrize("batch_size", [1, 7, 24, 100])
def test_fisher_diagonal_does_not_depend_on_batch_size(softmax, fractions, batch_size):
    value = softmax.diagonal(softmax.weighted(fractions), batch_size=batch_size)
    assert_trees_close(value, softmax.fisher(fractions), rtol=1e-10)


def test_weight_two_is_the_same_as_twice(softmax):
    weights = np.ones(COUNT)
    weights[4] = 2
    twice = type(softmax.data)(
        *(np.concatenate([leaf, leaf[4:5]]) for leaf in softmax.data)
    )
    value = softmax.diagonal(twice)
    assert_trees_close(value, softmax.fisher(weights), rtol=1e-10)


@pytest.mark.parametrize("moment", [None, jnp.square, jnp.abs])
def test_without_any_weight_everything_is_zero(softmax, moment):
    data = softmax.weighted(np.zeros(COUNT))
    if moment is None:
        value = softmax.diagonal(data)
    else:
        value = softmax.moment(data, batch_size=5, moment=moment)
    assert_trees_close(value, tree.zeros_like(softmax.params))


def test_absent_examples_may_hold_anything(problem, fractions):
    data = problem.weighted(fractions)
    inputs = np.where(fractions[:, None] > 0, data.inputs, np.nan)
    poisoned = data._replace(inputs=inputs)
    run = tiny.quick_jit(
        lambda data: (
            empirical_fisher_diagonal(problem.objective, problem.params, data),
            batch_gradient_moment(
                problem.objective, problem.params, data, batch_size=7
            ),
        )
    )
    assert_trees_close(run(poisoned), run(data), rtol=0)


@pytest.mark.parametrize(("size", "moment"), [(5, jnp.square), (6, jnp.abs)])
def test_batch_moment_equals_a_loop_over_batches(problem, fractions, moment, size):
    weights = fractions.copy()
    weights[size : 2 * size + 1] = 0  # a batch that is not there, and one row more
    value = problem.moment(problem.weighted(weights), batch_size=size, moment=moment)
    moments, there = [], np.flatnonzero(weights)
    for first in range(0, len(there), size):
        own, part = np.zeros(COUNT), there[first : first + size]
        own[part] = weights[part]
        moments.append(problem.mean(own, moment))
    expected = jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *moments)
    assert_trees_close(value, expected, rtol=1e-10, atol=1e-15)


def test_batch_moment_is_that_of_the_rows_that_are_there(softmax):
    """After a first request most rows weigh nothing: they take no place in a batch."""
    left = np.arange(COUNT) % 4 == 0
    rows = type(softmax.data)(*(leaf[left] for leaf in softmax.data))
    alone = softmax.moment(rows, batch_size=4)
    for weights in (left.astype(float), left):
        value = softmax.moment(softmax.weighted(weights), batch_size=4)
        assert_trees_close(value, alone, rtol=1e-12)


def test_batches_of_one_give_the_fisher_diagonal(softmax):
    value = softmax.moment(softmax.data, batch_size=1)
    assert_trees_close(value, softmax.diagonal(softmax.data), rtol=1e-10)


@pytest.fixture(scope="module")
def at_optimum(softmax):
    """Where the mean gradient is small: gradients of all examples are scatter there."""
    risk = tiny.quick_jit(jax.value_and_grad(softmax.objective._replace(l2=0.1).risk))
    params = softmax.params
    for _ in range(100):
        params = tree.axpy(-0.3, risk(params, softmax.data)[1], params)
    return params


def moment_over_draws(problem, params, size, batches=2000):
    """The moment over many drawn batches, its prediction and its standard error."""
    slopes = tiny.quick_jit(jax.jacobian(problem.objective.example_losses))
    slopes = np.asarray(slopes(params, problem.data)["kernel"]).reshape(COUNT, -1)
    index = np.random.default_rng(size).integers(0, COUNT, batches * size)
    drawn = type(problem.data)(*(leaf[index] for leaf in problem.data))
    value = problem.moment(drawn, params, batch_size=size)
    squares = slopes[index].reshape(batches, size, -1).mean(axis=1) ** 2
    error = squares.std(axis=0, ddof=1) / np.sqrt(batches)
    predicted = slopes.mean(axis=0) ** 2 + slopes.var(axis=0) / size
    return np.asarray(value["kernel"]).ravel(), predicted, error


@pytest.mark.parametrize("size", [1, 4, 64])
def test_batch_moment_is_squared_mean_plus_scatter_over_batch(softmax, size):
    value, predicted, error = moment_over_draws(softmax, softmax.params, size)
    assert np.all(np.abs(value - predicted) < 4 * error)
    assert np.all(error < 0.2 * predicted)  # tight enough to tell 1/b from its like


def test_batch_moments_of_1_and_64_are_different_quantities(softmax, at_optimum):
    single, predicted_single, error = moment_over_draws(softmax, at_optimum, 1)
    many, predicted_many, error_many = moment_over_draws(softmax, at_optimum, 64)
    factor = predicted_single / predicted_many
    spread = factor * np.hypot(error / predicted_single, error_many / predicted_many)
    assert np.all(np.abs(single / many - factor) < 4 * spread)
    assert np.median(factor) > 10  # no threshold on ratios carries from one to another


def test_dtype_and_structure_are_those_of_the_parameters():
    learner = tiny.learner("norm", jnp.float32)
    init = jax.eval_shape(learner.model.init, jax.random.key(0))
    data = tiny.examples(np.float32)

    def both(variables: Variables):
        objective = bind(learner.model, variables.stats, learner.loss)
        return (
            empirical_fisher_diagonal(objective, variables.params, data),
            batch_gradient_moment(objective, variables.params, data, batch_size=7),
        )

    assert jax.eval_shape(both, init) == (init.params, init.params)
