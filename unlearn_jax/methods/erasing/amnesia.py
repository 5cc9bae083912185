"""Selective Amnesia: a surrogate in the concept's place, all else held by curvature."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.methods.erasing.curvature import check_kind, curvature, product
from unlearn_jax.methods.erasing.images import noisy, remembered
from unlearn_jax.methods.erasing.parts import of_part, taken_out
from unlearn_jax.methods.erasing.rollouts import Generator, Prompts, repeated
from unlearn_jax.methods.erasing.tune import left_out, slope_of, tune
from unlearn_jax.options import checked
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch, Params, PRNGKey, Variables

Drawn = Callable[[Any, Any], Batch]
"""``(key, given) -> Batch``: examples of one step."""


@checked()
def amnesia(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    kind: str = "diagonal",
    weight: float = 10.0,
    replay_weight: float = 1.0,
    part: str = "all",
    steps: int = 300,
    learning_rate: float = 3e-4,
    batch_size: int = 64,
    memories: int = 500,
    points: int = 2000,
) -> Variables:
    """Uniform noise under the forgotten prompts + λ/2 ‖θ − θ*‖²_F + γ replay.

    No image is read: what is to stay is drawn by the original itself.

    Args:
        key: Draws memories, surrogates, times and noise.
        generator: Its sampler draws the memories.
        variables: Of the original, θ*.
        prompts: Its anchors are not read.
        kind: Of F, see ``curvature.curvature``.
        weight: λ; 0 computes no F.
        replay_weight: γ, of the loss on memories; 0: curvature alone holds the rest.
        part: What moves.
        steps: Of Adam.
        learning_rate: Of Adam.
        batch_size: Of surrogates, and of memories, in a step.
        memories: Images drawn for retained prompts.
        points: Noised memories that F is found from.

    Raises:
        ValueError: an unknown kind or part.

    Cost: ``memories`` images, a gradient for each of ``points`` (EK-FAC: two passes),
        then one or two gradients an image of a step and one product with F.
    Source: Heng and Soh, Selective Amnesia, 2023, arXiv 2305.10120. Differs: λ / 2 (the
        released code has λ); losses are ½ of sums over pixels and F is their Fisher; F
        squares the gradient of one drawn time, as the bound's terms are independent,
        where the released code squares that of a sum over all times; F is of retained
        prompts alone, not of the forgotten ones too, which would hold them.
    """
    check_kind(kind)
    own, back = taken_out(generator.denoiser, variables.params, part)
    objective = of_part(diffusion_objective(generator.denoiser), back)
    first, second, third = jax.random.split(key, 3)
    given = generator, variables, prompts
    memory = recalled(first, *given, memories=memories)
    matrix = None
    if not left_out(weight):
        data = noisy(second, generator, memory, points)
        matrix = curvature(kind, objective, own, data)

    def blank(key: Any, given: Any) -> Batch:
        return surrogate(key, generator, given[0], batch_size)

    def kept(key: Any, given: Any) -> Batch:
        return noisy(key, generator, given[1], batch_size)

    moved = replaced(
        third,
        objective,
        own,
        blank,
        kept,
        (jnp.asarray(prompts.forget), memory),
        matrix,
        weight=weight,
        replay_weight=replay_weight,
        steps=steps,
        learning_rate=learning_rate,
    )
    return variables._replace(params=back(moved))


def replaced(
    key: PRNGKey,
    objective: Objective,
    params: Params,
    blank: Drawn,
    kept: Drawn,
    given: Any,
    matrix: Any,
    *,
    weight: Any,
    replay_weight: float,
    steps: int,
    learning_rate: float,
) -> Params:
    """Adam on R(blank) + λ/2 ‖θ − θ*‖²_F + γ R(kept), whatever the generator.

    Args:
        key: Split for each step.
        objective: Of R.
        params: θ*, where it starts; all of it moves.
        blank: Draws the surrogates of a step, ``(key, given) -> Batch``.
        kept: Draws what is replayed in a step, likewise.
        given: Arrays that both read.
        matrix: F, from ``curvature.curvature``; None holds nothing.
        weight: λ.
        replay_weight: γ.
        steps: Of Adam.
        learning_rate: Of Adam.
    """

    def loss(key: Any, params: Any, constants: Any) -> Any:
        given, _, _ = constants
        first, second = jax.random.split(key)
        total = objective.risk(params, blank(first, given))
        if not left_out(replay_weight):
            replay = objective.risk(params, kept(second, given))
            total = total + replay_weight * replay
        return total

    gradient = slope_of(loss)

    def slope(key: Any, params: Any, constants: Any) -> Any:
        _, matrix, home = constants
        found = gradient(key, params, constants)
        if matrix is None:
            return found
        pull = product(matrix, params).matvec(tree.subtract(params, home))
        return tree.axpy(weight, pull, found)

    return tune(
        key,
        params,
        slope,
        (given, matrix, params),
        moves=jax.tree.map(lambda leaf: True, params),
        steps=steps,
        learning_rate=learning_rate,
    )


def recalled(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    memories: int,
) -> Batch:
    """What the original draws for retained prompts."""
    return remembered(key, generator, variables, prompts.retain, memories)


def surrogate(key: PRNGKey, generator: Generator, forgets: Any, count: int) -> Batch:
    """Noised images of uniform noise from −1 to 1, under the forgotten prompts."""
    first, second = jax.random.split(key)
    shape = (count, *generator.denoiser.image_shape)
    kind = jnp.result_type(generator.schedule.signal)
    blank = jax.random.uniform(first, shape, kind, -1, 1)
    data = Batch(blank, repeated(forgets, count), jnp.ones(count, kind))
    return noisy(second, generator, data, count)
