"""The problems of curvlinops' tests: operators, series, estimates, spectra."""

import jax
import jax.numpy as jnp
import numpy as np
from kronecker_cases import case_of, linear
from posed import Table, refused
from small_nets import CASES, Case, exact, flat, labels, numbers
from tiny import quick_jit as quick

from unlearn_jax import tree
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_inverse import kronecker_inverse
from unlearn_jax.curvature.label_slopes import output_factors
from unlearn_jax.curvature.operator import (
    add,
    dense,
    diagonal,
    linear_operator,
    scale,
)
from unlearn_jax.curvature.spectrum import (
    density_on_grid,
    extreme_eigenvalues,
    spectral_density,
)
from unlearn_jax.curvature.stochastic_diagonal import (
    bekas_diagonal,
    hutchinson_diagonal,
    hutchinson_trace,
)
from unlearn_jax.data.accumulate import accumulate
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.solvers.neumann import neumann
from unlearn_jax.solvers.preconditioner import diagonal_preconditioner
from unlearn_jax.train.loss import cross_entropy, squared_error
from unlearn_jax.train.objective import Objective

SAMPLES = 4000
TABLE = Table("curvlinops", {})
poses = TABLE.poses


def close(actual, expected, rtol=1e-8, atol=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


THREE = jnp.asarray([[5.0, 1.0, 1.0], [1.0, 4.0, 1.0], [1.0, 1.0, 3.0]])


def of(matrix):
    return linear_operator(lambda v: matrix @ v, matrix[0])


NEUMANN = "test/test_inverse.py::test_NeumannInverseLinearOperator_preconditioner"


@poses("Neumann series that would diverge", NEUMANN)
def _():
    answer = quick(lambda b: neumann(of(THREE), b, step_size=1.0))(jnp.ones(3))
    assert not answer.converged


@poses("Neumann series with a step that fits", NEUMANN)
def _():
    answer = quick(lambda b: neumann(of(THREE), b, step_size=0.3, max_steps=300))(
        jnp.ones(3)
    )
    assert answer.converged
    close(answer.value, jnp.linalg.solve(THREE, jnp.ones(3)), 1e-5)


@poses(
    "gradient of a whole data set, by batches",
    "test/examples/test___init__.py::test_gradient_and_loss",
)
def _():
    objective, params, data = CASES["softmax"]()

    def part(batch, at):
        return jax.value_and_grad(objective.total)(at, batch)

    def whole(at):
        return accumulate(part, data, at, batch_size=2)

    got, expected = quick(whole)(params), part(data, params)
    close(flat(got), flat(expected))


FORMS = "test/test__torch_base.py::test_input_formatting"


@poses("a vector of another shape", FORMS)
def _():
    case = CASES["softmax"]()
    operator = gauss_newton(*case)
    wrong = jax.tree.map(lambda x: x[..., None], case.params)
    with refused("give a tree like the parameters"):
        operator(wrong)


@poses(
    "a vector of another dtype",
    "test/test_kfac.py::test_bug_132_dtype_deterministic_checks",
)
def _():
    case = CASES["softmax"]()
    narrow = jax.tree.map(lambda x: x.astype(jnp.float32), case.params)
    with refused("float32", "float64"):
        gauss_newton(*case)(narrow)


@poses(
    "a vector with a leaf missing", "test/test__torch_base.py::test_output_formatting"
)
def _():
    case = CASES["softmax"]()
    with refused("structure"):
        gauss_newton(*case)({"layer0": case.params["layer0"]})


@poses("sums of operators", "test/test__torch_base.py::test_SumPyTorchLinearOperator")
def _():
    other = THREE @ THREE
    close(dense(add(of(THREE), of(other))), THREE + other)
    close(dense(add(of(THREE), scale(-1.0, of(other)))), THREE - other)


@poses("multiples", "test/test__torch_base.py::test_ScalePyTorchLinearOperator")
def _():
    close(dense(scale(0.1, of(THREE))), 0.1 * THREE)


@poses("a diagonal", "test/test_diag.py::test_matvec")
def _():
    entries = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray([[3.0]])}
    close(dense(diagonal(entries)), jnp.diag(jnp.asarray([1.0, 2.0, 3.0])))


@poses("the inverse of a diagonal", "test/test_diag.py::test_inverse_closure")
def _():
    entries = jnp.asarray([1.0, 0.0, 3.0])
    apply = diagonal_preconditioner(entries, damping=0.5)
    close(apply(jnp.ones(3)), 1 / (entries + 0.5))
    with refused("too small"):
        diagonal_preconditioner(entries, damping=0.0)


@poses(
    "a part of the parameters",
    "test/test_submatrix.py::test_SubmatrixLinearOperator_on_curvatures",
)
def _():
    case = CASES["softmax"]()
    whole = quick(lambda: exact(case).hessian)()
    frozen, moved = case.params["layer0"], {"layer1": case.params["layer1"]}
    part = case.objective._replace(
        predict=lambda p, x: case.objective.predict({"layer0": frozen, **p}, x)
    )
    got = quick(lambda p: dense(hessian(part, p, case.data)))(moved)
    size = tree.size(moved)
    close(got, whole[-size:, -size:])


def estimated(name):
    """Mean within five standard errors; exact where every Hadamard row is taken."""
    matrix = numbers(4, 6, 6)
    matrix = matrix + matrix.T
    key = jax.random.key(5)
    if name == "norm":
        got = quick(lambda: hutchinson_trace(key, of(matrix @ matrix), probes=200))()
        expected = jnp.sum(matrix**2)
    elif name == "trace":
        got = quick(lambda: hutchinson_trace(key, of(matrix), probes=200))()
        expected = jnp.trace(matrix)
    elif name == "diagonal":
        got = quick(lambda: hutchinson_diagonal(key, of(matrix), probes=200))()
        expected = jnp.diagonal(matrix)
    else:
        got = quick(
            lambda: bekas_diagonal(key, of(matrix), probes=8, kind="hadamard")
        )()
        close(got.value, jnp.diagonal(matrix), atol=1e-12)
        return
    assert jnp.all(got.stderr > 0)
    assert jnp.all(jnp.abs(got.value - expected) < 5 * got.stderr)


for _name, _source in {
    "trace": "trace/test_hutchinson.py::test_hutchinson_trace",
    "diagonal": "diagonal/test_hutchinson.py::test_hutchinson_diag",
    "norm": "norm/test_hutchinson.py::test_hutchinson_squared_fro",
    "diagonal, exact in the end": "diagonal/test_epperly2024xtrace.py::test_xdiag",
}.items():
    TABLE.add(f"estimate of a {_name}", f"test/{_source}", estimated, _name)


@poses(
    "density of a spectrum",
    "test/papyan2020traces/test_spectrum.py::test_example_verification_spectral_density",
)
def _():
    matrix = numbers(6, 12, 12)
    matrix = (matrix + matrix.T) / 2
    grid = jnp.linspace(-12, 12, 400)

    def density(key):
        seen = spectral_density(key, of(matrix), probes=40, steps=12)
        return density_on_grid(seen, grid, 0.5)

    values = jnp.linalg.eigvalsh(matrix)
    bumps = jnp.exp(-0.5 * ((grid[:, None] - values[None]) / 0.5) ** 2)
    expected = jnp.mean(bumps, axis=1) / (0.5 * np.sqrt(2 * np.pi))
    got = quick(density)(jax.random.key(7))
    step = grid[1] - grid[0]
    close(jnp.sum(got) * step, 1.0, 1e-6)
    assert jnp.sum(jnp.abs(got - expected)) * step < 0.2


@poses(
    "ends of a spectrum",
    "test/papyan2020traces/test_spectrum.py::test_approximate_boundaries",
)
def _():
    matrix = numbers(8, 10, 10)
    matrix = matrix + matrix.T
    got = quick(lambda k: extreme_eigenvalues(k, of(matrix), steps=10))(
        jax.random.key(1)
    )
    values = jnp.linalg.eigvalsh(matrix)
    close(got.smallest, values[0])
    close(got.largest, values[-1])


@poses(
    "no batch without examples", "test/test__torch_base.py::test_empty_shapes_exception"
)
def _():
    objective, params, data = CASES["softmax"]()
    empty = jax.tree.map(lambda x: x[:0], data)
    with refused("example"):
        gauss_newton(objective, params, empty)


@poses(
    "a root of the loss's second derivative",
    "test/test_ggn_utils.py::test_loss_hessian_matrix_sqrt",
)
def _():
    outputs, targets = numbers(22, 4, 3), labels(23, 4, classes=3)
    objective = Objective(linear, cross_entropy)
    vectors, values = quick(lambda o: output_factors(objective, o, targets))(outputs)
    got = np.einsum("rn,rni,rnj->nij", values, vectors, vectors)
    p = np.exp(outputs) / np.sum(np.exp(outputs), axis=1, keepdims=True)
    close(got, p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None])


@poses(
    "kfac as preconditioner, one step",
    "test/test_inverse.py::test_KFAC_EKFAC_preconditioners_for_CG_and_Neumann",
)
def _():
    case = case_of(
        *(lambda p, x: x @ p["kernel"], squared_error, {"kernel": numbers(24, 3, 2)}),
        *(numbers(25, 6, 3), numbers(26, 6, 2)),
    )

    def program(params, data, vector):
        given = case.objective, params, data
        matrix = exact(Case(*given)).gauss_newton + 1e-6 * jnp.eye(6)
        operator = linear_operator(
            lambda v: {"kernel": (matrix @ v["kernel"].reshape(-1)).reshape(3, 2)},
            params,
        )
        steps = []
        for build in (kfac, ekfac):
            state = build(None, *given, labels="exact")
            inverse = kronecker_inverse(state, damping=1e-6)
            solution = conjugate_gradient(
                operator, vector, preconditioner=inverse, tol=1e-8
            )
            steps.append((solution.converged, solution.steps))
        return steps

    for converged, steps in quick(program)(case.params, case.data, case.params):
        assert converged
        assert steps <= 2


@TABLE.cases()
def test_curvlinops_operators(problem):
    problem.check()


def test_sources():
    TABLE.check_sources()
