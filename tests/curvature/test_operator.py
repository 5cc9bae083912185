"""The algebra of operators is that of their matrices; what does not fit is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from asserts import assert_trees_close
from jax.flatten_util import ravel_pytree

from unlearn_jax import tree
from unlearn_jax.curvature import operator as op

LIKE = {"a": jnp.zeros((2, 2)), "b": [jnp.zeros(3), jnp.zeros(())]}
SIZE = 8


def matrix_and_operator(seed):
    random = np.random.default_rng(seed).standard_normal((SIZE, SIZE))
    matrix = random + random.T
    _, unravel = ravel_pytree(LIKE)
    product = lambda v: unravel(matrix @ ravel_pytree(v)[0])  # noqa: E731
    return matrix, op.linear_operator(product, LIKE)


def vector(seed=0):
    return ravel_pytree(LIKE)[1](np.random.default_rng(seed).standard_normal(SIZE))


@pytest.fixture(scope="module")
def pair():
    return matrix_and_operator(1), matrix_and_operator(2)


def test_dense_gives_back_the_matrix(pair):
    for matrix, operator in pair:
        np.testing.assert_allclose(op.dense(operator), matrix, rtol=1e-12)


def test_dense_keeps_rows_and_columns_apart():
    # Not symmetric, though no operator of the house is: a transposed matrix would show.
    matrix = np.arange(9.0).reshape(3, 3)
    operator = op.linear_operator(lambda v: jnp.asarray(matrix) @ v, jnp.zeros(3))
    np.testing.assert_allclose(op.dense(operator), matrix)


def test_the_algebra_is_that_of_the_matrices(pair):
    (A, a), (B, b) = pair
    np.testing.assert_allclose(op.dense(op.add(a, b)), A + B, rtol=1e-12)
    np.testing.assert_allclose(op.dense(op.scale(-2.5, a)), -2.5 * A, rtol=1e-12)
    np.testing.assert_allclose(
        op.dense(op.damped(a, 0.7)), A + 0.7 * np.eye(SIZE), rtol=1e-12
    )
    entries = vector(3)
    np.testing.assert_allclose(
        op.dense(op.diagonal(entries)), np.diag(ravel_pytree(entries)[0]), rtol=1e-12
    )


def test_a_block_is_its_products(pair):
    (_, a), _ = pair
    vectors = [vector(1), vector(2), vector(3)]
    found = op.block(a, tree.stack(vectors))
    for i, v in enumerate(vectors):
        assert_trees_close(tree.member(found, i), a(v), rtol=1e-12)


def test_operators_work_under_jit_and_vmap(pair):
    (A, a), _ = pair
    dampings = jnp.array([0.1, 2.0])
    solve = jax.jit(jax.vmap(lambda d: op.dense(op.damped(a, d))))
    np.testing.assert_allclose(solve(dampings)[1], A + 2 * np.eye(SIZE), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtypes_are_kept(dtype):
    entries = jnp.arange(3).astype(dtype)
    operator = op.damped(op.scale(2.0, op.diagonal(entries)), 0.5)
    found = operator(jnp.ones(3, dtype))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(float), [0.5, 2.5, 4.5])


def test_what_does_not_fit_is_refused(pair):
    (_, a), _ = pair
    with pytest.raises(ValueError, match="structure"):
        a({"a": jnp.zeros((2, 2))})
    wrong = {"a": jnp.zeros((2, 3)), "b": LIKE["b"]}
    with pytest.raises(ValueError, match=r"float64\[2, 3\] at \['a'\], expected"):
        a(wrong)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), LIKE)
    with pytest.raises(ValueError, match="float32"):
        a(single)
    with pytest.raises(ValueError, match="second operator"):
        op.add(a, op.diagonal(jnp.ones(3)))


def test_the_refusal_also_speaks_inside_jit(pair):
    (_, a), _ = pair
    with pytest.raises(ValueError, match="structure"):
        jax.jit(lambda v: a(v))([jnp.zeros(3)])
