"""Leading eigenvectors of an empirical Fisher against numpy's of dense gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.flatten_util import ravel_pytree

from unlearn_jax.methods.erasing.curvature import curvature, inverse, product, unit
from unlearn_jax.solvers.fisher_eigen import fisher_eigen
from unlearn_jax.train.loss import squared_error
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch

RANDOM = np.random.default_rng(4)
PARAMS = {
    "a": jnp.asarray(RANDOM.normal(size=(4, 5))),
    "b": jnp.asarray(RANDOM.normal(size=(5, 3))),
}
WEIGHTS = np.array([1.0, 2.0, 0.0, 0.5, 1.0, 3.0])
INPUTS = RANDOM.normal(size=(6, 4))
INPUTS[2] = np.nan  # absent
DATA = Batch(INPUTS, RANDOM.normal(size=(6, 3)), WEIGHTS)


def predict(params, inputs):
    return jnp.tanh(inputs @ params["a"]) @ params["b"]


OBJECTIVE = Objective(predict, squared_error)


def dense_fisher():
    flat, back = ravel_pytree(PARAMS)
    there = WEIGHTS > 0

    def loss(flat, x, y):
        return OBJECTIVE.loss(predict(back(flat), x[None]), y[None])[0]

    rows = jax.vmap(jax.grad(loss), (None, 0, 0))(
        flat, jnp.asarray(INPUTS[there]), jnp.asarray(DATA.targets[there])
    )
    rows, shares = np.asarray(rows), WEIGHTS[there] / WEIGHTS.sum()
    return rows.T @ (shares[:, None] * rows), back


@pytest.mark.parametrize("rank", [2, 5, 9])
def test_the_leading_part_of_the_dense_matrix(rank):
    fisher, _ = dense_fisher()

    @tiny.quick_jit
    def ours(params):
        low = fisher_eigen(OBJECTIVE, params, DATA, rank=rank)
        return low, jax.vmap(lambda row: ravel_pytree(row)[0])(low.basis)

    found, basis = ours(PARAMS)
    basis = np.asarray(basis)
    values, vectors = np.linalg.eigh(fisher)
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    kept = min(rank, 5)  # five examples have weight
    np.testing.assert_allclose(found.eigenvalues[:kept], values[:kept], rtol=1e-9)
    np.testing.assert_array_equal(found.eigenvalues[kept:], 0)
    np.testing.assert_allclose(basis[:kept] @ basis[:kept].T, np.eye(kept), atol=1e-8)
    ours = basis.T @ (np.asarray(found.eigenvalues)[:, None] * basis)
    expected = vectors @ (values[:, None] * vectors.T)
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_product_inverse_and_unit_are_those_of_the_dense_matrix():
    fisher, back = dense_fisher()
    vector = RANDOM.normal(size=len(fisher))

    @tiny.quick_jit
    def ours(params, v):
        matrix = curvature("low_rank", OBJECTIVE, params, DATA)
        told = product(matrix, params).matvec(back(v)), inverse(matrix, 0.02)(back(v))
        return [ravel_pytree(each)[0] for each in told], unit(matrix)

    (times, solved), size = ours(PARAMS, vector)
    np.testing.assert_allclose(times, fisher @ vector, rtol=1e-8, atol=1e-11)
    exact = np.linalg.solve(fisher + 0.02 * np.eye(len(fisher)), vector)
    np.testing.assert_allclose(solved, exact, rtol=1e-8, atol=1e-10)
    assert float(size) == pytest.approx(np.trace(fisher) / len(fisher))


def test_no_rank_is_refused():
    with pytest.raises(ValueError, match="rank must be at least 1"):
        fisher_eigen(OBJECTIVE, PARAMS, DATA, rank=0)
