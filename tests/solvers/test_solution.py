"""What a solve says about its end, and who may use its value."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from systems import operator_with, right_side, to_tree

from unlearn_jax.solvers.conjugate_gradient import (
    block_conjugate_gradient,
    conjugate_gradient,
)
from unlearn_jax.solvers.solution import (
    CONVERGED,
    DIRECT,
    INDEFINITE,
    PRECISION,
    REASONS,
    Solution,
    acceptable,
    check_solution,
)


@tiny.quick_jit
def both(matrix, rhs):
    operator = operator_with(matrix)
    rows = to_tree(jnp.stack([rhs, rhs[::-1]]))
    return (
        conjugate_gradient(operator, to_tree(rhs)),
        block_conjugate_gradient(operator, rows),
    )


@pytest.mark.parametrize("seed", range(3))
def test_singular_matrix_is_not_called_a_broken_product(seed):
    matrix = np.random.default_rng(seed).normal(size=(4, 4))
    matrix[0] = 0
    one, block = both(matrix @ matrix.T, right_side(20 + seed, 4))
    assert [int(code) for code in (one.code, *block.code)] == 3 * [INDEFINITE]
    with pytest.raises(ArithmeticError, match="not positive definite"):
        check_solution(block)


def test_three_ends_are_acceptable_and_one_is_a_claim():
    codes = jnp.arange(len(REASONS))
    zeros = jnp.zeros(len(codes))
    solution = Solution(zeros, zeros, codes, codes == CONVERGED, codes)
    good = np.flatnonzero(acceptable(solution))
    assert set(good.tolist()) == {CONVERGED, DIRECT, PRECISION}
    with pytest.raises(ArithmeticError, match=r"out of steps.*step 1,"):
        check_solution(solution)
