"""Float32: no claim that float64 denies, no right answer called a failure, and no
regular matrix called indefinite or singular."""

import numpy as np
import pytest

from benchmarks.solvers import CONDITIONS, SOLVERS, census

NEUMANN = 4000
"""Steps; a Neumann series needs some ten times the condition number."""
SERVED = {"Neumann": 1e2, "CG": 1e5, "block CG": 1e5}
"""Condition numbers up to which every right-hand side is solved; others 1e4."""


def check(name, conditions, seeds):
    found = census(name, conditions, seeds, max_steps=NEUMANN)
    for condition, one in zip(conditions, found, strict=True):
        total = seeds * SOLVERS[name].columns
        assert one.false_claims == 0, (condition, one)
        assert one.false_alarms == 0, (condition, one)
        assert one.misjudged == 0, (condition, one)
        if condition <= SERVED.get(name, 1e4):
            assert one.converged + one.precise == total, (condition, one)
            assert one.residual < max(1e-6, 5 * one.lapack), (condition, one)


@pytest.mark.parametrize("name", list(SOLVERS))
def test_some_conditions(name):
    check(name, (1e2, 1e5, 1e6), 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SOLVERS))
def test_all_conditions(name):
    check(name, CONDITIONS, 50)


def test_minres_serves_what_its_square_would_lose():
    (found,) = census("MINRES, indefinite", (1e5,), 12, tol=1e-2)
    assert found.converged == 12
    assert found.residual < 1e-2


def test_eigenvalues_are_what_was_asked_for():
    from benchmarks.solvers import system

    matrix, rhs = system(1e3, True, 2, 0)
    values = np.abs(np.linalg.eigvalsh(matrix.astype(np.float64)))
    np.testing.assert_allclose(values.max() / values.min(), 1e3, rtol=1e-3)
    assert rhs.shape == (2, len(matrix))
