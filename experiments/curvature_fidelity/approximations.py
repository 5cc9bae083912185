"""The tables of approximations that are held against the dense matrix.

Every entry has two phases: a state is made out of parameters and data once, and applied
to one vector. Each is timed on its own.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from experiments.curvature_fidelity.config import Effort
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
from unlearn_jax.curvature.kronecker_blocks import decompose
from unlearn_jax.curvature.kronecker_inverse import (
    kronecker_inverse,
    kronecker_operator,
)
from unlearn_jax.curvature.operator import damped
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

MATRICES = {"gauss_newton": gauss_newton, "hessian": hessian}
"""What is written out."""


class Point(NamedTuple):
    """Description: where curvature is taken, and what is added before inverting."""

    objective: Objective
    params: Params
    data: Batch
    damping: float

    def of(self, build: Callable[..., Any], *first: Any, **options: Any) -> Any:
        """What a builder of the library makes here."""
        where = (self.objective, self.params, self.data)
        return build(*first, *where, **options)

    @property
    def bare(self) -> "Point":
        """Without l2."""
        return self._replace(objective=self.objective._replace(l2=0.0))

    @property
    def shift(self) -> Any:
        """All that is added to the curvature of the mean loss: l2 and damping."""
        return self.damping + self.objective.l2


class Approximation(NamedTuple):
    """Description: a product with a matrix or its damped inverse, or a diagonal.

    Attributes:
        apply: ``(state, point, vector) -> vector``; a diagonal gets a random key.
        state: Key in the table of states, empty when there is nothing to prepare.
        target: "gauss_newton", "hessian" or "empirical_fisher": what it stands for.
    """

    apply: Callable[..., Params]
    state: str = ""
    target: str = "gauss_newton"


Table = Mapping[str, Approximation]


def diagonals(effort: Effort) -> Table:
    """Every diagonal; l2 is left out of all."""

    def estimated(estimate: Callable[..., Any], probes: int, **options: Any) -> Any:
        def apply(s: Any, at: Point, key: Any) -> Params:
            matrix = at.of(gauss_newton)
            return estimate(key, matrix, probes=probes, **options).value

        return Approximation(apply)

    def sampled(samples: int) -> Any:
        return Approximation(
            lambda s, at, key: at.of(sampled_fisher_diagonal, key, samples=samples)
        )

    most = effort.probes[-1]
    return {
        "empirical Fisher": Approximation(
            lambda s, at, key: at.of(empirical_fisher_diagonal),
            target="empirical_fisher",
        ),
        # Under cross entropy the exact Fisher is the same matrix.
        "Gauss-Newton (Fisher)": Approximation(
            lambda s, at, key: at.of(gauss_newton_diagonal)
        ),
        **{f"sampled Fisher {n}": sampled(n) for n in effort.samples},
        **{f"Hutchinson {n}": estimated(hutchinson_diagonal, n) for n in effort.probes},
        **{
            f"Bekas {n}": estimated(bekas_diagonal, n, kind="gaussian")
            for n in effort.probes
        },
        f"Hadamard {most}": estimated(bekas_diagonal, most, kind="hadamard"),
    }


def states(effort: Effort) -> Mapping[str, Callable[[Any, Point], Any]]:
    """What is prepared once: ``(key, point) -> state``.

    A Woodbury state holds the damping; all others take it with each vector.
    """

    def kronecker(build: Callable[..., Any]) -> Any:
        def make(key: Any, at: Point) -> Any:
            state = at.of(build, key, labels="exact")
            # Each inverse would ask for the eigenvectors of every block anew.
            return state._replace(blocks=tuple(map(decompose, state.blocks)))

        return make

    def low_rank(key: Any, at: Point) -> Any:
        rank = min(effort.rank, tree.size(at.params))
        return lanczos(key, at.bare.of(gauss_newton), rank=rank)

    def woodbury(key: Any, at: Point) -> Any:
        n = at.data.weights.shape[0]
        some = jax.random.permutation(key, n)[: min(effort.rows, n)]
        part = jax.tree.map(lambda leaf: leaf[some], at.data)
        tape, gradients = at._replace(data=part).of(loss_gradients)
        return woodfisher(written_gradients(tape, gradients), damping=at.shift)

    return {
        "kfac": kronecker(kfac),
        "ekfac": kronecker(ekfac),
        "diagonal": lambda key, at: at.of(gauss_newton_diagonal),
        "low rank": low_rank,
        "woodbury": woodbury,
    }


def products(effort: Effort) -> Table:
    """Every product with the undamped matrix, l2 included."""
    samples = effort.samples[0]

    def with_l2(apply: Callable[..., Params], state: str = "") -> Approximation:
        return Approximation(
            lambda s, at, v: tree.axpy(at.objective.l2, v, apply(s, at, v)), state
        )

    def kronecker(s: Any, at: Point, v: Params) -> Params:
        return kronecker_operator(s, at.params)(v)

    def drawn(s: Any, at: Point, v: Params) -> Params:
        return at.of(sampled_fisher, jax.random.key(7), samples=samples)(v)

    def low_rank(s: Any, at: Point, v: Params) -> Params:
        return combine(s.eigenvalues * project(s.basis, v), s.basis)

    return {
        "Hessian": Approximation(lambda s, at, v: at.of(hessian)(v), target="hessian"),
        "Gauss-Newton": Approximation(lambda s, at, v: at.of(gauss_newton)(v)),
        "empirical Fisher": with_l2(lambda s, at, v: at.of(empirical_fisher)(v)),
        f"sampled Fisher {samples}": with_l2(drawn),
        "K-FAC": with_l2(kronecker, "kfac"),
        "EK-FAC": with_l2(kronecker, "ekfac"),
        f"low rank {effort.rank}": with_l2(low_rank, "low rank"),
        "diagonal": with_l2(
            lambda s, at, v: jax.tree.map(jnp.multiply, s, v), "diagonal"
        ),
    }


def inverses(effort: Effort) -> Table:
    """Every product with the inverse of the matrix plus l2 and damping."""

    def iterative(
        solve: Callable[..., Any], steps: int, target: str = "gauss_newton"
    ) -> Approximation:
        def apply(s: Any, at: Point, v: Params, **options: Any) -> Params:
            matrix = damped(at.of(MATRICES[target]), at.damping)
            return solve(matrix, v, tol=1e-6, max_steps=steps, **options).value

        return Approximation(apply, target=target)

    def preconditioned(s: Any, at: Point, v: Params) -> Params:
        near = kronecker_inverse(s, damping=at.shift)
        solver = iterative(conjugate_gradient, few)
        return solver.apply((), at, v, preconditioner=near)

    def kronecker(s: Any, at: Point, v: Params) -> Params:
        return kronecker_inverse(s, damping=at.shift)(v)

    def low_rank(s: Any, at: Point, v: Params) -> Params:
        return low_rank_inverse(s, v, damping=at.shift, complement=True)

    def diagonal(s: Any, at: Point, v: Params) -> Params:
        return jax.tree.map(lambda e, x: x / (e + at.shift), s, v)

    few, many = effort.steps
    return {
        **{f"CG {n}": iterative(conjugate_gradient, n) for n in effort.steps},
        f"CG {few}, EK-FAC": Approximation(preconditioned, "ekfac"),
        f"MINRES {many}, Hessian": iterative(minres, many, "hessian"),
        f"Neumann {many}": iterative(neumann, many),
        f"low rank {effort.rank}": Approximation(low_rank, "low rank"),
        f"WoodFisher {effort.rows}": Approximation(
            lambda s, at, v: woodbury_apply(s, v), "woodbury"
        ),
        "K-FAC": Approximation(kronecker, "kfac"),
        "EK-FAC": Approximation(kronecker, "ekfac"),
        "diagonal": Approximation(diagonal, "diagonal"),
        "damping alone": Approximation(
            lambda s, at, v: tree.scale(1 / jnp.asarray(at.shift), v)
        ),
    }
