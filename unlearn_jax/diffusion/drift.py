"""How far a denoiser's prediction without a prompt has moved, unasked."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.diffusion.draws import draw, noised
from unlearn_jax.diffusion.schedule import Schedule
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.types import Array, Batch, PRNGKey, Scalar, Variables


def silent_drift(
    key: PRNGKey, denoiser: Denoiser, schedule: Schedule, data: Batch, *, end: int = 0
) -> Callable[[Variables, Variables], Scalar]:
    """Of two generators: Σ ‖ε(x_t, ∅) − ε*(x_t, ∅)‖² / Σ ‖ε*(x_t, ∅)‖².

    Guidance starts at the prediction under the null prompt, so that what moves it
    moves the images of every prompt; a method that holds prompts alone does not see it.

    Args:
        key: Draws a time and noise for each image, the same for all generators.
        denoiser: Of both generators.
        schedule: How much of each image is left.
        data: Images (n, h, w, c) and captions, which are not read; held-out ones.
        end: Token that the null prompt consists of.

    Returns:
        (variables of the original, of another) → a share; 0 where nothing moved.

    Cost: one forward pass an image, of either generator.
    """
    draws = draw(key, schedule, jnp.asarray(data.inputs), drop=1.0)
    points = noised(schedule, data, draws, end=end)

    def told(variables: Variables) -> Float[Array, "n p"]:
        return denoiser.model.apply(variables, points.inputs)

    def drift(original: Variables, variables: Variables) -> Scalar:
        before, after = told(original), told(variables)
        return jnp.sum((after - before) ** 2) / jnp.sum(before**2)

    return jax.jit(drift)
