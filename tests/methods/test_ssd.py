"""SSD against a dense computation by hand, and its limits."""

import jax
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods.ssd import ssd, ssd_batch
from unlearn_jax.train.objective import bind


@pytest.fixture(scope="module")
def original(originals):
    return tree.member(originals["norm"], 0)


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("norm", l2=0.3)


@pytest.fixture(scope="module")
def unlearn(learner, original, train, request_a):
    """Method -> (state, unlearned parameters), compiled."""

    def run(method):
        def both(original):
            state = method.prepare(jax.random.key(0), original, train)
            return method.forget(jax.random.key(0), state, original, request_a)

        moved, state = tiny.quick_jit(both)(original)
        assert_trees_close(moved.stats, original.stats, rtol=0)
        return state, moved.params

    return run


@pytest.fixture(scope="module")
def by_hand(learner, original, train):
    """Mean squares of per-example gradients over rows, from the explicit Jacobian."""
    objective = bind(learner.model, original.stats, learner.loss)
    jacobian = tiny.quick_jit(jax.jacobian(objective.example_losses))
    slopes = jax.tree.map(np.asarray, jacobian(original.params, train))
    return lambda rows: jax.tree.map(lambda j: (j[rows] ** 2).mean(axis=0), slopes)


@pytest.fixture(scope="module")
def forgotten(by_hand):
    return by_hand([0, 4, 9, 20, 31, 46])


@pytest.fixture(scope="module")
def overall(by_hand):
    return by_hand(np.arange(tiny.COUNT))


def test_ssd_equals_dense_computation(unlearn, original, overall, forgotten):
    alpha, dampening = 1.5, 0.8
    state, params = unlearn(ssd(tiny.learner("norm"), alpha=alpha, dampening=dampening))
    assert_trees_close(state.value, overall, rtol=1e-10, atol=1e-18)

    def by_card(theta, all_rows, forget_rows):
        theta = np.array(theta)
        chosen = forget_rows > alpha * all_rows
        factor = np.minimum(dampening * all_rows[chosen] / forget_rows[chosen], 1)
        theta[chosen] *= factor
        return theta

    expected = jax.tree.map(by_card, original.params, overall, forgotten)
    assert_trees_close(params, expected, rtol=1e-10)
    moved = [
        a != b for a, b in zip(*map(_flat, (params, original.params)), strict=True)
    ]
    assert 0.05 < np.mean(moved) < 0.95


def test_l2_is_no_part_of_the_importance(unlearn, learner, overall):
    state, _ = unlearn(ssd(learner))
    assert_trees_close(state.value, overall, rtol=1e-10, atol=1e-18)


def test_dampening_above_all_ratios_moves_nothing(
    unlearn, learner, original, overall, forgotten
):
    largest = np.max(_flat(forgotten) / _flat(overall))
    _, params = unlearn(ssd(learner, alpha=0.5, dampening=1.01 * largest))
    assert_trees_close(params, original.params, rtol=0)
    _, params = unlearn(ssd(learner, alpha=0.5, dampening=0.99 * largest))
    assert np.sum(_flat(params) != _flat(original.params)) == 1


def test_alpha_above_all_ratios_moves_nothing(
    unlearn, learner, original, overall, forgotten
):
    largest = np.max(_flat(forgotten) / _flat(overall))
    _, params = unlearn(ssd(learner, alpha=1.01 * largest))
    assert_trees_close(params, original.params, rtol=0)


@pytest.mark.parametrize("make", [ssd, ssd_batch])
def test_what_is_selected_shrinks_at_least_by_the_quotient(
    unlearn, learner, original, make
):
    _, params = unlearn(make(learner, alpha=2.0, dampening=0.5))
    before, after = _flat(original.params), _flat(params)
    moved = before != after
    assert moved.any()
    assert not moved.all()
    assert np.all(
        np.abs(after[moved]) <= 0.5 / 2.0 * np.abs(before[moved]) * (1 + 1e-9)
    )
    assert np.all(after[moved] * before[moved] >= 0)


def test_state_stores_the_batch_size_it_was_taken_at(unlearn, learner):
    assert int(unlearn(ssd(learner))[0].batch_size) == 1
    assert int(unlearn(ssd_batch(learner))[0].batch_size) == 64
    assert int(unlearn(ssd(learner, importance_batch=7))[0].batch_size) == 7


def test_batch_importance_of_one_batch_is_the_squared_mean(
    unlearn, learner, original, train
):
    objective = bind(learner.model, original.stats, learner.loss)
    slope = tiny.quick_jit(jax.grad(objective.risk))(original.params, train)
    state, _ = unlearn(ssd_batch(learner))
    squares = jax.tree.map(lambda g: np.asarray(g) ** 2, slope)
    assert_trees_close(state.value, squares, rtol=1e-8, atol=1e-18)


def test_importances_of_other_batch_sizes_are_refused(
    learner, original, unlearn, request_a
):
    state, _ = unlearn(ssd(learner, importance_batch=7))
    sentence = "training set was taken at batch size 7, of the forget set at 1; .*again"
    with pytest.raises(ValueError, match=sentence):
        ssd(learner).forget(jax.random.key(0), state, original, request_a)


@pytest.mark.parametrize(("make", "least"), [(ssd, 1), (ssd_batch, 2)])
def test_impossible_batch_sizes_are_refused(learner, make, least):
    sentence = f"importance_batch of {make.__name__} must be at least {least}, got 0"
    with pytest.raises(ValueError, match=sentence):
        make(learner, importance_batch=0)


def _flat(params):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
