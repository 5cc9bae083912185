"""The problems of lineax's tests: dtypes, ends of a solve, derivatives, operators."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from posed import Table, refused
from small_systems import (
    SIZE,
    SPREAD,
    TIGHT,
    answer,
    close,
    definite,
    normal,
    of,
    quick,
    solved,
)

from unlearn_jax import tree
from unlearn_jax.curvature.operator import (
    add,
    damped,
    dense,
    diagonal,
    linear_operator,
    scale,
)
from unlearn_jax.solvers.conjugate_gradient import (
    block_conjugate_gradient,
    conjugate_gradient,
)
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.solution import (
    NOT_FINITE,
    OUT_OF_STEPS,
    reason,
)

TABLE = Table("lineax", {})
poses = TABLE.poses


@poses("norms of arrays and of nothing", "tests/test_norm.py::test_nonzero")
def _():
    value = {"a": normal(14, 3), "b": normal(15, 2, 2)}
    flat = jax.flatten_util.ravel_pytree(value)[0]
    close(tree.norm(value), jnp.linalg.norm(flat))
    slope = jax.grad(tree.norm)(value)
    close(jax.flatten_util.ravel_pytree(slope)[0], flat / jnp.linalg.norm(flat))


@poses("a complex norm is real", "tests/test_norm.py::test_complex")
def _():
    value = normal(16, 3, dtype=np.complex128)
    close(tree.norm(value), jnp.linalg.norm(value))
    assert not np.iscomplexobj(tree.norm(value))


@poses("the norm of no numbers", "tests/test_norm.py::test_size_zero")
def _():
    close(tree.norm({"a": jnp.zeros((0,)), "b": {}}), 0.0)


DIAGONAL = "tests/test_solve.py::test_nontrivial_diagonal_operator"


@poses("a diagonal over a tree", DIAGONAL)
def _():
    entries = (
        jnp.asarray(8.0),
        jnp.asarray([1.0, 2.0, 3.0]),
        {"a": jnp.asarray([4.0])},
    )
    rhs = (jnp.asarray(4.0), jnp.asarray([7.0, 8.0, 9.0]), {"a": jnp.asarray([2.0])})
    expected = (0.5, jnp.asarray([7.0, 4.0, 3.0]), {"a": jnp.asarray([0.5])})
    close(solved(diagonal(entries), rhs), expected)


@poses(
    "single precision for double",
    "tests/test_solve.py::test_nontrivial_pytree_operator",
)
def _():
    with refused("right-hand side", "float32", "float64"):
        conjugate_gradient(of(definite(0)), jnp.ones(SIZE, jnp.float32))


def mixed(dtypes):
    entries = [jnp.asarray([2.0, 3.0], dtypes[0]), jnp.asarray([5.0], dtypes[1])]
    truth = [jnp.asarray([1.0, -1.0], dtypes[0]), jnp.asarray([0.5], dtypes[1])]
    if np.dtype(dtypes[1]).kind == "c":
        truth[1] = truth[1] * (1 + 2j)
    coarse = max(float(jnp.finfo(d).eps) for d in dtypes)
    operator = diagonal(entries)
    got = solved(operator, operator(truth), tol=10 * coarse)
    assert [leaf.dtype for leaf in got] == [leaf.dtype for leaf in truth]
    close(got, truth, 100 * coarse)


TABLE.add(
    "float32 beside float64",
    "tests/test_solve.py::test_mixed_dtypes",
    *(mixed, (jnp.float32, jnp.float64)),
)
TABLE.add(
    "complex64 beside complex128",
    "tests/test_solve.py::test_mixed_dtypes_complex",
    *(mixed, (jnp.complex64, jnp.complex128)),
)
TABLE.add(
    "real beside complex",
    "tests/test_solve.py::test_mixed_dtypes_complex_real",
    *(mixed, (jnp.float64, jnp.complex128)),
)


@poses(
    "slope by numbers that a product closes over",
    "tests/test_solve.py::test_ad_closure_function_linear_operator",
)
def _():
    entries, rhs = 1 + normal(17, 3) ** 2, normal(18, 3)

    def total(entries):
        value = minres(diagonal(entries), rhs, tol=TIGHT).value
        return jnp.sum(value), value

    slope, value = quick(jax.grad(total, has_aux=True))(entries)
    close(value, rhs / entries)
    close(slope, -rhs / entries**2)


@poses(
    "slope of part of a batch of solves",
    "tests/test_solve.py::test_grad_vmap_symbolic_cotangent",
)
def _():
    def first(x):
        operator = linear_operator(lambda v: (2 * v[0], v[1]), x)
        return conjugate_gradient(operator, x, tol=TIGHT).value[0]

    values = jnp.arange(3.0) + 1, jnp.arange(3.0)
    slope = quick(jax.grad(lambda x: jnp.sum(jax.vmap(first)(x))))(values)
    close(slope, (jnp.full(3, 0.5), jnp.zeros(3)))


@poses(
    "two steps and no more", "tests/test_solve.py::test_iterative_solver_max_steps_only"
)
def _():
    poisson = 2 * jnp.eye(SIZE) - jnp.eye(SIZE, k=1) - jnp.eye(SIZE, k=-1)
    for solver in (conjugate_gradient, minres):
        found = answer(poisson, normal(19, SIZE), solver, max_steps=2)
        assert int(found.code) == OUT_OF_STEPS, reason(found)
        assert int(found.steps) == 2


@poses("infinity and NaN on the right", "tests/test_solve.py::test_nonfinite_input")
def _():
    for wrong in (jnp.inf, jnp.nan):
        for solver in (conjugate_gradient, minres):
            rhs = jnp.ones(SIZE).at[1].set(wrong)
            found = answer(jnp.eye(SIZE), rhs, solver)
            assert int(found.code) == NOT_FINITE, reason(found)


@poses(
    "the inverse as preconditioner, both derivatives",
    "tests/test_adjoint.py::test_preconditioner_adjoint",
)
def _():
    root = np.random.default_rng(20).uniform(size=(6, 6))
    root = root + np.diag(np.arange(6.0) ** 3)
    matrix = jnp.asarray(root.T @ root)
    inverse = jnp.linalg.inv(matrix)

    def run(rhs):
        return conjugate_gradient(
            of(matrix), rhs, preconditioner=lambda r: inverse @ r, tol=1e-10
        )

    assert quick(run)(normal(21, 6)).steps <= 3
    for jacobian in (jax.jacfwd, jax.jacrev):
        got = quick(jacobian(lambda b: run(b).value))(normal(21, 6))
        close(got, inverse, 1e-6)


@functools.cache
def derivatives(kinds):
    """Derivatives of x = A⁻¹ b beside those of the dense solve, in one program."""
    matrix, rhs, along = definite(22, 3), normal(23, 3), normal(25, 3)
    turn = normal(24, 3, 3)
    turn = turn + turn.T
    many = jnp.stack([rhs, along, rhs + along])
    matrices = jnp.stack([matrix, matrix + jnp.eye(3), 2 * matrix])

    def all_of(solve):
        def slope(m, b):
            return jax.jvp(solve, (m, b), (turn, along))[1]

        def total(m, b):
            return jnp.sum(solve((m + m.T) / 2, b) ** 2)

        def stacked(m):
            return jnp.sum(jax.vmap(lambda b: solve((m + m.T) / 2, b))(many) ** 2)

        everything = {
            "jvp": lambda: slope(matrix, rhs),
            "jvp of jvp": lambda: jax.jvp(slope, (matrix, rhs), (turn, along))[1],
            "vjp by matrix": lambda: jax.grad(total)(matrix, rhs),
            "vjp by right side": lambda: jax.grad(total, 1)(matrix, rhs),
            "vmap": lambda: jax.vmap(solve)(matrices, many),
            "vmap of jvp": lambda: jax.vmap(slope)(matrices, many),
            "vmap of vmap": lambda: jax.vmap(
                lambda b: jax.vmap(lambda m: solve(m, b))(matrices)
            )(many),
            "grad of vmap": lambda: jax.grad(stacked)(matrix),
            "jvp of grad": lambda: jax.jvp(
                jax.grad(total, 1), (matrix, rhs), (turn, along)
            )[1],
        }
        return {kind: everything[kind]() for kind in kinds}

    def ours(m, b):
        return conjugate_gradient(of(m), b, tol=1e-13).value

    return quick(lambda: (all_of(ours), all_of(jnp.linalg.solve)))()


def same_derivative(kinds, kind):
    ours, exact = derivatives(kinds)
    close(ours[kind], exact[kind])


ONCE = {
    "jvp": "tests/test_jvp.py::test_jvp",
    "vjp by matrix": "tests/test_invert.py::test_grad_wrt_operator",
    "vjp by right side": "tests/test_invert.py::test_grad_wrt_vector",
    "vmap": "tests/test_vmap.py::test_vmap",
    "grad of vmap": "tests/test_vmap.py::test_grad_vmap_basic",
}
TWICE = {
    "jvp of jvp": "tests/test_jvp_jvp1.py::test_jvp_jvp",
    "vmap of jvp": "tests/test_vmap_jvp.py::test_vmap_jvp",
    "vmap of vmap": "tests/test_vmap_vmap.py::test_vmap_vmap",
    "jvp of grad": "tests/test_jvp_jvp2.py::test_jvp_jvp",
}
for _kinds in (ONCE, TWICE):
    for _kind, _source in _kinds.items():
        TABLE.add(
            _kind,
            *(_source, same_derivative, tuple(_kinds), _kind),
            slow=_kinds is TWICE,
        )


@poses("the inverse of the inverse", "tests/test_invert.py::test_double_inverse")
def _():
    matrix, vector = definite(26, 3), normal(27, 3)
    inverse = linear_operator(
        lambda v: conjugate_gradient(of(matrix), v, tol=1e-13).value, vector
    )
    close(solved(inverse, vector, tol=1e-11), matrix @ vector, 1e-7)
    close(quick(lambda: inverse(matrix @ vector))(), vector)


@poses("several right sides at once", "tests/test_invert.py::test_vmap")
def _():
    matrix, many = definite(28, 3), normal(29, 5, 3)
    got = quick(lambda b: block_conjugate_gradient(of(matrix), b, tol=TIGHT))(many)
    assert jnp.all(got.converged)
    close(got.value, jnp.linalg.solve(matrix, many.T).T)


@poses("sums and multiples of operators", "tests/test_operator.py::test_ops")
def _():
    one, two = definite(30, 3), definite(31, 3)
    both = add(scale(3.0, of(one)), damped(of(two), 0.5))
    expected = 3 * one + two + 0.5 * jnp.eye(3)
    close(quick(lambda: dense(both))(), expected, 1e-14)


@poses("a diagonal is its matrix", "tests/test_operator.py::test_diagonal")
def _():
    close(dense(diagonal(SPREAD)), jnp.diag(SPREAD), 0)


@poses(
    "another tree of the same size", "tests/test_operator.py::test_structures_vector"
)
def _():
    operator = diagonal({"a": jnp.ones(2), "b": jnp.ones(1)})
    with refused("structure", "give a tree like the parameters"):
        operator((jnp.ones(2), jnp.ones(1)))
    with refused("[3]", "[2]"):
        operator({"a": jnp.ones(3), "b": jnp.ones(1)})


@TABLE.cases()
def test_lineax_derivatives(problem):
    problem.check()


def test_sources():
    TABLE.check_sources()
