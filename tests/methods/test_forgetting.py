"""The frame of term and hold: whole runs against gradients by another road."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_words
from asserts import assert_trees_close

from unlearn_jax import tree
from unlearn_jax.methods import make_request
from unlearn_jax.methods.flat import flat
from unlearn_jax.methods.forgetting import divergence
from unlearn_jax.methods.graddiff import graddiff
from unlearn_jax.methods.npo import npo, npo_smooth
from unlearn_jax.methods.rmu import rmu
from unlearn_jax.methods.wagle import attribution, with_attribution
from unlearn_jax.train.fit import fit
from unlearn_jax.train.loss import sequence_nll
from unlearn_jax.train.objective import bind

WHOLE = {"batch_size": 32, "learning_rate": 0.25}
"""Every step sees all: nothing is left to chance."""


@pytest.fixture(scope="module")
def learner():
    return tiny_words.learner(momentum=0.0)


@pytest.fixture(scope="module")
def words():
    return tiny_words.examples()


@pytest.fixture(scope="module")
def request_w(words):
    return make_request(words, [0, 1, 5, 8, 13])


@pytest.fixture(scope="module")
def original(learner, words):
    return tiny.quick_jit(lambda key, data: fit(key, learner, data))(
        jax.random.key(0), words
    )


@pytest.fixture(scope="module")
def slopes(learner, original):
    """Of the token mean and of the sum over tokens, at any parameters."""

    def summed(outputs, targets):
        counts = jnp.sum(targets >= 0, axis=1)
        return counts * sequence_nll(outputs, targets)

    return [
        tiny.quick_jit(jax.grad(bind(learner.model, {}, loss).risk))
        for loss in (sequence_nll, summed)
    ]


def run(method, original, request):
    return tiny.quick_jit(method.forget)(jax.random.key(3), (), original, request)[0]


@pytest.mark.parametrize("beta", [0.1, 3.0])
def test_the_first_step_of_npo_is_ascent_on_the_sum_and_descent_on_the_rest(
    beta, learner, original, request_w, slopes
):
    moved = run(npo(learner, beta=beta, epochs=1, **WHOLE), original, request_w)
    mean, whole = slopes
    up, down = (
        whole(original.params, request_w.forget),
        mean(original.params, request_w.retain),
    )
    step = tree.scale(0.25, tree.subtract(up, down))
    expected = tree.add(original.params, step)
    assert_trees_close(moved.params, expected, rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def path(learner, original, request_w, slopes):
    """Parameters after 0 to 4 whole steps of ascent against descent, by hand."""
    mean, places = slopes[0], [original.params]
    for _ in range(4):
        at = places[-1]
        step = tree.subtract(
            mean(at, request_w.forget), tree.scale(0.5, mean(at, request_w.retain))
        )
        places.append(tree.axpy(0.25, step, at))
    return places


def test_graddiff_goes_up_and_down(learner, original, request_w, path):
    method = graddiff(learner, epochs=4, retain_weight=0.5, **WHOLE)
    moved = run(method, original, request_w)
    assert_trees_close(moved.params, path[-1], rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(("share", "counted"), [(0.5, [3, 4]), (0.0, [1, 2, 3, 4])])
def test_averages_are_means_of_what_steps_left(
    share, counted, learner, original, request_w, slopes
):
    # NPO towards beta 0 is ascent on the sum; no smoothing, so the path is known.
    mean, whole = slopes
    places = [original.params]
    for _ in range(4):
        at = places[-1]
        up, down = whole(at, request_w.forget), mean(at, request_w.retain)
        places.append(tree.axpy(0.02, tree.subtract(up, down), at))
    method = npo_smooth(
        learner,
        smoothing="none",
        beta=1e-9,
        average_from=share,
        epochs=4,
        batch_size=32,
        learning_rate=0.02,
    )
    moved = run(method, original, request_w)
    chosen = [places[i] for i in counted]
    expected = tree.scale(1 / len(chosen), functools.reduce(tree.add, chosen))
    assert_trees_close(moved.params, expected, rtol=1e-6, atol=1e-8)


def test_divergence_to_itself_holds_without_pushing(learner, original, request_w):
    method = graddiff(learner, retain="kl", forget_weight=0.0, epochs=2, **WHOLE)
    moved = run(method, original, request_w)
    assert_trees_close(moved.params, original.params, rtol=0, atol=1e-12)
    random = np.random.default_rng(0)
    before, now = random.normal(size=(2, 3, 4))
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (before, now))
    found = divergence(jnp.asarray(before), jnp.asarray(now))
    np.testing.assert_allclose(found, (p * np.log(p / q)).sum(1), rtol=1e-10)


def test_only_attributed_weights_move(learner, original, request_w, slopes):
    method = with_attribution(
        graddiff, learner, fraction=0.3, curvature=0.5, epochs=1, **WHOLE
    )
    moved = run(method, original, request_w)
    forgotten, retained = (slopes[0](original.params, part) for part in request_w)
    score = tiny.flat(attribution(original.params, forgotten, retained, 0.5))
    by_hand = np.abs(
        (tiny.flat(original.params) - tiny.flat(retained) / 0.5) * tiny.flat(forgotten)
    )
    np.testing.assert_allclose(score, by_hand, rtol=1e-12)
    count = round(0.3 * score.size)
    chosen = np.isin(np.arange(score.size), np.argsort(-score)[:count])
    still = tiny.flat(moved.params) == tiny.flat(original.params)
    np.testing.assert_array_equal(still, ~chosen)


def test_rmu_leads_the_forgotten_towards_one_direction(learner, original, request_w):
    method = rmu(learner, length=1.0, epochs=150, learning_rate=0.3, batch_size=32)
    moved = run(method, original, request_w)
    assert_trees_close(moved.params["head"], original.params["head"], rtol=0)
    features = learner.model.features

    def spread(variables, part):
        """Mean square distance of the features from their own mean, and to before."""
        kept = np.asarray((part.targets >= 0) & (part.weights > 0)[:, None])
        now = np.asarray(features(variables, part.inputs))[kept]
        before = np.asarray(features(original, part.inputs))[kept]
        return np.square(now - now.mean(0)).mean(), np.square(now - before).mean()

    assert (
        spread(moved, request_w.forget)[0] < 0.7 * spread(original, request_w.forget)[0]
    )
    assert spread(moved, request_w.retain)[1] < spread(moved, request_w.forget)[1]


def test_names_and_shares_that_are_none_are_refused(learner):
    with pytest.raises(ValueError, match="retain 'ce' is unknown; choose from loss"):
        graddiff(learner, retain="ce")
    with pytest.raises(ValueError, match="beta must be positive"):
        npo(learner, beta=0.0)
    with pytest.raises(ValueError, match="reduction 'mean' is unknown"):
        npo(learner, reduction="mean")
    with pytest.raises(ValueError, match="average_from must be from 0 to 1"):
        npo_smooth(learner, average_from=1.5)
    with pytest.raises(ValueError, match="'neyman' points the wrong way as released"):
        flat(learner, divergence="neyman")
    assert flat(learner, divergence="neyman", published=True)
