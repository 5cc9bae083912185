"""Methods of teacher and student: whom they follow, and on what scale."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods.bad_teacher import bad_teacher
from unlearn_jax.methods.scrub import scrub
from unlearn_jax.train.loss import kl_divergence
from unlearn_jax.train.objective import bind

KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def stranger():
    """What the model's initialisation always draws: the incompetent teacher."""
    return tiny.learner("mlp").model.init(jax.random.key(99))


@pytest.fixture(scope="module")
def learner(stranger):
    learner = tiny.learner("mlp")
    return learner._replace(model=learner.model._replace(init=lambda key: stranger))


@pytest.fixture(scope="module")
def distance(learner):
    """(student, teacher, batch) -> mean KL(teacher || student)."""

    @tiny.quick_jit
    def mean(student, teacher, batch):
        target = jax.nn.log_softmax(learner.model.apply(teacher, batch.inputs))
        outputs = learner.model.apply(student, batch.inputs)
        values = kl_divergence(outputs, target)
        return jnp.sum(batch.weights * values) / jnp.sum(batch.weights)

    return mean


def run(method, original, request):
    return tiny.quick_jit(method.forget)(KEY, (), original, request)[0]


def test_student_moves_to_the_stranger_on_the_forget_set_only(
    learner, stranger, distance, original, request_a
):
    method = bad_teacher(
        learner, epochs=20, learning_rate=0.01, batch_size=16, retain_share=1.0
    )
    moved = run(method, original, request_a)
    forget, retain = request_a
    far = distance(original, stranger, forget)
    assert distance(moved, stranger, forget) < 0.5 * far
    assert distance(moved, original, retain) < distance(moved, original, forget)
    assert distance(moved, original, retain) < 0.5 * distance(moved, stranger, retain)


@pytest.fixture
def caught(monkeypatch):
    """What the bad teacher hands to the optimiser."""
    arguments = []

    def catch(key, state, examples, weights, step_loss, recipe, *, loop):
        arguments.extend([state, examples, weights, step_loss])
        return state

    module = sys.modules["unlearn_jax.methods.bad_teacher"]
    monkeypatch.setattr(module, "optimise", catch)
    return arguments


def test_divergence_is_averaged_over_examples_and_classes(
    caught, learner, original, request_a
):
    method = bad_teacher(learner, temperature=2.0, retain_share=1.0)
    method.forget(KEY, (), original, request_a)
    _, (inputs, teacher), weights, step_loss = caught
    value, _ = step_loss(KEY, original.params, {}, (inputs, teacher), weights)
    student = jax.nn.log_softmax(learner.model.apply(original, inputs) / 2.0)
    elements = np.exp(teacher) * (teacher - student)
    present = np.asarray(weights) > 0
    expected = float(elements[present].mean())
    assert float(value) == pytest.approx(expected, rel=1e-10)
    assert present.sum() == tiny.COUNT


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_a_share_of_the_retain_set_is_drawn(
    caught, learner, original, train, request_a, share
):
    bad_teacher(learner, retain_share=share).forget(KEY, (), original, request_a)
    _, (inputs, _), weights, _ = caught
    used = {tuple(row) for row in np.asarray(inputs)[np.asarray(weights) > 0]}
    forgotten = {tuple(row) for row in request_a.forget.inputs[:6]}
    retained = {tuple(row) for row in train.inputs} - forgotten
    assert forgotten < used
    assert len(used - forgotten) == round(share * 42)
    assert used - forgotten <= retained


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_impossible_shares_are_refused(learner, share):
    with pytest.raises(ValueError, match=rf"must lie in \(0, 1\], got {share}"):
        bad_teacher(learner, retain_share=share)


def strong(**changes):
    settings = {"learning_rate": 0.05, "weight_decay": 0.0, "temperature": 1.0}
    return settings | {"retain_batch": 8, "forget_batch": 4} | changes


def test_scrub_moves_the_student_away_from_a_fixed_teacher(
    learner, distance, original, request_a
):
    before = jax.tree.map(np.array, original)
    obeying, disobeying = (
        run(scrub(learner, **strong(ascent_epochs=n)), original, request_a)
        for n in (0, 3)
    )
    assert_trees_close(original, before, rtol=0)
    forget, retain = request_a
    assert tree.norm(tree.subtract(disobeying.params, original.params)) > 1e-2
    away = distance(disobeying, original, forget)
    assert away > 2 * distance(obeying, original, forget)
    assert away > 2 * distance(disobeying, original, retain)


def test_scrub_follows_the_original_where_alpha_says_so(
    learner, distance, original, request_a
):
    near, free = (
        run(scrub(learner, **strong(ascent_epochs=0, alpha=a)), original, request_a)
        for a in (3.0, 0.0)
    )
    retain = request_a.retain
    assert distance(near, original, retain) < 0.5 * distance(free, original, retain)


def test_scrub_without_ascent_never_uses_the_forget_set(learner, original, request_a):
    method = scrub(learner, **strong(ascent_epochs=0))
    forget = tiny.quick_jit(method.forget)
    gone = request_a.forget._replace(inputs=np.nan * request_a.forget.inputs)
    moved, _ = forget(KEY, (), original, request_a)
    blind, _ = forget(KEY, (), original, request_a._replace(forget=gone))
    assert tree.all_finite(blind)
    assert_trees_close(blind, moved, rtol=0)


def test_scrub_steps_a_tenth_as_far_after_its_third_epoch(learner, original, request_a):
    def moved(epochs, falling):
        settings = strong(learning_rate=1e-3, epochs=epochs, falling=falling)
        return run(scrub(learner, **settings), original, request_a).params

    third = moved(3, True)
    short, long = (
        float(tree.norm(tree.subtract(moved(4, falling), third)))
        for falling in (True, False)
    )
    assert short == pytest.approx(0.1 * long, rel=0.02)


def test_scrub_descends_on_the_weighted_task_loss(learner, original, request_a):
    settings = strong(epochs=1, ascent_epochs=0, learning_rate=0.25, retain_batch=64)
    method = scrub(learner, alpha=0.0, gamma=0.5, **settings)
    moved = run(method, original, request_a)
    risk = bind(learner.model, {}, learner.loss).risk
    slope = tiny.quick_jit(jax.grad(risk))(original.params, request_a.retain)
    expected = tree.axpy(-0.5 * 0.25, slope, original.params)
    assert_trees_close(moved.params, expected, rtol=1e-10, atol=1e-12)
