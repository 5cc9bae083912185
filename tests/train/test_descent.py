import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from problems import batch_norm_net, quadratic

from unlearn_jax.train.descent import begin, descend, optimise, steps_per_pass
from unlearn_jax.train.fit import fit, training_loss
from unlearn_jax.train.recipe import Recipe
from unlearn_jax.types import Variables

N = 11
PRESENT = np.array([1, 0, 2, 0.5, 0, 0, 1, 1, 1, 0, 3])


def counting_loss(key, params, stats, examples, weights):
    """Counts in ``stats`` how often each example is seen with weight, and the steps."""
    index, shade = examples
    return jnp.sum(params["w"]) * 0.0, {
        "seen": stats["seen"].at[index].add(weights > 0),
        "weight": stats["weight"].at[index].add(weights),
        "drawn": stats["drawn"].at[index].add(1),
        "order": stats["order"].at[stats["steps"]].set(index),
        "steps": stats["steps"] + 1,
        "shade": stats["shade"] + jnp.sum(shade),
    }


@functools.partial(jax.jit, static_argnames=("batch_size",))
def count(key, weights, *, batch_size):
    stats = {
        "seen": jnp.zeros(N, int),
        "weight": jnp.zeros(N),
        "drawn": jnp.zeros(N, int),
        "order": jnp.full((2 * N, min(batch_size, N)), -1),
        "steps": jnp.zeros((), int),
        "shade": jnp.zeros(()),
    }
    recipe = Recipe(batch_size=batch_size)
    state = begin(Variables({"w": jnp.zeros(2)}, stats), recipe)
    examples = (jnp.arange(N), jnp.where(weights > 0, 0.0, jnp.nan))
    done = descend(key, state, examples, weights, counting_loss, recipe, total_steps=4)
    return done.variables.stats


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_every_present_example_is_seen_once_per_pass_and_no_other_ever(key, batch_size):
    stats = count(key, jnp.asarray(PRESENT), batch_size=batch_size)
    np.testing.assert_array_equal(stats["seen"], PRESENT > 0)
    np.testing.assert_array_equal(stats["weight"], PRESENT)
    assert not np.any(np.asarray(stats["drawn"])[PRESENT == 0])
    assert float(stats["shade"]) == 0.0
    size = min(batch_size, N)
    assert int(stats["steps"]) == -(-7 // size) == steps_per_pass(PRESENT, batch_size)


def test_the_order_is_random_and_the_key_decides(key):
    first, again = (count(key, jnp.ones(N), batch_size=1)["order"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = count(jax.random.key(1), jnp.ones(N), batch_size=1)["order"]
    assert np.any(first != other)
    assert np.any(np.ravel(first)[:N] != np.arange(N))
    np.testing.assert_array_equal(np.sort(np.ravel(first)[:N]), np.arange(N))


def test_every_place_in_the_order_is_equally_likely_for_every_example():
    keys = jax.random.split(jax.random.key(5), 800)
    run = jax.vmap(lambda k: count(k, jnp.ones(N), batch_size=1)["order"][0, 0])
    counts = np.bincount(np.asarray(run(keys)), minlength=N)
    expected = 800 / N
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_without_any_weight_nothing_happens(key):
    stats = count(key, jnp.zeros(N), batch_size=3)
    assert int(stats["steps"]) == 0
    assert steps_per_pass(np.zeros(N), 3) == 0


def squared_loss(key, params, stats, examples, weights):
    inputs, targets = examples
    error = inputs @ params["weight"] - targets
    mean = jnp.sum(weights * jnp.sum(0.5 * error**2, axis=1)) / jnp.sum(weights)
    return mean, stats


@pytest.mark.parametrize("loop", ["device", "host"])
def test_full_batch_steps_are_sgd_with_momentum_as_written_by_hand(key, loop):
    _, data, _, hessian = quadratic()
    recipe = Recipe(
        epochs=4, batch_size=12, learning_rate=0.5, momentum=0.75, weight_decay=0.125
    )
    start = {"weight": jnp.array([[2.0], [-1.0], [0.5]])}
    done = optimise(
        key,
        begin(Variables(start, {}), recipe),
        (data.inputs, data.targets),
        data.weights,
        squared_loss,
        recipe,
        loop=loop,
    )
    weight, velocity, losses = np.asarray(start["weight"]), np.zeros((3, 1)), []
    for step in range(4):
        losses.append(0.5 * float(((weight - 1).T @ hessian @ (weight - 1))[0, 0]))
        slope = hessian @ (weight - 1) + 0.125 * weight
        velocity = 0.75 * velocity + slope
        weight = weight - 0.5 * 0.5 * (1 + np.cos(np.pi * step / 4)) * velocity
    assert_trees_close(done.variables.params["weight"], weight, rtol=1e-6)
    assert int(done.step) == 4
    np.testing.assert_allclose(done.loss, losses[-1], rtol=1e-5)


def test_the_loss_of_a_pass_is_the_mean_over_its_steps(key):
    _, data, _, _ = quadratic()
    recipe = Recipe(batch_size=4, learning_rate=1e-12, schedule="constant")
    start = {"weight": jnp.zeros((3, 1))}
    done = descend(
        key,
        begin(Variables(start, {}), recipe),
        (data.inputs, data.targets),
        data.weights,
        squared_loss,
        recipe,
        total_steps=3,
    )
    np.testing.assert_allclose(done.loss, (1.0 + 0.3 + 0.1) / 2, rtol=1e-5)


def test_absent_examples_reach_neither_parameters_nor_batch_statistics(key):
    learner, data = batch_norm_net()
    start = jax.jit(learner.model.init)(key)
    weights = jnp.asarray([1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0.0])
    run = jax.jit(lambda d: fit(key, learner, d, start=start))

    def train(absent):
        inputs = jnp.where(weights[:, None, None, None] > 0, data.inputs, absent)
        return run(data._replace(inputs=inputs, weights=weights))

    clean = train(0.0)
    for leaf, old in zip(jax.tree.leaves(clean), jax.tree.leaves(start), strict=True):
        assert np.isfinite(leaf).all()
        assert np.any(np.asarray(leaf) != np.asarray(old))
    for absent in (np.nan, np.inf, 1e6):
        assert_trees_close(train(absent), clean, rtol=0)


def test_one_step_moves_the_batch_statistics_as_the_present_examples_alone_would(key):
    learner, data = batch_norm_net()
    recipe = learner.recipe
    start = jax.jit(learner.model.init)(jax.random.key(0))
    weights = jnp.zeros(12).at[jnp.array([2, 5, 6, 9])].set(1.0)
    done = jax.jit(
        lambda d, w: descend(
            key,
            begin(start, recipe),
            (d.inputs, d.targets),
            w,
            training_loss(learner),
            recipe,
            total_steps=1,
        )
    )(data, weights)
    _, alone = jax.jit(learner.model.apply_train)(
        key, start, data.inputs[jnp.array([2, 5, 6, 9])]
    )
    assert int(done.step) == 1
    assert_trees_close(done.variables.stats, alone.stats, rtol=1e-12)
