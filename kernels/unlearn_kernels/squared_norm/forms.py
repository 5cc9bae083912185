"""Squared norms without all gradients at once, in plain JAX."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from unlearn_kernels.precision import summed


def squared_norm_pairs(
    inputs: Float[Array, "n g t i"], slopes: Float[Array, "n g t o"]
) -> Float[Array, " n"]:
    """Σₜₛ ⟨inputsₙₜ, inputsₙₛ⟩ ⟨slopesₙₜ, slopesₙₛ⟩: no gradient is formed.

    Cost: ``2 n g t² (i + o)`` operations; memory ``2 n g t²`` numbers.
    """
    if inputs.shape[2] == 1:
        left = jnp.sum(jnp.square(inputs[:, :, 0]), axis=2)
        right = jnp.sum(jnp.square(slopes[:, :, 0]), axis=2)
        return jnp.sum(left * right, axis=1)
    left = jnp.einsum("ngti,ngsi->ngts", inputs, inputs, precision=summed())
    right = jnp.einsum("ngto,ngso->ngts", slopes, slopes, precision=summed())
    return jnp.einsum("ngts,ngts->n", left, right, precision=summed())


def squared_norm_streamed(
    inputs: Float[Array, "n g t i"], slopes: Float[Array, "n g t o"]
) -> Float[Array, " n"]:
    """‖Σₜ inputsₙₜ ⊗ slopesₙₜ‖² by a loop of plain matrix products.

    On CPU, XLA computes many small products at once with a poor kernel; one after the
    other they run at full speed and are squared while they are in the cache.

    Cost: ``2 n g t i o`` operations; memory ``g i o`` numbers beside the operands.
    """

    def one(example: tuple[Array, Array]) -> Array:
        pairs = zip(*example, strict=True)
        products = [jnp.matmul(a.T, d, precision=summed()) for a, d in pairs]
        return jnp.sum(jnp.square(jnp.stack(products)))

    return lax.map(one, (inputs, slopes))
