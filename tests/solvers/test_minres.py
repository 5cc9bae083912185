"""MINRES against scipy and dense solves, for indefinite and singular matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
import tiny
from asserts import assert_trees_close
from systems import (
    SIZE,
    chain,
    matrix_with,
    operator_with,
    right_side,
    to_flat,
    to_tree,
    true_residual,
)

from unlearn_jax import tree
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.solution import (
    INCONSISTENT,
    NOT_FINITE,
    OUT_OF_STEPS,
    reason,
)

INDEFINITE = np.concatenate([-np.geomspace(0.5, 5, 5), np.geomspace(0.3, 8, 7)])
SINGULAR = np.concatenate([np.zeros(3), -np.ones(1), np.geomspace(0.5, 4, 8)])


def solve(matrix, rhs, **options):
    return minres(operator_with(matrix), to_tree(rhs), **options)


@pytest.fixture(scope="module")
def compiled():
    return tiny.quick_jit(solve)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-5), (np.float32, 1e-4)])
def test_indefinite_system_equals_dense_solve(dtype, rtol):
    matrix, rhs = matrix_with(INDEFINITE).astype(dtype), right_side(dtype=dtype)
    solution = tiny.quick_jit(solve)(matrix, rhs)
    assert bool(solution.converged), reason(solution)
    expected = to_tree(np.linalg.solve(matrix, rhs))
    assert_trees_close(solution.value, expected, rtol=rtol, atol=rtol)
    true = true_residual(matrix, solution.value, rhs)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(float(solution.residual), true, atol=50 * eps)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_walks_like_scipy(steps):
    matrix, rhs = matrix_with(INDEFINITE), right_side()
    run = tiny.quick_jit(lambda m, r: solve(m, r, max_steps=steps, shift=0.4))
    solution = run(matrix, rhs)
    expected, _ = scipy.sparse.linalg.minres(
        matrix, rhs, shift=0.4, rtol=1e-14, maxiter=steps
    )
    np.testing.assert_allclose(to_flat(solution.value), expected, rtol=1e-8)
    assert int(solution.code) == OUT_OF_STEPS
    assert int(solution.steps) == steps
    true = true_residual(matrix - 0.4 * np.eye(SIZE), solution.value, rhs)
    np.testing.assert_allclose(float(solution.residual), true, rtol=1e-10)


def test_residual_is_the_least_in_the_krylov_space():
    matrix, rhs = matrix_with(INDEFINITE), right_side()
    krylov = np.stack([np.linalg.matrix_power(matrix, j) @ rhs for j in range(4)], 1)
    best, *_ = np.linalg.lstsq(matrix @ krylov, rhs, rcond=None)
    least = np.linalg.norm(matrix @ krylov @ best - rhs) / np.linalg.norm(rhs)
    solution = tiny.quick_jit(lambda m, r: solve(m, r, max_steps=4))(matrix, rhs)
    np.testing.assert_allclose(float(solution.residual), least, rtol=1e-8)


def test_consistent_singular_system_gives_the_shortest_solution(compiled):
    matrix = matrix_with(SINGULAR)
    rhs = matrix @ right_side()
    solution = compiled(matrix, rhs)
    assert bool(solution.converged), reason(solution)
    expected = np.linalg.pinv(matrix) @ rhs
    assert_trees_close(solution.value, to_tree(expected), rtol=1e-4, atol=1e-5)


def test_inconsistent_system_gives_the_least_residual_and_says_so(compiled):
    matrix, rhs = matrix_with(SINGULAR), right_side()
    solution = compiled(matrix, rhs)
    best, *_ = np.linalg.lstsq(matrix, rhs, rcond=None)
    least = np.linalg.norm(matrix @ best - rhs) / np.linalg.norm(rhs)
    assert least > 0.1
    assert int(solution.code) == INCONSISTENT
    assert not bool(solution.converged)
    assert "range" in reason(solution)
    np.testing.assert_allclose(float(solution.residual), least, rtol=1e-6)


def test_matrix_of_zeros_is_inconsistent(compiled):
    solution = compiled(np.zeros((SIZE, SIZE)), right_side())
    assert int(solution.code) == INCONSISTENT
    assert_trees_close(solution.value, to_tree(np.zeros(SIZE)))
    assert float(solution.residual) == 1.0


def test_residual_never_ends_above_the_start():
    # In float32 the iteration believes in progress that rounding takes away.
    matrix = matrix_with(np.geomspace(1e-6, 1, 40)).astype(np.float32)
    rhs = np.random.default_rng(0).normal(size=(16, 40)).astype(np.float32)
    run = jax.vmap(lambda m, r: solve(m, r, max_steps=300), (None, 0))
    solution = tiny.quick_jit(run)(matrix, rhs)
    assert np.all(np.asarray(solution.residual) <= 1)
    for i in range(16):
        value = tree.member(solution.value, i)
        true = true_residual(matrix, value, rhs[i])
        # A product is rounded by ε ‖A‖ ‖x‖.
        size = np.linalg.norm(to_flat(value)) / np.linalg.norm(rhs[i]) + 1
        blur = np.finfo(np.float32).eps * size
        np.testing.assert_allclose(float(solution.residual[i]), true, atol=blur)


def test_zero_has_the_answer_zero(compiled):
    solution = compiled(matrix_with(INDEFINITE), np.zeros(SIZE))
    assert_trees_close(solution.value, to_tree(np.zeros(SIZE)))
    assert bool(solution.converged)
    assert (int(solution.steps), float(solution.residual)) == (0, 0.0)


@pytest.mark.parametrize("step", [1, 4])
def test_product_that_is_not_finite_is_told_with_its_step(step):
    operator, rhs = chain(6, poisoned=step - 1)
    solution = tiny.quick_jit(lambda b: minres(operator, b))(rhs)
    assert int(solution.code) == NOT_FINITE
    assert int(solution.steps) == step
    assert bool(tree.all_finite(solution.value))


def test_other_structure_is_refused_by_naming_both():
    operator = operator_with(matrix_with(INDEFINITE))
    with pytest.raises(ValueError, match=r"right-hand side.*\{'w': \*\}.*'bias'"):
        minres(operator, {"w": jnp.zeros(3)})


def test_vmap_over_right_sides_and_matrices_equals_one_by_one(compiled):
    matrices = np.stack([matrix_with(v, 3) for v in (INDEFINITE, SINGULAR, SINGULAR)])
    rhs = np.stack([right_side(), right_side(2), matrices[2] @ right_side(3)])
    together = tiny.quick_jit(jax.vmap(solve))(matrices, rhs)
    for i in range(len(rhs)):
        alone, own = compiled(matrices[i], rhs[i]), tree.member(together, i)
        assert int(own.code) == int(alone.code)
        assert_trees_close(own.value, alone.value, rtol=1e-5, atol=1e-6)
