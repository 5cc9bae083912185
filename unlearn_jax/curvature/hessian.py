"""Hessian of the risk, as a product with vectors."""

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.jacobian import linear_part
from unlearn_jax.curvature.operator import LinearOperator, linear_operator
from unlearn_jax.data.accumulate import mass
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import entered, seen
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch, Params


@automatic
def hessian(
    objective: Objective, params: Params, batch: Batch, *, remat: bool = False
) -> LinearOperator:
    """∂² risk / ∂ params²: of the weighted mean of the losses, with ``l2`` · I.

    Forward over reverse: the gradient is linearised once, and every product reuses its
    intermediates. It need not be positive semi-definite; see ``gauss_newton``.

    Args:
        objective: Loss bound to frozen batch statistics.
        params: Where the derivatives are taken.
        batch: Examples with weights, negative ones too.
        remat: Recompute the intermediates of ``predict`` in each product instead of
            keeping them between products. Within a product they are all there at once:
            for a lower peak see ``over_batches``.

    Returns:
        Operator on trees like ``params``.

    Raises:
        ValueError: what is not of the form that ``train.door`` tells.

    Cost: one gradient when built, then the linear part of one, about 1.5 to 2
        gradients, per product; memory the intermediates of one gradient. With
        ``remat`` another forward pass per product.
    Source: Pearlmutter 1994, Fast exact multiplication by the Hessian. As published.
    """
    if remat:
        objective = objective._replace(predict=jax.checkpoint(objective.predict))
    params, batch = entered("hessian", objective, params, batch)
    batch = seen(objective, params, batch)
    shares = batch._replace(weights=batch.weights / mass(batch.weights))

    def slope(at: Params) -> Params:
        # JAX's gradient by complex numbers points the other way.
        return jax.tree.map(jnp.conj, jax.grad(objective.total)(at, shares))

    _, bend, _ = linear_part(slope, params)
    # l2 by hand: through the derivatives it would cost four more passes over a vector.
    return linear_operator(lambda v: tree.axpy(objective.l2, v, bend(v)), params)
