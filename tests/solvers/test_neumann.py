"""The Neumann series against its closed form, and when it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
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
from unlearn_jax.solvers.neumann import lissa, neumann
from unlearn_jax.solvers.solution import (
    DIVERGED,
    INDEFINITE,
    NOT_FINITE,
    OUT_OF_STEPS,
    STEP_SIZE,
    reason,
)

SPREAD = np.linspace(0.5, 4, SIZE)


def solve(matrix, rhs, step_size=None, **options):
    return neumann(operator_with(matrix), to_tree(rhs), step_size=step_size, **options)


@pytest.fixture(scope="module")
def compiled():
    return tiny.quick_jit(solve)


def series(matrix, rhs, step_size, steps):
    """(I − (I − s A)^steps) A⁻¹ b."""
    identity = np.eye(len(rhs))
    left = np.linalg.matrix_power(identity - step_size * matrix, steps)
    return (identity - left) @ np.linalg.solve(matrix, rhs)


def test_is_the_truncated_series():
    matrix, rhs = matrix_with(SPREAD), right_side()
    run = tiny.quick_jit(lambda m, r: solve(m, r, 0.3, max_steps=9))
    solution = run(matrix, rhs)
    expected = to_tree(series(matrix, rhs, 0.3, 9))
    assert_trees_close(solution.value, expected, rtol=1e-9)
    assert int(solution.code) == OUT_OF_STEPS
    assert int(solution.steps) == 9
    true = true_residual(matrix, solution.value, rhs)
    np.testing.assert_allclose(float(solution.residual), true, rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("drawn", [False, True])
def test_finds_a_step_size_that_converges(dtype, drawn):
    matrix, rhs = matrix_with(SPREAD).astype(dtype), right_side(dtype=dtype)
    key = jax.random.key(3) if drawn else None
    run = tiny.quick_jit(lambda m, r: solve(m, r, max_steps=400, tol=1e-5, key=key))
    solution = run(matrix, rhs)
    assert bool(solution.converged), reason(solution)
    expected = to_tree(np.linalg.solve(matrix, rhs))
    assert_trees_close(solution.value, expected, rtol=1e-3, atol=1e-4)


def test_step_size_at_two_over_the_largest_eigenvalue_is_refused():
    matrix, rhs = matrix_with(SPREAD), right_side()
    run = tiny.quick_jit(
        lambda m, r, s, x: solve(m, r, s, start=to_tree(x), max_steps=2000)
    )
    start = right_side(8)
    limit = 2 / SPREAD[-1]
    refused = run(matrix, rhs, 1.02 * limit, start)
    assert int(refused.code) == STEP_SIZE
    assert int(refused.steps) == 0
    assert "step size too large" in reason(refused)
    assert_trees_close(refused.value, to_tree(start))
    true = true_residual(matrix, to_tree(start), rhs)
    np.testing.assert_allclose(float(refused.residual), true, rtol=1e-10)
    accepted = run(matrix, rhs, 0.98 * limit, start)
    assert bool(accepted.converged), reason(accepted)


def test_step_size_that_the_check_missed_shows_as_divergence():
    # One Lanczos step sees v·Av only, far below the largest eigenvalue.
    matrix, rhs = matrix_with(SPREAD), right_side()
    run = tiny.quick_jit(lambda m, r: solve(m, r, 0.6, spectrum_steps=1, max_steps=999))
    solution = run(matrix, rhs)
    assert int(solution.code) == DIVERGED
    assert "diverged" in reason(solution)
    assert float(solution.residual) < 1.0  # the iterate before the growth


def test_negative_eigenvalue_is_told(compiled):
    values = SPREAD.copy()
    values[0] = -0.5
    solution = compiled(matrix_with(values), right_side())
    assert int(solution.code) == INDEFINITE


@pytest.mark.parametrize("step", [1, 4])
def test_product_that_is_not_finite_is_told_with_its_step(step):
    operator, rhs = chain(6, poisoned=step - 1)
    run = tiny.quick_jit(lambda b: neumann(operator, b, step_size=0.1))
    solution = run(rhs)
    assert int(solution.code) == NOT_FINITE
    assert int(solution.steps) == step
    assert bool(tree.all_finite(solution.value))


def test_zero_has_the_answer_zero(compiled):
    solution = compiled(matrix_with(SPREAD), np.zeros(SIZE))
    assert_trees_close(solution.value, to_tree(np.zeros(SIZE)))
    assert bool(solution.converged)
    assert (int(solution.steps), float(solution.residual)) == (0, 0.0)


def test_bad_arguments_are_refused():
    operator = operator_with(matrix_with(SPREAD))
    with pytest.raises(ValueError, match="step_size is 0"):
        neumann(operator, to_tree(right_side()), step_size=0)
    with pytest.raises(ValueError, match=r"right-hand side.*\{'w': \*\}.*'bias'"):
        neumann(operator, {"w": jnp.zeros(3)})
    with pytest.raises(ValueError, match="1 samples"):
        lissa(jax.random.key(0), lambda _: operator, to_tree(right_side()), samples=1)


def test_vmap_over_right_sides_and_step_sizes_equals_one_by_one(compiled):
    matrix, rhs = matrix_with(SPREAD), np.stack([right_side(i) for i in range(3)])
    rates = np.array([0.2, 0.45, 0.6])
    run = tiny.quick_jit(jax.vmap(solve, (None, 0, 0)))
    together = run(matrix, rhs, rates)
    assert int(together.code[2]) == STEP_SIZE
    for i, rate in enumerate(rates):
        alone, own = compiled(matrix, rhs[i], rate), tree.member(together, i)
        assert int(own.code) == int(alone.code)
        assert int(own.steps) == int(alone.steps)
        assert_trees_close(own.value, alone.value, rtol=1e-9)


# Minibatches.


def factors(examples=30, seed=6):
    return np.random.default_rng(seed).normal(size=(examples, 4))


@pytest.fixture(scope="module")
def minibatch():
    """LiSSA on δ I + mean of x xᵀ over drawn rows; samples and steps are fixed."""
    compiled = {}

    def run(key, rows, rhs, samples, steps):
        def call(key, rows, rhs):
            def operator_of(key):
                part = rows[jax.random.randint(key, (8,), 0, len(rows))]
                return linear_operator(
                    lambda v: 0.5 * v + part.T @ (part @ v) / len(part), rhs
                )

            return lissa(
                key, operator_of, rhs, step_size=0.1, steps=steps, samples=samples
            )

        program = compiled.setdefault((samples, steps), tiny.quick_jit(call))
        return program(key, rows, rhs)

    return run


def test_lissa_mean_is_the_truncated_series(minibatch, key):
    rows, rhs = factors(), right_side(count=4)
    matrix = 0.5 * np.eye(4) + rows.T @ rows / len(rows)
    estimate = minibatch(key, rows, rhs, 400, 20)
    expected = series(matrix, rhs, 0.1, 20)
    error = np.asarray(estimate.stderr)
    assert np.all(np.abs(estimate.value - expected) < 4 * error)
    assert np.all(error < 0.1 * np.linalg.norm(expected))


def test_lissa_standard_error_is_that_of_the_mean(minibatch):
    rows, rhs = factors(), right_side(count=4)
    keys = jax.random.split(jax.random.key(1), 40)
    runs = [minibatch(k, rows, rhs, 25, 20) for k in keys]
    scatter = np.std([r.value for r in runs], axis=0, ddof=1)
    claimed = np.sqrt(np.mean([np.square(r.stderr) for r in runs], axis=0))
    # A scatter of 40 values is known to 1 / sqrt(78) of itself.
    assert np.all(np.abs(scatter / claimed - 1) < 4 / np.sqrt(78))


def test_lissa_with_full_batches_is_the_series_without_error(key):
    matrix, rhs = matrix_with(SPREAD), right_side()

    @tiny.quick_jit
    def run(key, matrix, rhs):
        return lissa(
            key,
            lambda _: operator_with(matrix),
            to_tree(rhs),
            step_size=0.3,
            steps=9,
            samples=2,
        )

    estimate = run(key, matrix, rhs)
    np.testing.assert_allclose(
        to_flat(estimate.value), series(matrix, rhs, 0.3, 9), rtol=1e-9
    )
    assert float(tree.norm(estimate.stderr)) == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("steps", [2, 7, 100])
def test_lissa_that_diverges_says_so(key, steps, dtype):
    @tiny.quick_jit
    def run(key, values):
        def one(value):
            operator = linear_operator(lambda v: value * v, jnp.zeros(1, dtype))
            return lissa(
                key, lambda _: operator, jnp.ones(1, dtype), steps=steps, samples=3
            )

        return jax.vmap(one)(values)

    # The step size is 1: from an eigenvalue of 2 on, and below 0, there is no limit.
    wrong = np.array([2.0, 2.01, 2.1, 3.0, 50.0, 1e20, -0.1], dtype)
    right = np.array([1e-3, 0.5, 1.0, 1.9, 1.999], dtype)
    found = run(key, np.concatenate([wrong, right]))
    bad = np.arange(len(wrong) + len(right)) < len(wrong)
    assert np.array_equal(np.isnan(found.value[:, 0]), bad)
    assert np.array_equal(np.isinf(found.stderr[:, 0]), bad)
    expected = (1 - (1 - np.asarray(right, float)) ** steps) / right
    np.testing.assert_allclose(found.value[~bad, 0], expected, rtol=1e-4)
    assert not np.any(found.stderr[~bad])


def test_lissa_of_minibatches_that_diverge_is_no_answer_without_doubt(minibatch, key):
    rows, rhs = 6 * factors(), right_side(count=4)
    found = minibatch(key, rows, rhs, 25, 20)
    size = np.linalg.norm(np.linalg.solve(0.5 * np.eye(4) + rows.T @ rows / 30, rhs))
    assert np.all(np.isnan(found.value) | (np.asarray(found.stderr) > size))


def test_lissa_of_zero_is_zero(key):
    operator = operator_with(matrix_with(SPREAD))
    found = lissa(key, lambda _: operator, to_tree(np.zeros(SIZE)), samples=2, steps=3)
    assert not np.any(to_flat(found.value))
