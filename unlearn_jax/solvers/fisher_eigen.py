"""Leading eigenvectors of an empirical Fisher, by the Gram matrix of gradients."""

from typing import Any

import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.contractions import dense
from unlearn_jax.curvature.gradient_gram import gradient_gram
from unlearn_jax.curvature.per_example import block_size, loss_gradients
from unlearn_jax.curvature.tapping import tape
from unlearn_jax.data.accumulate import accumulate, mass, present
from unlearn_jax.options import check_whole
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.solvers.krylov import LowRank
from unlearn_jax.solvers.stacked import combine
from unlearn_jax.train.door import entered
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch, Params


@automatic
def fisher_eigen(
    objective: Objective, params: Params, data: Batch, *, rank: int
) -> LowRank:
    """Σₙ wₙ gₙ gₙᵀ / Σₙ wₙ on its leading eigenvectors; exact for n ≤ rank examples.

    With U and Λ of the n × n matrix of √(wₙ wₘ) gₙ·gₘ / Σ w, the eigenvectors are
    Σₙ √(wₙ / Σ w) Uₙ gₙ / √Λ. Where rounding leaves nothing of Λ, zeros.

    Args:
        objective: Any loss; ``l2`` is left out.
        params: Where the gradients are taken.
        data: Examples with weights that are not negative.
        rank: Eigenvectors; no more than there are examples are kept.

    Raises:
        ValueError: no rank, and what is not of the form that ``train.door`` tells.

    Cost: two gradients of each example, n² + n r inner products, n³; memory as
        ``gradient_gram``, then r vectors. Lanczos asks 2 r products of n examples.
    """
    check_whole("rank", rank)
    params, data = entered("fisher_eigen", objective, params, data, alone=True)
    data = present(data)
    kernel = gradient_gram(objective, params, data)
    shares = jnp.asarray(data.weights, kernel.dtype) / mass(data.weights)
    roots = jnp.sqrt(shares)
    values, vectors = jnp.linalg.eigh(jnp.outer(roots, roots) * kernel)
    # Those of largest value stand last.
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    least = len(kernel) * jnp.finfo(values.dtype).eps * values[0]
    there = values > least
    sizes = jnp.where(there, jnp.sqrt(jnp.where(there, values, 1)), jnp.inf)
    within = Batch(
        data.inputs,
        {"own": data.targets, "shares": vectors * jnp.outer(roots, 1 / sizes)},
        data.weights,
    )

    def summed(batch: Batch, at: Params) -> Params:
        own = batch._replace(targets=batch.targets["own"])
        factors = jnp.where(batch.weights[:, None] != 0, batch.targets["shares"], 0)
        return combine(factors.T, dense(*loss_gradients(objective, at, own)))

    count: Any = tree.leading_axis(data)
    size = block_size(tape(objective.predict, params, data.inputs), count)
    basis = accumulate(summed, within, params, batch_size=size)
    return LowRank(basis, jnp.where(there, values, 0))
