"""Woodbury and WoodFisher against dense inverses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from systems import SIZE, right_side, to_flat, to_tree

from unlearn_jax.solvers.woodbury import (
    woodbury,
    woodbury_apply,
    woodfisher,
    woodfisher_recursion,
)

ROWS = np.random.default_rng(3).normal(size=(5, SIZE))
DIAGONAL = np.linspace(0.5, 2, SIZE)


@tiny.quick_jit
def inverse_product(diagonal, rows, scale, vector):
    state = woodbury(to_tree(diagonal), to_tree(rows), scale)
    return to_flat(woodbury_apply(state, to_tree(vector))), state.definite


def fisher_product(build):
    def run(rows, damping, weights, vector):
        state = build(to_tree(rows), damping=damping, weights=weights)
        return to_flat(woodbury_apply(state, to_tree(vector)))

    return tiny.quick_jit(run)


FORMS = {
    "gram": fisher_product(woodfisher),
    "recursion": fisher_product(woodfisher_recursion),
}


def dense_fisher(rows, damping, weights):
    shares = np.asarray(weights) / np.sum(weights)
    return damping * np.eye(rows.shape[1]) + rows.T @ (shares[:, None] * rows)


@pytest.mark.parametrize(
    "scale", [[1.0, 2.0, 0.5, 3.0, 1.0], [1.0, 0.0, -0.01, 2.0, -0.02]]
)
def test_equals_dense_solve_for_any_signs(scale):
    value, definite = inverse_product(DIAGONAL, ROWS, np.array(scale), right_side())
    matrix = np.diag(DIAGONAL) + ROWS.T @ np.diag(scale) @ ROWS
    assert np.linalg.eigvalsh(matrix).min() > 0
    assert bool(definite)
    np.testing.assert_allclose(value, np.linalg.solve(matrix, right_side()), rtol=1e-10)


def test_rows_taken_away_undo_rows_added():
    rows = np.concatenate([ROWS, ROWS[1:3]])
    scale = np.array([1.0, 1, 1, 1, 1, -1, -1])
    value, definite = inverse_product(DIAGONAL, rows, scale, right_side())
    kept = ROWS[[0, 3, 4]]
    expected = np.linalg.solve(np.diag(DIAGONAL) + kept.T @ kept, right_side())
    assert bool(definite)
    np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_rows_that_were_never_in_are_told():
    _, definite = inverse_product(DIAGONAL, ROWS, np.full(5, -1.0), right_side())
    matrix = np.diag(DIAGONAL) - ROWS.T @ ROWS
    assert np.linalg.eigvalsh(matrix).min() < 0
    assert not bool(definite)


def test_rows_of_scale_zero_may_hold_anything():
    rows, scale = ROWS.copy(), np.array([1.0, 0.0, 2.0, 0.0, 1.0])
    expected, _ = inverse_product(DIAGONAL, rows, scale, right_side())
    rows[[1, 3]] = np.nan
    value, definite = inverse_product(DIAGONAL, rows, scale, right_side())
    assert bool(definite)
    np.testing.assert_array_equal(value, expected)


def test_one_number_is_a_multiple_of_the_identity():
    state = woodbury(0.7, to_tree(ROWS))
    value = to_flat(woodbury_apply(state, to_tree(right_side())))
    matrix = 0.7 * np.eye(SIZE) + ROWS.T @ ROWS
    np.testing.assert_allclose(value, np.linalg.solve(matrix, right_side()), rtol=1e-10)


def test_what_cannot_be_inverted_is_refused():
    rows = to_tree(ROWS)
    with pytest.raises(ValueError, match=r"damping 0.* too small.*raise it"):
        woodbury(0.0, rows)
    with pytest.raises(ValueError, match=r"holds 0, expected positive"):
        woodbury(to_tree(np.arange(SIZE, dtype=float)), rows)
    with pytest.raises(ValueError, match=r"diagonal has the structure"):
        woodbury({"w": jnp.ones(3)}, rows)
    for build in (woodfisher, woodfisher_recursion):
        with pytest.raises(ValueError, match="damping -1"):
            build(rows, damping=-1.0)
    with pytest.raises(ValueError, match="vector has the structure"):
        woodbury_apply(woodbury(1.0, rows), {"w": jnp.ones(3)})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-9), (np.float32, 1e-3)])
def test_woodfisher_equals_the_dense_inverse(form, dtype, rtol):
    weights = np.array([1.0, 0.5, 2.0, 1.0, 3.0])
    value = FORMS[form](ROWS.astype(dtype), 0.1, weights, right_side(dtype=dtype))
    assert value.dtype == dtype
    expected = np.linalg.solve(dense_fisher(ROWS, 0.1, weights), right_side())
    np.testing.assert_allclose(value, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("form", FORMS)
def test_woodfisher_leaves_out_rows_of_weight_zero(form):
    weights = np.array([1.0, 0.0, 2.0, 1.0, 0.0])
    rows = np.where(weights[:, None] > 0, ROWS, np.nan)
    value = FORMS[form](rows, 0.1, weights, right_side())
    expected = np.linalg.solve(dense_fisher(ROWS, 0.1, weights), right_side())
    np.testing.assert_allclose(value, expected, rtol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_woodfisher_without_any_weight_is_the_damping_alone(form):
    value = FORMS[form](ROWS, 0.1, np.zeros(5), right_side())
    np.testing.assert_allclose(value, right_side() / 0.1, rtol=1e-12)


def test_one_rescaled_vector_is_not_the_inverse():
    # The scheme of a published code: u starts at the first gradient; every further
    # gradient g takes (v·g) / (n + u·g) u from the answer and rescales u.
    count, vector = len(ROWS), right_side()
    answer, u = vector.copy(), ROWS[0].copy()
    for row in ROWS[1:]:
        share = u @ row / (count + u @ row)
        answer -= answer @ row / (count + u @ row) * u
        u -= share * u
    exact = np.linalg.solve(dense_fisher(ROWS, 1.0, np.ones(count)), vector)
    ours = FORMS["recursion"](ROWS, 1.0, np.ones(count), vector)
    np.testing.assert_allclose(ours, exact, rtol=1e-10)
    correction, first = answer - vector, ROWS[0] / np.linalg.norm(ROWS[0])
    np.testing.assert_allclose(correction, (correction @ first) * first, atol=1e-12)
    # Best multiple of its answer, so that no choice of scale could excuse it.
    best = answer * (answer @ exact) / (answer @ answer)
    assert np.linalg.norm(best - exact) > 0.2 * np.linalg.norm(exact)


def test_vmap_over_dampings_equals_one_by_one():
    dampings, weights = np.array([0.1, 1.0, 5.0]), np.ones(5)
    for run in FORMS.values():
        together = jax.vmap(run, (None, 0, None, None))(
            ROWS, dampings, weights, right_side()
        )
        for i, damping in enumerate(dampings):
            alone = run(ROWS, damping, weights, right_side())
            np.testing.assert_allclose(together[i], alone, rtol=1e-9)
