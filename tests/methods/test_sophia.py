"""Sophia: its curvature is the diagonal that it should be, and clips as it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_words

from unlearn_jax import tree
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.operator import dense
from unlearn_jax.methods import make_request
from unlearn_jax.methods.paired import part_of
from unlearn_jax.methods.sophia import sampled_square, sophia_run
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.objective import bind


@pytest.fixture(scope="module")
def learner():
    return tiny_words.learner()


@pytest.fixture(scope="module")
def words():
    return tiny_words.examples(8)


@pytest.fixture(scope="module")
def original(learner):
    return learner.model.init(jax.random.key(5))


def test_squares_of_drawn_labels_have_the_mean_of_the_dense_diagonal(
    learner, words, original
):
    keys = jax.random.split(jax.random.key(0), 600)
    part = part_of(words)
    one = lambda key: sampled_square(key, learner, original.params, {}, part)  # noqa: E731
    drawn = tiny.quick_jit(lambda keys: jax.lax.map(one, keys))(keys)
    drawn = np.stack([tiny.flat(tree.member(drawn, i)) for i in range(len(keys))])

    def per_label(outputs, targets):
        counts = jnp.sum(targets >= 0, axis=1)
        return counts * sequence_nll(outputs, targets)

    # The mean over all labels, of sequences of several lengths.
    counts = (words.targets >= 0).sum()
    matrix = dense(
        gauss_newton(bind(learner.model, {}, per_label), original.params, words)
    )
    truth = np.diag(matrix) * len(words.targets) / counts
    error = drawn.std(0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(0) - truth) <= 5 * error + 1e-12).all()


def ran(learner, original, words, **options):
    request = make_request(words, [0, 1])
    run = sophia_run(learner, epochs=3, batch_size=8, learning_rate=0.01, **options)
    return tiny.quick_jit(run)(jax.random.key(1), original, request)


def test_signs_step_by_the_rate_everywhere(learner, original, words):
    moved, told = ran(learner, original, words, variant="sign", momentum=0.0)
    steps = np.abs(tiny.flat(tree.subtract(moved.params, original.params)))
    expected = np.array([0.01, 0.03])
    gaps = np.abs(steps[:, None] - expected[None]).min(1)
    assert (gaps < 1e-12).all()
    assert told.win_rate == 0


@pytest.mark.parametrize("variant", ["designed", "released"])
def test_the_win_rate_goes_from_none_to_all_with_rho(variant, learner, original, words):
    rates = []
    for rho in (1e-12, 1e12):
        moved, told = ran(learner, original, words, variant=variant, rho=rho)
        rates.append(float(told.win_rate))
        steps = np.abs(tiny.flat(tree.subtract(moved.params, original.params)))
        assert steps.max() <= 0.03 + 1e-12
        assert (steps.max() < 1e-6) == (rho > 1)
    assert rates[0] < 0.05
    assert rates[1] > 0.95


def test_without_curvature_designed_is_signs(learner, original, words):
    signs, _ = ran(learner, original, words, variant="sign")
    clipped, _ = ran(learner, original, words, variant="designed", rho=1e-14)
    gap = np.abs(tiny.flat(tree.subtract(signs.params, clipped.params)))
    # But for slopes of no size at all.
    assert np.mean(gap < 1e-9) > 0.95


def test_the_released_momentum_is_fed_twice(learner, original, words):
    # One step at rate 1 with rho so large that nothing is clipped: m / (rho 5120 h).
    request = make_request(words, [0, 1])
    options = {
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 1.0,
        "objective": "graddiff",
    }
    rho = 1e9
    run = sophia_run(learner, variant="released", rho=rho, **options)
    moved, told = tiny.quick_jit(run)(jax.random.key(1), original, request)
    risk = bind(learner.model, {}, sequence_nll).risk
    slope = jax.grad(lambda p: risk(p, request.retain) - risk(p, request.forget))(
        original.params
    )
    g = tiny.flat(slope)
    g = g / max(1.0, np.linalg.norm(g))
    np.testing.assert_allclose(
        tiny.flat(told.momentum), (1 - 0.9**2) * g, rtol=1e-8, atol=1e-12
    )
    bend = np.maximum(rho * 5120 * 0.05 * g**2, 1e-15)
    expected = np.clip(0.19 * g / bend, -1, 1)
    step = tiny.flat(tree.subtract(moved.params, original.params))
    large = np.abs(g) > 1e-6
    np.testing.assert_allclose(step[large], -expected[large], rtol=1e-6, atol=1e-12)


def test_unknown_variants_are_refused(learner):
    with pytest.raises(ValueError, match="variant 'lion' is unknown; choose from des"):
        sophia_run(learner, variant="lion")
