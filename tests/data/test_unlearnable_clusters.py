"""Unlearnable clusters: k-means, the pull to the next centre, and its bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn_jax.data.batch import from_arrays
from unlearn_jax.data.unlearnable import Levels
from unlearn_jax.data.unlearnable_clusters import k_means, unlearnable_clusters

LEVELS = Levels(np.array([-1.0]), np.array([3.0]))
OPTIONS = {"clusters": 3, "bound": 0.1, "rate": 0.02, "levels": LEVELS}


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    images = random.uniform(0, 2, size=(24, 4, 3, 1)).astype(np.float32)
    weights = np.ones(24, np.float32)
    weights[5] = 0
    return from_arrays(images, np.arange(24) % 4, weights)


@pytest.fixture(scope="module")
def features():
    matrix = jnp.asarray(np.random.default_rng(1).normal(size=(12, 5)), jnp.float32)
    return lambda images: jnp.tanh(images.reshape(len(images), -1) @ matrix)


def test_every_row_is_of_its_nearest_centre_which_is_their_mean():
    random = np.random.default_rng(2)
    rows = np.concatenate([random.normal(c, 0.1, size=(9, 3)) for c in (-5, 0, 5)])
    centres, own = k_means(rows, 3)
    gaps = ((rows[:, None] - centres) ** 2).sum(-1)
    np.testing.assert_array_equal(gaps.argmin(1), own)
    for k in range(3):
        np.testing.assert_allclose(centres[k], rows[own == k].mean(0))
    assert len({tuple(own[i : i + 9]) for i in (0, 9, 18)}) == 3
    assert all(len(set(own[i : i + 9])) == 1 for i in (0, 9, 18))


def test_no_cluster_is_empty_even_where_rows_are_alike():
    _, own = k_means(np.ones((5, 2)), 4)
    assert set(own) == {0, 1, 2, 3}


def test_a_step_is_the_sign_of_the_pull_to_the_next_centre(batch, features):
    found = unlearnable_clusters(batch, features, steps=1, **OPTIONS)
    there = np.flatnonzero(batch.weights)
    pixels = (np.asarray(batch.inputs) - LEVELS.black) / (LEVELS.white - LEVELS.black)
    for k in range(3):
        rows = np.intersect1d(np.flatnonzero(found.clusters == k), there)
        target = jax.nn.softmax(jnp.asarray(found.centres[(k + 1) % 3]))

        def apart(delta, rows=rows, target=target):
            told = jax.nn.softmax(features((pixels[rows] + delta[None]) * 4.0 - 1.0))
            ratio = jnp.log(target[None] / told)
            return jnp.mean(jnp.sum(target[None] * ratio, axis=-1))

        slope = jax.grad(apart)(jnp.zeros((4, 3, 1)))
        np.testing.assert_allclose(
            found.perturbations[k], -0.02 * np.sign(slope), atol=1e-7
        )
        moved = pixels[rows] + found.perturbations[k]
        expected = np.clip(moved, 0, 1) * 4.0 - 1.0
        np.testing.assert_allclose(found.data.inputs[rows], expected, atol=1e-5)


def test_features_come_nearer_to_the_next_centre_within_the_bound(batch, features):
    found = unlearnable_clusters(batch, features, steps=30, **OPTIONS)
    assert np.abs(found.perturbations).max() == pytest.approx(0.1)
    aims = found.centres[(found.clusters + 1) % 3]

    def apart(inputs):
        told = jax.nn.log_softmax(features(inputs))
        wanted = jax.nn.softmax(aims)
        return np.sum(wanted * (np.log(wanted) - np.asarray(told)), axis=1).mean()

    assert apart(found.data.inputs) < 0.9 * apart(batch.inputs)


def test_labels_are_not_read_and_who_is_absent_stays(batch, features):
    found = unlearnable_clusters(batch, features, steps=2, **OPTIONS)
    other = batch._replace(targets=np.zeros_like(batch.targets))
    again = unlearnable_clusters(other, features, steps=2, **OPTIONS)
    np.testing.assert_array_equal(found.data.inputs, again.data.inputs)
    np.testing.assert_array_equal(found.data.inputs[5], batch.inputs[5])
    np.testing.assert_array_equal(found.data.targets, batch.targets)


def test_everyone_is_pulled_as_released(batch, features):
    own = unlearnable_clusters(batch, features, steps=1, **OPTIONS)
    every = unlearnable_clusters(batch, features, steps=1, everyone=True, **OPTIONS)
    assert not np.array_equal(own.perturbations, every.perturbations)
    np.testing.assert_array_equal(own.clusters, every.clusters)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"clusters": 24}, "24 clusters for 23 images, expected at least one"),
        ({"clusters": 1}, "clusters must be at least 2"),
        ({"bound": 0.0}, "bound must be positive"),
        ({"rate": -1.0}, "rate must be positive"),
        ({"steps": 0}, "steps must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(batch, features, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        unlearnable_clusters(batch, features, **{**OPTIONS, **change})


def test_features_that_are_no_rows_are_refused(batch):
    with pytest.raises(ValueError, match=r"shape \(23, 4, 3, 1\), expected a row"):
        unlearnable_clusters(batch, lambda images: images, **OPTIONS)
