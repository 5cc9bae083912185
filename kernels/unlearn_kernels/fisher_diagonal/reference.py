"""Sum of squared per-example gradients of a weight, as plainly as it can be written."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from unlearn_kernels.precision import summed, wide


def square_sum_reference(
    inputs: Float[Array, "n g t i"],
    slopes: Float[Array, "n g t o"],
    weights: Float[Array, " n"],
) -> Float[Array, "g i o"]:
    """Σₙ wₙ (Σₜ inputsₙₜ ⊗ slopesₙₜ)², each example's gradient formed and squared.

    Cost: ``2 n g t i o`` operations; memory ``n g i o`` numbers.
    """
    gradients = jnp.einsum(
        *("ngti,ngto->ngio", inputs, slopes),
        precision=summed(),
        preferred_element_type=wide(inputs, slopes),
    )
    # A multiplication and a sum, which need no product's precision.
    squares = weights[:, None, None, None] * jnp.square(gradients)
    dtype = jnp.result_type(inputs, slopes, weights)
    return jnp.sum(squares, axis=0).astype(dtype)
