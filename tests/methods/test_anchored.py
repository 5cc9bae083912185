"""Anchored and prioritised fine-tuning, and the pace of a descent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.methods.anchored_finetune import anchored_finetune, ewc, l2_to_init
from unlearn_jax.methods.gradient_ascent import gradient_ascent
from unlearn_jax.methods.prioritised_finetune import (
    forget_priority,
    prioritised_finetune,
)
from unlearn_jax.train.fit import fit
from unlearn_jax.train.objective import bind


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("mlp", momentum=0.0)


@pytest.fixture(scope="module")
def objective(learner):
    return bind(learner.model, {}, learner.loss)


def run(method, original, request):
    return tiny.quick_jit(method.forget)(jax.random.key(3), (), original, request)[0]


def distance(moved, original):
    return float(tree.norm(tree.subtract(moved.params, original.params)))


@pytest.mark.parametrize("anchor", ["fisher", "uniform"])
def test_two_full_steps_follow_the_penalised_gradient(
    learner, objective, original, request_a, anchor
):
    # The first step sees no penalty (its gap is zero), the second one does.
    rate, strength = 0.0625, 3.0  # exact in float32, as the schedule computes
    method = anchored_finetune(
        learner,
        anchor=anchor,
        strength=strength,
        epochs=2,
        learning_rate=rate,
        batch_size=64,
    )
    moved = run(method, original, request_a)
    start = original.params
    if anchor == "fisher":
        slopes = jax.jacobian(objective.example_losses)(start, request_a.retain)
        kept = np.asarray(request_a.retain.weights) > 0
        stiff = jax.tree.map(lambda s: jnp.mean(s[kept] ** 2, axis=0), slopes)
    else:
        stiff = tree.scale(1.0, jax.tree.map(jnp.ones_like, start))
    slope = tiny.quick_jit(jax.grad(objective.risk))
    params = start
    for _ in range(2):
        up = slope(params, request_a.forget)
        pull = jax.tree.map(lambda f, p, s: f * (p - s), stiff, params, start)
        params = jax.tree.map(
            lambda p, u, q: p + rate * (u - strength * q), params, up, pull
        )
    assert_trees_close(moved.params, params, rtol=1e-9, atol=1e-12)


def test_a_stiffer_spring_keeps_the_model_nearer(learner, original, request_a):
    def moved(strength):
        method = l2_to_init(
            learner, strength=strength, epochs=10, learning_rate=0.05, batch_size=64
        )
        return distance(run(method, original, request_a), original)

    lengths = [moved(strength) for strength in (0.0, 1.0, 10.0)]
    assert lengths[0] > 1.2 * lengths[1] > 2 * lengths[2] > 0


def test_without_a_spring_it_is_gradient_ascent(learner, original, request_a):
    options = {"epochs": 2, "learning_rate": 0.05, "batch_size": 4}
    free = run(ewc(learner, strength=0.0, **options), original, request_a)
    ascent = run(gradient_ascent(learner, **options), original, request_a)
    assert_trees_close(free, ascent, rtol=1e-12)


def test_unknown_words_are_refused(learner):
    with pytest.raises(ValueError, match="push 'forget' is unknown; choose from asc"):
        ewc(learner, push="forget")
    with pytest.raises(ValueError, match="anchor 'kfac' is unknown"):
        anchored_finetune(learner, anchor="kfac")


def test_one_full_step_is_the_gradient_times_the_priority(
    learner, objective, original, request_a
):
    method = prioritised_finetune(learner, epochs=1, learning_rate=0.25, batch_size=64)
    moved = run(method, original, request_a)
    start = original.params
    fishers = [empirical_fisher_diagonal(objective, start, part) for part in request_a]
    slope = jax.grad(objective.risk)(start, request_a.retain)
    expected = jax.tree.map(
        lambda p, g, f, r: p - 0.25 * g * f / (f + r), start, slope, *fishers
    )
    assert_trees_close(moved.params, expected, rtol=1e-9, atol=1e-13)


def test_the_priority_lies_between_zero_and_one():
    forgotten, retained = {"w": jnp.array([0.0, 1.0, 2.0, 0.0])}, {"w": jnp.arange(4.0)}
    retained["w"] = jnp.array([0.0, 0.0, 6.0, 3.0])
    share = forget_priority(forgotten, retained)["w"]
    np.testing.assert_allclose(share, [0.0, 1.0, 0.25, 0.0])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_pace_multiplies_updates_after_momentum_and_decay(original, optimizer):
    learner = tiny.learner("mlp", epochs=2, weight_decay=0.1, optimizer=optimizer)
    data = tiny.examples()
    frozen = tree.select(original.params, lambda path: "head" in path)
    pace = jax.tree.map(lambda f, p: jnp.full(p.shape, 0.0 if f else 1.0), frozen,
                        original.params)  # fmt: skip
    train = tiny.quick_jit(
        lambda start, pace: fit(
            jax.random.key(0), learner, data, start=start, pace=pace
        )
    )
    moved = train(original, pace).params
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), moved, original.params)
    assert same == frozen
    ones = jax.tree.map(jnp.ones_like, original.params)
    plain = tiny.quick_jit(lambda start: fit(jax.random.key(0), learner, data,
                                             start=start))(original)  # fmt: skip
    assert_trees_close(train(original, ones), plain, rtol=1e-12)


def test_no_strength_makes_descent_diverge(learner, original, request_a):
    options = {"epochs": 20, "learning_rate": 0.05, "batch_size": 16}
    strong = run(ewc(learner, strength=1e9, **options), original, request_a)
    weak = run(ewc(learner, strength=1.0, **options), original, request_a)
    assert tree.all_finite(strong)
    assert distance(strong, original) < distance(weak, original)
