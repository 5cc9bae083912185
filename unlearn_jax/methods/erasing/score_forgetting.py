"""SFD: a generator of one call is distilled, and forgets while it learns to draw."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from unlearn_jax.loop import repeat
from unlearn_jax.methods.erasing.rollouts import Generator, Prompts
from unlearn_jax.methods.erasing.score_gap import (
    Levels,
    asked_for,
    drawn_by,
    noised_for,
    score_loss,
)
from unlearn_jax.options import checked
from unlearn_jax.types import Params, PRNGKey, Scalar, Variables

PUBLISHED = Levels()


@checked()
def score_forgetting(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    weight: float = 0.01,
    correction: float = 1.2,
    levels: Levels = PUBLISHED,
    steps: int = 2000,
    learning_rate: float = 1e-4,
    batch_size: int = 64,
) -> Variables:
    """Distil the denoiser into one call, the forgotten prompt into the anchor's images.

    In turn: a second score ψ learns the noise of the generator's own images; the
    generator follows the difference of the teacher's score from ψ, the teacher being
    asked for the anchor where the generator is asked for what is forgotten.

    Args:
        key: Draws prompts, noise and times.
        generator: The teacher's denoiser and schedule; no sampler is run.
        variables: Of the teacher, with which the generator and ψ begin.
        prompts: All three are read; a step draws its prompts from the forgotten and the
            retained, all alike.
        weight: μ of forgotten prompts in both losses; 0 distils all but them.
        correction: a of :func:`score_loss`.
        levels: Which times.
        steps: Of both networks in turn.
        learning_rate: Of both Adams, whose first moment has no memory.
        batch_size: Images a step.

    Returns:
        Of a generator that draws by ``diffusion.one_call``, in place of a sampler.

    Raises:
        ValueError: no steps, a weight or correction below 0, levels out of order.

    Cost: four passes of the generator and five of a score an image and step, three of
        them backward; an image afterwards is one pass.
    Source: Chen et al., Score Forgetting Distillation, 2024, arXiv 2409.11219; settings
        of its CIFAR-10 code, whose rate is 1e-5 for 50,000 steps. Differs: prompts are
        drawn, not taken from a loader of real images; no moving average.
    """
    if not 0 < levels.least < levels.most or levels.start <= 0:
        raise ValueError(
            f"got {levels}, expected positive ratios of noise to image, the least "
            "below the most"
        )
    denoiser, schedule = generator.denoiser, generator.schedule
    rule = optax.chain(optax.clip(1.0), optax.adam(learning_rate, b1=0.0))

    def step(i: Any, state: Any, given: Any) -> Any:
        key, teacher, asked, aims = given
        (draws, fake), (draws_memory, fake_memory) = state
        first, second = jax.random.split(jax.random.fold_in(key, i))
        seen = asked_for(first, generator, asked, aims, weight, levels, batch_size)
        images = jax.lax.stop_gradient(drawn_by(generator, draws, seen, levels))

        def told(own: Params) -> Scalar:
            noised = noised_for(schedule, images, seen)
            inputs = {"image": noised, "time": seen.times, "tokens": seen.tokens}
            gap = denoiser.model.apply(Variables(own, {}), inputs)
            gap = gap - seen.noise.reshape(gap.shape)
            return jnp.mean(seen.weights * jnp.mean(gap**2, axis=1))

        fake, fake_memory = _moved(rule, told, fake, fake_memory)
        seen = asked_for(second, generator, asked, aims, weight, levels, batch_size)

        def drawn(own: Params) -> Scalar:
            scores = teacher, fake
            return score_loss(generator, own, scores, seen, levels, correction)

        draws, draws_memory = _moved(rule, drawn, draws, draws_memory)
        return (draws, fake), (draws_memory, fake_memory)

    asked = jnp.concatenate([jnp.asarray(prompts.forget), jnp.asarray(prompts.retain)])
    aims = jnp.concatenate([jnp.asarray(prompts.anchor), jnp.asarray(prompts.retain)])
    params, memory = variables.params, rule.init(variables.params)
    moves = jnp.arange(len(asked)) < len(prompts.forget)
    given = key, params, (asked, moves), aims
    (moved, _), _ = repeat(steps, step, ((params, params), (memory, memory)), given)
    return variables._replace(params=moved)


def _moved(rule: Any, loss: Any, params: Params, memory: Any) -> tuple[Params, Any]:
    update, memory = rule.update(jax.grad(loss)(params), memory, params)
    return optax.apply_updates(params, update), memory
