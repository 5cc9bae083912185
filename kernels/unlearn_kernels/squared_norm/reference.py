"""Squared norms of per-example gradients, as plainly as they can be written."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from unlearn_kernels.precision import summed


def squared_norm_reference(
    inputs: Float[Array, "n g t i"], slopes: Float[Array, "n g t o"]
) -> Float[Array, " n"]:
    """‖Σₜ inputsₙₜ ⊗ slopesₙₜ‖², each example's gradient formed and squared.

    Cost: ``2 n g t i o`` operations; memory ``n g i o`` numbers.
    """
    gradients = jnp.einsum("ngti,ngto->ngio", inputs, slopes, precision=summed())
    return jnp.sum(jnp.square(gradients), axis=(1, 2, 3))
