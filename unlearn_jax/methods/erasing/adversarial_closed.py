"""AdvUnlearn's twin: the attacker inside of training is solved in closed form."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.methods.editing.denoiser import text_maps
from unlearn_jax.methods.editing.rece import adversarial_keys
from unlearn_jax.methods.erasing.esd import erasing, esd, staying
from unlearn_jax.methods.erasing.newton import SOLVE, Solve, check_solve, stepped
from unlearn_jax.methods.erasing.newton_prompts import remaining
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.rollouts import Generator, Prompts
from unlearn_jax.methods.erasing.tune import picked, slope_of, tune
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.options import checked
from unlearn_jax.types import Array, Batch, PRNGKey, Variables


@checked()
def adv_closed(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    part: str = "x",
    attack_l2: float = 0.1,
    retain_weight: float = 1.0,
    warm_up: int = 100,
    steps: int = 150,
    learning_rate: float = 3e-4,
    batch_size: int = 64,
    ways: int = 64,
) -> Variables:
    """``adv_unlearn`` with RECE's attack inside: one solve finds the embeddings.

    It attacks the K and V maps (see ``rece.adversarial_keys``), so these or more must
    be what moves: an encoder cannot be defended against embeddings.

    Args:
        key: Draws points and their order.
        generator: Its sampler passes the points.
        variables: Of the original.
        prompts: Its anchors are not read.
        part: What is defended.
        attack_l2: λ of the attack.
        retain_weight: As of ``adv_unlearn``.
        warm_up: As there.
        steps: Of Adam, each against a new attack.
        learning_rate: Of Adam.
        batch_size: Points a step, half at their prompts and half at what was found.
        ways: Rollouts of either kind.

    Raises:
        ValueError: an unknown part.

    Cost: 2 × ``ways`` images, then two gradients a point and a solve of d × d a step.
    """
    denoiser = generator.denoiser
    objective = diffusion_objective(denoiser)
    first, second, third, fourth = jax.random.split(key, 4)
    given = generator, variables, prompts
    warm = esd(
        first,
        *given,
        part=part,
        retain_weight=retain_weight,
        steps=warm_up,
        learning_rate=learning_rate,
        batch_size=batch_size,
        ways=ways,
    )
    pool = erasing(second, *given, ways=ways)
    stay = staying(third, *given, ways=ways)

    def loss(key: Any, params: Any, constants: Any) -> Any:
        original, pool, stay = constants
        first, second = jax.random.split(key)
        own = picked(first, pool, batch_size)
        now = Variables(jax.lax.stop_gradient(params), {})
        words = half_attacked(denoiser, original, now, own, l2=attack_l2)
        seen = own.inputs["image"], own.inputs["time"], words
        told = denoiser.denoise(Variables(params, {}), *seen)
        erased = 0.5 * jnp.mean(jnp.sum((told - own.targets) ** 2, axis=1))
        kept = objective.risk(params, picked(second, stay, batch_size))
        return erased + retain_weight * kept

    moved = tune(
        fourth,
        warm.params,
        slope_of(loss),
        (variables, pool, stay),
        moves=part_of(denoiser, variables.params, part),
        steps=steps,
        learning_rate=learning_rate,
    )
    return variables._replace(params=moved)


@checked()
def adv_closed_newton(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    part: str = "x",
    attack_l2: float = 0.1,
    solve: Solve = SOLVE,
    ways: int = 32,
) -> Variables:
    """ESD's second-order steps, each at prompts that are attacked where it stands.

    Args:
        key: Draws points.
        generator: As of :func:`adv_closed`.
        variables: Of the original.
        prompts: Its anchors are not read; the retained ones for F alone.
        part: What is defended.
        attack_l2: λ of the attack.
        solve: Its steps, see ``newton_prompts.esd_newton``; every other point of each
            is at its prompt as it is. The first attacks nothing: the original's
            embeddings are what it would find.
        ways: Rollouts of either kind.

    Raises:
        ValueError: an unknown part, and as ``newton.check_solve``.

    Cost: as ``esd_newton``, and a solve of d × d a step.
    Source: no single one; the loss of arXiv 2405.15234 with ESD's target.
    """
    check_solve(solve)
    denoiser = generator.denoiser
    first, second, last = jax.random.split(key, 3)
    given = generator, variables, prompts
    pool = variables, erasing(first, *given, ways=ways)
    stay = remaining(second, *given, solve=solve, ways=ways)

    def predict(params: Any, inputs: Any) -> Array:
        seen = inputs["image"], inputs["time"], inputs["words"]
        return denoiser.denoise(Variables(params, {}), *seen)

    def chosen(key: Any, params: Any, pool: Any) -> Batch:
        original, points = pool
        own = picked(key, points, solve.points)
        now = Variables(params, {})
        words = half_attacked(denoiser, original, now, own, l2=attack_l2)
        return own._replace(inputs={**own.inputs, "words": words})

    steps = generator, variables, pool, stay, solve
    return stepped(last, *steps, part=part, predict=predict, chosen=chosen)


def half_attacked(
    denoiser: Denoiser, original: Variables, now: Variables, own: Batch, *, l2: float
) -> Float[Array, "n t d"]:
    """Embeddings of prompts, every other one as the closed-form attack finds it."""
    text = denoiser.encode(original, own.inputs["tokens"])
    maps, before = (text_maps(denoiser, each) for each in (now, original))
    rows = text.reshape(-1, text.shape[-1])
    found = adversarial_keys(maps, before, rows, l2=l2)
    found = found.reshape(text.shape).astype(text.dtype)
    half = jnp.arange(len(text))[:, None, None] % 2 == 0
    return jnp.where(half, found, text)
