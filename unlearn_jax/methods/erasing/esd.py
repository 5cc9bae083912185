"""ESD: the prompt is taught the opposite of what it meant."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.rollouts import (
    Generator,
    Prompts,
    grid,
    predicted,
    regression,
    repeated,
    rolled,
    rollouts,
)
from unlearn_jax.methods.erasing.tune import left_out, picked, slope_of, tune
from unlearn_jax.options import checked
from unlearn_jax.types import Array, Batch, PRNGKey, Variables


@checked()
def esd(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    part: str = "x",
    strength: float = 1.0,
    retain_weight: float = 0.0,
    on_policy: bool = False,
    steps: int = 250,
    learning_rate: float = 3e-4,
    batch_size: int = 64,
    ways: int = 64,
) -> Variables:
    """Regress ε(x_t, c) on ε*(x_t, ∅) − η [ε*(x_t, c) − ε*(x_t, ∅)].

    x_t are points where a generator passes that is prompted for c.

    Args:
        key: Draws points and their order.
        generator: With the guidance that the points are sampled under, 3 as released.
        variables: Of the original, which also teaches.
        prompts: Its anchors are not read.
        part: What moves, see ``parts.part_of``.
        strength: η; the later release tells 1 + η, its "negative guidance".
        retain_weight: Of the mean loss on points of retained prompts, where the
            original's prediction is to stay; 0 as published.
        on_policy: Sample with the model as it is at each step, one time for a batch, as
            first released. False: with the original, as in the second release; all
            points are then drawn beforehand, and their targets with them.
        steps: Of Adam.
        learning_rate: Of Adam.
        batch_size: Points a step.
        ways: Rollouts that points are drawn from (off policy, and of the retained).

    Raises:
        ValueError: an unknown part.

    Cost: off policy ``ways`` images are drawn (twice with ``retain_weight``), then one
        gradient a point; on policy as many partial drawings as gradients, half an image
        each, and two predictions.
    Source: Gandikota et al., Erasing Concepts from Diffusion Models, 2023,
        arXiv 2303.07345. Differs: batches of points instead of single ones; times of
        the sampler's grid, not drawn between its times; the retained term is not
        theirs.
    """
    denoiser, count = generator.denoiser, batch_size
    objective = diffusion_objective(denoiser)
    first, second, third = jax.random.split(key, 3)
    forgets = jnp.asarray(prompts.forget)
    pool = (
        None
        if on_policy
        else erasing(first, generator, variables, prompts, strength=strength, ways=ways)
    )
    stay = None
    if not left_out(retain_weight):
        stay = staying(second, generator, variables, prompts, ways=ways)

    def fresh(key: Any, params: Any, original: Any, forgets: Any) -> Batch:
        first, second = jax.random.split(key)
        stop = jax.random.randint(first, (), 0, generator.steps)
        tokens = repeated(forgets, count)
        now = Variables(jax.lax.stop_gradient(params), {})
        image = rolled(second, generator, now, tokens, stop)
        time = jnp.asarray(grid(generator.schedule, generator.steps))[stop]
        time = jnp.full(count, time)
        given = denoiser, original, image, time
        told, silent = (
            predicted(*given, each) for each in (tokens, generator.null(count))
        )
        inputs = {"image": image, "time": time, "tokens": tokens}
        weights = jnp.ones(count, image.dtype)
        return Batch(inputs, away(told, silent, strength), weights)

    def loss(key: Any, params: Any, constants: Any) -> Any:
        original, forgets, pool, stay = constants
        first, second = jax.random.split(key)
        if pool is None:
            own = fresh(first, params, original, forgets)
        else:
            own = picked(first, pool, count)
        total = objective.risk(params, own)
        if stay is not None:
            kept = objective.risk(params, picked(second, stay, count))
            total = total + retain_weight * kept
        return total

    moved = tune(
        third,
        variables.params,
        slope_of(loss),
        (variables, forgets, pool, stay),
        moves=part_of(denoiser, variables.params, part),
        steps=steps,
        learning_rate=learning_rate,
    )
    return variables._replace(params=moved)


def away(
    told: Float[Array, "m p"], silent: Float[Array, "m p"], strength: Any = 1.0
) -> Float[Array, "m p"]:
    """ε(∅) − η [ε(c) − ε(∅)]."""
    return silent - strength * (told - silent)


def erasing(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    strength: float = 1.0,
    ways: int = 64,
) -> Batch:
    """ESD's regression off policy: points of the prompts to forget, and targets.

    A least-squares problem like any other: what second-order steps are given.
    """
    tokens = repeated(prompts.forget, ways)
    rolls = rollouts(key, generator, variables, tokens)
    return regression(rolls, tokens, away(rolls.told, rolls.silent, strength))


def staying(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    ways: int = 64,
) -> Batch:
    """Points of retained prompts, and what the original tells there."""
    tokens = repeated(prompts.retain, ways)
    rolls = rollouts(key, generator, variables, tokens)
    return regression(rolls, tokens, rolls.told)
