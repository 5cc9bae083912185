"""AdvUnlearn: erase what an attacker finds, again and again."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float

from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.loop import repeat
from unlearn_jax.methods.erasing.esd import away, esd, staying
from unlearn_jax.methods.erasing.parts import part_of
from unlearn_jax.methods.erasing.rollouts import (
    Generator,
    Prompts,
    regression,
    repeated,
    rollouts,
)
from unlearn_jax.methods.erasing.tune import picked, slope_of, tune
from unlearn_jax.options import checked
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables


@checked()
def adv_unlearn(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    part: str = "text",
    retain_weight: float = 1.0,
    warm_up: int = 100,
    steps: int = 150,
    learning_rate: float = 3e-4,
    attack_steps: int = 8,
    attack_rate: float = 0.05,
    batch_size: int = 64,
    ways: int = 64,
) -> Variables:
    """ESD's loss at prompts behind an adversarial token, found anew in each step.

    The attack: the embedding δ of a word in front of the prompt that brings the
    original's prediction back, min ‖ε_θ(x_t, δ ⊕ c) − ε*(x_t, c)‖². The defence: ESD's
    target at δ ⊕ c, and the original's predictions for retained prompts.

    Args:
        key: Draws points, their order and where attacks begin.
        generator: Its sampler passes the points.
        variables: Of the original.
        prompts: With an end to spare, since a word is put in front; anchors are not
            read.
        part: What is defended.
        retain_weight: γ.
        warm_up: First steps of plain ESD, with the same retained term.
        steps: Of Adam, each against a new attack.
        learning_rate: Of Adam.
        attack_steps: Of the attack's own Adam.
        attack_rate: Of the attack's.
        batch_size: Points a step.
        ways: Rollouts of either kind.

    Raises:
        ValueError: an unknown part.

    Cost: 2 × ``ways`` images, then attack_steps + 2 gradients a point and step.
    Source: Zhang et al., Defensive Unlearning with Adversarial Training, 2024,
        arXiv 2405.15234. Differs: points are the original's; the attack's gradients are
        its own in each step (the released code never clears them, so that they pile up)
        and its last point is the one returned (there, the one before).
    """
    objective = diffusion_objective(generator.denoiser)
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
    tokens = repeated(prompts.forget, ways)
    rolls = rollouts(second, generator, variables, tokens)
    aims = {"away": away(rolls.told, rolls.silent), "told": rolls.told}
    pool = regression(rolls, tokens, rolls.told)._replace(targets=aims)
    stay = staying(third, *given, ways=ways)

    def loss(key: Any, params: Any, constants: Any) -> Any:
        pool, stay = constants
        first, second, third = jax.random.split(key, 3)
        own = picked(first, pool, batch_size)
        delta = attacked(
            second,
            objective,
            jax.lax.stop_gradient(params),
            own._replace(targets=own.targets["told"]),
            steps=attack_steps,
            rate=attack_rate,
        )
        aim = own._replace(targets=own.targets["away"])
        total = objective.risk(*in_front(params, aim, delta))
        kept = objective.risk(params, picked(third, stay, batch_size))
        return total + retain_weight * kept

    moved = tune(
        fourth,
        warm.params,
        slope_of(loss),
        (pool, stay),
        moves=part_of(generator.denoiser, variables.params, part),
        steps=steps,
        learning_rate=learning_rate,
    )
    return variables._replace(params=moved)


def attacked(
    key: PRNGKey,
    objective: Objective,
    params: Params,
    goal: Batch,
    *,
    steps: int,
    rate: float,
) -> Float[Array, "b d"]:
    """Embeddings of words in front of prompts, one each, that bring outputs back.

    Args:
        key: Draws the words that it begins with.
        objective: ``diffusion_objective``.
        params: Of the model that is attacked.
        goal: Points, prompts, and what should be told there.
        steps: Of Adam.
        rate: Of Adam.
    """
    rule = optax.adam(rate)
    table = params["text"]["tokens"]["embedding"]
    rows = jax.random.choice(key, len(table), (len(goal.weights),))

    def missed(delta: Any, given: Any) -> Any:
        params, goal = given
        return objective.risk(*in_front(params, goal, delta))

    def one(_: Any, state: Any, given: Any) -> Any:
        delta, memory = state
        update, memory = rule.update(jax.grad(missed)(delta, given), memory)
        return optax.apply_updates(delta, update), memory

    start = table[rows]
    return repeat(steps, one, (start, rule.init(start)), (params, goal))[0]


def in_front(params: Params, data: Batch, delta: Array) -> tuple[Params, Batch]:
    """The table of words with δ at its end, and prompts that begin with it.

    The last token of a prompt, an end, goes.
    """
    text = params["text"]
    table = text["tokens"]["embedding"]
    words = jnp.concatenate([table, delta.astype(table.dtype)])
    own = len(table) + jnp.arange(len(delta), dtype=jnp.int32)
    tokens = data.inputs["tokens"][:, :-1]
    tokens = jnp.concatenate([own[:, None], tokens], axis=1)
    params = {**params, "text": {**text, "tokens": {"embedding": words}}}
    return params, data._replace(inputs={**data.inputs, "tokens": tokens})
