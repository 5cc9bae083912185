"""Small linear systems of the peers' tests, and one compiled solve for each shape."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from tiny import quick_jit as quick

from unlearn_jax.curvature.operator import (
    linear_operator,
)
from unlearn_jax.solvers.conjugate_gradient import (
    conjugate_gradient,
)
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.solution import (
    check_solution,
)

TIGHT = 1e-12
SIZE = 4
SPREAD = jnp.asarray([2.0, 4.0, 5.0, 10.0])


def normal(seed, *shape, dtype=np.float64):
    random = np.random.default_rng(seed)
    values = random.normal(size=shape)
    if np.issubdtype(dtype, np.complexfloating):
        values = values + 1j * random.normal(size=shape)
    return jnp.asarray(values.astype(dtype))


def definite(seed, size=SIZE, dtype=np.float64):
    root = normal(seed, size, size, dtype=dtype)
    return root @ root.T.conj() + jnp.eye(size)


def of(matrix):
    return linear_operator(lambda v: matrix @ v, matrix[0])


def close(actual, expected, tolerance=1e-8):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


@functools.cache
def program(solver, tol, max_steps):
    """(matrix, right side) -> Solution, compiled once for each shape and dtype."""
    return quick(
        lambda matrix, rhs: solver(of(matrix), rhs, tol=tol, max_steps=max_steps)
    )


def answer(matrix, rhs, solver=conjugate_gradient, *, tol=TIGHT, max_steps=200):
    return program(solver, tol, max_steps)(matrix, rhs)


def solved(operator, rhs, solver=conjugate_gradient, **options):
    options = {"tol": TIGHT, "max_steps": 200} | options
    return check_solution(quick(lambda b: solver(operator, b, **options))(rhs))


def least_squares(matrix, rhs, solver=minres):
    """The shortest of all minimisers, by the normal equations."""
    return answer(matrix.T @ matrix, matrix.T @ rhs, solver, tol=1e-13).value
