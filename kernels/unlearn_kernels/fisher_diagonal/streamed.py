"""One example's gradient at a time, squared while it is in the cache."""

from functools import partial

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from unlearn_kernels.precision import summed, wide


def square_sum_streamed(
    inputs: Float[Array, "n g t i"],
    slopes: Float[Array, "n g t o"],
    weights: Float[Array, " n"],
) -> Float[Array, "g i o"]:
    """Σₙ wₙ (Σₜ inputsₙₜ ⊗ slopesₙₜ)² by a loop of plain matrix products.

    On CPU, XLA computes many small products at once (a batched dot) with a poor kernel;
    one after the other they run at full speed, and their results are squared and added
    before they leave the cache.

    Cost: ``2 n g t i o`` operations; memory ``g i o`` numbers beside the operands.
    """
    n, g, _, i = inputs.shape
    o = slopes.shape[3]
    kind = wide(inputs, slopes, weights)
    product = partial(jnp.matmul, precision=summed(), preferred_element_type=kind)

    def step(total: Array, row: tuple[Array, Array, Array]) -> tuple[Array, None]:
        left, right, weight = row
        products = [product(left[k].T, right[k]) for k in range(g)]
        return total + weight * jnp.square(jnp.stack(products)), None

    rows = (inputs, slopes, weights)
    # Like the inputs: inside shard_map it must vary over the devices as they do.
    zero = jnp.zeros_like(inputs, shape=(g, i, o), dtype=kind)
    total, _ = lax.scan(step, zero, rows, length=n)
    return total.astype(jnp.result_type(*rows))


def square_sum_single(
    inputs: Float[Array, "n g 1 i"],
    slopes: Float[Array, "n g 1 o"],
    weights: Float[Array, " n"],
) -> Float[Array, "g i o"]:
    """One position: Σₙ (inputsₙ²) ⊗ (wₙ slopesₙ²), a single matrix product per group.

    Cost: ``2 n g i o`` operations; nothing but the operands and the result is stored.
    """
    kind, dtype = wide(inputs, slopes), jnp.result_type(inputs, slopes, weights)
    left = jnp.square(inputs[:, :, 0].astype(kind))
    right = weights[:, None, None] * jnp.square(slopes[:, :, 0].astype(kind))
    if inputs.shape[1] == 1:
        total = jnp.matmul(left[:, 0].T, right[:, 0], precision=summed())[None]
    else:
        total = jnp.einsum("ngi,ngo->gio", left, right, precision=summed())
    return total.astype(dtype)
