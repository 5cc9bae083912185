"""All but One: another concept's guidance, and an unconditional score that stays."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.rollouts import (
    Generator,
    Prompts,
    predicted,
    regression,
    repeated,
    rollouts,
)
from unlearn_jax.methods.erasing.tune import picked, slope_of, tune
from unlearn_jax.options import checked
from unlearn_jax.types import Batch, PRNGKey, Variables


@checked()
def all_but_one(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    part: str = "x",
    silent_weight: float = 1.0,
    steps: int = 250,
    learning_rate: float = 3e-4,
    batch_size: int = 64,
    ways: int = 64,
) -> Variables:
    """Give the concept the guidance of its anchor, and keep ε(x_t, ∅) where it is.

    ‖[ε_θ(c) − sg ε_θ(∅)] − [ε*(c_a) − ε*(∅)]‖² + λ ‖ε_θ(∅) − ε*(∅)‖², both halved.

    Args:
        key: Draws points and their order.
        generator: Its sampler passes the points, prompted for c.
        variables: Of the original.
        prompts: Its retained ones are not read.
        part: What moves.
        silent_weight: λ.
        steps: Of Adam.
        learning_rate: Of Adam.
        batch_size: Points a step; times are those of the sampler's grid, early and late
            ones alike.
        ways: Rollouts that points are drawn from.

    Raises:
        ValueError: an unknown part.

    Cost: ``ways`` images, a prediction under the anchor at each of their points, then
        two gradients a point.
    Source: Hong et al., All but One, 2024, arXiv 2312.12807; no released code. Its
        losses as their abstract tells them, with λ and the weighing of times unknown.
    """
    denoiser = generator.denoiser
    objective = diffusion_objective(denoiser)
    first, second = jax.random.split(key)
    pool = anchored(first, generator, variables, prompts, ways=ways)

    def loss(key: Any, params: Any, pool: Any) -> Any:
        own = picked(key, pool, batch_size)
        mute = {**own.inputs, "tokens": generator.null(batch_size)}
        silent = objective.predict(params, mute)
        level = jax.lax.stop_gradient(silent) + own.targets["guidance"]
        erased = objective.risk(params, own._replace(targets=level))
        drift = jnp.sum((silent - own.targets["silent"]) ** 2, axis=1)
        return erased + silent_weight * 0.5 * jnp.mean(drift)

    moved = tune(
        second,
        variables.params,
        slope_of(loss),
        pool,
        moves=part_of(denoiser, variables.params, part),
        steps=steps,
        learning_rate=learning_rate,
    )
    return variables._replace(params=moved)


def anchored(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    ways: int = 64,
) -> Batch:
    """Points of the prompts to forget, with both targets of :func:`all_but_one`."""
    tokens = repeated(prompts.forget, ways)
    anchors = repeated(prompts.anchor, ways)
    rolls = rollouts(key, generator, variables, tokens)
    there = generator.denoiser, variables, rolls.image, rolls.time
    wanted = predicted(*there, anchors[rolls.prompt])
    targets = {"guidance": wanted - rolls.silent, "silent": rolls.silent}
    return regression(rolls, tokens, rolls.told)._replace(targets=targets)
