"""What must not be forgotten, as a matrix: its products, its inverse, its unit."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.curvature.diagonal import empirical_fisher_diagonal
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.kronecker_blocks import Kronecker, mean_eigenvalue
from unlearn_jax.curvature.kronecker_inverse import (
    kronecker_inverse,
    kronecker_operator,
)
from unlearn_jax.curvature.operator import LinearOperator, diagonal, linear_operator
from unlearn_jax.solvers.fisher_eigen import fisher_eigen
from unlearn_jax.solvers.krylov import LowRank, low_rank_inverse
from unlearn_jax.solvers.stacked import combine, project
from unlearn_jax.train.objective import Objective
from unlearn_jax.tree import size
from unlearn_jax.types import Batch, Params, PRNGKey, Scalar

KINDS = ("diagonal", "ekfac", "low_rank")
RANK = 256
"""Eigenvectors of "low_rank"."""
Matrix = Kronecker | LowRank | Params


def curvature(kind: str, objective: Objective, params: Params, data: Batch) -> Matrix:
    """The empirical Fisher of examples of a denoiser, in one of three forms; traced.

    Args:
        kind: "diagonal", "ekfac", or "low_rank": on its :data:`RANK` leading
            eigenvectors, and zero elsewhere; all of it for no more examples than that.
        objective: ``diffusion_objective``.
        params: Where.
        data: Noised images; or points with :func:`as_drawn` targets, of which it is the
            Fisher of the model itself.

    Raises:
        ValueError: an unknown kind.
    """
    check_kind(kind)
    if kind == "diagonal":
        return empirical_fisher_diagonal(objective, params, data)
    if kind == "low_rank":
        return fisher_eigen(objective, params, data, rank=RANK)
    return ekfac(None, objective, params, data)


def check_kind(kind: str) -> None:
    """Refuse an unknown name.

    Raises:
        ValueError: names those that there are.
    """
    if kind not in KINDS:
        raise ValueError(f"curvature is {kind!r}; choose from {', '.join(KINDS)}")


def as_drawn(key: PRNGKey, told: Batch) -> Batch:
    """Targets drawn from the model that told them: unit noise around each.

    Squared gradients of these are in expectation the Fisher, which is the Gauss-Newton
    matrix of ½ ‖·‖²; those of the told targets themselves are zero.
    """
    targets = told.targets
    noise = jax.random.normal(key, targets.shape, targets.dtype)
    return told._replace(targets=targets + noise)


def product(matrix: Matrix, like: Params) -> LinearOperator:
    """F as a product."""
    if isinstance(matrix, LowRank):

        def matvec(v: Params) -> Params:
            share = project(matrix.basis, v)
            return combine(matrix.eigenvalues * share, matrix.basis)

        return linear_operator(matvec, like)
    if isinstance(matrix, Kronecker):
        return kronecker_operator(matrix, like)
    return diagonal(matrix)


def inverse(matrix: Matrix, damping: Any) -> Callable[[Any], Any]:
    """The map v → (F + damping · I)⁻¹ v."""
    if isinstance(matrix, LowRank):
        return lambda v: low_rank_inverse(matrix, v, damping=damping, complement=True)
    if isinstance(matrix, Kronecker):
        return kronecker_inverse(matrix, damping=damping)
    return lambda v: jax.tree.map(lambda x, f: x / (f + damping), v, matrix)


def unit(matrix: Matrix) -> Scalar:
    """Mean eigenvalue."""
    if isinstance(matrix, LowRank):
        count = len(matrix.eigenvalues)
        return jnp.sum(matrix.eigenvalues) * count / size(matrix.basis)
    if isinstance(matrix, Kronecker):
        return mean_eigenvalue(matrix)
    total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(matrix))
    return jnp.asarray(total) / size(matrix)
