"""The problems of matfree's tests: Krylov spaces, quadrature, low rank, lstsq."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from posed import Table, refused
from small_matrices import (
    SIZE,
    close,
    definite,
    hilbert,
    of,
    of_tree,
    symmetric,
    within,
)
from small_nets import numbers
from tiny import quick_jit as quick

from unlearn_jax import tree
from unlearn_jax.curvature.operator import linear_operator
from unlearn_jax.curvature.spectrum import (
    extreme_eigenvalues,
    spectral_density,
    spectral_sum,
)
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.solvers.krylov import eigen_residuals, lanczos, low_rank_inverse
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.woodbury import woodbury, woodbury_apply

TABLE = Table("matfree", {})
poses = TABLE.poses


@functools.cache
def krylov(name, rank):
    """Eigenvectors by Lanczos, with their residuals."""
    matrix = {"symmetric": symmetric, "hilbert": hilbert}[name]()
    full = rank == SIZE

    def program(matrix):
        found = lanczos(
            jax.random.key(2), of(matrix), rank=rank, steps=rank if full else 7
        )
        return found, eigen_residuals(of(matrix), found)

    return matrix, *quick(program)(matrix)


@poses(
    "all steps give the matrix back",
    "tests/test_decomp/test_tridiag_sym.py::test_full_rank_reconstruction_is_exact",
)
def _():
    matrix, found, residuals = krylov("symmetric", SIZE)
    close(found.basis.T @ jnp.diag(found.eigenvalues) @ found.basis, matrix)
    close(residuals, 0)


@poses(
    "some steps: orthonormal, and true to their residuals",
    "tests/test_decomp/test_tridiag_sym.py::test_mid_rank_reconstruction_satisfies"
    "_decomposition",
)
def _():
    matrix, found, residuals = krylov("symmetric", 4)
    close(found.basis @ found.basis.T, jnp.eye(4))
    exact = jnp.linalg.eigvalsh(matrix)
    apart = jnp.min(jnp.abs(found.eigenvalues[:, None] - exact[None]), axis=1)
    assert jnp.all(apart <= residuals + 1e-10)


@poses(
    "orthonormal for Hilbert's matrix",
    "tests/test_decomp/test_hessenberg.py::test_reorthogonalisation_improves_the_estimate",
)
def _():
    matrix, found, _ = krylov("hilbert", SIZE)
    close(found.basis @ found.basis.T, jnp.eye(SIZE), atol=1e-12)
    close(found.basis.T @ jnp.diag(found.eigenvalues) @ found.basis, matrix)


@poses(
    "no steps, and too many",
    "tests/test_decomp/test_consistency.py::test_value_error_for_unusual_num_matvecs",
)
def _():
    key, operator = jax.random.key(0), of(symmetric())
    for rank in (0, SIZE + 1):
        with refused("1 <= rank <= steps <= 8"):
            lanczos(key, operator, rank=rank, steps=rank)
        with refused("expected 1 to 8"):
            extreme_eigenvalues(key, operator, steps=rank)


@poses("eigenvalues", "tests/test_eig/test_eigh_partial.py::test_equal_to_linalg_eigh")
def _():
    matrix, found, _ = krylov("symmetric", SIZE)
    close(jnp.sort(found.eigenvalues), jnp.linalg.eigvalsh(matrix))


@poses(
    "eigenvectors of lists and tuples",
    "tests/test_eig/test_eigh_partial.py::test_shapes_as_expected_lists_tuples",
)
def _():
    operator = of_tree(symmetric())
    found = quick(lambda: lanczos(jax.random.key(3), operator, rank=3))()
    assert jax.tree.structure(found.basis) == jax.tree.structure(operator.like)
    assert found.basis[0].shape == (3, 2, 3)
    assert found.eigenvalues.shape == (3,)


@poses(
    "singular values", "tests/test_eig/test_svd_partial.py::test_equal_to_linalg_svd"
)
def _():
    tall = numbers(4, 12, SIZE)
    gram = tall.T @ tall
    found = quick(lambda g: lanczos(jax.random.key(4), of(g), rank=SIZE))(gram)
    exact = jnp.linalg.svd(tall, compute_uv=False)
    close(jnp.sqrt(found.eigenvalues), exact)


@functools.cache
def quadrature(kind):
    """Sums over the spectrum with as many steps as there are eigenvalues."""
    wide = numbers(5, SIZE, SIZE) / 3 + jnp.eye(SIZE)
    matrix = definite(6) if kind == "definite" else wide.T @ wide

    def program(matrix):
        seen = spectral_density(jax.random.key(5), of(matrix), probes=60, steps=SIZE)
        return {
            "log": spectral_sum(seen, jnp.log),
            "power": spectral_sum(seen, lambda x: jnp.abs(x) ** 1.5),
        }

    return matrix, quick(program)(matrix)


FUNM = "tests/test_funm/test_monte_carlo_funm_"


@poses("log determinant", f"{FUNM}sym_logdet.py::test_logdet_spd")
def _():
    matrix, found = quadrature("definite")
    within(found["log"], jnp.linalg.slogdet(matrix)[1])


@poses(
    "log determinant, exact for the quadrature",
    f"{FUNM}sym_logdet.py::test_logdet_spd_exact_for_full_num_matvecs_lanczos",
)
def _():
    entries = 1 + jnp.arange(SIZE) ** 1.5

    def program(entries):
        operator = linear_operator(lambda v: entries * v, entries)
        seen = spectral_density(jax.random.key(8), operator, probes=2, steps=SIZE)
        return spectral_sum(seen, jnp.log)

    # Signs see a diagonal matrix without error.
    found = quick(program)(entries)
    close(found.value, jnp.sum(jnp.log(entries)))
    close(found.stderr, 0)


@poses("log determinant of a product", f"{FUNM}product_logdet.py::test_logdet_product")
def _():
    matrix, found = quadrature("product")
    within(found["log"], jnp.linalg.slogdet(matrix)[1])


@poses("Schatten norm", f"{FUNM}product_schatten_norm.py::test_schatten_norm")
def _():
    matrix, found = quadrature("product")
    singular = jnp.sqrt(jnp.linalg.eigvalsh(matrix))
    within(found["power"], jnp.sum(singular**3))


@poses(
    "a matrix function times a vector",
    "tests/test_funm/test_funm_lanczos_sym.py::test_funm_lanczos_sym_matches_eigh_implementation",
)
def _():
    matrix, found, _ = krylov("symmetric", SIZE)
    vector = numbers(7, SIZE)
    got = found.basis.T @ (jnp.exp(found.eigenvalues) * (found.basis @ vector))
    values, vectors = jnp.linalg.eigh(matrix)
    close(got, vectors @ (jnp.exp(values) * (vectors.T @ vector)))


LOW = "tests/test_low_rank/test_preconditioner.py::test_preconditioner_solves_correctly"


@poses("low rank and a multiple of one", LOW)
def _():
    rows, vector = numbers(8, 3, SIZE), numbers(9, SIZE)
    matrix = rows.T @ rows + 0.1 * jnp.eye(SIZE)
    got = quick(lambda r, v: woodbury_apply(woodbury(0.1, r), v))(rows, vector)
    close(got, jnp.linalg.solve(matrix, vector))

    def spectral(gram, vector):
        found = lanczos(jax.random.key(6), of(gram), rank=3, steps=6)
        return low_rank_inverse(found, vector, damping=0.1, complement=True)

    close(quick(spectral)(rows.T @ rows, vector), jnp.linalg.solve(matrix, vector))


@poses(
    "low rank as preconditioner",
    "tests/test_low_rank/test_cholesky.py::test_full_rank_cholesky_reconstructs_matrix",
)
def _():
    matrix = definite(10)

    def steps(rank):
        found = lanczos(jax.random.key(7), of(matrix), rank=rank)
        inverse = functools.partial(
            low_rank_inverse, found, damping=1e-9, complement=rank < SIZE
        )
        solution = conjugate_gradient(
            of(matrix), numbers(11, SIZE), preconditioner=inverse, tol=1e-8
        )
        return solution.converged, solution.steps

    converged, count = quick(lambda: steps(SIZE))()
    assert converged
    assert count <= 2


def shortest(matrix, rhs, damping=0.0, **options):
    gram = linear_operator(
        lambda v: matrix.T @ (matrix @ v) + damping**2 * v, matrix[0]
    )
    return minres(gram, matrix.T @ rhs, tol=1e-13, max_steps=100, **options).value


def least_squares(rows, columns):
    """Value, and the slope of a function of it in matrix and right side."""
    matrix, rhs = numbers(12, rows, columns), numbers(13, rows)
    damping = 0.5

    def exact(matrix, rhs):
        gram = matrix.T @ matrix + damping**2 * jnp.eye(columns)
        return jnp.linalg.solve(gram, matrix.T @ rhs)

    def total(solve):
        def value(matrix, rhs):
            x = solve(matrix, rhs)
            return jnp.sum(jnp.sin(x)), x

        return jax.value_and_grad(value, argnums=(0, 1), has_aux=True)

    got = quick(total(functools.partial(shortest, damping=damping)))(matrix, rhs)
    expected = quick(total(exact))(matrix, rhs)
    jax.tree.map(lambda a, e: close(a, e, 1e-7, 1e-8), got, expected)


LSTSQ = "tests/test_lstsq.py::test_"
for _rows, _columns, _word in ((3, 6, "wide"), (6, 3, "tall"), (4, 4, "square")):
    TABLE.add(
        f"damped least squares and slopes, {_word}",
        f"{LSTSQ}value_and_grad_matches_linalg_solve_with_damping",
        *(least_squares, _rows, _columns),
    )


@poses(
    "least squares without damping",
    f"{LSTSQ}value_and_grad_matches_numpy_lstsq_no_damping",
)
def _():
    for rows, columns in ((3, 6), (6, 3)):
        matrix, rhs = numbers(14, rows, columns), numbers(15, rows)
        close(quick(shortest)(matrix, rhs), jnp.linalg.lstsq(matrix, rhs)[0], 1e-6)


@poses("a right side of zeros, no NaN", f"{LSTSQ}zero_rhs_does_not_yield_nan")
def _():
    matrix = numbers(16, 6, 3)

    def total(matrix, rhs):
        return jnp.sum(shortest(matrix, rhs, damping=0.5))

    slopes = quick(jax.grad(total, argnums=(0, 1)))(matrix, jnp.zeros(6))
    assert tree.all_finite(slopes)
    assert np.any(np.asarray(slopes[1]) != 0)


@TABLE.cases()
def test_matfree_krylov(problem):
    problem.check()


def test_sources():
    TABLE.check_sources()
