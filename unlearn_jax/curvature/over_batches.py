"""A curvature operator over a data set too large to linearise at once."""

from collections.abc import Callable

import jax.numpy as jnp
from jax.sharding import Mesh

from unlearn_jax import tree
from unlearn_jax.curvature.operator import LinearOperator, linear_operator
from unlearn_jax.data.accumulate import accumulate
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import entered
from unlearn_jax.train.objective import Objective
from unlearn_jax.tree import leading_axis
from unlearn_jax.types import Array, Batch, Params


@automatic
def over_batches(
    build: Callable[[Objective, Params, Batch], LinearOperator],
    objective: Objective,
    params: Params,
    data: Batch,
    *,
    batch_size: int,
    mesh: Mesh | None = None,
) -> LinearOperator:
    """The operator that ``build`` would give for all of ``data`` at once.

    Batches count by the sum of their weights, so that the result is the weighted mean
    over all examples, not a mean of means; ``l2``, where ``build`` holds it, enters
    once.

    Args:
        build: ``hessian``, ``gauss_newton``, ``fisher``, ``empirical_fisher``, or any
            weighted mean over examples plus a constant; further arguments by
            ``functools.partial``.
        objective: Loss bound to frozen batch statistics.
        params: Where the derivatives are taken.
        data: Examples with weights; a size that does not divide is no trouble. Of
            negative ones NaN remains where those of one batch sum to zero.
        batch_size: Examples linearised at once (per device of the mesh).
        mesh: From ``data_mesh``: each device takes its part of the data.

    Returns:
        Operator on trees like ``params``.

    Raises:
        ValueError: what is not of the form that ``train.door`` tells.

    Cost: every product linearises anew: one gradient's (``hessian``) or one forward
        pass's (the others) worth on top of the linear part; memory one batch. Data of a
        single batch are linearised once for all products.
    """

    def one_batch(
        batch: Batch, at: Params, vector: Params, weighted: Array
    ) -> tuple[Params, Array]:
        # Where nothing has weight, the plain mean over batches leaves l2 · I.
        share = jnp.where(weighted, jnp.sum(batch.weights), 1)
        return tree.scale(share, build(objective, at, batch)(vector)), share

    params, data = entered("over_batches", objective, params, data)
    if mesh is None and leading_axis(data) <= batch_size:
        return build(objective, params, data)
    weighted = jnp.any(data.weights != 0)

    def product(vector: Params) -> Params:
        constants = (params, vector, weighted)
        total, mass = accumulate(
            one_batch, data, *constants, batch_size=batch_size, mesh=mesh
        )
        return tree.scale(1.0 / mass, total)

    return linear_operator(product, params)
