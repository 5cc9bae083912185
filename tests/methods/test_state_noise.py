"""Noise against its stated law, accounting against the closed form."""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy.optimize import brentq
from scipy.stats import norm

from unlearn_jax.data.digits import digits
from unlearn_jax.methods.state_noise import (
    NoisyStatistics,
    clip_rows,
    noise_multiplier,
    noisy_ridge,
    noisy_statistics,
    privacy_spent,
)
from unlearn_jax.types import Batch

NORMS = {"row_norm": 1.5, "target_norm": 0.7}
F, K = 6, 3


def delta_of(multiplier, epsilon):
    """Balle & Wang 2018, theorem 8."""
    near, far = 0.5 / multiplier, epsilon * multiplier
    return norm.cdf(near - far) - np.exp(epsilon) * norm.cdf(-near - far)


def batch(count, seed=0, weights=None):
    random = np.random.default_rng(seed)
    inputs = 3 * random.random((count, 1)) * random.normal(size=(count, F))
    targets = random.normal(size=(count, K))
    return Batch(inputs, targets, np.ones(count) if weights is None else weights)


def statistics(rows):
    weighted = np.asarray(rows.weights)[:, None] * np.asarray(rows.inputs)
    return weighted.T @ np.asarray(rows.inputs), weighted.T @ np.asarray(rows.targets)


@pytest.fixture(scope="module")
def draws():
    """Many releases of zeros: what is drawn is noise alone."""
    zeros = jnp.zeros((F, F)), jnp.zeros((F, K))

    def draw(key, multiplier):
        return noisy_statistics(key, *zeros, **NORMS, multiplier=multiplier)

    keys = jax.random.split(jax.random.key(3), 4000)
    return tiny.quick_jit(jax.vmap(draw, (0, None)))(keys, 2.0)


@pytest.mark.parametrize(
    ("epsilon", "delta", "releases"),
    [(1.0, 1e-5, 1), (0.05, 1e-6, 1), (8.0, 1e-5, 7), (2.0, 0.01, 3)],
)
def test_the_multiplier_solves_the_closed_form(epsilon, delta, releases):
    found = noise_multiplier(epsilon, delta, releases=releases)
    single: Any = brentq(lambda z: delta_of(z, epsilon) - delta, 1e-2, 1e4)
    exact = releases**0.5 * single
    assert exact * (1 - 1e-9) <= found <= exact * (1 + 1e-4)


@pytest.mark.parametrize(
    ("multiplier", "delta", "releases"),
    [(3.7, 1e-5, 1), (40.0, 1e-6, 90), (0.3, 0.1, 2)],
)
def test_the_privacy_spent_solves_the_closed_form(multiplier, delta, releases):
    found = privacy_spent(multiplier, delta, releases=releases)
    single = multiplier / releases**0.5
    exact: Any = brentq(lambda e: delta_of(single, e) - delta, 0, 200)
    assert exact * (1 - 1e-9) <= found <= exact * (1 + 1e-4)


def test_no_noise_protects_nothing():
    assert privacy_spent(0.0, 1e-5, releases=1) == np.inf


@pytest.mark.parametrize(
    ("epsilon", "delta", "releases"),
    [(0.0, 0.1, 1), (np.inf, 0.1, 1), (1.0, 0.0, 1), (1.0, 1.0, 1), (1.0, 0.1, 0)],
)
def test_impossible_budgets_are_refused(epsilon, delta, releases):
    with pytest.raises(ValueError, match=f"epsilon={epsilon}, delta={delta}"):
        noise_multiplier(epsilon, delta, releases=releases)


@pytest.mark.parametrize(
    ("multiplier", "delta", "releases"), [(-1.0, 0.1, 1), (1.0, 2.0, 1), (1.0, 0.1, 0)]
)
def test_impossible_releases_are_refused(multiplier, delta, releases):
    with pytest.raises(ValueError, match=f"multiplier={multiplier}, delta={delta}"):
        privacy_spent(multiplier, delta, releases=releases)


def test_a_missing_library_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    for call in (
        lambda: noise_multiplier(1.0, 1e-5),
        lambda: privacy_spent(1.0, 1e-5, releases=1),
    ):
        with pytest.raises(ImportError, match=r"pip install 'unlearn_jax\[privacy\]'"):
            call()


def test_one_row_moves_the_pair_by_its_sensitivity_at_most_and_reaches_it():
    # The pair in units of the deviations that are drawn: off the diagonal of G z C^2,
    # on it sqrt(2) more, in Q sqrt(2) z C T; here z = 1.
    rows = clip_rows(
        batch(4000, weights=np.random.default_rng(5).uniform(0.1, 9.0, 4000)), **NORMS
    )
    x, y, w = map(np.asarray, rows)
    c, t = NORMS["row_norm"], NORMS["target_norm"]
    over, under = np.triu_indices(F, 1)
    off = w[:, None] * (x[:, over] * x[:, under]) / c**2
    on = w[:, None] * x**2 / (2**0.5 * c**2)
    cross = (w[:, None] * x)[:, :, None] * y[:, None, :] / (2**0.5 * c * t)
    moved = np.sum(off**2, 1) + np.sum(on**2, 1) + np.sum(cross**2, (1, 2))
    assert np.all(moved <= 1 + 1e-12)
    both = np.isclose(np.sqrt(w) * np.linalg.norm(x, axis=1), c)
    both &= np.isclose(np.sqrt(w) * np.linalg.norm(y, axis=1), t)
    assert both.sum() > 500
    np.testing.assert_allclose(moved[both], 1, rtol=1e-12)
    assert np.all(moved[~both] < 1 - 1e-9)


def test_a_replaced_row_moves_the_pair_further_than_a_removed_one():
    # In deviations as above: sqrt(2) for its target, 3/2 at most, and both reached.
    random = np.random.default_rng(11)

    def moved(old, new):
        change = [a - b for a, b in zip(statistics(old), statistics(new), strict=True)]
        in_gram = np.linalg.norm(change[0]) / (2**0.5 * NORMS["row_norm"] ** 2)
        scale = 2**0.5 * NORMS["row_norm"] * NORMS["target_norm"]
        return np.hypot(in_gram, np.linalg.norm(change[1]) / scale)

    def row(x, y):
        return clip_rows(Batch(9 * x[None], 9 * y[None], np.ones(1)), **NORMS)

    x, up, y = np.eye(F)[0], np.eye(F)[1], np.eye(K)[0]
    np.testing.assert_allclose(moved(row(x, y), row(x, -y)), 2**0.5, rtol=1e-12)
    worst = row(x / 2 + 0.75**0.5 * up, -y)
    np.testing.assert_allclose(moved(row(x, y), worst), 1.5, rtol=1e-12)
    for _ in range(50):
        a, b = random.normal(size=(2, F))
        u, v = random.normal(size=(2, K))
        assert moved(row(a, u), row(a, v)) <= 2**0.5 + 1e-12
        assert moved(row(a, u), row(b, v)) <= 1.5 + 1e-12


def test_clipping_keeps_directions_and_short_rows():
    rows = batch(200, weights=np.linspace(0.2, 3.0, 200))
    clipped = clip_rows(rows, **NORMS)
    for old, new, norm_ in zip(rows[:2], clipped[:2], NORMS.values(), strict=True):
        lengths = np.sqrt(rows.weights) * np.linalg.norm(old, axis=1)
        factor = np.minimum(1, norm_ / lengths)
        assert 10 < np.sum(factor == 1) < 190
        np.testing.assert_allclose(new, old * factor[:, None], rtol=1e-14)
        short = factor == 1
        np.testing.assert_array_equal(np.asarray(new)[short], old[short])


@pytest.mark.parametrize(
    ("dtype", "huge"), [(np.float64, 1e200), (np.float32, 1e20), (np.float64, 1e308)]
)
def test_rows_whose_squares_overflow_are_clipped_like_any(dtype, huge):
    x = np.array([[3.0, 4, 0, 0, 0, 0], [0, 0, 0, 0, 0, -1]])
    y = np.array([[0.0, 0, 2], [1, 0, 0]])
    inputs, targets = ((part / 5 * huge).astype(dtype) for part in (x, y))
    rows = Batch(inputs, targets, np.array([4, 1], dtype))
    clipped = clip_rows(rows, **NORMS)
    wanted = 1.5 * np.array([[0.3, 0.4, 0, 0, 0, 0], [0, 0, 0, 0, 0, -1]])
    np.testing.assert_allclose(clipped.inputs, wanted, rtol=4 * np.finfo(dtype).eps)
    wanted = 0.7 * np.array([[0, 0, 0.5], [1, 0, 0]])
    np.testing.assert_allclose(clipped.targets, wanted, rtol=4 * np.finfo(dtype).eps)


def test_clipping_onto_a_grid_only_shrinks():
    rows = batch(300)
    free = np.asarray(clip_rows(rows, **NORMS).inputs)
    found = np.asarray(clip_rows(rows, **NORMS, grid=2.0**-6).inputs)
    np.testing.assert_array_equal(found * 64, np.trunc(free * 64))
    assert np.all(np.linalg.norm(found, axis=1) <= NORMS["row_norm"])
    assert np.any(found < 0)


def test_rows_of_weight_zero_are_not_seen():
    rows = batch(5, weights=np.array([1.0, 0, 1, 0, 1]))
    expected = clip_rows(Batch(*(part[::2] for part in rows)), **NORMS)
    rows.inputs[1], rows.targets[3] = np.nan, np.inf
    clipped = clip_rows(rows, **NORMS)
    assert not np.any(clipped.inputs[1::2])
    assert not np.any(clipped.targets[1::2])
    np.testing.assert_array_equal(clipped.inputs[::2], expected.inputs)
    np.testing.assert_array_equal(clipped.targets[::2], expected.targets)


@pytest.mark.parametrize("name", ["row_norm", "target_norm", "grid"])
def test_norms_and_grids_are_positive(name):
    with pytest.raises(ValueError, match=f"got {name}=0.0"):
        clip_rows(batch(2), **{**NORMS, name: 0.0})


def test_deviations_are_those_of_the_mechanism(draws):
    c, t, z = *NORMS.values(), 2.0
    gram, moment = np.asarray(draws.gram), np.asarray(draws.moment)
    np.testing.assert_array_equal(gram, np.swapaxes(gram, 1, 2))
    over = np.triu_indices(F, 1)
    parts = {
        "off": (gram[:, over[0], over[1]], z * c**2),
        "on": (np.diagonal(gram, axis1=1, axis2=2), 2**0.5 * z * c**2),
        "moment": (moment.reshape(len(moment), -1), 2**0.5 * z * c * t),
    }
    for values, deviation in parts.values():
        n = values.size
        # 4 standard errors of a normal sample's mean and deviation.
        assert abs(values.mean()) < 4 * deviation / n**0.5
        assert abs(values.std() - deviation) < 4 * deviation / (2 * n) ** 0.5
    np.testing.assert_allclose(draws.gram_deviation, z * c**2)
    np.testing.assert_allclose(draws.moment_deviation, 2**0.5 * z * c * t)


def test_no_two_entries_share_their_noise(draws):
    over = np.triu_indices(F)
    gram = np.asarray(draws.gram)[:, over[0], over[1]]
    moment = np.asarray(draws.moment).reshape(len(gram), -1)
    correlation = np.corrcoef(np.concatenate([gram, moment], 1), rowvar=False)
    correlation -= np.eye(len(correlation))
    # Some 700 pairs: five standard errors.
    assert np.abs(correlation).max() < 5 / len(gram) ** 0.5


def test_noise_is_added_to_the_statistics_given(key):
    gram, moment = map(jnp.asarray, statistics(batch(30)))
    zeros = jnp.zeros_like(gram), jnp.zeros_like(moment)
    found = noisy_statistics(key, gram, moment, **NORMS, multiplier=0.5)
    noise = noisy_statistics(key, *zeros, **NORMS, multiplier=0.5)
    np.testing.assert_allclose(found.gram, gram + noise.gram, rtol=1e-14)
    np.testing.assert_allclose(found.moment, moment + noise.moment, rtol=1e-14)
    with pytest.raises(ValueError, match=r"target_norm=-1\.0"):
        noisy_statistics(
            key, gram, moment, row_norm=1.0, target_norm=-1.0, multiplier=1.0
        )


def test_float32_stays_float32(key):
    parts = [part.astype(np.float32) for part in batch(9)]
    rows = clip_rows(Batch(*parts), **NORMS, grid=0.125)
    x, y = map(jnp.asarray, rows[:2])
    noisy = noisy_statistics(key, x.T @ x, x.T @ y, **NORMS, multiplier=1.0)
    leaves = jax.tree.leaves((rows, noisy, noisy_ridge(noisy, l2=0.1)))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}


def test_without_noise_the_model_is_the_exact_ridge(key):
    gram, moment = map(jnp.asarray, statistics(batch(30)))
    quiet = noisy_statistics(key, gram, moment, **NORMS, multiplier=0.0)
    exact = np.linalg.solve(gram + 0.3 * np.eye(F), moment)
    np.testing.assert_allclose(noisy_ridge(quiet, l2=0.3), exact, rtol=1e-10)


def test_the_repair_is_the_nearest_semi_definite_matrix_and_a_known_raise():
    random = np.random.default_rng(2)
    basis = np.linalg.qr(random.normal(size=(F, F)))[0]
    gram = basis @ np.diag([5.0, 2.0, 1.0, 0.0, -0.5, -3.0]) @ basis.T
    repaired = basis @ np.diag([5.0, 2.0, 1.0, 0.0, 0.0, 0.0]) @ basis.T
    moment = random.normal(size=(F, K))
    noisy = NoisyStatistics(*map(jnp.asarray, (gram, moment, 0.25, 1.0)))
    raised = 0.1 + 2 * F**0.5 * 0.25
    exact = np.linalg.solve(repaired + raised * np.eye(F), moment)
    np.testing.assert_allclose(noisy_ridge(noisy, l2=0.1), exact, rtol=1e-10)


def test_the_raise_is_the_spectral_norm_of_the_noise():
    zeros = jnp.zeros((200, 200)), jnp.zeros((200, 1))
    noise = noisy_statistics(
        jax.random.key(8), *zeros, row_norm=1.0, target_norm=1.0, multiplier=3.0
    )
    largest = np.linalg.norm(noise.gram, 2)
    # Fluctuates by f^(-2/3) around its limit (Tracy-Widom).
    assert abs(largest / (2 * 200**0.5 * 3.0) - 1) < 3 * 200 ** (-2 / 3)


@pytest.fixture(scope="module")
def released():
    """Digits: the exact ridge and ten releases at each of five amounts of noise."""

    def prepared(split):
        inputs = np.asarray(split.inputs, np.float64).reshape(len(split.inputs), -1)
        targets = np.eye(10)[split.targets]
        return clip_rows(Batch(inputs, targets, split.weights), **norms)

    norms = {"row_norm": 8.0, "target_norm": 1.0}
    train, test = map(prepared, digits().splits)
    gram, moment = map(jnp.asarray, statistics(train))

    def weight(key, multiplier):
        noisy = noisy_statistics(key, gram, moment, **norms, multiplier=multiplier)
        return noisy_ridge(noisy, l2=1.0)

    each = jax.vmap(jax.vmap(weight, (0, None)), (None, 0))
    amounts = jnp.array([0.0, 1e-5, 2e-5, 0.3, 3.0, 30.0])
    keys = jax.random.split(jax.random.key(4), 10)
    weights = np.asarray(tiny.quick_jit(each)(keys, amounts))
    named = np.argmax(np.asarray(test.inputs) @ weights, axis=-1)
    truth = np.argmax(np.asarray(test.targets), axis=1)
    exact = np.linalg.solve(np.asarray(gram) + np.eye(64), moment)
    return weights, 100 * np.mean(named == truth, axis=-1), exact


def test_on_digits_a_vanishing_noise_gives_the_exact_model(released):
    weights, accuracy, exact = released
    np.testing.assert_allclose(weights[0, 0], exact, rtol=1e-9, atol=1e-12)
    # First order in the noise: half the noise, half the distance.
    moved = np.linalg.norm(weights[1:3] - exact, axis=(2, 3))
    np.testing.assert_allclose(moved[0] / moved[1], 0.5, rtol=1e-2)
    assert accuracy[0, 0] > 90


def test_on_digits_accuracy_falls_with_the_noise(released):
    _, accuracy, _ = released
    means = accuracy[[0, 3, 4, 5]].mean(axis=1)
    errors = accuracy[[0, 3, 4, 5]].std(axis=1, ddof=1) / 10**0.5
    assert np.all(np.diff(means) < 4 * np.hypot(errors[1:], errors[:-1]))
    assert means[-1] < means[0] - 20
    assert means[1] > means[0] - 5
