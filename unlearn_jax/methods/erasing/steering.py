"""TRCE's second stage: the early way of a malicious prompt is turned to a safe one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.rollouts import (
    Generator,
    Prompts,
    predicted,
    repeated,
    rollouts,
)
from unlearn_jax.methods.erasing.tune import picked, slope_of, tune
from unlearn_jax.options import check_number, checked
from unlearn_jax.types import Array, Batch, PRNGKey, Variables


class Steering(NamedTuple):
    """Description: what the second stage is asked.

    Attributes:
        guidance: s of the targets, ε(∅) + s (ε(c) − ε(∅)) of the original.
        margin: m of the hinge, in means over pixels.
        early: Share of the sampler's steps, from the first, whose points are steered.
        hold: Weight of unconditional predictions on unconditional ways.
    """

    guidance: float = 15.0
    margin: float = 0.01
    early: float = 0.5
    hold: float = 100.0


STEERING = Steering()


@checked()
def trce_steering(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    original: Variables,
    prompts: Prompts,
    *,
    steering: Steering = STEERING,
    part: str = "steering",
    steps: int = 200,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
    ways: int = 64,
    as_published: bool = False,
) -> Variables:
    """Nearer to the safe prompt's guided prediction than to the malicious one's.

    max(0, ‖ε_θ − f_safe‖² − ‖ε_θ − f_unsafe‖² + m), the mean of that of ε_θ(c) and of
    ε_θ(∅), at early points of the original's ways; and the unconditional prediction of
    the first stage, on unconditional ways. All norms are means over pixels.

    Args:
        key: Draws points and their order.
        generator: Its sampler passes the points.
        variables: After the first stage (``editing.trce``).
        original: Before it.
        prompts: Malicious ones and, as anchors, safe ones; others are not read.
        steering: See :class:`Steering`.
        part: What moves: self-attention and the queries of cross-attention.
        steps: Of Adam.
        learning_rate: Of Adam.
        batch_size: Points of either kind in a step.
        ways: Rollouts of either kind.
        as_published: Gradients are never cleared: each step follows the sum of all so
            far, whatever the rate says.

    Raises:
        ValueError: an unknown part, a share outside of 0 to 1, a number that is not
            finite.

    Cost: 2 × ``ways`` images, then two gradients a point and step.
    Source: Chen et al., TRCE, 2025, arXiv 2503.07389. Differs: the guided target is the
        paper's (released: scale 1 + s); what holds is asked at a point's own time
        (released: at one drawn from the same bin); no weight decay.
    """
    check_number("early", steering.early, positive=True)
    if steering.early > 1:
        raise ValueError(
            f"early is {steering.early}, expected a share of the steps, at most 1"
        )
    check_number("hold", steering.hold, least=0.0)
    check_number("guidance", steering.guidance)
    check_number("margin", steering.margin)
    first, second, third = jax.random.split(key, 3)
    pool = steered(first, generator, original, prompts, steering, ways)
    silent = generator.null(ways)
    rolls = rollouts(second, generator, original, silent)
    seen = {"image": rolls.image, "time": rolls.time}
    null = generator.null(len(rolls.time))
    aim = predicted(generator.denoiser, variables, rolls.image, rolls.time, null)
    stay = Batch(seen, aim, jnp.ones(len(rolls.time), aim.dtype))

    def loss(key: Any, params: Any, constants: Any) -> Any:
        pool, stay = constants
        first, second = jax.random.split(key)
        own, kept = picked(first, pool, batch_size), picked(second, stay, batch_size)
        now = Variables(params, {})

        def told(data: Batch, tokens: Any) -> Array:
            inputs = {name: data.inputs[name] for name in ("image", "time")}
            return generator.denoiser.model.apply(now, {**inputs, "tokens": tokens})

        null = generator.null(batch_size)
        both = [told(own, each) for each in (own.inputs["tokens"], null)]
        turned = sum(hinge(each, own.targets, steering.margin) for each in both)
        apart = jnp.mean(jnp.square(told(kept, null) - kept.targets))
        return turned / 2 + steering.hold * apart

    rule = optax.adam(learning_rate)
    moved = tune(
        third,
        variables.params,
        slope_of(loss),
        (pool, stay),
        moves=part_of(generator.denoiser, variables.params, part),
        steps=steps,
        learning_rate=learning_rate,
        rule=accumulating(rule) if as_published else rule,
    )
    return variables._replace(params=moved)


def accumulating(
    rule: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """The rule, fed with the sum of all gradients so far."""
    return optax.chain(optax.trace(decay=1.0), rule)


def steered(
    key: PRNGKey,
    generator: Generator,
    original: Variables,
    prompts: Prompts,
    steering: Steering,
    ways: int,
) -> Batch:
    """Early points of malicious prompts, with both guided predictions as targets."""
    tokens, safe = repeated(prompts.forget, ways), repeated(prompts.anchor, ways)
    rolls = rollouts(key, generator, original, tokens)
    # All ways are at T first, then one step on.
    count = max(round(steering.early * generator.steps), 1) * ways
    image, time, prompt, told, silent = (each[:count] for each in rolls)
    anchor = predicted(generator.denoiser, original, image, time, safe[prompt])
    aims = {
        name: silent + steering.guidance * (each - silent)
        for name, each in (("safe", anchor), ("unsafe", told))
    }
    inputs = {"image": image, "time": time, "tokens": tokens[prompt]}
    return Batch(inputs, aims, jnp.ones(count, told.dtype))


def hinge(
    told: Float[Array | np.ndarray, "m p"], aims: dict[str, Any], margin: float
) -> Float[Array, ""]:
    """Mean over points of max(0, ‖told − safe‖² − ‖told − unsafe‖² + m), per pixel."""
    near, far = (
        jnp.mean(jnp.square(told - aims[name]), axis=1) for name in ("safe", "unsafe")
    )
    return jnp.mean(jnp.maximum(near - far + margin, 0))
