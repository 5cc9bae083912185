"""SalUn by few second-order steps inside of its mask."""

from typing import Any

import jax

from unlearn_jax.methods.erasing.images import Images, retained
from unlearn_jax.methods.erasing.newton import SOLVE, Solve, check_solve, stepped
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.rollouts import Generator
from unlearn_jax.methods.erasing.salun import renamed, salient, twice_captioned
from unlearn_jax.methods.erasing.tune import picked
from unlearn_jax.options import checked
from unlearn_jax.types import PRNGKey, Variables


@checked()
def salun_newton(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    images: Images,
    *,
    saliency: str = "gradient",
    fraction: float = 0.5,
    part: str = "network",
    solve: Solve = SOLVE,
    points: int = 512,
) -> Variables:
    """Forgotten images on the anchor's prediction; F in place of the retained loss.

    Args:
        key: Draws images, times and noise.
        generator: Whose denoiser is tuned.
        variables: Of the original, which also teaches.
        images: As of ``salun``; those that stay for F and the mask alone.
        saliency: As of ``salun``; a step's model has rows and columns of the mask only.
        fraction: As there.
        part: As there.
        solve: Its steps; F is the Fisher of the original on retained images.
        points: Noised images that the mask is found by.

    Raises:
        ValueError: as ``salun`` and ``newton.check_solve``.

    Cost: the mask, F, and for each step one gradient and its products a point.
    Source: no single one; the loss and the mask of arXiv 2310.12508.
    """
    check_solve(solve)
    first, second, third, last = jax.random.split(key, 4)
    mask: Any = None
    if saliency != "none":
        given = first, generator, variables, images
        mask = salient(
            *given,
            moves=part_of(generator.denoiser, variables.params, part),
            saliency=saliency,
            fraction=fraction,
            points=points,
        )
    count = solve.points * min(solve.steps, 4)
    own = picked(second, twice_captioned(images), count)
    pool = renamed(third, generator, variables.params, own)
    stay = retained(second, generator, variables, images, kept=solve.kept)
    steps = generator, variables, pool, stay, solve
    return stepped(last, *steps, part=part, mask=mask)
