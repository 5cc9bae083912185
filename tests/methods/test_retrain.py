"""The oracle: unique where the problem is convex, and without a memory everywhere."""

import jax
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.data.batch import take
from unlearn_jax.methods.retrain import retrain
from unlearn_jax.train.fit import fit
from unlearn_jax.train.objective import bind


@pytest.fixture(scope="module")
def convex():
    return tiny.learner(
        "softmax",
        l2=0.1,
        epochs=400,
        batch_size=tiny.COUNT,
        learning_rate=0.2,
        schedule="constant",
    )


@pytest.fixture(scope="module")
def oracles(convex, train, request_a):
    """Two retrained models, their keys and originals unlike, stacked."""
    keys = jax.random.split(jax.random.key(2), 2)
    originals = jax.vmap(convex.model.init)(keys[::-1])
    forget = tiny.quick_jit(jax.vmap(retrain(convex).forget, (0, None, 0, None)))
    return forget(keys, (), originals, request_a)[0]


def test_two_retrains_of_a_convex_problem_agree(oracles):
    one, two = (tree.member(oracles, i) for i in range(2))
    assert_trees_close(one, two, rtol=1e-8, atol=1e-8)


def test_retrain_of_a_convex_problem_is_its_minimum(convex, oracles, request_a):
    risk = bind(convex.model, {}, convex.loss, convex.l2).risk
    params = tree.member(oracles, 0).params
    slope = tiny.quick_jit(jax.grad(risk))(params, request_a.retain)
    assert tree.norm(slope) < 1e-8


def test_retrain_equals_fitting_the_gathered_retain_set(
    convex, oracles, train, request_a
):
    rows = np.flatnonzero(request_a.retain.weights)
    gathered = take(train, rows)
    key = jax.random.key(3)
    alone = tiny.quick_jit(lambda key, data: fit(key, convex, data))(key, gathered)
    assert_trees_close(tree.member(oracles, 0), alone, rtol=1e-8, atol=1e-8)


def test_forgetting_moves_the_minimum(convex, oracles, train):
    risk = bind(convex.model, {}, convex.loss, convex.l2).risk
    params = tree.member(oracles, 0).params
    assert tree.norm(tiny.quick_jit(jax.grad(risk))(params, train)) > 1e-3


def test_retrain_draws_every_leaf_of_nested_stages_anew(originals, request_a):
    forget = tiny.quick_jit(retrain(tiny.learner("norm")).forget)
    first = tree.member(originals("norm"), 0)
    other = jax.tree.map(lambda leaf: 100 + 0 * leaf, first)
    fresh, _ = forget(jax.random.key(4), (), first, request_a)
    again, _ = forget(jax.random.key(4), (), other, request_a)
    assert_trees_close(fresh, again, rtol=0)
    for (path, new), old in zip(
        jax.tree_util.tree_leaves_with_path(fresh), jax.tree.leaves(first), strict=True
    ):
        name = jax.tree_util.keystr(path)
        assert np.all(new != old), f"{name} still holds values of the original"
