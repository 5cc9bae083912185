"""Lanczos against numpy's eigenvectors, and inverses on what it finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from systems import SIZE, matrix_with, operator_with, right_side, to_flat, to_tree

from unlearn_jax.solvers.krylov import (
    LowRank,
    eigen_residuals,
    lanczos,
    low_rank_inverse,
    spectral_bounds,
)

APART = np.array([-9.0, 7.0, 5.0, -3.0, *np.linspace(-0.5, 1, SIZE - 4)])


@pytest.fixture(scope="module")
def four():
    """Four eigenvectors of a matrix, and their residuals."""

    @tiny.quick_jit
    def run(key, matrix):
        operator = operator_with(matrix)
        low_rank = lanczos(key, operator, rank=4)
        return low_rank, eigen_residuals(operator, low_rank)

    return run


def flat(low_rank):
    return np.asarray(to_flat(low_rank.basis), np.float64)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float64, 1e-10), (np.float32, 2e-5)])
def test_finds_the_eigenvalues_of_largest_magnitude(four, key, dtype, atol):
    matrix = matrix_with(APART).astype(dtype)
    low_rank, residuals = four(key, matrix)
    np.testing.assert_allclose(low_rank.eigenvalues, [-9, 7, 5, -3], atol=atol)
    vectors = flat(low_rank)
    assert low_rank.basis["bias"].dtype == dtype
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=atol)
    _, exact = np.linalg.eigh(matrix.astype(np.float64))
    overlap = np.abs(vectors @ exact[:, [0, 11, 10, 1]])
    np.testing.assert_allclose(overlap, np.eye(4), atol=10 * atol)
    true = matrix @ vectors.T - vectors.T * np.asarray(low_rank.eigenvalues)
    np.testing.assert_allclose(residuals, np.linalg.norm(true, axis=0), atol=atol)


def test_eigenvalue_lies_within_its_residual(key):
    matrix = matrix_with(np.linspace(1, 5, 40))

    @tiny.quick_jit
    def run(key, matrix):
        operator = operator_with(matrix)
        low_rank = lanczos(key, operator, rank=6, steps=12)
        return low_rank, eigen_residuals(operator, low_rank)

    low_rank, residuals = run(key, matrix)
    exact = np.linspace(1, 5, 40)
    gap = np.abs(exact[None] - np.asarray(low_rank.eigenvalues)[:, None]).min(axis=1)
    assert np.all(gap <= np.asarray(residuals) + 1e-12)
    assert np.max(residuals) > 1e-3  # a search this short is not exact


def test_repeated_eigenvalues_and_low_rank_are_found(four, key):
    values = np.zeros(SIZE)
    values[:3] = 2.0
    low_rank, residuals = four(key, matrix_with(values))
    np.testing.assert_allclose(low_rank.eigenvalues, [2, 2, 2, 0], atol=1e-12)
    vectors = flat(low_rank)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-12)
    assert np.all(np.asarray(residuals) < 1e-12)


def test_matrix_of_zeros_gives_an_orthonormal_basis(four, key):
    low_rank, _ = four(key, np.zeros((SIZE, SIZE)))
    vectors = flat(low_rank)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(low_rank.eigenvalues, np.zeros(4), atol=1e-14)


def test_all_directions_give_the_whole_matrix(key):
    matrix = matrix_with(APART)

    @tiny.quick_jit
    def run(key, matrix, start):
        return lanczos(key, operator_with(matrix), rank=SIZE, start=to_tree(start))

    low_rank = run(key, matrix, right_side())
    vectors = flat(low_rank)
    rebuilt = (vectors.T * np.asarray(low_rank.eigenvalues)) @ vectors
    np.testing.assert_allclose(rebuilt, matrix, atol=1e-11)


def test_product_that_is_not_symmetric_has_its_symmetric_part_taken(key):
    # With all directions the projection is a rotation of the matrix itself.
    skew = np.triu(np.random.default_rng(9).normal(size=(SIZE, SIZE)), 1)
    matrix = matrix_with(APART) + skew - skew.T

    @tiny.quick_jit
    def run(key, matrix):
        return lanczos(key, operator_with(matrix), rank=SIZE)

    values = np.sort(run(key, matrix).eigenvalues)
    np.testing.assert_allclose(values, np.sort(APART), atol=1e-10)


def test_rank_that_cannot_be_is_refused(key):
    operator = operator_with(matrix_with(APART))
    for options in ({"rank": 0}, {"rank": SIZE + 1}, {"rank": 4, "steps": 3}):
        with pytest.raises(ValueError, match=r"rank \d+ and .* steps for 12"):
            lanczos(key, operator, **options)
    with pytest.raises(ValueError, match="start"):
        lanczos(key, operator, rank=2, start={"w": jnp.zeros(3)})


def test_vmap_over_matrices_equals_one_by_one(four, key):
    matrices = np.stack([matrix_with(APART), matrix_with(2 * APART, 4)])
    together = tiny.quick_jit(
        jax.vmap(lambda k, m: lanczos(k, operator_with(m), rank=4), (None, 0))
    )(key, matrices)
    for i, matrix in enumerate(matrices):
        alone, _ = four(key, matrix)
        np.testing.assert_allclose(together.eigenvalues[i], alone.eigenvalues)


@pytest.mark.parametrize("complement", [False, True])
def test_low_rank_inverse_equals_the_dense_one(complement):
    vectors, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(SIZE, 3)))
    values, damping, v = np.array([5.0, 2.0, 0.0]), 0.3, right_side()
    low_rank = LowRank(to_tree(vectors.T), jnp.asarray(values))
    run = tiny.quick_jit(
        lambda q, v: to_flat(
            low_rank_inverse(q, to_tree(v), damping=damping, complement=complement)
        )
    )
    matrix = (vectors * values) @ vectors.T + damping * np.eye(SIZE)
    expected = np.linalg.solve(matrix, v)
    if not complement:
        expected = vectors @ (vectors.T @ expected)
    np.testing.assert_allclose(run(low_rank, v), expected, rtol=1e-11)


def test_low_rank_inverse_refuses_no_damping():
    low_rank = LowRank(to_tree(np.eye(SIZE)[:1]), jnp.ones(1))
    with pytest.raises(ValueError, match=r"damping 0.* too small.*raise it"):
        low_rank_inverse(low_rank, to_tree(right_side()), damping=0.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_spectral_bounds_hold_the_ends(dtype):
    run = tiny.quick_jit(
        lambda m, s: spectral_bounds(operator_with(m), to_tree(s), steps=6)
    )
    for seed in range(20):
        values = np.random.default_rng(seed).exponential(size=SIZE)
        matrix = matrix_with(values, seed).astype(dtype)
        bounds = run(matrix, right_side(seed + 50, dtype=dtype))
        slack = 1e-5 * values.max() if dtype == np.float32 else 1e-12
        assert values.min() - slack <= bounds.lowest <= bounds.largest
        assert 0.8 * values.max() < bounds.largest <= values.max() + slack
        assert values.max() - slack <= bounds.upper < 2 * values.max()


def test_spectral_bounds_of_a_space_that_closes_are_exact():
    run = tiny.quick_jit(
        lambda m, s: spectral_bounds(operator_with(m), to_tree(s), steps=6)
    )
    bounds = run(matrix_with(np.resize([2.0, 3.0], SIZE)), right_side())
    np.testing.assert_allclose(list(bounds), [2, 3, 3], rtol=1e-10)
    nothing = run(matrix_with(np.ones(SIZE)), np.zeros(SIZE))
    assert all(float(bound) == 0 for bound in nothing)
    broken = run(np.full((SIZE, SIZE), np.nan), right_side())
    assert all(np.isnan(bound) for bound in broken)
