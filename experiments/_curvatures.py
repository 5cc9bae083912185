"""The table of approximations that are held against the dense matrix.

Every entry has two phases: ``prepare`` makes a state out of parameters and data once,
``apply`` uses it on one vector. Each is timed on its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.contractions import dense as written_gradients
from unlearn_jax.curvature.diagonal import (
    empirical_fisher_diagonal,
    gauss_newton_diagonal,
    sampled_fisher_diagonal,
)
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.fisher import empirical_fisher, sampled_fisher
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.kronecker import kfac
from unlearn_jax.curvature.kronecker_blocks import Kronecker, decompose
from unlearn_jax.curvature.kronecker_inverse import (
    kronecker_inverse,
    kronecker_operator,
)
from unlearn_jax.curvature.operator import LinearOperator, damped
from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_jax.curvature.stochastic_diagonal import (
    bekas_diagonal,
    hutchinson_diagonal,
)
from unlearn_jax.data.batch import Batch
from unlearn_jax.solvers.conjugate_gradient import conjugate_gradient
from unlearn_jax.solvers.krylov import lanczos, low_rank_inverse
from unlearn_jax.solvers.minres import minres
from unlearn_jax.solvers.neumann import neumann
from unlearn_jax.solvers.stacked import combine, project
from unlearn_jax.solvers.woodbury import woodbury_apply, woodfisher
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Params


@dataclass(frozen=True)
class Effort:
    """How much work the approximations may do.

    Attributes:
        probes: Random vectors of the estimated diagonals, few and many.
        samples: Labels drawn per example, few and many.
        steps: Solver steps, few and many.
        rank: Eigenvectors that are kept.
        rows: Per-example gradients in the Woodbury inverse.
    """

    probes: tuple[int, int] = (16, 128)
    samples: tuple[int, int] = (1, 16)
    steps: tuple[int, int] = (10, 100)
    rank: int = 30
    rows: int = 256


class Diagonal(NamedTuple):
    """Description: an estimate of a diagonal, and which one it aims at."""

    target: str
    make: Callable[[Any, Objective, Params, Batch], Params]


class Approximation(NamedTuple):
    """Description: a product with a matrix or with its damped inverse.

    Attributes:
        target: "gauss_newton" or "hessian": what it stands for.
        state: Key in the table of states, empty when there is nothing to prepare.
        apply: ``(state, objective, params, data, vector, damping) -> vector``.
    """

    target: str
    state: str
    apply: Callable[..., Params]


def diagonals(effort: Effort) -> Mapping[str, Diagonal]:
    """Every diagonal; l2 is left out of all."""

    def hutchinson(probes: int) -> Any:
        return lambda k, o, p, d: (
            hutchinson_diagonal(k, gauss_newton(o, p, d), probes=probes).value
        )

    def bekas(probes: int, kind: str) -> Any:
        return lambda k, o, p, d: (
            bekas_diagonal(k, gauss_newton(o, p, d), probes=probes, kind=kind).value
        )

    def sampled(samples: int) -> Any:
        return lambda k, o, p, d: sampled_fisher_diagonal(k, o, p, d, samples=samples)

    table = {
        "empirical Fisher": Diagonal(
            "empirical_fisher", lambda k, o, p, d: empirical_fisher_diagonal(o, p, d)
        ),
        # Under cross entropy the exact Fisher is the same matrix.
        "Gauss-Newton (Fisher)": Diagonal(
            "gauss_newton", lambda k, o, p, d: gauss_newton_diagonal(o, p, d)
        ),
    }
    for count in effort.samples:
        table[f"sampled Fisher {count}"] = Diagonal("gauss_newton", sampled(count))
    for count in effort.probes:
        table[f"Hutchinson {count}"] = Diagonal("gauss_newton", hutchinson(count))
    for count in effort.probes:
        table[f"Bekas {count}"] = Diagonal("gauss_newton", bekas(count, "gaussian"))
    most = effort.probes[-1]
    table[f"Hadamard {most}"] = Diagonal("gauss_newton", bekas(most, "hadamard"))
    return table


def states(effort: Effort) -> Mapping[str, Callable[..., Any]]:
    """What is prepared once: ``(key, objective, params, data, damping) -> state``.

    A Woodbury state holds the damping; all others take it with each vector.
    """

    def eigenvectors(k: Any, o: Objective, p: Params, d: Batch, damping: Any) -> Any:
        rank = min(effort.rank, tree.size(p))
        return lanczos(k, gauss_newton(_bare(o), p, d), rank=rank)

    def rows(k: Any, o: Objective, p: Params, d: Batch, damping: Any) -> Any:
        count = min(effort.rows, d.weights.shape[0])
        some = jax.random.permutation(k, d.weights.shape[0])[:count]
        part = jax.tree.map(lambda leaf: leaf[some], d)
        tape, gradients = loss_gradients(o, p, part)
        stacked = written_gradients(tape, gradients)
        return woodfisher(stacked, damping=damping + o.l2)

    return {
        "kfac": lambda k, o, p, d, damping: _ready(kfac(k, o, p, d, labels="exact")),
        "ekfac": lambda k, o, p, d, damping: _ready(ekfac(k, o, p, d, labels="exact")),
        "diagonal": lambda k, o, p, d, damping: gauss_newton_diagonal(o, p, d),
        "low rank": eigenvectors,
        "woodbury": rows,
    }


def products(effort: Effort) -> Mapping[str, Approximation]:
    """Every product with the undamped matrix, l2 included."""

    def exact(build: Callable[..., LinearOperator], *, l2: bool) -> Any:
        def apply(s: Any, o: Objective, p: Params, d: Batch, v: Any, _: Any) -> Params:
            product = build(o, p, d)(v)
            return product if l2 else tree.axpy(o.l2, v, product)

        return apply

    def drawn(o: Objective, p: Params, d: Batch) -> LinearOperator:
        return sampled_fisher(jax.random.key(7), o, p, d, samples=effort.samples[0])

    def kronecker(s: Any, o: Any, p: Params, d: Any, v: Any, _: Any) -> Params:
        return tree.axpy(o.l2, v, kronecker_operator(s, p)(v))

    def diagonal(s: Any, o: Any, p: Params, d: Any, v: Any, _: Any) -> Params:
        return jax.tree.map(lambda entries, x: (entries + o.l2) * x, s, v)

    def low_rank(s: Any, o: Any, p: Params, d: Any, v: Any, _: Any) -> Params:
        inside = combine(s.eigenvalues * project(s.basis, v), s.basis)
        return tree.axpy(o.l2, v, inside)

    target = "gauss_newton"
    return {
        "Hessian": Approximation("hessian", "", exact(hessian, l2=True)),
        "Gauss-Newton": Approximation(target, "", exact(gauss_newton, l2=True)),
        "empirical Fisher": Approximation(
            target, "", exact(empirical_fisher, l2=False)
        ),
        f"sampled Fisher {effort.samples[0]}": Approximation(
            target, "", exact(drawn, l2=False)
        ),
        "K-FAC": Approximation(target, "kfac", kronecker),
        "EK-FAC": Approximation(target, "ekfac", kronecker),
        f"low rank {effort.rank}": Approximation(target, "low rank", low_rank),
        "diagonal": Approximation(target, "diagonal", diagonal),
    }


def inverses(effort: Effort) -> Mapping[str, Approximation]:
    """Every product with the inverse of the matrix plus l2 and damping."""

    def iterative(solve: Callable[..., Any], build: Any, steps: int) -> Any:
        def apply(
            s: Any, o: Objective, p: Params, d: Batch, v: Any, damping: Any
        ) -> Params:
            matrix = damped(build(o, p, d), damping)
            return solve(matrix, v, tol=1e-6, max_steps=steps).value

        return apply

    def preconditioned(
        s: Any, o: Objective, p: Params, d: Batch, v: Any, damping: Any
    ) -> Params:
        matrix = damped(gauss_newton(o, p, d), damping)
        near = kronecker_inverse(s, damping=damping + o.l2)
        return conjugate_gradient(
            matrix, v, preconditioner=near, tol=1e-6, max_steps=effort.steps[0]
        ).value

    def kronecker(s: Any, o: Any, p: Any, d: Any, v: Any, damping: Any) -> Params:
        return kronecker_inverse(s, damping=damping + o.l2)(v)

    def diagonal(s: Any, o: Any, p: Any, d: Any, v: Any, damping: Any) -> Params:
        return jax.tree.map(lambda e, x: x / (e + o.l2 + damping), s, v)

    def low_rank(s: Any, o: Any, p: Any, d: Any, v: Any, damping: Any) -> Params:
        return low_rank_inverse(s, v, damping=damping + o.l2, complement=True)

    def rows(s: Any, o: Any, p: Any, d: Any, v: Any, damping: Any) -> Params:
        return woodbury_apply(s, v)

    def flat(s: Any, o: Any, p: Any, d: Any, v: Any, damping: Any) -> Params:
        return tree.scale(1 / jnp.asarray(damping + o.l2), v)

    target = "gauss_newton"
    few, many = effort.steps
    table = {}
    for steps in effort.steps:
        solve = iterative(conjugate_gradient, gauss_newton, steps)
        table[f"CG {steps}"] = Approximation(target, "", solve)
    table[f"CG {few}, EK-FAC"] = Approximation(target, "ekfac", preconditioned)
    solve = iterative(minres, hessian, many)
    table[f"MINRES {many}, Hessian"] = Approximation("hessian", "", solve)
    solve = iterative(neumann, gauss_newton, many)
    table[f"Neumann {many}"] = Approximation(target, "", solve)
    table |= {
        f"low rank {effort.rank}": Approximation(target, "low rank", low_rank),
        f"WoodFisher {effort.rows}": Approximation(target, "woodbury", rows),
        "K-FAC": Approximation(target, "kfac", kronecker),
        "EK-FAC": Approximation(target, "ekfac", kronecker),
        "diagonal": Approximation(target, "diagonal", diagonal),
        "damping alone": Approximation(target, "", flat),
    }
    return table


def _bare(objective: Objective) -> Objective:
    return objective._replace(l2=0.0)


def _ready(state: Kronecker) -> Kronecker:
    """With the eigenvectors of every block, which each inverse would ask for anew."""
    return state._replace(blocks=tuple(decompose(block) for block in state.blocks))
