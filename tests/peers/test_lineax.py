"""The problems of lineax's tests: linear systems of every kind, and their derivatives.

Where lineax has a solver for matrices that are not symmetric, the normal equations are
solved here; derivatives are compared with those of the dense solve.
"""

import jax
import jax.numpy as jnp
import numpy as np
from posed import Table
from small_systems import (
    SIZE,
    SPREAD,
    TIGHT,
    answer,
    close,
    definite,
    least_squares,
    normal,
    quick,
    solved,
)

from unlearn_jax import tree
from unlearn_jax.curvature.operator import (
    linear_operator,
)
from unlearn_jax.solvers.conjugate_gradient import (
    conjugate_gradient,
)
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.solution import (
    INCONSISTENT,
    INDEFINITE,
    OUT_OF_STEPS,
    PRECISION,
    STAGNATED,
    check_solution,
    reason,
)

TABLE = Table(
    "lineax",
    {
        "tests/test_singular.py::test_bicgstab_breakdown": "no solver for matrices "
        "that are not symmetric: curvature matrices are",
        "tests/test_singular.py::test_gmres_stagnation_or_breakdown": "as above",
        "tests/test_solve.py::test_gmres_large_dense": "as above",
        "tests/test_operator.py::test_is_lower_triangular": "operators carry no tags "
        "of structure",
        "tests/test_solve.py::test_mixed_dtypes_triangular": "no triangular solver",
        "tests/test_misc.py::test_inexact_asarray_no_copy": "tests a private function",
    },
)
poses = TABLE.poses


def small(solver, dtype, sign):
    matrix, truth = sign * definite(0, dtype=dtype), normal(1, SIZE, dtype=dtype)
    if sign < 0 and solver is conjugate_gradient:
        found = answer(matrix, matrix @ truth)
        assert int(found.code) == INDEFINITE, reason(found)
        close(check_solution(answer(-matrix, -(matrix @ truth))), truth)
    else:
        close(check_solution(answer(matrix, matrix @ truth, solver)), truth)


WELL = "tests/test_well_posed.py::test_small_wellposed"
for _solver, _word in ((conjugate_gradient, "CG"), (minres, "MINRES")):
    TABLE.add(f"definite, {_word}", WELL, small, _solver, np.float64, 1)
    TABLE.add(f"negative definite, {_word}", WELL, small, _solver, np.float64, -1)
    TABLE.add(f"Hermitian, {_word}", WELL, small, _solver, np.complex128, 1)


@poses("not symmetric, by the normal equations", WELL)
def _():
    matrix, truth = normal(3, SIZE, SIZE), normal(4, SIZE)
    close(least_squares(matrix, matrix @ truth), truth, 1e-6)


@poses("a Jacobian that is never formed", WELL)
def _():
    def potential(x):
        return jnp.sum(jnp.exp(x)) + jnp.sum(x) ** 2

    at, truth = normal(5, 4), normal(6, 4)
    operator = linear_operator(
        lambda v: jax.jvp(jax.grad(potential), (at,), (v,))[1], at
    )
    close(solved(operator, operator(truth)), truth)


def tree_posed(dtype):
    truth = [normal(0, 2, 4, dtype=dtype), normal(1, 3, dtype=dtype)]
    flat, unflatten = jax.flatten_util.ravel_pytree(truth)
    matrix = definite(2, flat.size, dtype)
    operator = linear_operator(
        lambda v: unflatten(matrix @ jax.flatten_util.ravel_pytree(v)[0]), truth
    )
    close(solved(operator, operator(truth)), truth)


TREES = "tests/test_well_posed.py::test_pytree_wellposed"
TABLE.add("a tree of two arrays", TREES, tree_posed, np.float64)
TABLE.add("a tree of two complex arrays", TREES, tree_posed, np.complex128)


def singular(size=4, seed=7):
    matrix = normal(seed, size, size - 1)
    return matrix @ matrix.T


@poses("singular, the shortest solution", "tests/test_singular.py::test_small_singular")
def _():
    matrix = singular()
    rhs = matrix @ normal(8, 4)
    expected = jnp.linalg.pinv(matrix, hermitian=True) @ rhs
    close(check_solution(answer(matrix, rhs, minres)), expected)


SINGULAR = "tests/test_singular.py::test_iterative_singular"


@poses("singular and inconsistent, CG does not claim to converge", SINGULAR)
def _():
    assert not answer(singular(), normal(9, 4)).converged


@poses("singular and inconsistent, MINRES says so", SINGULAR)
def _():
    matrix, rhs = singular(), normal(9, 4)
    found = answer(matrix, rhs, minres)
    assert int(found.code) == INCONSISTENT, reason(found)
    least = rhs - matrix @ (jnp.linalg.pinv(matrix, hermitian=True) @ rhs)
    np.testing.assert_allclose(
        found.residual, tree.norm(least) / tree.norm(rhs), rtol=1e-8
    )


@poses("the zero matrix", "tests/test_misc.py::test_zero_matrix")
def _():
    found = answer(jnp.zeros((SIZE, SIZE)), normal(9, SIZE), minres)
    assert int(found.code) == INCONSISTENT, reason(found)
    close(found.value, jnp.zeros(SIZE), 0)


def rectangular(rows, columns, full):
    matrix = normal(10, rows, columns)
    return matrix if full else matrix.at[1:, 1:].set(0)


def nonsquare(rows, columns, full):
    matrix, rhs = rectangular(rows, columns, full), normal(11, rows)
    expected = jnp.linalg.lstsq(matrix, rhs)[0]
    close(least_squares(matrix, rhs), expected, 1e-6)


NONSQUARE = "tests/test_singular.py::test_nonsquare_vec"
for _rows, _columns, _word in ((3, SIZE, "wide"), (6, SIZE, "tall")):
    for _full, _rank in ((True, "full"), (False, "low")):
        TABLE.add(
            f"{_word}, {_rank} rank", NONSQUARE, nonsquare, _rows, _columns, _full
        )


@poses(
    "tall, derivative by matrix and right side",
    "tests/test_singular.py::test_nonsquare_mat_vec",
)
def _():
    point = rectangular(6, SIZE, True), normal(11, 6)
    change = normal(12, 6, SIZE), normal(13, 6)

    def exact(matrix, rhs):
        return jnp.linalg.solve(matrix.T @ matrix, matrix.T @ rhs)

    def cg(matrix, rhs):
        gram = linear_operator(lambda v: matrix.T @ (matrix @ v), matrix[0])
        return conjugate_gradient(gram, matrix.T @ rhs, tol=1e-13).value

    got = quick(lambda p, t: jax.jvp(cg, p, t))(point, change)
    close(got, jax.jvp(exact, point, change))


def tree_rectangular(matrix, rhs):
    """Rows and columns as lists of scalars."""
    like = [jnp.zeros(()) for _ in range(matrix.shape[1])]

    def product(vector):
        flat = jnp.stack(vector)
        return list(matrix.T @ (matrix @ flat))

    operator = linear_operator(product, like)
    found = quick(lambda b: minres(operator, b, tol=1e-13))(list(matrix.T @ rhs))
    close(jnp.stack(found.value), jnp.linalg.lstsq(matrix, rhs)[0], 1e-6)


_WIDE = jnp.asarray([[1.0, 5.0, -1.0], [-2.0, -2.0, 3.0]])
TABLE.add(
    "a wide tree of scalars",
    "tests/test_singular.py::test_nonsquare_pytree_operator1",
    *(tree_rectangular, _WIDE, jnp.asarray([3.0, 4.0])),
)
TABLE.add(
    "a tall tree of scalars",
    "tests/test_singular.py::test_nonsquare_pytree_operator2",
    *(tree_rectangular, _WIDE.T, jnp.asarray([3.0, 4.0, 5.0])),
    slow=True,
)

ILL = jnp.diag(jnp.asarray([1e8, 1e5, 1e2, 1.0]))


@poses("eight powers of ten apart", "tests/test_lsmr.py::test_ill_conditioned")
def _():
    found = answer(ILL, jnp.ones(SIZE))
    true = np.linalg.norm(np.asarray(ILL) @ found.value - 1) / np.sqrt(SIZE)
    if found.converged:
        assert true <= 1.2 * TIGHT
    else:
        # No solver can show more in this dtype: ε ‖A‖ ‖x‖ is above the tolerance.
        assert int(found.code) in (PRECISION, OUT_OF_STEPS, STAGNATED), reason(found)
        assert true <= 100 * np.finfo(np.float64).eps * 1e8


@poses("a right side of zeros", "tests/test_lsmr.py::test_zero_rhs")
def _():
    gap = jnp.diag(SPREAD.at[0].set(0))
    for matrix in (ILL, jnp.diag(SPREAD), gap):
        for solver in (conjugate_gradient, minres):
            found = check_solution(answer(matrix, jnp.zeros(SIZE), solver))
            close(found, jnp.zeros(SIZE), 0)
    found = answer(gap, jnp.eye(SIZE)[0], minres)
    assert int(found.code) == INCONSISTENT
    close(found.value, jnp.zeros(SIZE), 0)


@poses("damping saves steps", "tests/test_lsmr.py::test_damp_regularizes")
def _():
    plain, easy = (
        answer(ILL + d * jnp.eye(SIZE), jnp.ones(SIZE)).steps for d in (0.0, 1e8)
    )
    assert plain > easy


@poses("damped least squares", "tests/test_lsmr.py::test_damp")
def _():
    for root in (1.0, 1000.0):
        matrix = jnp.diag(SPREAD**2) + root**2 * jnp.eye(SIZE)
        expected = SPREAD / (SPREAD**2 + root**2)
        close(check_solution(answer(matrix, SPREAD)), expected, 1e-11)


@TABLE.cases()
def test_lineax(problem):
    problem.check()


def test_sources():
    TABLE.check_sources()
