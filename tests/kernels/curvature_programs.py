"""Programs of the curvature room and of projections, for one net."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
from described import Made, Program, key_shape, shaped
from jax.sharding import Mesh

from benchmarks import workloads
from unlearn_jax.attribution.projection import project
from unlearn_jax.curvature import contractions
from unlearn_jax.curvature.diagonal import (
    batch_gradient_moment,
    empirical_fisher_diagonal,
    fisher_diagonal,
    gauss_newton_diagonal,
    sampled_fisher_diagonal,
)
from unlearn_jax.curvature.eigen_kronecker import ekfac
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.curvature.gradient_gram import gradient_gram
from unlearn_jax.curvature.hessian import hessian
from unlearn_jax.curvature.kronecker_inverse import kronecker_inverse
from unlearn_jax.curvature.kronecker_scores import scores_over
from unlearn_jax.curvature.operator import LinearOperator, block, damped
from unlearn_jax.curvature.over_batches import over_batches
from unlearn_jax.curvature.per_example import loss_gradients
from unlearn_jax.curvature.sketches import sketch
from unlearn_jax.solvers.conjugate_gradient import (
    conjugate_gradient,
)
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Batch


def curvatures(net: workloads.Workload, mesh: Mesh | None = None) -> Iterator[Program]:
    """On one net; sums over examples are split over the data of a mesh."""
    objective, split = net.objective, {"mesh": mesh}
    params, batch = shaped(net.params), shaped(net.batch)
    key = key_shape()
    labelled = net.name != "lm"

    def program(what: str, function: Callable[..., Any], *others: Any) -> Program:
        return Program(
            f"{what} {net.name}", lambda: (function, (params, batch, *others))
        )

    def with_gradients(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(p: Any, b: Batch, *others: Any) -> Any:
            return function(*loss_gradients(objective, p, b), p, b, *others)

        return run

    def product(matrix: Any, p: Any, b: Batch) -> LinearOperator:
        count = leading_axis(b)
        return over_batches(matrix, objective, p, b, batch_size=count, **split)

    yield program(
        "diagonal empirical Fisher",
        partial(empirical_fisher_diagonal, objective, **split),
    )
    yield program(
        "diagonal sampled Fisher",
        lambda p, b, k: sampled_fisher_diagonal(k, objective, p, b, mesh=mesh),
        key,
    )
    if labelled:
        yield program("diagonal Fisher", partial(fisher_diagonal, objective, **split))
        yield program(
            "diagonal Gauss-Newton", partial(gauss_newton_diagonal, objective, **split)
        )
    yield program(
        "diagonal of batch gradients",
        lambda p, b: batch_gradient_moment(objective, p, b, batch_size=2),
    )
    yield program(
        "operator Gauss-Newton, 20 steps of CG",
        lambda p, b, v: conjugate_gradient(
            damped(product(gauss_newton, p, b), 1e-2), v, tol=0.0, max_steps=20
        ),
        params,
    )
    yield program(
        "operator Hessian, block of 4",
        lambda p, b, v: block(product(hessian, p, b), v),
        jax.tree.map(lambda x: jax.ShapeDtypeStruct((4, *x.shape), x.dtype), params),
    )

    def eigenbasis(p: Any, b: Batch) -> Any:
        return ekfac(None, objective, p, b, mesh=mesh)

    yield program("EK-FAC fit", eigenbasis)

    def with_state(function: Callable[..., Any], *others: Any) -> Callable[[], Made]:
        def make() -> Made:
            state = jax.eval_shape(eigenbasis, shaped(params), shaped(batch))
            return function, (params, batch, state, *others)

        return make

    few = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype), batch
    )
    for rank in (None, 4):

        def scores(p: Any, b: Any, s: Any, q: Any, rank: Any = rank) -> Any:
            return scores_over(objective, p, s, q, b, damping=0.1, rank=rank)

        yield Program(f"EK-FAC scores, rank {rank} {net.name}", with_state(scores, few))
    yield Program(
        f"EK-FAC inverse {net.name}",
        with_state(lambda p, b, s, v: kronecker_inverse(s, damping=0.1)(v), params),
    )
    for what, contract in {
        "gram": lambda t, g, p, b: contractions.gram(g, g),
        "squared norms": lambda t, g, p, b: contractions.squared_norms(g),
        "along": lambda t, g, p, b: contractions.along(t, g, p),
        "weighted sum": lambda t, g, p, b: contractions.weighted_sum(t, g, b.weights),
    }.items():
        yield program(f"contraction {what}", with_gradients(contract))
    yield program("contraction own gram", partial(gradient_gram, objective))
    for kind in ("dense", "gaussian", "sketch"):

        def projected(t: Any, g: Any, p: Any, b: Any, k: Any, kind: str = kind) -> Any:
            if kind == "sketch":
                return sketch(k, t, g, width=256)
            return project(k, t, g, kind=kind, width=256)

        yield program(f"projection {kind}", with_gradients(projected), key)
