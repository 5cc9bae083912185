"""Sum of squared per-example gradients of a weight, as plainly as it can be written."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float


def square_sum_reference(
    inputs: Float[Array, "n g t i"],
    slopes: Float[Array, "n g t o"],
    weights: Float[Array, " n"],
) -> Float[Array, "g i o"]:
    """Σₙ wₙ (Σₜ inputsₙₜ ⊗ slopesₙₜ)², each example's gradient formed and squared.

    Cost: ``2 n g t i o`` operations; memory ``n g i o`` numbers.
    """
    gradients = jnp.einsum(
        "ngti,ngto->ngio", inputs, slopes, precision=lax.Precision.HIGHEST
    )
    return jnp.einsum("n,ngio->gio", weights, jnp.square(gradients))
