"""Diagonal preconditioners, and dampings that are too small."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from asserts import assert_trees_close
from systems import SIZE, right_side, to_tree

from unlearn_jax.solvers.preconditioner import (
    check_damping,
    damping_code,
    diagonal_preconditioner,
    identity,
)
from unlearn_jax.solvers.solution import CONVERGED, DAMPING, REASONS

DIAGONAL = np.linspace(0, 3, SIZE)


@pytest.mark.parametrize("exponent", [1.0, 0.75])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_divides_by_the_damped_diagonal(exponent, dtype):
    @tiny.quick_jit
    def run(diagonal, vector):
        apply = diagonal_preconditioner(
            to_tree(diagonal), damping=0.5, exponent=exponent
        )
        return apply(to_tree(vector))

    vector = right_side(dtype=dtype)
    value = run(DIAGONAL.astype(dtype), vector)
    expected = (vector / (DIAGONAL + 0.5) ** exponent).astype(dtype)
    assert_trees_close(value, to_tree(expected), rtol=1e-5)


def test_identity_changes_nothing():
    vector = to_tree(right_side())
    assert identity(vector) is vector


@pytest.mark.parametrize("damping", [0.0, -0.1, np.nan])
def test_damping_that_leaves_an_entry_at_zero_is_refused(damping):
    with pytest.raises(ValueError, match=r"damping .* too small .* raise it"):
        diagonal_preconditioner(to_tree(DIAGONAL), damping=damping)


def test_no_damping_is_fine_for_a_positive_diagonal():
    apply = diagonal_preconditioner(to_tree(DIAGONAL + 1), damping=0.0)
    ones = apply(to_tree(DIAGONAL + 1))
    assert_trees_close(ones, to_tree(np.ones(SIZE)))


def test_other_structure_is_refused_by_naming_both():
    apply = diagonal_preconditioner(to_tree(DIAGONAL), damping=1.0)
    with pytest.raises(ValueError, match=r"\{'w': \*\}.*'bias'"):
        apply({"w": jnp.zeros(3)})


@pytest.mark.parametrize("damping", [0, 0.0, -1e-9, jnp.zeros(()), np.array([1, 0])])
def test_damping_of_zero_or_less_is_refused(damping):
    with pytest.raises(ValueError, match=r"damping .* too small for the Hessian"):
        check_damping(damping, "Hessian")


@pytest.mark.parametrize("damping", [np.nan, np.inf])
def test_damping_that_is_not_finite_is_refused(damping):
    with pytest.raises(ValueError, match="not finite"):
        check_damping(damping)


def test_positive_and_unknown_dampings_pass():
    check_damping(1e-8)

    @tiny.quick_jit
    def run(damping):
        check_damping(damping)
        return damping

    assert float(run(0.0)) == 0.0


def test_damping_below_rounding_is_told():
    wide, narrow = to_tree(right_side()), to_tree(right_side(dtype=np.float32))
    assert int(damping_code(1e-6, 100.0, narrow)) == DAMPING
    assert int(damping_code(1e-6, 100.0, wide)) == CONVERGED
    assert int(damping_code(1e-4, 100.0, narrow)) == CONVERGED
    assert "too small for the dtype" in REASONS[DAMPING]
    # The reason: beside 100, float32 does not see it.
    assert np.float32(100) + np.float32(1e-6) == np.float32(100)
