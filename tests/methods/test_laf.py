"""LAF: both autoencoders against numpy, both steps by hand, and no label read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close

from unlearn_jax.methods.autoencoders import (
    divergence,
    fit_linear,
    fit_variational,
    reconstruct_linear,
    reconstruct_variational,
)
from unlearn_jax.methods.laf import bounded, laf

KEY = jax.random.key(3)
SMALL = {"latent": 2, "epochs": 1, "batch_size": 64}


@pytest.fixture(scope="module")
def cloud():
    """Points near a plane of six dimensions, and ten of no weight far from it."""
    random = np.random.default_rng(0)
    points = random.normal(size=(8000, 2)) @ random.normal(size=(2, 6)) + 1
    points += 0.1 * random.normal(size=points.shape)
    points[:10] = 50
    return points, (np.arange(8000) >= 10).astype(float)


def test_the_linear_autoencoder_is_principal_components(cloud):
    points, weights = cloud
    params = tiny.quick_jit(lambda x, w: fit_linear(KEY, x, w, 2))(points, weights)
    own = points[10:] - points[10:].mean(0)
    values, vectors = np.linalg.svd(own, full_matrices=False)[1:]
    expected = points[10:].mean(0) + own @ vectors[:2].T @ vectors[:2]
    found = np.asarray(tiny.quick_jit(reconstruct_linear)(params, points))[10:]
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)
    left = np.square(found - points[10:]).sum()
    assert left == pytest.approx((values[2:] ** 2).sum(), rel=1e-7)


def test_the_variational_one_learns_but_stays_behind_the_best_linear(cloud):
    points, weights = cloud

    @tiny.quick_jit
    def errors(points, weights):
        linear = fit_linear(KEY, points, weights, 2)
        deep = fit_variational(KEY, points, weights, 2)
        pairs = (reconstruct_linear, linear), (reconstruct_variational, deep)
        apart = [points - back(params, points) for back, params in pairs]
        return [jnp.mean(jnp.sum(jnp.square(a[10:]), 1)) for a in apart]

    linear, deep = errors(points, weights)
    spread = np.var(points[10:], axis=0).sum()
    assert linear < deep < 0.8 * spread, (linear, deep, spread)


def test_the_divergence_is_the_mean_of_its_draws():
    means, logs = jnp.array([[0.5, -1.0]]), jnp.array([[0.2, -0.7]])
    random = np.random.default_rng(0)
    noise = random.normal(size=(40000, 2))
    codes = np.asarray(means) + np.exp(0.5 * np.asarray(logs)) * noise
    ratio = 0.5 * (codes**2 - noise**2 - np.asarray(logs)).sum(1)
    error = ratio.std() / np.sqrt(len(ratio))
    assert abs(float(divergence(means, logs)[0]) - ratio.mean()) < 4 * error


def test_two_steps_of_adam_follow_both_losses(original, request_a, train):
    learner, rates, tau = tiny.learner("mlp"), (1e-3, 2e-3), 3.0
    method = laf(
        learner,
        autoencoder="linear",
        extract_rate=rates[0],
        align_rate=rates[1],
        tau=tau,
        **SMALL,
    )
    known = tiny.quick_jit(method.prepare)(KEY, original, train)
    moved, _ = tiny.quick_jit(method.forget)(KEY, known, original, request_a)
    rows = [np.asarray(part.weights) > 0 for part in request_a]
    lost, kept = (
        np.asarray(part.inputs)[own] for part, own in zip(request_a, rows, strict=True)
    )

    def plane(features):
        own = features - features.mean(0)
        basis = np.linalg.svd(own, full_matrices=False)[2][:2]
        return features.mean(0)[None], basis.T @ basis

    def features(params, inputs):
        return learner.model.features(original._replace(params=params), inputs)

    look = tiny.quick_jit(features)
    start = original.params
    old = [np.asarray(look(start, inputs)) for inputs in (lost, kept)]
    whole = plane(np.asarray(look(start, train.inputs)))
    own = plane(old[0])

    def distance(values, found):
        mean, onto = found
        apart = values - mean - (values - mean) @ onto
        return jnp.sum(apart**2, axis=1)

    def first(params):
        means = [
            jnp.mean(jnp.exp(1 - 1 / (1 + distance(features(params, x), found))))
            for x, found in ((kept, whole), (lost, own))
        ]
        return means[0] - means[1]

    def second(params):
        turned = []
        for x, r in zip((lost, kept), old, strict=True):
            values = features(params, x)
            sizes = jnp.linalg.norm(values, axis=1) * np.linalg.norm(r, axis=1)
            turned.append(1 - jnp.sum(values * r, axis=1) / sizes)
        return jnp.mean(turned[1]) - jnp.log(jnp.sum(jnp.exp(turned[0] / tau)))

    at = start
    for loss, rate in zip((first, second), rates, strict=True):
        slope = tiny.quick_jit(jax.grad(loss))(at)
        at = jax.tree.map(
            lambda p, g, r=rate: p - r * g / (jnp.abs(g) + 1e-8), at, slope
        )
    assert_trees_close(moved.params, at, rtol=1e-6, atol=1e-8)


def test_no_label_is_read_unless_the_head_is_repaired(original, request_a, train):
    learner = tiny.learner("mlp")
    other = request_a._replace(
        retain=request_a.retain._replace(targets=(request_a.retain.targets + 1) % 3)
    )
    for repair, same in ((0, True), (2, False)):
        options = {**SMALL, "repair_epochs": repair, "autoencoder": "linear"}
        method = laf(learner, align_rate=0.01, **options)
        state = tiny.quick_jit(method.prepare)(KEY, original, train)
        forget = tiny.quick_jit(method.forget)
        one, two = (forget(KEY, state, original, r)[0] for r in (request_a, other))
        equal = np.array_equal(tiny.flat(one.params), tiny.flat(two.params))
        assert equal == same
        if repair:  # the head alone: what is before it is that of LAF
            (a,), (b,) = (tree["hidden"].values() for tree in (one.params, two.params))
            np.testing.assert_array_equal(a["kernel"], b["kernel"])


def test_distances_are_bounded():
    found = bounded(jnp.array([0.0, 1.0, 1e9]))
    np.testing.assert_allclose(found, [1, np.exp(0.5), np.e], rtol=1e-6)


def test_what_makes_no_sense_is_refused(original, train):
    learner = tiny.learner("mlp")
    with pytest.raises(ValueError, match="autoencoder 'deep' is unknown; choose from"):
        laf(learner, autoencoder="deep")
    with pytest.raises(ValueError, match="tau must be positive"):
        laf(learner, tau=0.0)
    with pytest.raises(ValueError, match="8 codes for 6 features, expected fewer"):
        laf(learner).prepare(KEY, original, train)
