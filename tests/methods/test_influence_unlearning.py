"""IU: a true inverse against the dense one; what the released recursion does."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.methods.influence_unlearning import (
    draw,
    influence_unlearning,
)
from unlearn_jax.train.objective import bind

SAMPLES = 12


@pytest.fixture(scope="module")
def learner():
    return tiny.learner("mlp", l2=0.3)  # l2 is no part of it


@pytest.fixture(scope="module")
def slopes(learner, original, train):
    """Per-example gradients as the rows of a matrix."""
    objective = bind(learner.model, {}, learner.loss)
    flat, unflatten = jax.flatten_util.ravel_pytree(original.params)
    losses = tiny.quick_jit(
        jax.jacobian(lambda p: objective.example_losses(unflatten(p), train))
    )
    return np.asarray(losses(flat)), flat, unflatten


def run(method, original, request):
    forget = tiny.quick_jit(method.forget)
    return forget(jax.random.key(3), (), original, request)[0].params


def direction(rows, request):
    """W_f/W times the difference of the mean gradients."""
    kept = np.asarray(request.retain.weights) > 0
    return (~kept).mean() * (rows[~kept].mean(0) - rows[kept].mean(0))


@pytest.mark.parametrize(
    "samples", [SAMPLES, pytest.param(1000, marks=pytest.mark.slow)]
)
def test_the_intended_step_is_the_dense_inverse(
    learner, original, request_a, slopes, samples
):
    rows, flat, unflatten = slopes
    method = influence_unlearning(
        learner, alpha=2.0, samples=samples, damping=0.5, tol=1e-12, batch_size=8
    )
    moved = run(method, original, request_a)
    chosen = draw(jax.random.key(3), request_a.retain, samples)
    objective = bind(learner.model, {}, learner.loss)
    own = jax.jacobian(lambda p: objective.example_losses(unflatten(p), chosen))(flat)
    own = np.asarray(own)[np.asarray(chosen.weights) > 0]
    assert len(own) == min(samples, tiny.COUNT - 6)
    matrix = 0.5 * np.eye(flat.size) + own.T @ own / len(own)
    step = np.linalg.solve(matrix, direction(rows, request_a))
    assert_trees_close(moved, unflatten(flat + 2.0 * step), rtol=1e-9, atol=1e-12)


def test_drawn_samples_are_distinct_examples_of_the_retain_set(request_a):
    index = jnp.arange(tiny.COUNT)
    data = request_a.retain._replace(targets=index)
    chosen = draw(jax.random.key(0), data, SAMPLES)
    assert len(set(np.asarray(chosen.targets).tolist())) == SAMPLES
    assert np.all(np.asarray(data.weights)[chosen.targets] > 0)


def test_the_published_step_is_its_recursion_over_the_first_examples(
    learner, original, request_a, slopes
):
    rows, flat, _ = slopes
    method = influence_unlearning(learner, variant="published", samples=SAMPLES)
    moved = jax.flatten_util.ravel_pytree(run(method, original, request_a))[0]
    kept = np.flatnonzero(np.asarray(request_a.retain.weights) > 0)
    read = rows[kept[: SAMPLES + 2]]
    k, o = direction(rows, request_a), read[0]
    for g in read[1:]:
        t = o @ g
        k, o = k - (k @ g) / (SAMPLES + t) * o, o - t / (SAMPLES + t) * o
    np.testing.assert_allclose(np.asarray(moved - flat), k, rtol=1e-9, atol=1e-13)
    # All that it adds is a multiple of the first gradient; the true inverse does else.
    meant = influence_unlearning(learner, samples=SAMPLES)
    meant = jax.flatten_util.ravel_pytree(run(meant, original, request_a))[0]
    g = read[0] / np.linalg.norm(read[0])
    for step, multiple in ((k, True), (np.asarray(meant - flat), False)):
        change = step - direction(rows, request_a)
        cosine = abs(change @ g) / np.linalg.norm(change)
        assert (cosine > 1 - 1e-9) == multiple


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"variant": "paper"}, "variant 'paper' is unknown; choose from intended"),
        ({"damping": 0.0}, "samples and damping must be positive"),
        ({"variant": "published", "damping": 0.1}, "recursion has damping 1, got 0.1"),
    ],
)
def test_impossible_settings_are_refused(learner, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        influence_unlearning(learner, **options)
