"""SPM: an adapter of rank one that erases, anchored where it must not apply."""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.methods.erasing.adapters import Adapter, blank, with_adapters
from unlearn_jax.methods.erasing.esd import away, staying
from unlearn_jax.methods.erasing.newton import Solve, check_solve, newton_steps
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
from unlearn_jax.types import Array, Batch, PRNGKey, Variables

ANCHORS = ("prompts", "noise")
DENSE = Solve(weight=0.1, steps=3, products=None, points=128)


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
    given = generator, variables, prompts
    pool = neutral(first, *given, strength=strength, ways=ways)
    stay = staying(second, *given, ways=ways)

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


@checked()
def spm_newton(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    strength: float = 1.0,
    anchor_weight: float = 1.0,
    solve: Solve = DENSE,
    ways: int = 64,
) -> Adapter:
    """The same adapter, anchored at prompts, by few Gauss-Newton steps.

    An adapter has few numbers, so that G + λ (1 + δ) I of both terms together can be
    formed and factored; λ / 2 ‖adapter − blank‖² stands in the place of a Fisher. What
    is read is drawn and stays at first: where nothing is written yet, it has no
    gradient.

    Args:
        key: Draws the adapter, points and their order.
        generator: As of :func:`spm`.
        variables: As there.
        prompts: As there.
        strength: η.
        anchor_weight: Of the anchors, of their mean with the other term.
        solve: Its ``kind`` and ``kept`` are not read; half of its points are anchors.
        ways: Rollouts of either kind.

    Raises:
        ValueError: as ``newton.check_solve``.

    Cost: as :func:`spm` to draw points; for each dense step a transposed pass for each
        pixel of a point, 2 p² operations a pixel and p³ / 3, p the adapter's numbers.
    Source: no single one; the loss of arXiv 2312.16145.
    """
    check_solve(solve)
    objective = diffusion_objective(generator.denoiser)
    first, second, third, last = jax.random.split(key, 4)
    given = generator, variables, prompts
    pool = neutral(first, *given, strength=strength, ways=ways)
    stay = staying(second, *given, ways=ways)
    half = -(-solve.points // 2)

    def predict(adapter: Any, inputs: Any) -> Any:
        return objective.predict(with_adapters(variables, [adapter]).params, inputs)

    def chosen(key: Any, at: Any, pools: Any) -> Batch:
        parts = zip(jax.random.split(key), pools, strict=True)
        own, kept = (picked(part, pool, half) for part, pool in parts)
        kept = kept._replace(weights=anchor_weight * kept.weights)
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), own, kept)

    adapter = blank(third, variables)
    matrix = jax.tree.map(jnp.ones_like, adapter)
    own = objective._replace(predict=predict)
    steps = own, adapter, (pool, stay), matrix, solve
    return newton_steps(last, *steps, chosen=chosen)


def neutral(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    strength: float = 1.0,
    ways: int = 64,
) -> Batch:
    """Points of the prompts to forget, and ε*(c_a) − η (ε*(c) − ε*(c_a)) there."""
    tokens, anchor = (repeated(p, ways) for p in (prompts.forget, prompts.anchor))
    rolls = rollouts(key, generator, variables, tokens)
    there = generator.denoiser, variables, rolls.image, rolls.time
    other = predicted(*there, anchor[rolls.prompt])
    return regression(rolls, tokens, away(rolls.told, other, strength))


def _like(key: Any, text: Array) -> Array:
    """Random directions, as long as texts (n, t, d) times 0.8 to 1.2."""
    first, second = jax.random.split(key)
    drawn = jax.random.normal(first, text.shape, text.dtype)
    size = jnp.linalg.norm(text.reshape(len(text), -1), axis=1)
    own = jnp.linalg.norm(drawn.reshape(len(text), -1), axis=1)
    share = jax.random.uniform(second, (len(text),), text.dtype, 0.8, 1.2)
    return drawn * (share * size / own)[:, None, None]
