"""Few-shot erasing: a few steps of ascent of the text encoder on a few images."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.loop import repeat
from unlearn_jax.methods.erasing.curvature import (
    check_kind,
    curvature,
    inverse,
    unit,
)
from unlearn_jax.methods.erasing.images import Images, noisy, retained
from unlearn_jax.methods.erasing.parts import of_part, part_of, taken_out
from unlearn_jax.methods.erasing.rollouts import Generator
from unlearn_jax.methods.erasing.tune import tune
from unlearn_jax.options import check_number, checked
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
    few = _few(images.forget, shots)
    objective = diffusion_objective(generator.denoiser)

    def slope(key: Any, params: Any, few: Batch) -> Any:
        own = noisy(key, generator, few, batch_size)
        return tree.scale(-1.0, jax.grad(objective.risk)(params, own))

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


@checked()
def few_shot_natural(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    images: Images,
    *,
    shots: int = 4,
    part: str = "text",
    kind: str = "ekfac",
    radius: float = 1e-4,
    damping: float = 0.1,
    steps: int = 5,
    points: int = 32,
    kept: int = 512,
) -> Variables:
    """The same ascent along the natural gradient, as far as retained images allow.

    max gᵀd with ½ dᵀ (F + δ) d ≤ r: a loss that is raised has no Gauss-Newton step, its
    model has no end; what ends a step here are r nats of the predictions for a noised
    image that stays.

    Args:
        key: Draws times and noise.
        generator: Whose denoiser stays where it is.
        variables: Of the original.
        images: The first ``shots`` forgotten ones, and retained ones for F.
        shots: Images.
        part: What moves.
        kind: Of F, see ``curvature.curvature``.
        radius: r of each step.
        damping: δ, in mean eigenvalues of F.
        steps: Of ascent.
        points: Noised images of each gradient.
        kept: Noised retained images that F is found from.

    Raises:
        ValueError: fewer forgotten images than shots, an unknown kind, a radius or
            damping that is not positive.

    Cost: F, and steps × points gradients.
    Source: the loss of arXiv 2405.07288; Amari, Natural Gradient Works Efficiently in
        Learning, 1998.
    """
    check_kind(kind)
    for name, number in (("radius", radius), ("damping", damping)):
        check_number(name, number, positive=True)
    few = _few(images.forget, shots)
    first, second = jax.random.split(key)
    own, back = taken_out(generator.denoiser, variables.params, part)
    objective = of_part(diffusion_objective(generator.denoiser), back)
    stay = retained(first, generator, variables, images, kept=kept)
    matrix = curvature(kind, objective, own, stay)

    def step(i: Any, at: Any, given: Any) -> Any:
        key, few, matrix = given
        data = noisy(jax.random.fold_in(key, i), generator, few, points)
        slope = jax.grad(objective.risk)(at, data)
        along = inverse(matrix, damping * unit(matrix))(slope)
        size = tree.dot(slope, along)
        tiny = jnp.finfo(size.dtype).tiny
        return tree.axpy(jnp.sqrt(2 * radius / jnp.maximum(size, tiny)), along, at)

    moved = repeat(steps, step, own, (second, few, matrix))
    return variables._replace(params=back(moved))


def _few(forget: Batch, shots: int) -> Batch:
    if len(forget.weights) < shots:
        raise ValueError(
            f"got {len(forget.weights)} images to forget, expected at least {shots}: "
            "lower shots"
        )
    return jax.tree.map(lambda leaf: leaf[:shots], forget)
