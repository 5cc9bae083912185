"""Derivatives through every solver are those of the dense solve, in both modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from systems import matrix_with, operator_with, right_side, to_flat, to_tree

from unlearn_jax.curvature.operator import damped, linear_operator
from unlearn_jax.solvers.conjugate_gradient import (
    block_conjugate_gradient,
    conjugate_gradient,
)
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.neumann import neumann
from unlearn_jax.solvers.solution import OUT_OF_STEPS

COUNT = 6
SPREAD = np.geomspace(0.5, 2, COUNT)
SIGNS = SPREAD * np.where(np.arange(COUNT) % 2, -1, 1)
PROBE = right_side(7, COUNT)
OPTIONS = {"tol": 1e-11, "max_steps": 300}


def one(solver, **options):
    def run(matrix, rhs, damping):
        operator = damped(operator_with(matrix), damping)
        found = solver(operator, to_tree(rhs), **(OPTIONS | options))
        return to_flat(found.value), found

    return run


def block(matrix, rhs, damping):
    operator = damped(operator_with(matrix), damping)
    rows = to_tree(jnp.stack([rhs, rhs[::-1]]))
    found = block_conjugate_gradient(operator, rows, **OPTIONS)
    first, second = to_flat(found.value)
    return first + 2 * second, found


def dense(matrix, rhs, damping):
    matrix = matrix + damping * jnp.eye(COUNT)
    return jnp.linalg.solve(matrix, rhs), None


def dense_block(matrix, rhs, damping):
    first, second = (dense(matrix, b, damping)[0] for b in (rhs, rhs[::-1]))
    return first + 2 * second, None


CASES = {
    "cg": (one(conjugate_gradient), dense, SPREAD),
    "cg from a start": (
        one(conjugate_gradient, start=to_tree(1e3 * PROBE)),
        dense,
        SPREAD,
    ),
    "block cg": (block, dense_block, SPREAD),
    "minres": (one(minres), dense, SIGNS),
    "neumann": (one(neumann), dense, SPREAD),
}


def point(values):
    return matrix_with(values), right_side(count=COUNT), np.asarray(0.1)


def symmetric(matrix):
    return (matrix + matrix.T) / 2


@pytest.mark.parametrize("name", list(CASES))
def test_both_modes_equal_the_dense_solve(name):
    solver, exact, values = CASES[name]
    at = point(values)

    def along(solve):
        return lambda m, b, d: jnp.dot(PROBE, solve(symmetric(m), b, d)[0])

    @tiny.quick_jit
    def run(at):
        forward = jax.jvp(along(solver), at, (at[0] ** 2, at[1] ** 2, at[2]))
        return jax.grad(along(solver), (0, 1, 2))(*at), forward[1]

    reverse, forward = run(at)
    expected = jax.grad(along(exact), (0, 1, 2))(*at)
    for got, want in zip(reverse, expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-9)
    pushed = sum(
        np.sum(want * step)
        for want, step in zip(expected, (at[0] ** 2, at[1] ** 2, at[2]), strict=True)
    )
    np.testing.assert_allclose(forward, pushed, rtol=1e-8)


def test_second_derivatives_and_vmap():
    solver, exact, values = CASES["cg"]
    matrix, rhs, _ = point(values)

    def bend(solve):
        def value(damping, b):
            return jnp.dot(PROBE, solve(matrix, b, damping)[0] ** 2)

        return lambda d, b: jax.vmap(jax.grad(jax.grad(value)), (0, 0))(d, b)

    dampings, rows = np.array([0.1, 0.5]), np.stack([rhs, rhs[::-1]])
    got = tiny.quick_jit(bend(solver))(dampings, rows)
    np.testing.assert_allclose(got, bend(exact)(dampings, rows), rtol=1e-6)


def test_words_about_the_end_have_no_derivative():
    solver, _, values = CASES["cg"]
    matrix, rhs, damping = point(values)
    slope = tiny.quick_jit(jax.grad(lambda d: solver(matrix, rhs, d)[1].residual))
    assert float(slope(damping)) == 0


def test_no_product_more_than_without_derivatives():
    calls = []

    def counted(v):
        jax.debug.callback(lambda: calls.append(1))
        return jax.tree.map(lambda x: 2 * x, v)

    like = to_tree(right_side(count=COUNT))
    operator = operator_with(np.eye(COUNT))._replace(matvec=counted)
    found = jax.jit(lambda b: conjugate_gradient(operator, b))(like)
    jax.block_until_ready(found)
    jax.effects_barrier()
    assert int(found.steps) == 1
    assert len(calls) == 2  # one step, one to confirm the residual


def test_derivative_of_a_solve_that_was_cut_short_is_cut_short_too():
    matrix, rhs, damping = point(SPREAD)

    def cut(b):
        return one(conjugate_gradient, max_steps=2)(matrix, b, damping)

    found, moved = jax.jvp(lambda b: cut(b)[0], (rhs,), (rhs,))
    assert int(cut(rhs)[1].code) == OUT_OF_STEPS
    np.testing.assert_allclose(moved, found, rtol=1e-10)


@pytest.mark.parametrize("solver", [conjugate_gradient, block, minres])
def test_hermitian_system(solver):
    random = np.random.default_rng(0)
    root = random.normal(size=(3, 3)) + 1j * random.normal(size=(3, 3))
    matrix, b = jnp.asarray(root @ root.conj().T + np.eye(3)), jnp.asarray(root[0])

    def solve(b):
        operator = linear_operator(lambda v: matrix @ v, b)
        if solver is block:
            return block_conjugate_gradient(operator, b[None], **OPTIONS).value[0]
        return solver(operator, b, **OPTIONS).value

    @tiny.quick_jit
    def run(b):
        return solve(b), jax.grad(lambda b: jnp.real(solve(b)[0]))(b)

    value, slope = run(b)
    np.testing.assert_allclose(value, np.linalg.solve(matrix, b), rtol=1e-8)
    want = jax.grad(lambda b: jnp.real(jnp.linalg.solve(matrix, b)[0]))(b)
    np.testing.assert_allclose(slope, want, rtol=1e-8, atol=1e-10)
