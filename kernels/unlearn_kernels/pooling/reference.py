"""Max-pooling as XLA writes it."""

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float


def max_pool2d_reference(
    inputs: Float[Array, "n h w c"], window: tuple[int, int]
) -> Float[Array, "n p q c"]:
    """Take the largest value of each window by ``lax.reduce_window``.

    Args:
        inputs: Images, channels last.
        window: Height and width of the windows, which do not overlap (pixels).

    Cost: ``n h w c`` comparisons; its gradient is a ``select_and_scatter``, which XLA
        runs element by element on CPU.
    """
    shape = (1, *window, 1)
    return lax.reduce_window(inputs, -jnp.inf, lax.max, shape, shape, "VALID")
