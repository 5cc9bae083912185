"""Generalised Gauss-Newton matrix: as a product with vectors; dense where small."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from unlearn_jax import tree
from unlearn_jax.curvature.jacobian import jacobian_product
from unlearn_jax.curvature.operator import LinearOperator, linear_operator
from unlearn_jax.data.accumulate import accumulate, mass
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.train.door import entered, seen
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Outputs, Params, Scalar
from unlearn_kernels.precision import exact_product


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


@automatic
def dense_gauss_newton(
    objective: Objective, params: Params, batch: Batch, *, batch_size: int = 16
) -> Float[Array, "p p"]:
    """The same matrix itself, in the order of ``ravel_pytree``.

    Args:
        objective: Whose outputs for an example are one row.
        params: Few of them.
        batch: Examples with weights.
        batch_size: Examples whose Jacobians are held at once.

    Raises:
        ValueError: what is not of the form that ``train.door`` tells.

    Cost: for o outputs, o transposed passes and 2 o p² operations an example, where p
        products would be p of :func:`gauss_newton`; memory p² and ``batch_size`` o p.
    """
    params, batch = entered("dense_gauss_newton", objective, params, batch, alone=True)
    batch = seen(objective, params, batch)
    shares = batch.weights / mass(batch.weights)
    flat, back = ravel_pytree(params)

    def summed(part: Batch, flat: Array) -> Array:
        def one(row: Any) -> tuple[Array, Array]:
            inputs, targets = jax.tree.map(lambda leaf: leaf[None], row)

            def told(flat: Array) -> Array:
                return objective.predict(back(flat), inputs)[0]

            def loss(outputs: Array) -> Scalar:
                return objective.loss(outputs[None], targets)[0]

            jacobian = jax.jacrev(told)(flat)
            return jacobian, jnp.matmul(
                jax.hessian(loss)(told(flat)), jacobian, precision="highest"
            )

        jacobians, bent = jax.vmap(one)((part.inputs, part.targets))
        weighted = part.weights.astype(bent.dtype)[:, None, None] * bent
        rows = (each.reshape(-1, flat.size) for each in (jacobians, weighted))
        return exact_product(next(rows).T, next(rows))

    shared = batch._replace(weights=shares)
    total = accumulate(summed, shared, flat, batch_size=batch_size)
    return total + objective.l2 * jnp.eye(flat.size, dtype=total.dtype)
