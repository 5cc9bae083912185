"""Conjugate gradients against dense solves, and what they say when they fail."""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
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
from unlearn_jax.curvature.operator import linear_operator
from unlearn_jax.solvers.conjugate_gradient import (
    block_conjugate_gradient,
    conjugate_gradient,
)
from unlearn_jax.solvers.preconditioner import diagonal_preconditioner, identity
from unlearn_jax.solvers.solution import (
    INDEFINITE,
    NOT_FINITE,
    OUT_OF_STEPS,
    PRECISION,
    PRECONDITIONER,
    acceptable,
    check_solution,
    reason,
)

SPREAD = np.geomspace(0.1, 10, SIZE)


def solve(matrix, rhs, **options):
    return conjugate_gradient(operator_with(matrix), to_tree(rhs), **options)


def solve_block(matrix, rhs, **options):
    return block_conjugate_gradient(operator_with(matrix), to_tree(rhs), **options)


@pytest.fixture(scope="module")
def compiled():
    return tiny.quick_jit(solve)


@pytest.fixture(scope="module")
def compiled_block():
    return tiny.quick_jit(solve_block)


def same_solution(actual, expected, rtol):
    assert_trees_close(actual.value, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 3e-5), (np.float32, 1e-4)])
def test_equals_dense_solve_and_tells_the_true_residual(dtype, rtol):
    matrix = matrix_with(SPREAD).astype(dtype)
    rhs = right_side(dtype=dtype)
    solution = tiny.quick_jit(solve)(matrix, rhs)
    # Of float32 no more can be asked: a product is rounded by about the tolerance.
    assert bool(acceptable(solution)), reason(solution)
    assert bool(solution.converged) or dtype == np.float32
    same_solution(solution, to_tree(np.linalg.solve(matrix, rhs)), rtol)
    true = true_residual(matrix, solution.value, rhs)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(float(solution.residual), true, atol=50 * eps)
    assert true < 2e-6
    assert check_solution(solution) is solution.value


def test_residual_is_true_where_it_did_not_converge():
    matrix, rhs = matrix_with(SPREAD), right_side()
    solution = tiny.quick_jit(lambda m, r: solve(m, r, max_steps=4))(matrix, rhs)
    assert int(solution.code) == OUT_OF_STEPS
    assert int(solution.steps) == 4
    assert "out of steps" in reason(solution)
    true = true_residual(matrix, solution.value, rhs)
    np.testing.assert_allclose(float(solution.residual), true, rtol=1e-10)
    with pytest.raises(ArithmeticError, match=r"out of steps.*step 4"):
        check_solution(solution)


def test_newton_step_on_a_quadratic_reaches_the_optimum():
    objective, data, optimum, hessian = problems.quadratic()

    @tiny.quick_jit
    def newton(params):
        def matvec(v):
            slope = lambda p: jax.grad(objective.risk)(p, data)  # noqa: E731
            return jax.jvp(slope, (params,), (v,))[1]

        slope = jax.grad(objective.risk)(params, data)
        solution = conjugate_gradient(linear_operator(matvec, params), slope, tol=1e-12)
        return tree.subtract(params, solution.value), solution

    params, solution = newton({"weight": jnp.array([[3.0], [-2.0], [0.5]])})
    assert_trees_close(params, optimum, rtol=1e-9)
    assert int(solution.steps) == len(hessian)


@pytest.mark.parametrize("distinct", [1, 3])
def test_takes_one_step_for_each_distinct_eigenvalue(compiled, distinct):
    values = np.resize([1.0, 2.0, 5.0][:distinct], SIZE)
    solution = compiled(matrix_with(values), right_side())
    assert bool(solution.converged)
    assert int(solution.steps) == distinct


def test_zero_has_the_answer_zero(compiled):
    solution = compiled(matrix_with(SPREAD), np.zeros(SIZE))
    assert_trees_close(solution.value, to_tree(np.zeros(SIZE)))
    assert bool(solution.converged)
    assert (int(solution.steps), float(solution.residual)) == (0, 0.0)


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_scale_of_the_right_side_does_not_matter(factor):
    # In float32 the square of either leaves the range of the dtype.
    matrix = matrix_with(SPREAD).astype(np.float32)
    rhs = right_side(dtype=np.float32)
    run = tiny.quick_jit(solve)
    plain, scaled = run(matrix, rhs), run(matrix, rhs * np.float32(factor))
    assert int(scaled.code) == int(plain.code)
    assert bool(acceptable(scaled)), reason(scaled)
    expected = tree.scale(factor, plain.value)
    assert_trees_close(scaled.value, expected, rtol=1e-4)


def test_starts_where_told():
    matrix, rhs = matrix_with(SPREAD), right_side()
    answer = np.linalg.solve(matrix, rhs)

    @tiny.quick_jit
    def run(matrix, rhs, start):
        return solve(matrix, rhs, start=to_tree(start))

    there = run(matrix, rhs, answer)
    assert int(there.steps) == 0
    assert bool(there.converged)
    off = run(matrix, rhs, answer + 1.0)
    assert int(off.steps) > 0
    same_solution(off, to_tree(answer), 3e-5)
    none = run(matrix, np.zeros(SIZE), answer)
    assert_trees_close(none.value, to_tree(np.zeros(SIZE)))


def test_preconditioner_saves_steps_and_keeps_the_answer(compiled):
    scales = np.geomspace(1, 1e3, SIZE)
    matrix = matrix_with(np.linspace(1, 2, SIZE)) * np.sqrt(np.outer(scales, scales))
    rhs = right_side()

    @tiny.quick_jit
    def preconditioned(matrix, rhs):
        diagonal = to_tree(jnp.diagonal(matrix))
        inverse = diagonal_preconditioner(diagonal, damping=0.0)
        return (
            solve(matrix, rhs, preconditioner=inverse, tol=1e-10),
            solve(matrix, rhs, preconditioner=identity),
        )

    helped, same = preconditioned(matrix, rhs)
    plain = compiled(matrix, rhs)
    assert int(same.steps) == int(plain.steps)
    assert int(helped.steps) <= SIZE < int(plain.steps)
    same_solution(helped, to_tree(np.linalg.solve(matrix, rhs)), 1e-6)


def test_negative_curvature_is_told_in_words(compiled):
    values = np.linspace(0.5, 2, SIZE)
    values[0] = -1.0
    solution = compiled(matrix_with(values), right_side())
    assert int(solution.code) == INDEFINITE
    assert not bool(solution.converged)
    assert "not positive definite" in reason(solution)
    assert f"(step {int(solution.steps)}," in reason(solution)
    assert bool(tree.all_finite(solution.value))


def test_iterate_before_the_negative_direction_is_returned():
    # b = e₁ + e₂, A = diag(3, -1): the first direction has b·Ab = 2, the next does not.
    operator = linear_operator(lambda v: jnp.array([3.0, -1.0]) * v, jnp.zeros(2))
    solution = conjugate_gradient(operator, jnp.ones(2))
    assert int(solution.steps) == 2
    np.testing.assert_allclose(solution.value, [1.0, 1.0], rtol=1e-14)
    np.testing.assert_allclose(solution.residual, np.sqrt(4.0), rtol=1e-12)


@pytest.mark.parametrize("step", [1, 3])
def test_product_that_is_not_finite_is_told_with_its_step(step):
    operator, rhs = chain(6, poisoned=step - 1)
    solution = tiny.quick_jit(lambda b: conjugate_gradient(operator, b))(rhs)
    assert int(solution.code) == NOT_FINITE
    assert int(solution.steps) == step
    assert bool(tree.all_finite(solution.value))
    assert "not finite" in reason(solution)
    assert f"step {step}" in reason(solution)


def test_right_side_that_is_not_finite_is_told(compiled):
    rhs = right_side()
    rhs[3] = np.inf
    solution = compiled(matrix_with(SPREAD), rhs)
    assert int(solution.code) == NOT_FINITE
    assert int(solution.steps) == 0


def test_rounding_above_the_tolerance_is_no_failure_and_no_claim():
    matrix = matrix_with(np.geomspace(1e-3, 10, SIZE)).astype(np.float32)
    rhs = right_side(dtype=np.float32)
    solution = tiny.quick_jit(lambda m, r: solve(m, r, tol=1e-9, max_steps=900))(
        matrix, rhs
    )
    assert int(solution.code) == PRECISION
    assert not bool(solution.converged)
    assert "as good as the dtype" in reason(solution)
    assert check_solution(solution) is solution.value
    assert 1e-9 < true_residual(matrix, solution.value, rhs) < 1e-3


def test_iterate_that_blew_up_is_taken_back():
    # Singular, and b outside of the range: curvatures are rounding, steps are huge.
    matrix = matrix_with(np.concatenate([np.zeros(4), np.linspace(1, 2, 8)]))
    solution = tiny.quick_jit(lambda m, r: solve(m, r, max_steps=300))(
        matrix, right_side()
    )
    assert int(solution.code) == INDEFINITE, reason(solution)
    assert float(solution.residual) <= 100
    assert float(jnp.max(jnp.abs(to_flat(solution.value)))) < 1e3


def test_bad_preconditioner_is_told():
    matrix, rhs = matrix_with(SPREAD), right_side()

    @tiny.quick_jit
    def run(matrix, rhs, sign):
        flip = lambda v: tree.scale(sign, v)  # noqa: E731
        block = jnp.stack([rhs, rhs[::-1]])
        return (
            solve(matrix, rhs, preconditioner=flip),
            solve_block(matrix, block, preconditioner=flip),
        )

    one, many = run(matrix, rhs, -1.0)
    assert int(one.code) == PRECONDITIONER
    assert "preconditioner" in reason(one)
    assert np.all(np.asarray(many.code) == PRECONDITIONER)


def test_other_structure_is_refused_by_naming_both():
    operator = operator_with(matrix_with(SPREAD))
    with pytest.raises(ValueError, match=r"right-hand side.*\{'w': \*\}.*'bias'"):
        conjugate_gradient(operator, {"w": jnp.zeros(3)})
    with pytest.raises(ValueError, match=r"start.*float32"):
        conjugate_gradient(
            operator,
            to_tree(right_side()),
            start=to_tree(right_side(dtype=np.float32)),
        )
    with pytest.raises(ValueError, match="right-hand side"):
        block_conjugate_gradient(operator, to_tree(right_side()))


def test_vmap_over_right_sides_and_matrices_equals_one_by_one(compiled):
    matrices = np.stack([matrix_with(SPREAD), matrix_with(np.linspace(1, 2, SIZE), 5)])
    negative = matrix_with(np.linspace(-1, 2, SIZE))
    matrices = np.stack([*matrices, negative, matrices[0]])
    rhs = np.stack([right_side(), right_side(2), right_side(3), np.zeros(SIZE)])
    together = tiny.quick_jit(jax.vmap(solve))(matrices, rhs)
    for i in range(len(rhs)):
        alone = compiled(matrices[i], rhs[i])
        own = tree.member(together, i)
        assert int(own.steps) == int(alone.steps)
        assert int(own.code) == int(alone.code)
        assert_trees_close(own.value, alone.value, rtol=1e-6, atol=1e-8)


def test_a_hundred_thousand_unknowns_in_float32():
    rhs = jnp.asarray(right_side(count=100_000, dtype=np.float32))

    @tiny.quick_jit
    def run(rhs):
        return conjugate_gradient(linear_operator(lambda v: 2 * v, rhs), rhs)

    solution = run(rhs)
    assert bool(solution.converged), reason(solution)
    assert int(solution.steps) == 1
    assert_trees_close(solution.value, rhs / 2, rtol=1e-6)


# Several right-hand sides.


def columns(count=3, size=SIZE, dtype=np.float64):
    return np.random.default_rng(4).normal(size=(count, size)).astype(dtype)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 3e-5), (np.float32, 2e-4)])
def test_block_equals_dense_solve_for_every_column(dtype, rtol):
    matrix, rhs = matrix_with(SPREAD).astype(dtype), columns(dtype=dtype)
    solution = tiny.quick_jit(solve_block)(matrix, rhs)
    assert solution.residual.shape == solution.steps.shape == (3,)
    assert bool(jnp.all(acceptable(solution))), solution.code
    assert bool(jnp.all(solution.converged)) or dtype == np.float32
    check_solution(solution)
    expected = np.linalg.solve(matrix, rhs.T).T
    assert_trees_close(solution.value, to_tree(expected), rtol=rtol, atol=rtol)
    for i in range(3):
        true = true_residual(matrix, tree.member(solution.value, i), rhs[i])
        eps = np.finfo(dtype).eps
        np.testing.assert_allclose(float(solution.residual[i]), true, atol=50 * eps)


def test_block_needs_fewer_products_on_a_clustered_spectrum():
    cluster = np.linspace(1, 1.5, 36)
    matrix = matrix_with(np.concatenate([[1e-3, 2e-3, 5e-3, 1e-2], cluster]))
    rhs = columns(4, 40)
    together = tiny.quick_jit(solve_block)(matrix, rhs)
    alone = tiny.quick_jit(jax.vmap(solve, (None, 0)))(matrix, rhs)
    assert bool(jnp.all(together.converged & alone.converged))
    assert int(jnp.max(together.steps)) < 0.75 * int(jnp.min(alone.steps))


def test_block_of_one_walks_like_one():
    @tiny.quick_jit
    def both(matrix, rhs):
        few = {"max_steps": 6}
        return solve_block(matrix, rhs[None], **few), solve(matrix, rhs, **few)

    block, alone = both(matrix_with(SPREAD), right_side())
    assert int(block.steps[0]) == int(alone.steps) == 6
    assert_trees_close(tree.member(block.value, 0), alone.value, rtol=1e-9)


def test_dependent_and_zero_columns_do_no_harm():
    matrix, rhs = matrix_with(SPREAD), columns(6)
    rhs[1], rhs[3], rhs[4] = 2 * rhs[0], 0, rhs[0] - 1e-9 * rhs[2]
    rhs[5] *= 1e-12
    solution = tiny.quick_jit(solve_block)(matrix, rhs)
    assert bool(jnp.all(solution.converged)), solution
    assert int(solution.steps[3]) == 0
    for i in (0, 1, 2, 4, 5):
        assert true_residual(matrix, tree.member(solution.value, i), rhs[i]) < 2e-6
    assert not np.any(to_flat(solution.value)[3])


def test_more_columns_than_unknowns():
    matrix = matrix_with(np.geomspace(1, 100, 6))
    rhs = columns(9, 6)
    solution = tiny.quick_jit(solve_block)(matrix, rhs)
    assert bool(jnp.all(solution.converged))
    assert int(jnp.max(solution.steps)) == 1
    expected = np.linalg.solve(matrix, rhs.T).T
    np.testing.assert_allclose(to_flat(solution.value), expected, rtol=1e-6, atol=1e-8)


def test_block_with_a_preconditioner():
    scales = np.geomspace(1, 1e3, SIZE)
    matrix = matrix_with(np.linspace(1, 2, SIZE)) * np.sqrt(np.outer(scales, scales))
    rhs = columns()
    rhs[2] = rhs[0] + rhs[1]

    @tiny.quick_jit
    def run(matrix, rhs):
        inverse = diagonal_preconditioner(to_tree(jnp.diagonal(matrix)), damping=0.0)
        return solve_block(matrix, rhs, preconditioner=inverse, tol=1e-10)

    solution = run(matrix, rhs)
    assert bool(jnp.all(solution.converged))
    assert int(jnp.max(solution.steps)) <= SIZE // 2 + 1
    expected = to_tree(np.linalg.solve(matrix, rhs.T).T)
    assert_trees_close(solution.value, expected, rtol=1e-6, atol=1e-9)


def test_block_tells_why_it_ended(compiled_block):
    values = np.linspace(-1, 2, SIZE)
    negative = compiled_block(matrix_with(values), columns())
    assert np.all(np.asarray(negative.code) == INDEFINITE)
    assert bool(tree.all_finite(negative.value))
    few = tiny.quick_jit(lambda m, r: solve_block(m, r, max_steps=2))
    late = few(matrix_with(SPREAD), columns())
    assert np.all(np.asarray(late.code) == OUT_OF_STEPS)
    assert np.all(np.asarray(late.steps) == 2)
    operator, first = chain(6, poisoned=2)
    broken = tiny.quick_jit(lambda b: block_conjugate_gradient(operator, b))(
        jnp.stack([first, jnp.roll(first, 5)])
    )
    assert int(broken.code[0]) == NOT_FINITE
    assert int(broken.steps[0]) == 3
