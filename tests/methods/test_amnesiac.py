"""Amnesiac: wrong labels once; and updates that are kept, and taken back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.data.answers import wrong_labels
from unlearn_jax.data.batch import concatenate
from unlearn_jax.methods.amnesiac import amnesiac
from unlearn_jax.methods.amnesiac_updates import (
    batches_hit,
    fit_updates,
    share_hit,
    take_back,
)
from unlearn_jax.train.fit import fit
from unlearn_jax.train.objective import bind

KEY = jax.random.key(3)


def test_wrong_labels_are_wrong_and_all_the_others_alike():
    labels = jnp.arange(6000, dtype=jnp.int32) % 5
    drawn = tiny.quick_jit(lambda k, y: wrong_labels(k, y, 5))(KEY, labels)
    step = np.asarray(drawn - labels) % 5
    counts = np.bincount(step, minlength=5)
    assert counts[0] == 0
    assert np.all(np.abs(counts[1:] - 1500) < 5 * np.sqrt(1500 * 0.75))
    with pytest.raises(ValueError, match="among 1 class, expected two or more"):
        wrong_labels(KEY, labels, 1)


def test_full_steps_of_adam_on_both_sets_together(original, request_a):
    learner = tiny.learner("mlp")
    method = amnesiac(learner, epochs=1, learning_rate=1e-3, batch_size=64)
    moved = tiny.quick_jit(method.forget)(KEY, (), original, request_a)[0]
    labels = wrong_labels(
        jax.random.split(KEY)[0], jnp.asarray(request_a.forget.targets), tiny.CLASSES
    )
    both = concatenate(request_a.retain, request_a.forget._replace(targets=labels))
    risk = bind(learner.model, {}, learner.loss).risk
    slope = tiny.quick_jit(jax.grad(risk))(original.params, both)
    expected = jax.tree.map(
        lambda p, g: p - 1e-3 * g / (jnp.abs(g) + 1e-8), original.params, slope
    )
    assert_trees_close(moved.params, expected, rtol=1e-7, atol=1e-10)


@pytest.fixture(scope="module")
def kept(train):
    learner = tiny.learner("mlp", epochs=3)
    few = train._replace(weights=np.where(np.arange(tiny.COUNT) < 43, 1.0, 0.0))
    run = tiny.quick_jit(lambda key, data: fit_updates(key, learner, data))
    return learner, few, *run(KEY, few)


def test_the_run_is_fits_and_its_updates_lead_from_end_to_end(kept):
    learner, few, trained, updates = kept
    expected = tiny.quick_jit(lambda key, data: fit(key, learner, data))(KEY, few)
    assert_trees_close(trained, expected, rtol=1e-9, atol=1e-12)
    start = learner.model.init(jax.random.fold_in(KEY, 0)).params
    way = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), updates.changes)
    assert_trees_close(tree.add(start, way), trained.params, rtol=1e-9, atol=1e-12)
    # Every example of weight once in a pass, and no other.
    for rows in np.split(np.asarray(updates.examples), 3):
        np.testing.assert_array_equal(np.sort(rows[rows >= 0]), np.arange(43))


def test_what_is_taken_back_is_the_batches_that_held_the_rows(kept):
    _, _, trained, updates = kept
    forget = np.array([4, 17])
    after = tiny.quick_jit(take_back)(trained, updates, forget)
    expected = tiny.flat(trained.params)
    changes = [np.asarray(leaf) for leaf in jax.tree.leaves(updates.changes)]
    taken = 0
    for step, rows in enumerate(np.asarray(updates.examples)):
        if set(rows) & set(forget.tolist()):
            expected = expected - np.concatenate([c[step].ravel() for c in changes])
            taken += 1
    assert 3 <= taken <= 6
    np.testing.assert_allclose(tiny.flat(after.params), expected, rtol=1e-9)
    assert int(batches_hit(updates, forget).sum()) == taken


def test_the_share_of_a_run_that_goes_is_a_hypergeometric_chance():
    random = np.random.default_rng(0)
    hits = [(random.permutation(100)[:10] < 4).any() for _ in range(4000)]
    chance = float(share_hit(10, 100, 4))
    error = np.sqrt(chance * (1 - chance) / 4000)
    assert abs(np.mean(hits) - chance) < 4 * error
    assert float(share_hit(10, 12, 4)) == 1
