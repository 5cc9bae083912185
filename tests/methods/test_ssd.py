"""SSD against a dense computation by hand, and its limits."""

import jax
import numpy as np
import pytest
import tiny
import tiny_words
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods import make_request
from unlearn_jax.methods.ssd import ssd, ssd_batch
from unlearn_jax.train.loss import squared_error
from unlearn_jax.train.objective import bind


def run(method, original, train, request):
    """(state, unlearned parameters), compiled; batch statistics must stay."""

    def both(original):
        state = method.prepare(jax.random.key(0), original, train)
        return method.forget(jax.random.key(0), state, original, request)

    moved, state = tiny.quick_jit(both)(original)
    assert_trees_close(moved.stats, original.stats, rtol=0)
    return state, moved.params


def squares_by_hand(learner, original, train):
    """Rows -> mean squares of per-example gradients, from the explicit Jacobian."""
    objective = bind(learner.model, original.stats, learner.loss)
    jacobian = tiny.quick_jit(jax.jacobian(objective.example_losses))
    slopes = jax.tree.map(np.asarray, jacobian(original.params, train))
    return lambda rows: jax.tree.map(lambda j: (j[rows] ** 2).mean(axis=0), slopes)


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("mlp")


@pytest.fixture(scope="module")
def forgotten():
    return [0, 4, 9, 20, 31, 46]


@pytest.fixture(scope="module")
def ratios(learner, original, train, forgotten):
    squares = squares_by_hand(learner, original, train)
    return tiny.flat(squares(forgotten)) / tiny.flat(squares(np.arange(tiny.COUNT)))


@pytest.mark.parametrize("l2", [0.0, 0.3])  # l2 is no part of the importance
def test_ssd_equals_dense_computation(originals, train, request_a, forgotten, l2):
    alpha, dampening = 1.5, 0.8
    learner, original = tiny.learner("norm", l2=l2), tree.member(originals("norm"), 0)
    method = ssd(learner, alpha=alpha, dampening=dampening)
    state, params = run(method, original, train, request_a)
    squares = squares_by_hand(learner, original, train)
    overall = squares(np.arange(tiny.COUNT))
    assert_trees_close(state.value, overall, rtol=1e-10, atol=1e-18)
    assert int(state.batch_size) == 1

    def by_card(theta, all_rows, forget_rows):
        theta = np.array(theta)
        chosen = forget_rows > alpha * all_rows
        factor = np.minimum(dampening * all_rows[chosen] / forget_rows[chosen], 1)
        theta[chosen] *= factor
        return theta

    expected = jax.tree.map(by_card, original.params, overall, squares(forgotten))
    assert_trees_close(params, expected, rtol=1e-10)
    assert 0.05 < np.mean(tiny.flat(params) != tiny.flat(original.params)) < 0.95


def test_batch_importance_of_one_batch_is_the_squared_mean(
    learner, original, train, request_a
):
    objective = bind(learner.model, original.stats, learner.loss)
    slope = tiny.quick_jit(jax.grad(objective.risk))(original.params, train)
    state, _ = run(ssd_batch(learner), original, train, request_a)
    squares = jax.tree.map(lambda g: np.asarray(g) ** 2, slope)
    assert_trees_close(state.value, squares, rtol=1e-8, atol=1e-18)
    assert int(state.batch_size) == 64


def test_batches_by_class_are_those_of_sorted_data(learner, original, train, request_a):
    size = 6
    state, _ = run(
        ssd_batch(learner, importance_batch=size, by_class=True),
        original,
        train,
        request_a,
    )
    objective = bind(learner.model, original.stats, learner.loss)
    jacobian = tiny.quick_jit(jax.jacobian(objective.example_losses))
    slopes = jax.tree.map(np.asarray, jacobian(original.params, train))
    order = np.argsort(train.targets, kind="stable")
    batches = np.split(order, range(size, tiny.COUNT, size))
    assert len(set(train.targets[batches[0]])) == 1 < len(set(train.targets[:size]))
    expected = jax.tree.map(
        lambda j: np.mean([j[part].mean(axis=0) ** 2 for part in batches], axis=0),
        slopes,
    )
    assert_trees_close(state.value, expected, rtol=1e-9, atol=1e-18)


def test_batches_by_class_need_classes():
    learner = tiny.learner("mlp", loss=squared_error)
    with pytest.raises(ValueError, match="sorts by class, and this learner's targets"):
        ssd_batch(learner, by_class=True)


@pytest.mark.parametrize("fraction", [1.01, 0.8])
def test_dampening_above_the_ratio_moves_nothing(
    learner, original, train, request_a, ratios, fraction
):
    dampening = fraction * ratios.max()
    method = ssd(learner, alpha=0.5, dampening=dampening)
    _, params = run(method, original, train, request_a)
    moved = tiny.flat(params) != tiny.flat(original.params)
    np.testing.assert_array_equal(moved, ratios > dampening)
    assert moved.any() == (fraction < 1)


def test_alpha_above_all_ratios_moves_nothing(
    learner, original, train, request_a, ratios
):
    method = ssd(learner, alpha=1.01 * ratios.max())
    _, params = run(method, original, train, request_a)
    assert_trees_close(params, original.params, rtol=0)


@pytest.mark.parametrize("make", [ssd, ssd_batch])
def test_what_is_selected_shrinks_at_least_by_the_quotient(
    learner, original, train, request_a, make
):
    method = make(learner, alpha=2.0, dampening=0.5)
    _, params = run(method, original, train, request_a)
    before, after = tiny.flat(original.params), tiny.flat(params)
    moved = before != after
    assert moved.any()
    assert not moved.all()
    largest = 0.5 / 2.0 * np.abs(before[moved])
    assert np.all(np.abs(after[moved]) <= largest * (1 + 1e-9))
    assert np.all(after[moved] * before[moved] >= 0)


def test_importances_of_other_batch_sizes_are_refused(
    learner, original, train, request_a
):
    prepare = tiny.quick_jit(ssd(learner, importance_batch=7).prepare)
    state = prepare(jax.random.key(0), original, train)
    sentence = "training set was taken at batch size 7, of the forget set at 1; .*again"
    with pytest.raises(ValueError, match=sentence):
        ssd(learner).forget(jax.random.key(0), state, original, request_a)


@pytest.mark.parametrize(("make", "least"), [(ssd, 1), (ssd_batch, 2)])
def test_impossible_batch_sizes_are_refused(learner, make, least):
    sentence = f"^{make.__name__}: importance_batch must be at least {least}, got"
    with pytest.raises(ValueError, match=sentence):
        make(learner, importance_batch=least - 1)


def test_sequences_are_dampened_by_their_dense_squares():
    learner, words = tiny_words.learner(), tiny_words.examples()
    request = make_request(words, [0, 5, 8])
    original = learner.model.init(jax.random.key(0))
    state, moved = run(ssd(learner, alpha=1.5), original, words, request)
    squares = squares_by_hand(learner, original, words)
    overall, forgotten = squares(np.arange(24)), squares([0, 5, 8])
    assert_trees_close(state.value, overall, rtol=1e-6, atol=1e-14)

    def shrunk(theta, whole, part):
        ratio = np.where(part > 1.5 * whole, whole / np.where(part > 0, part, 1), 1)
        return theta * ratio

    expected = jax.tree.map(shrunk, original.params, overall, forgotten)
    assert_trees_close(moved, expected, rtol=1e-6, atol=1e-14)
