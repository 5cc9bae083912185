"""Generalised Gauss-Newton matrix, as a product with vectors."""

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.jacobian import jacobian_product
from unlearn_jax.curvature.operator import LinearOperator, linear_operator
from unlearn_jax.data.accumulate import mass
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import entered, seen
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch, Outputs, Params, Scalar


@automatic
def gauss_newton(
    objective: Objective, params: Params, batch: Batch, *, remat: bool = False
) -> LinearOperator:
    """Jᵀ (∂² mean loss / ∂ outputs²) J + ``l2`` · I, a part of the risk's Hessian.

    What is left out is the curvature of the network. Positive semi-definite whenever
    the loss is convex in the outputs; equal to the Hessian for models linear in their
    parameters.

    Args:
        objective: Loss bound to frozen batch statistics; any twice differentiable loss.
        params: Where the derivatives are taken.
        batch: Examples with weights, negative ones too.
        remat: Recompute the intermediates of ``predict`` in each product instead of
            keeping them between products. Within a product they are all there at once:
            for a lower peak see ``over_batches``.

    Returns:
        Operator on trees like ``params``.

    Raises:
        ValueError: what is not of the form that ``train.door`` tells.

    Cost: one forward pass when built, then two forward passes of linear work and one
        transposed, about 4/3 gradients, per product. With ``remat`` two forward passes
        more.
    Source: Schraudolph 2002, Fast curvature matrix-vector products. Differs: the
        loss's own Hessian by forward over reverse, for any loss.
    """
    if remat:
        objective = objective._replace(predict=jax.checkpoint(objective.predict))
    params, batch = entered("gauss_newton", objective, params, batch)
    batch = seen(objective, params, batch)
    shares = batch.weights / mass(batch.weights)

    def mean_loss(outputs: Outputs) -> Scalar:
        return jnp.sum(shares * objective.loss(outputs, batch.targets))

    outputs, jvp, vjp = jacobian_product(objective, params, batch.inputs)
    _, bend = jax.linearize(jax.grad(mean_loss), outputs)

    def product(vector: Params) -> Params:
        bent = vjp(jnp.conj(bend(jvp(vector))))
        return tree.axpy(objective.l2, vector, bent)

    return linear_operator(product, params)
