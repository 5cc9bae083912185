"""Few-shot erasing: a few steps of ascent of the text encoder on a few images."""

from typing import Any

import jax

from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.methods.erasing.images import Images, noisy
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.rollouts import Generator
from unlearn_jax.methods.erasing.tune import tune
from unlearn_jax.options import checked
from unlearn_jax.tree import scale
from unlearn_jax.types import Batch, PRNGKey, Variables


@checked()
def few_shot(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    images: Images,
    *,
    shots: int = 4,
    part: str = "text",
    steps: int = 30,
    learning_rate: float = 1e-3,
    batch_size: int = 2,
) -> Variables:
    """Raise the diffusion loss of a few images by moving what reads their captions.

    The embedding drifts to a neighbour's; there is nothing that ends it, and nothing
    that holds the rest: the number of steps is the method.

    Args:
        key: Draws times and noise.
        generator: Whose denoiser stays where it is.
        variables: Of the original.
        images: Only the first ``shots`` forgotten ones are read.
        shots: Images.
        part: What moves.
        steps: Of Adam.
        learning_rate: Of Adam; as published 1e-5 for an encoder of 123 million numbers.
        batch_size: Images a step.

    Raises:
        ValueError: fewer forgotten images than shots.

    Cost: steps × batch gradients.
    Source: Fuchi and Takagi, Erasing Concepts from Text-to-Image Diffusion Models with
        Few-shot Unlearning, 2024, arXiv 2405.07288. Differs: all of the encoder moves,
        not its MLPs and last attention alone; Adam without decay and with its usual β;
        real images in place of their codes.
    """
    forget = images.forget
    if len(forget.weights) < shots:
        raise ValueError(
            f"got {len(forget.weights)} images to forget, expected at least {shots}: "
            "lower shots"
        )
    few = jax.tree.map(lambda leaf: leaf[:shots], forget)
    objective = diffusion_objective(generator.denoiser)

    def slope(key: Any, params: Any, few: Batch) -> Any:
        own = noisy(key, generator, few, batch_size)
        return scale(-1.0, jax.grad(objective.risk)(params, own))

    moved = tune(
        key,
        variables.params,
        slope,
        few,
        moves=part_of(generator.denoiser, variables.params, part),
        steps=steps,
        learning_rate=learning_rate,
    )
    return variables._replace(params=moved)
