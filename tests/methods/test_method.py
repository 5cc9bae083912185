"""Requests, and methods made of methods."""

import jax
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.data.batch import take
from unlearn_jax.methods import METHODS, Method, chain, make_request, restrict


def toy_adding():
    """Adds a drawn number to everything, statistics too; its state counts requests."""

    def prepare(key, original, train):
        return jax.random.randint(key, (), 0, 1000)

    def forget(key, state, variables, request):
        noise = 1.0 + jax.random.uniform(key)
        return jax.tree.map(lambda leaf: leaf + noise, variables), state + 1

    return Method(prepare, forget)


def toy_scaling():
    """Multiplies everything by its state plus the weight of the forget set."""

    def prepare(key, original, train):
        return jax.random.uniform(key)

    def forget(key, state, variables, request):
        return tree.scale(state + request.forget.weights.sum(), variables), state / 2

    return Method(prepare, forget)


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
        ([5, 6, 5, 7, 7, 7], "holds index 5 2 times, expected each index once"),
        (range(48), "holds all 48 training examples, expected some to retain"),
        (np.zeros(48, bool), "bool of shape .* turn a mask into indices"),
    ],
)
def test_impossible_requests_are_refused(train, indices, sentence):
    with pytest.raises(ValueError, match=sentence):
        make_request(train, indices)


@pytest.mark.parametrize(
    ("indices", "sentence"),
    [
        ([3], "holds all 1 training examples that are left, expected some to retain"),
        ([0, 1], "2 of 2 examples to forget have weight 0, the first is example 0"),
        ([0, 3], "1 of 2 examples to forget have weight 0, the first is example 0"),
    ],
)
def test_a_second_request_counts_what_the_first_left(train, indices, sentence):
    left = make_request(take(train, range(4)), [0, 1, 2]).retain
    with pytest.raises(ValueError, match=sentence):
        make_request(left, indices)


def test_chain_is_one_after_the_other(key, original, train, request_a):
    first, second = toy_adding(), toy_scaling()
    both = chain(first, second)
    keys = jax.random.split(key)
    states = both.prepare(key, original, train)
    assert states == tuple(
        method.prepare(k, original, train)
        for method, k in zip((first, second), keys, strict=True)
    )
    moved, after = both.forget(key, states, original, request_a)
    halfway, one = first.forget(keys[0], states[0], original, request_a)
    expected, two = second.forget(keys[1], states[1], halfway, request_a)
    assert_trees_close(moved, expected)
    assert after == (one, two) == (states[0] + 1, states[1] / 2)
    other, _ = chain(second, first).forget(key, states[::-1], original, request_a)
    assert tree.norm(tree.subtract(other, moved)) > 0.1


def test_chain_of_nothing_is_refused():
    with pytest.raises(ValueError, match="chain needs at least one method, got none"):
        chain()


def test_restrict_moves_only_selected_paths(key, request_a):
    original = tiny.learner("norm").model.init(key)
    free, _ = toy_adding().forget(key, 0, original, request_a)
    only = restrict(toy_adding(), lambda path: path[:2] == ("stages", 1))
    moved, state = only.forget(key, 0, original, request_a)
    assert state == 1
    assert_trees_close(moved.stats, original.stats, rtol=0)
    selected = free.params["stages"][1]
    assert_trees_close(moved.params["stages"][1], selected, rtol=0)
    rest = {**moved.params, "stages": moved.params["stages"][0]}
    expected = {**original.params, "stages": original.params["stages"][0]}
    assert_trees_close(rest, expected, rtol=0)


def test_restrict_to_nothing_is_refused(key, original, request_a):
    method = restrict(toy_adding(), lambda path: path[0] == "haed")
    sentence = r"selects no parameter, .* \('head', 'bias'\), \('head', 'kernel'\), "
    with pytest.raises(ValueError, match=sentence):
        method.forget(key, 0, original, request_a)


def test_combinations_of_methods_vmap_like_one_by_one(originals, train, request_a):
    learner = tiny.learner("mlp")
    dampened = METHODS["ssd"].factory(learner, alpha=1.0)
    tuned = METHODS["finetune"].factory(learner, epochs=1, batch_size=8)
    at_head = [
        restrict(method, lambda path: path[0] == "head") for method in (dampened, tuned)
    ]
    method = chain(*at_head)
    keys, models = jax.random.split(jax.random.key(5), 2), originals("mlp")

    def run(key, original):
        state = method.prepare(key, original, train)
        return method.forget(key, state, original, request_a)[0]

    together = tiny.quick_jit(jax.vmap(run))(keys, models)
    alone = tiny.quick_jit(run)
    for i in range(2):
        expected = alone(keys[i], tree.member(models, i))
        assert_trees_close(tree.member(together, i), expected, rtol=1e-8, atol=1e-10)
    before, after = models.params, together.params
    assert_trees_close(after["hidden"], before["hidden"], rtol=0)
    assert tree.norm(tree.subtract(after["head"], before["head"])) > 1e-3
