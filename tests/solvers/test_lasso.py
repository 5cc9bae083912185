"""Lasso: scikit-learn, the duality gap, the path and rows kept apart."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from sklearn.linear_model import Lasso, LinearRegression

from unlearn_jax.solvers.lasso import (
    held_out_errors,
    largest_l1,
    lasso,
    lasso_path,
)
from unlearn_jax.solvers.solution import CONVERGED, NOT_FINITE, OUT_OF_STEPS

TIGHT = {"tol": 1e-13, "max_steps": 20_000}


def problem(m=40, n=12, q=4, seed=0):
    random = np.random.default_rng(seed)
    masks = (random.random((m, n)) < 0.5).astype(np.float64)
    truth = random.normal(size=(n, q)) * (random.random((n, q)) < 0.4)
    return masks, masks @ truth + 3 + 0.3 * random.normal(size=(m, q))


@tiny.quick_jit
def solve(design, targets, l1):
    return lasso(design, targets, l1=l1, **TIGHT)


@pytest.fixture(scope="module", params=["tall", "wide"])
def case(request):
    sizes = {"tall": (40, 12), "wide": (20, 30)}[request.param]
    design, targets = problem(*sizes)
    l1 = jnp.asarray([0.02, 0.05, 0.1, 0.2])
    return design, targets, l1, solve(design, targets, l1)


def test_coefficients_equal_scikit_learn(case):
    design, targets, l1, found = case
    assert np.all(found.converged)
    assert np.all(found.code == CONVERGED)
    for j in range(targets.shape[1]):
        theirs = Lasso(alpha=float(l1[j]), tol=1e-14, max_iter=200_000)
        theirs.fit(design, targets[:, j])
        np.testing.assert_allclose(found.coef[j], theirs.coef_, atol=1e-6)
        np.testing.assert_allclose(found.intercept[j], theirs.intercept_, atol=1e-6)
        assert np.array_equal(np.asarray(found.coef[j]) == 0, theirs.coef_ == 0)


def test_no_nearby_point_is_lower_by_more_than_the_gap(case):
    """The certificate is computed afresh in numpy for a solve that stops early."""
    design, targets, l1, best = case
    early = lasso(design, targets, l1=l1, tol=1e-2, max_steps=50)

    def objective(solution):
        errors = targets - design @ solution.coef.T - solution.intercept[None]
        penalty = l1 * np.sum(np.abs(solution.coef), axis=1)
        return np.sum(errors**2, axis=0) / (2 * len(design)) + penalty

    centred = targets - targets.mean(0)
    scale = np.sum(centred**2, axis=0) / (2 * len(design))
    excess = np.asarray(objective(early) - objective(best)) / scale
    assert np.all(excess <= np.asarray(early.gap) + 1e-12)
    assert np.all(early.gap <= 1e-2)
    assert np.max(early.steps) < np.max(best.steps)


def test_above_the_largest_l1_everything_is_zero_and_below_it_not():
    design, targets = problem()
    highest = largest_l1(design, targets)
    above = solve(design, targets, 1.0001 * highest)
    below = solve(design, targets, 0.999 * highest)
    assert not np.any(above.coef)
    np.testing.assert_allclose(above.intercept, targets.mean(0))
    assert np.all(np.sum(np.asarray(below.coef) != 0, axis=1) >= 1)


def test_path_equals_single_solves_and_ends_near_least_squares():
    design, targets = problem()
    ratios = (1.0, 0.1, 1e-6)
    path = tiny.quick_jit(lambda x, y: lasso_path(x, y, ratios=ratios, **TIGHT))(
        design, targets
    )
    assert path.coef.shape == (3, 4, 12)
    alone = solve(design, targets, 0.1 * largest_l1(design, targets))
    np.testing.assert_allclose(path.coef[1], alone.coef, atol=1e-6)
    plain = LinearRegression().fit(design, targets)
    np.testing.assert_allclose(path.coef[2], plain.coef_, atol=1e-4)


def test_held_out_rows_are_not_seen_and_their_error_is_true():
    design, targets = problem()
    held = np.zeros(40)
    held[::4] = 1
    ratios = (0.3, 0.05)
    errors = tiny.quick_jit(
        lambda x, y, h: held_out_errors(x, y, h, ratios=ratios, **TIGHT)
    )(design, targets, held)
    kept = held == 0
    highest = largest_l1(design[kept], targets[kept])
    for i, ratio in enumerate(ratios):
        fitted = lasso(design[kept], targets[kept], l1=ratio * highest, **TIGHT)
        predicted = design[~kept] @ fitted.coef.T + fitted.intercept[None]
        truth = np.mean((predicted - targets[~kept]) ** 2, axis=0)
        np.testing.assert_allclose(errors[i], truth, rtol=1e-5)
    broken = design.copy()
    broken[~kept] = np.nan
    hidden = lasso(broken, targets, l1=0.1, weights=kept, **TIGHT)
    shown = lasso(design[kept], targets[kept], l1=0.1, **TIGHT)
    np.testing.assert_allclose(hidden.coef, shown.coef, atol=1e-7)


def test_ends_are_told():
    design, targets = problem()
    short = lasso(design, targets, l1=1e-4, tol=1e-12, max_steps=3)
    assert np.all(short.code == OUT_OF_STEPS)
    assert not np.any(short.converged)
    wrong = lasso(design, targets * jnp.nan, l1=1e-1)
    assert np.all(wrong.code == NOT_FINITE)
    constant = lasso(design, np.ones((40, 2)), l1=0.1)
    assert np.all(constant.converged)
    assert not np.any(constant.coef)
    with pytest.raises(ValueError, match="one column each"):
        lasso(design, targets[:, 0], l1=0.1)


def test_dtype_is_kept_and_integer_masks_are_taken():
    design, targets = problem()
    single = lasso(design.astype(np.int8), targets.astype(np.float32), l1=0.1)
    assert single.coef.dtype == single.intercept.dtype == jnp.float32
    np.testing.assert_allclose(
        single.coef, solve(design, targets, 0.1 * jnp.ones(4)).coef, atol=2e-2
    )
