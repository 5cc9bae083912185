"""Refresh learning: its two steps by hand, and what each of them leaves alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods.refresh_learning import (
    importance,
    refresh_learning,
    refreshed_fit,
)
from unlearn_jax.train.fit import fit
from unlearn_jax.train.objective import bind

KEY = jax.random.key(3)
UP, DOWN, DAMPING = 0.0625, 0.125, 0.5  # exact in float32, as the schedule computes
WHOLE = {
    "ascent_rate": UP,
    "learning_rate": DOWN,
    "damping": DAMPING,
    "epochs": 1,
    "batch_size": 64,
}


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("mlp", momentum=0.0)


@pytest.fixture(scope="module")
def objective(learner):
    return bind(learner.model, {}, learner.loss)


@pytest.fixture(scope="module")
def fisher(objective, original):
    data = tiny.examples()
    slopes = jax.jacobian(objective.example_losses)(original.params, data)
    return jax.tree.map(lambda s: jnp.mean(s**2, axis=0), slopes)


def up(objective, fisher, params, batch):
    slope = jax.grad(objective.risk)(params, batch)
    return jax.tree.map(
        lambda p, f, g: p + UP * g / (f + DAMPING), params, fisher, slope
    )


def run(method, state, original, request):
    return tiny.quick_jit(method.forget)(KEY, state, original, request)[0]


@pytest.mark.parametrize("steps", [1, 2])
def test_natural_steps_up_on_forget_then_a_plain_one_down_on_retain(
    learner, objective, fisher, original, request_a, steps
):
    method = refresh_learning(learner, ascent_steps=steps, **WHOLE)
    state = tiny.quick_jit(method.prepare)(KEY, original, tiny.examples())
    assert_trees_close(state, fisher, rtol=1e-9)
    moved = run(method, state, original, request_a)
    params = original.params
    for _ in range(steps):
        params = up(objective, fisher, params, request_a.forget)
    slope = jax.grad(objective.risk)(params, request_a.retain)
    expected = jax.tree.map(lambda p, g: p - DOWN * g, params, slope)
    assert_trees_close(moved.params, expected, rtol=1e-9, atol=1e-13)


def test_the_plug_in_unlearns_and_learns_the_same_batch(
    learner, objective, fisher, original
):
    data = tiny.examples()
    recipe = {"epochs": 1, "learning_rate": DOWN, "batch_size": 64, "momentum": 0.0}
    whole = tiny.learner("mlp", **recipe)
    moved = tiny.quick_jit(
        lambda start, fisher: refreshed_fit(
            KEY,
            whole,
            data,
            start=start,
            fisher=fisher,
            ascent_rate=UP,
            damping=DAMPING,
        )
    )(original, fisher)
    params = up(objective, fisher, original.params, data)
    slope = jax.grad(objective.risk)(params, data)
    expected = jax.tree.map(lambda p, g: p - DOWN * g, params, slope)
    assert_trees_close(moved.params, expected, rtol=1e-9, atol=1e-13)
    plain = tiny.quick_jit(lambda start: fit(KEY, whole, data, start=start))(original)
    assert not np.allclose(
        plain.params["head"]["kernel"], moved.params["head"]["kernel"]
    )


def test_what_the_training_set_needs_moves_least(learner, original, request_a):
    stiff = jax.tree.map(lambda p: jnp.full_like(p, 1e9), original.params)
    method = refresh_learning(learner, **{**WHOLE, "learning_rate": 1e-12})
    still = run(method, stiff, original, request_a)
    free = run(method, tree.scale(0.0, stiff), original, request_a)
    assert_trees_close(still.params, original.params, atol=1e-9)
    assert tree.norm(tree.subtract(free.params, original.params)) > 1e-3


def test_noise_has_the_spread_of_its_temperature(learner, original, request_a, fisher):
    options = {**WHOLE, "learning_rate": 1e-12}
    quiet = refresh_learning(learner, **options)
    loud = refresh_learning(learner, noise=0.5, **options)
    base = run(quiet, fisher, original, request_a).params
    moved = run(loud, fisher, original, request_a).params
    scaled = jax.tree.map(
        lambda a, b, f: (a - b) / jnp.sqrt(UP / (f + DAMPING)), moved, base, fisher
    )
    drawn = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(scaled)])
    assert abs(drawn.std() - 1) < 4 / np.sqrt(2 * drawn.size)


def test_importance_of_nobody_known_is_refused_as_a_step_without_bound(learner):
    for options in ({"damping": 0.0}, {"ascent_rate": 0.0}):
        with pytest.raises(ValueError, match="expected both positive: where F is zero"):
            refresh_learning(learner, **options)


def test_importance_is_that_of_single_examples(learner, original, fisher):
    found = importance(learner, original, tiny.examples())
    assert_trees_close(found, fisher, rtol=1e-9)
