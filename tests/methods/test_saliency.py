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
