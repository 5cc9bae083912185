"""Saliency masks: exactly so many, the largest; strict and leaky restriction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods.finetune import finetune
from unlearn_jax.methods.random_labels import random_labels
from unlearn_jax.methods.saliency import saliency_mask, with_saliency
from unlearn_jax.methods.salun import salun
from unlearn_jax.methods.salun_soft import salun_soft
from unlearn_jax.train.descent import begin, descend
from unlearn_jax.train.fit import training_loss
from unlearn_jax.train.objective import bind

SMALL = {"epochs": 1, "learning_rate": 0.1, "batch_size": 8}


@pytest.fixture(scope="module")
def mask(original, request_a):
    learner = tiny.learner("mlp")
    risk = bind(learner.model, original.stats, learner.loss).risk
    slope = tiny.quick_jit(jax.grad(risk))(original.params, request_a.forget)
    return saliency_mask(slope, 0.3)


@pytest.mark.parametrize("fraction", [0.0, 0.17, 0.5, 1.0])
def test_the_mask_holds_the_largest_over_all_leaves(key, fraction):
    like = {"a": jnp.zeros((4, 5)), "b": jnp.zeros(7), "c": jnp.zeros(())}
    slope = tree.random_like(key, like, jax.random.normal)
    chosen = tiny.flat(saliency_mask(slope, fraction))
    assert chosen.sum() == round(fraction * 28)
    sizes = np.abs(tiny.flat(slope))
    if 0 < fraction < 1:
        assert sizes[chosen].min() > sizes[~chosen].max()


def test_of_equal_gradients_the_first_are_chosen():
    slope = {"a": -jnp.ones(4), "b": jnp.ones(4)}
    chosen = tiny.flat(saliency_mask(slope, 0.375))
    np.testing.assert_array_equal(chosen, np.arange(8) < 3)


@pytest.mark.parametrize("factory", [finetune, random_labels])
def test_what_is_not_salient_does_not_move_by_a_bit(factory, original, request_a, mask):
    learner = tiny.learner("mlp", l2=0.1, weight_decay=0.1)
    method = with_saliency(factory, learner, fraction=0.3, **SMALL)
    moved = tiny.unlearned(method, original, request_a)
    still = tiny.flat(moved.params) == tiny.flat(original.params)
    np.testing.assert_array_equal(still, ~tiny.flat(mask))


def test_leaky_masks_let_decay_through_but_no_gradient(original, request_a, mask):
    outside = ~tiny.flat(mask)
    for decay, moves in ((0.0, False), (0.1, True)):
        learner = tiny.learner("mlp", weight_decay=decay)
        moved = tiny.unlearned(
            salun(learner, fraction=0.3, leaky=True, **SMALL), original, request_a
        )
        before, after = (
            tiny.flat(original.params)[outside],
            tiny.flat(moved.params)[outside],
        )
        assert np.all((before != after) == (moves & (before != 0)))
        if moves:  # pure decay: every weight by the same factor
            factors = after / before
            np.testing.assert_allclose(factors, factors[0], rtol=1e-12)
            assert 0.5 < factors[0] < 1


def test_with_everything_salient_nothing_is_changed(originals, request_a):
    learner = tiny.learner("norm", weight_decay=0.1)
    original = tree.member(originals("norm"), 0)
    expected = tiny.unlearned(random_labels(learner, **SMALL), original, request_a)
    for leaky in (False, True):
        method = salun(learner, fraction=1.0, leaky=leaky, **SMALL)
        moved = tiny.unlearned(method, original, request_a)
        assert_trees_close(moved, expected, rtol=1e-12)


def test_fractions_outside_of_one_are_refused():
    with pytest.raises(ValueError, match=r"fraction must be from 0 to 1.*got 50.0"):
        salun(tiny.learner("mlp"), fraction=50.0)


def held(original, moved):
    """Which parameters are where they were, to the last bit."""
    return tiny.flat(moved.params) == tiny.flat(original.params)


def test_second_order_saliency_is_gain_by_cost(original, request_a):
    # Against gradients of single examples, kept one by one.
    learner = tiny.learner("mlp")
    model, count = learner.model, round(0.3 * tree.size(original.params))

    @tiny.quick_jit
    def slopes(params):
        def losses(params):
            outputs = model.apply(original._replace(params=params), data.inputs)
            return learner.loss(outputs, data.targets)

        data = request_a.retain
        leaves = jax.tree.leaves(jax.jacobian(losses)(params))
        return jnp.concatenate([leaf.reshape(tiny.COUNT, -1) for leaf in leaves], 1)

    rows = np.asarray(slopes(original.params))
    stays = np.asarray(request_a.retain.weights) > 0
    score = rows[~stays].mean(0) ** 2 / (rows[stays] ** 2).mean(0)
    expected = np.zeros(score.size, bool)
    expected[np.argsort(-score)[:count]] = True
    options = {"fraction": 0.3, "saliency": "second_order", **SMALL}
    moved = tiny.unlearned(salun(learner, **options), original, request_a)
    np.testing.assert_array_equal(~held(original, moved), expected)


def test_random_masks_are_as_large_and_hang_on_the_key_alone(original, request_a):
    learner = tiny.learner("mlp")
    method = salun(learner, fraction=0.3, saliency="random", **SMALL)
    forget = tiny.quick_jit(method.forget)
    doubled = request_a.forget._replace(inputs=2 * request_a.forget.inputs)
    first, again, other = (
        held(original, forget(jax.random.key(seed), (), original, request)[0])
        for seed, request in (
            (0, request_a),
            (0, request_a._replace(forget=doubled)),
            (1, request_a),
        )
    )
    assert (~first).sum() == (~other).sum() == round(0.3 * first.size)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unknown_saliencies_are_refused():
    with pytest.raises(ValueError, match="'fisher' is unknown; choose from gradient"):
        salun(tiny.learner("mlp"), saliency="fisher")


def test_a_step_towards_home_is_the_proximal_step_of_the_change(train):
    learner = tiny.learner("softmax", batch_size=64, momentum=0.0)
    start = learner.model.init(jax.random.key(1))
    home, count = jax.tree.map(lambda p: p + 0.1, start.params), 6

    @tiny.quick_jit
    def step(state, home, count):
        return descend(
            jax.random.key(0),
            state,
            (train.inputs, train.targets),
            train.weights,
            training_loss(learner),
            learner.recipe,
            total_steps=1,
            home=home and (home, count),
        ).variables

    state = begin(start, learner.recipe)
    change = tiny.flat(step(state, None, 0).params) - tiny.flat(home)
    by = np.sort(np.abs(change))[count - 1]
    expected = tiny.flat(home) + np.sign(change) * np.maximum(np.abs(change) - by, 0)
    moved = tiny.flat(step(state, home, count).params)
    np.testing.assert_allclose(moved, expected, rtol=1e-12)
    assert (moved == tiny.flat(home)).sum() == count


def test_soft_saliency_holds_a_share_that_falls(original, request_a):
    learner = tiny.learner("mlp", momentum=0.0)
    size = tree.size(original.params)
    for fraction, epochs, left in ((1.0, 1, size), (0.8, 2, int(0.4 * size))):
        options = {**SMALL, "fraction": fraction, "epochs": epochs}
        moved = tiny.unlearned(salun_soft(learner, **options), original, request_a)
        assert held(original, moved).sum() == left
    free = tiny.unlearned(
        salun_soft(learner, **{**SMALL, "fraction": 0.0}), original, request_a
    )
    expected = tiny.unlearned(random_labels(learner, **SMALL), original, request_a)
    assert_trees_close(free, expected, rtol=1e-12)
