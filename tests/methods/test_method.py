"""Requests, and methods made of methods."""

import jax
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods import METHODS, chain, make_request, restrict


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("mlp")


@pytest.fixture(scope="module")
def tuned(learner):
    return METHODS["finetune"].factory(learner, epochs=1, batch_size=8)


@pytest.fixture(scope="module")
def dampened(learner):
    return METHODS["ssd"].factory(learner, alpha=1.0)


def at_head(path):
    return path[0] == "head"


def test_request_pads_the_forget_set_and_keeps_every_retain_row(train):
    request = make_request(train, [30, 2, 11])
    np.testing.assert_array_equal(request.forget.inputs[:3], train.inputs[[2, 11, 30]])
    np.testing.assert_array_equal(
        request.forget.targets[:3], train.targets[[2, 11, 30]]
    )
    np.testing.assert_array_equal(request.forget.weights, [1, 1, 1, 0])
    assert not request.forget.inputs[3].any()
    assert request.retain.inputs is train.inputs
    expected = np.ones(tiny.COUNT)
    expected[[2, 11, 30]] = 0
    np.testing.assert_array_equal(request.retain.weights, expected)
    assert np.all(train.weights == 1)


@pytest.mark.parametrize(
    ("indices", "sentence"),
    [
        ([], "the forget set is empty, expected at least one index"),
        ([3, 48], "holds index 48, expected indices from 0 to 47"),
        ([-1], "holds index -1, expected indices from 0 to 47"),
        ([5, 6, 5], "holds index 5 2 times, expected each index once"),
        (range(48), "holds all 48 training examples, expected some to retain"),
        (np.zeros(48, bool), "bool of shape .* turn a mask into indices"),
    ],
)
def test_impossible_requests_are_refused(train, indices, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_request(train, indices)


def test_chain_is_one_after_the_other(
    key, learner, tuned, dampened, originals, train, request_a
):
    original = tree.member(originals["mlp"], 0)
    both = chain(tuned, dampened)

    def together(key, original):
        state = both.prepare(key, original, train)
        return both.forget(key, state, original, request_a)

    def apart(key, original):
        first, second = jax.random.split(key)
        state = dampened.prepare(second, original, train)
        moved, _ = tuned.forget(first, (), original, request_a)
        moved, state = dampened.forget(second, state, moved, request_a)
        return moved, ((), state)

    moved, state = tiny.quick_jit(together)(key, original)
    assert_trees_close((moved, state), tiny.quick_jit(apart)(key, original), rtol=1e-9)
    backwards = chain(dampened, tuned)
    other, _ = tiny.quick_jit(backwards.forget)(key, state[::-1], original, request_a)
    assert tree.norm(tree.subtract(other.params, moved.params)) > 1e-3


def test_chain_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chain needs at least one method, got none"):
        chain()


def test_restrict_moves_only_selected_paths(key, originals, request_a):
    original = tree.member(originals["norm"], 0)
    tuned = METHODS["finetune"].factory(tiny.learner("norm"), epochs=1, batch_size=8)
    free, _ = tiny.quick_jit(tuned.forget)(key, (), original, request_a)
    only = restrict(tuned, lambda path: path[:2] == ("stages", 1))
    moved, _ = tiny.quick_jit(only.forget)(key, (), original, request_a)
    assert tree.norm(tree.subtract(free.stats, original.stats)) > 0
    assert_trees_close(moved.stats, original.stats, rtol=0)
    for name in ("stem", "head"):
        assert tree.norm(tree.subtract(free.params[name], original.params[name])) > 0
        assert_trees_close(moved.params[name], original.params[name], rtol=0)
    stages = moved.params["stages"]
    assert_trees_close(stages[0], original.params["stages"][0], rtol=0)
    assert_trees_close(stages[1], free.params["stages"][1], rtol=1e-10)
    for old, new in zip(
        jax.tree.leaves(original.params["stages"][1]),
        jax.tree.leaves(stages[1]),
        strict=True,
    ):
        assert np.any(old != new)


def test_restrict_to_nothing_is_refused(key, tuned, originals, request_a):
    original = tree.member(originals["mlp"], 0)
    method = restrict(tuned, lambda path: path[0] == "haed")
    sentence = r"selects no parameter, .* \('head', 'bias'\), \('head', 'kernel'\), "
    with pytest.raises(ValueError, match=sentence):
        method.forget(key, (), original, request_a)


def test_combinations_vmap_like_one_by_one(
    tuned, dampened, originals, train, request_a
):
    method = chain(restrict(dampened, at_head), restrict(tuned, at_head))
    keys = jax.random.split(jax.random.key(5), 2)

    def run(key, original):
        state = method.prepare(key, original, train)
        return method.forget(key, state, original, request_a)[0]

    together = tiny.quick_jit(jax.vmap(run))(keys, originals["mlp"])
    alone = tiny.quick_jit(run)
    for i in range(2):
        expected = alone(keys[i], tree.member(originals["mlp"], i))
        assert_trees_close(tree.member(together, i), expected, rtol=1e-8, atol=1e-10)
    before, after = originals["mlp"].params, together.params
    assert_trees_close(after["hidden"], before["hidden"], rtol=0)
    assert tree.norm(tree.subtract(after["head"], before["head"])) > 1e-3
