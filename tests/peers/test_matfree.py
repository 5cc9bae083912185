"""The problems of matfree's tests: stochastic estimates, Krylov spaces, low rank."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from posed import Table, refused
from small_matrices import (
    close,
    of,
    of_tree,
    symmetric,
    within,
)
from tiny import quick_jit as quick

from unlearn_jax.curvature.stochastic_diagonal import (
    bekas_diagonal,
    hutchinson_diagonal,
    hutchinson_trace,
    random_vector,
)

TABLE = Table(
    "matfree",
    {
        "tests/test_bounds/test_bai_golub.py::test_logdet": "bounds of determinants "
        "are not offered; estimates with an error are",
        "tests/test_funm/test_funm_arnoldi.py::test_funm_arnoldi_matches_schur"
        "_implementation": "functions of matrices that are not symmetric",
        "tests/test_funm/test_funm_chebyshev.py::test_funm_chebyshev": "no Chebyshev "
        "series: Lanczos needs no bounds",
        "tests/test_low_rank/test_cholesky.py::test_pivoting_improves_the_estimate": ""
        "no partial Cholesky factor: it reads entries, which an operator does not have",
        "tests/test_stochtrace/test_leave_one_out/test_xtrace.py::test_xtrace_exact": ""
        "no leave-one-out estimates; all Hadamard rows are exact",
        "tests/test_stochtrace/test_samplers.py::test_sampler_sphere": "signs and "
        "normal numbers only",
    },
)
poses = TABLE.poses


@functools.cache
def estimates():
    """All estimates of one matrix on one tree, in one program."""
    matrix = symmetric()
    one, two, three = jax.random.split(jax.random.key(1), 3)

    def program(matrix):
        operator, square = of_tree(matrix), of_tree(matrix @ matrix)
        options = {"probes": 200}
        return {
            "trace": hutchinson_trace(one, operator, **options),
            "diagonal": hutchinson_diagonal(one, operator, **options),
            "norm": hutchinson_trace(two, square, **options),
            "rows": hutchinson_diagonal(two, square, **options),
            "few": hutchinson_trace(three, operator, probes=20),
            "exact": bekas_diagonal(three, operator, probes=8, kind="hadamard"),
            "signs": random_vector(three, operator, jax.random.rademacher),
        }

    return matrix, quick(program)(matrix)


MONTE = "tests/test_stochtrace/test_monte_carlo/test_"


@poses("trace", f"{MONTE}trace.py::test_trace")
def _():
    matrix, found = estimates()
    within(found["trace"], jnp.trace(matrix))


@poses("diagonal", f"{MONTE}diagonal.py::test_diagonal")
def _():
    matrix, found = estimates()
    unflatten = jax.flatten_util.ravel_pytree(found["diagonal"].value)[1]
    within(found["diagonal"], unflatten(jnp.diagonal(matrix)))


@poses(
    "trace and diagonal agree", f"{MONTE}trace_and_diagonal.py::test_trace_and_diagonal"
)
def _():
    _, found = estimates()
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(found["diagonal"].value))
    close(total, found["trace"].value)


@poses("squared norm", f"{MONTE}frobeniusnorm_squared.py::test_frobeniusnorm_squared")
def _():
    matrix, found = estimates()
    within(found["norm"], jnp.sum(matrix**2))


@poses("squared norms of rows", f"{MONTE}rownorms_squared.py::test_rownorms_squared")
def _():
    matrix, found = estimates()
    unflatten = jax.flatten_util.ravel_pytree(found["rows"].value)[1]
    within(found["rows"], unflatten(jnp.sum(matrix**2, axis=1)))


@poses(
    "norms of rows sum to that of the matrix",
    f"{MONTE}rownorms_squared.py::test_rownorms_squared_sums_to_frobeniusnorm_squared",
)
def _():
    _, found = estimates()
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(found["rows"].value))
    close(total, found["norm"].value)


@poses("the tree stays", f"{MONTE}estimator_mean_and_std.py::test_pytree_structure")
def _():
    _, found = estimates()
    like = of_tree(symmetric()).like
    for part in found["diagonal"]:
        assert jax.tree.structure(part) == jax.tree.structure(like)


@poses(
    "errors fall with the probes",
    f"{MONTE}estimator_mean_and_std.py::test_sem_error_magnitude_signs",
)
def _():
    _, found = estimates()
    ratio = found["few"].stderr / found["trace"].stderr
    # √10 in the mean; twenty draws of a spread are right within a factor of two.
    assert np.sqrt(10) / 2 < ratio < np.sqrt(10) * 2


@poses("signs are signs", "tests/test_stochtrace/test_samplers.py::test_sampler_signs")
def _():
    _, found = estimates()
    assert all(np.all(np.abs(leaf) == 1) for leaf in jax.tree.leaves(found["signs"]))


@poses(
    "more probes than rows",
    "tests/test_stochtrace/test_leave_one_out/test_xdiag.py"
    "::test_xdiag_error_num_samples_more_than_dimension",
)
def _():
    matrix, found = estimates()
    flat = jax.flatten_util.ravel_pytree(found["exact"].value)[0]
    close(flat, jnp.diagonal(matrix), atol=1e-13)
    with refused("at most the 8 rows", "exact"):
        bekas_diagonal(jax.random.key(0), of(matrix), probes=9, kind="hadamard")


@TABLE.cases()
def test_matfree(problem):
    problem.check()


def test_sources():
    TABLE.check_sources()
