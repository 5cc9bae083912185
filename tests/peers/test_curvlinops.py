"""The problems of curvlinops' tests: matrices of nets and losses, and their inverses.

A loss with the reduction "sum" is the mean times the sum of the weights, and is asked
for as such.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from posed import Table, refused
from small_nets import CASES, exact, flat, numbers
from tiny import quick_jit as quick

from unlearn_jax import tree
from unlearn_jax.curvature.diagonal import gauss_newton_diagonal
from unlearn_jax.curvature.fisher import empirical_fisher, fisher, sampled_fisher
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.jacobian import jacobian_product
from unlearn_jax.curvature.operator import (
    damped,
    dense,
)
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.preconditioner import diagonal_preconditioner
from unlearn_jax.train.loss import sequence_nll

SAMPLES = 4000
TABLE = Table(
    "curvlinops",
    {
        "test/computers/test_kfoc.py::test_kfoc_factors_match_dense_svd": "the nearest "
        "Kronecker product to the GGN is not offered: K-FAC and EK-FAC are",
        "test/test_kfac.py::test_forward_only_fisher_type": "K-FAC of the inputs alone "
        "is not offered",
        "test/trace/test_epperly2024xtrace.py::test_xtrace": "traces come from "
        "Hutchinson's estimator, with an error; from all Hadamard rows, exactly",
        "test/trace/test_meyer2020hutch.py::test_hutchpp_trace": "as above",
        "test/test_compile.py::test_hessian_matvec_no_graph_breaks": "a compiler's "
        "matter in torch; everything here is traced",
        "test/test__torch_base.py::test_ChainPyTorchLinearOperator": "products of "
        "operators are not symmetric",
        "test/test_kfac.py::test_kfac_inplace_activations": "arrays do not change in "
        "place in JAX",
        "test/test_kfac.py::test_kfac_does_not_affect_grad": "there is no hidden state",
    },
)
poses = TABLE.poses


def close(actual, expected, rtol=1e-8, atol=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


@functools.cache
def matrices(name):
    """Everything that is asked of one net and loss, in one program."""
    case = CASES[name]()
    drawn_labels = "logit" not in name and name != "sequence, squares"

    def program(params, data, vector, cotangent):
        objective = case.objective
        outputs, jvp, vjp = jacobian_product(objective, params, data.inputs)
        given = objective, params, data
        exactly = exact(case._replace(params=params, data=data))
        curved = gauss_newton(*given)
        found = {
            "hessian": dense(hessian(*given)),
            "gauss_newton": dense(curved),
            "gauss_newton by batches": flat(
                over_batches(gauss_newton, *given, batch_size=2)(vector)
            ),
            "empirical": dense(empirical_fisher(*given)),
            "jvp": jvp(vector),
            "vjp": flat(vjp(cotangent)),
        }
        if has_diagonal(case):
            found["diagonal"] = flat(gauss_newton_diagonal(*given))
        if drawn_labels:
            key = jax.random.key(3)
            found["fisher"] = dense(fisher(*given))
            found["drawn"] = dense(sampled_fisher(key, *given, samples=SAMPLES))
        return found, exactly, outputs

    outputs = jax.eval_shape(case.objective.predict, case.params, case.data.inputs)
    vector = tree.random_like(jax.random.key(0), case.params, jax.random.normal)
    cotangent = numbers(9, *outputs.shape)
    found, exactly, _ = quick(program)(case.params, case.data, vector, cotangent)
    return found, exactly, flat(vector), cotangent


def has_diagonal(case):
    """Classes, numbers, and the sequences whose loss is known."""
    outputs = jax.eval_shape(case.objective.predict, case.params, case.data.inputs)
    return outputs.ndim == 2 or case.objective.loss is sequence_nll


def same_hessian(name):
    found, exactly, _, _ = matrices(name)
    close(found["hessian"], exactly.hessian)


def same_gauss_newton(name):
    found, exactly, vector, _ = matrices(name)
    close(found["gauss_newton"], exactly.gauss_newton)
    close(found["gauss_newton by batches"], exactly.gauss_newton @ vector)


def same_empirical(name):
    found, exactly, _, _ = matrices(name)
    close(found["empirical"], exactly.empirical)


def same_products(name):
    found, exactly, vector, _ = matrices(name)
    close(found["jvp"], exactly.jacobian @ vector)


def same_transposed(name):
    found, exactly, _, cotangent = matrices(name)
    axes = cotangent.ndim
    close(found["vjp"], np.tensordot(cotangent, exactly.jacobian, axes=axes))


def same_diagonal(name):
    case = CASES[name]()
    if has_diagonal(case):
        found, exactly, _, _ = matrices(name)
        close(found["diagonal"], np.diagonal(exactly.gauss_newton))
    else:
        with refused("outputs (n, k)", "sampled_fisher_diagonal"):
            gauss_newton_diagonal(*case)


def drawn_labels(name):
    """The mean over drawn labels is the Fisher; where none is known, it is refused."""
    case = CASES[name]()
    found, exactly, _, _ = matrices(name)
    if "drawn" not in found:
        for build in (
            fisher,
            lambda *given: sampled_fisher(jax.random.key(0), *given, samples=1),
        ):
            with refused("label distribution", "gauss_newton"):
                build(*case)
        return
    if "sequence" not in name:
        close(found["fisher"], exactly.gauss_newton)
    off = np.linalg.norm(found["drawn"] - found["fisher"])
    # Each draw scatters about as much as the matrix is large.
    assert off < 6 * np.linalg.norm(found["fisher"]) / np.sqrt(SAMPLES)


@functools.cache
def inverses(name):
    """Solves with the damped Gauss-Newton matrix, and its dense form."""
    case = CASES[name]()

    def program(params, data, vector):
        curved = gauss_newton(case.objective, params, data)
        matrix = dense(curved)
        damping = 0.02 * jnp.trace(matrix) / len(matrix)
        unflatten = jax.flatten_util.ravel_pytree(params)[1]
        rough = diagonal_preconditioner(
            unflatten(jnp.diagonal(matrix)), damping=damping
        )
        fixed = damped(curved, damping)
        options = {"tol": 1e-10, "max_steps": 300}
        solves = {
            "cg": conjugate_gradient(fixed, vector, **options),
            "cg, preconditioned": conjugate_gradient(
                fixed, vector, preconditioner=rough, **options
            ),
            "minres": minres(fixed, vector, **options),
        }
        return solves, matrix + damping * jnp.eye(len(matrix))

    vector = tree.random_like(jax.random.key(0), case.params, jax.random.normal)
    return *quick(program)(case.params, case.data, vector), flat(vector)


def damped_inverse(name, way):
    solves, matrix, vector = inverses(name)
    assert solves[way].converged
    close(flat(solves[way].value), np.linalg.solve(matrix, vector), 1e-6, 1e-7)


FAMILIES = {
    "Hessian": ("test/test_hessian.py::test_HessianLinearOperator", same_hessian),
    "Gauss-Newton": (
        "test/test_ggn.py::test_GGNLinearOperator_matvec",
        same_gauss_newton,
    ),
    "drawn labels": (
        "test/test_ggn.py::test_GGNLinearOperator_mc_expectation",
        drawn_labels,
    ),
    "empirical Fisher": (
        "test/test_gradient_moments.py::test_EFLinearOperator",
        same_empirical,
    ),
    "Jacobian": ("test/test_jacobian.py::test_JacobianLinearOperator", same_products),
    "its transpose": (
        "test/test_jacobian.py::test_TransposedJacobianLinearOperator",
        same_transposed,
    ),
    "Gauss-Newton diagonal": (
        "test/test_ggn_diagonal.py::test_GGNDiagonalLinearOperator_matvec",
        same_diagonal,
    ),
}
INVERSES = {
    "cg": "test_CGInverseLinearOperator_damped_GGN",
    "cg, preconditioned": "test_CGInverseLinearOperator_damped_GGN",
    "minres": "test_LSMRInverseLinearOperator_damped_GGN",
}
SLOW = ("two logits", "dict, one logit", "sequence, two logits", "sequence, squares")
"""What other cases of their kind cover in the everyday run."""
for _case in CASES:
    for _family, (_source, _check) in FAMILIES.items():
        _name = f"{_case}: {_family}"
        TABLE.add(_name, _source, _check, _case, slow=_case in SLOW)
for _case in ("softmax", "two logits", "dict, squares"):
    for _way, _source in INVERSES.items():
        _source = f"test/test_inverse.py::{_source}"
        _name, _slow = f"{_case}: inverse, {_way}", _case in SLOW
        TABLE.add(_name, _source, damped_inverse, _case, _way, slow=_slow)


@TABLE.cases()
def test_curvlinops(problem):
    problem.check()


def test_sources():
    TABLE.check_sources()
