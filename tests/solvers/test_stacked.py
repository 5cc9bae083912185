"""Stacked trees behave like the matrices of their flattened rows."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from systems import SIZE, matrix_with, to_flat, to_tree

from unlearn_jax.solvers.stacked import combine, gram, orthonormalise, project


def rows(count=4, seed=0):
    return np.random.default_rng(seed).normal(size=(count, SIZE))


def test_gram_project_and_combine_are_matrix_products():
    a, b, c = rows(), rows(3, 1), rows(2, 2)[:, :4]
    np.testing.assert_allclose(gram(to_tree(a), to_tree(b)), a @ b.T, rtol=1e-12)
    np.testing.assert_allclose(project(to_tree(a), to_tree(b[0])), a @ b[0], rtol=1e-12)
    many = combine(jnp.asarray(c), to_tree(a))
    np.testing.assert_allclose(to_flat(many), c @ a, rtol=1e-12)
    one = combine(jnp.asarray(c[0]), to_tree(a))
    np.testing.assert_allclose(to_flat(one), c[0] @ a, rtol=1e-12)


def test_scalar_leaves_and_low_precision_are_summed_in_float32():
    stack = {"s": jnp.arange(3, dtype=jnp.bfloat16), "e": jnp.zeros((3, 0))}
    low = {"s": jnp.arange(3, dtype=jnp.bfloat16)}
    np.testing.assert_allclose(gram(stack, stack), np.outer(range(3), range(3)))
    assert gram(low, low).dtype == jnp.float32
    assert combine(jnp.ones(3), low)["s"].dtype == jnp.bfloat16


@tiny.quick_jit
def factored(vectors):
    basis, _, coefficients = orthonormalise(to_tree(vectors))
    return to_flat(basis), coefficients


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_basis_is_orthonormal_and_rebuilds_the_vectors(dtype):
    # Nearly dependent: the second vector differs from the first in the fifth digit.
    vectors = rows().astype(dtype)
    vectors[1] = vectors[0] + dtype(1e-5) * vectors[1]
    basis, coefficients = (np.asarray(x, np.float64) for x in factored(vectors))
    eps = np.finfo(dtype).eps
    live = np.diag(coefficients) > 0
    assert live.all() or dtype == np.float32
    np.testing.assert_allclose(basis @ basis.T, np.diag(live), atol=20 * eps)
    np.testing.assert_allclose(coefficients.T @ basis, vectors, atol=1e3 * eps)


def test_dependent_vectors_leave_zeros():
    vectors = rows(5)
    vectors[2], vectors[3] = 2 * vectors[0] - vectors[1], 0
    basis, coefficients = (np.asarray(x) for x in factored(vectors))
    assert np.array_equal(np.diag(coefficients) > 0, [1, 1, 0, 0, 1])
    assert not np.any(basis[2:4])
    np.testing.assert_allclose(coefficients.T @ basis, vectors, atol=1e-13)


def test_duals_change_the_inner_product():
    matrix, vectors = matrix_with(np.linspace(1, 5, SIZE)), rows()

    @tiny.quick_jit
    def run(vectors, duals):
        basis, dual, coefficients = orthonormalise(to_tree(vectors), to_tree(duals))
        return to_flat(basis), to_flat(dual), coefficients

    basis, dual, coefficients = (np.asarray(x) for x in run(vectors, vectors @ matrix))
    np.testing.assert_allclose(basis @ matrix @ basis.T, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(dual, basis @ matrix, atol=1e-12)
    np.testing.assert_allclose(coefficients.T @ basis, vectors, atol=1e-12)


def test_vectors_below_the_floor_count_as_zero():
    vectors = rows()
    vectors[1] *= 1e-16
    kept = factored(vectors)[1]
    dropped = orthonormalise(to_tree(vectors), floor=1.0)[2]
    assert kept[1, 1] > 0
    assert dropped[1, 1] == 0
