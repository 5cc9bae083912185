"""SPM: an adapter of rank one that erases, anchored where it must not apply."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.methods.erasing.adapters import Adapter, blank, with_adapters
from unlearn_jax.methods.erasing.esd import staying
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
from unlearn_jax.types import Array, PRNGKey, Variables

ANCHORS = ("prompts", "noise")


@checked()
def spm(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    strength: float = 1.0,
    anchors: str = "prompts",
    anchor_weight: float = 1.0,
    steps: int = 500,
    learning_rate: float = 3e-3,
    batch_size: int = 64,
    ways: int = 64,
) -> Adapter:
    """Train one adapter: ESD's target, the anchor prompt in the null prompt's place.

    ‖ε_{θ+M}(c) − [ε*(c_a) − η (ε*(c) − ε*(c_a))]‖² + λ ‖ε_{θ+M}(s) − ε*(s)‖², halved.

    Args:
        key: Draws the adapter, points and their order.
        generator: Its sampler passes the points.
        variables: Of the original, which stays as it is.
        prompts: All three are read.
        strength: η.
        anchors: s. "prompts": retained ones, at points of their own. "noise": random
            directions as long as the concept's embedding times 0.8 to 1.2, at its
            points, as published; there they are taken in proportion to 1 − cosine,
            which in so many dimensions takes all.
        anchor_weight: λ, of means (1000 as published, where two sums are compared).
        steps: Of Adam.
        learning_rate: Of Adam; 1e-4 as published, for 3,000 steps.
        batch_size: Points a step, of either term.
        ways: Rollouts of either kind.

    Raises:
        ValueError: unknown anchors.

    Cost: ``ways`` images, a prediction at each of their points, then two gradients a
        point.
    Source: Lyu et al., One-dimensional Adapter to Rule Them All, 2024,
        arXiv 2312.16145. Differs: points are sampled with the original; biases, norms
        and what tells the time have no adapter.
    """
    if anchors not in ANCHORS:
        raise ValueError(f"anchors is {anchors!r}; choose from {', '.join(ANCHORS)}")
    denoiser = generator.denoiser
    objective = diffusion_objective(denoiser)
    first, second, third, last = jax.random.split(key, 4)
    tokens, neutral = (repeated(p, ways) for p in (prompts.forget, prompts.anchor))
    rolls = rollouts(first, generator, variables, tokens)
    there = denoiser, variables, rolls.image, rolls.time
    other = predicted(*there, neutral[rolls.prompt])
    pool = regression(rolls, tokens, other - strength * (rolls.told - other))
    stay = staying(second, generator, variables, prompts, ways=ways)

    def loss(key: Any, adapter: Any, constants: Any) -> Any:
        original, pool, stay = constants
        first, second, third = jax.random.split(key, 3)
        merged = with_adapters(original, [adapter])
        own = picked(first, pool, batch_size)
        total = objective.risk(merged.params, own)
        if anchors == "prompts":
            kept = picked(second, stay, batch_size)
            return total + anchor_weight * objective.risk(merged.params, kept)
        text = denoiser.encode(original, own.inputs["tokens"])
        random = _like(third, text)
        seen = own.inputs["image"], own.inputs["time"], random
        before, after = (denoiser.denoise(v, *seen) for v in (original, merged))
        moved = jnp.sum((after - jax.lax.stop_gradient(before)) ** 2, axis=1)
        return total + anchor_weight * 0.5 * jnp.mean(moved)

    adapter = blank(third, variables)
    moves = jax.tree.map(lambda leaf: True, adapter)
    return tune(
        last,
        adapter,
        slope_of(loss),
        (variables, pool, stay),
        moves=moves,
        steps=steps,
        learning_rate=learning_rate,
    )


def _like(key: Any, text: Array) -> Array:
    """Random directions, as long as texts (n, t, d) times 0.8 to 1.2."""
    first, second = jax.random.split(key)
    drawn = jax.random.normal(first, text.shape, text.dtype)
    size = jnp.linalg.norm(text.reshape(len(text), -1), axis=1)
    own = jnp.linalg.norm(drawn.reshape(len(text), -1), axis=1)
    share = jax.random.uniform(second, (len(text),), text.dtype, 0.8, 1.2)
    return drawn * (share * size / own)[:, None, None]
