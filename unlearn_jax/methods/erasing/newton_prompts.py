"""Second-order steps of the methods that read prompts alone: targets, and a solve."""

import jax
import jax.numpy as jnp

from unlearn_jax.methods.erasing.all_but_one import anchored
from unlearn_jax.methods.erasing.amnesia import recalled, surrogate
from unlearn_jax.methods.erasing.curvature import as_drawn
from unlearn_jax.methods.erasing.esd import erasing, staying
from unlearn_jax.methods.erasing.images import noisy
from unlearn_jax.methods.erasing.newton import SOLVE, Solve, check_solve, stepped
from unlearn_jax.methods.erasing.rollouts import Generator, Prompts
from unlearn_jax.methods.erasing.tune import picked
from unlearn_jax.options import checked
from unlearn_jax.types import Batch, PRNGKey, Variables

AMNESIA = Solve(weight=1e3, kept=2000)


@checked()
def esd_newton(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    part: str = "x",
    strength: float = 1.0,
    solve: Solve = SOLVE,
    ways: int = 32,
) -> Variables:
    """:func:`esd`'s regression, off policy, by Gauss-Newton steps held by curvature.

    Args:
        key: Draws points.
        generator: As of ``esd``.
        variables: Of the original.
        prompts: Its anchors are not read.
        part: What moves.
        strength: η of ESD.
        solve: Its steps; F is the Fisher of the original on points of retained prompts.
        ways: Rollouts of either kind.

    Raises:
        ValueError: an unknown part, and as ``newton.check_solve``.

    Cost: 2 × ``ways`` images, F, and for each step one gradient and its products a
        point.
    Source: no single one; the loss of arXiv 2303.07345, the matrix of George et al.
        2018, arXiv 1806.03884.
    """
    check_solve(solve)
    first, second, last = jax.random.split(key, 3)
    given = generator, variables, prompts
    pool = erasing(first, *given, strength=strength, ways=ways)
    stay = remaining(second, *given, solve=solve, ways=ways)
    return stepped(last, generator, variables, pool, stay, solve, part=part)


@checked()
def all_but_one_newton(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    part: str = "x",
    silent_weight: float = 1.0,
    solve: Solve = SOLVE,
    ways: int = 32,
) -> Variables:
    """The guidance of the anchor and the unconditional score, by such steps.

    Two regressions at the same points in one pool: ε(c) on ε*(∅) + the anchor's
    guidance, ε(∅) on ε*(∅). The first level is that of the original, where
    ``all_but_one`` takes the one of the model as it is; both are the same at the start.

    Args:
        key: Draws points.
        generator: As of ``all_but_one``.
        variables: Of the original.
        prompts: All three are read, the retained ones for F.
        part: What moves.
        silent_weight: Of the second, of its mean with the first.
        solve: See :func:`esd_newton`.
        ways: Rollouts of either kind.

    Raises:
        ValueError: as :func:`esd_newton`.

    Cost: as :func:`esd_newton`, and a prediction under the anchor at each point.
    Source: the loss of arXiv 2312.12807; see :func:`esd_newton`.
    """
    check_solve(solve)
    first, second, last = jax.random.split(key, 3)
    given = generator, variables, prompts
    told = anchored(first, *given, ways=ways)
    silent, count = told.targets["silent"], len(told.weights)
    inputs = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), told.inputs)
    null = generator.null(count)
    inputs = {**inputs, "tokens": jnp.concatenate([told.inputs["tokens"], null])}
    targets = jnp.concatenate([silent + told.targets["guidance"], silent])
    weights = jnp.concatenate([told.weights, silent_weight * told.weights])
    stay = remaining(second, *given, solve=solve, ways=ways)
    pool = Batch(inputs, targets, weights)
    return stepped(last, generator, variables, pool, stay, solve, part=part)


@checked()
def amnesia_newton(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    part: str = "all",
    solve: Solve = AMNESIA,
    memories: int = 500,
) -> Variables:
    """Selective Amnesia's surrogate and curvature, without replay, by such steps.

    Args:
        key: Draws memories, surrogates, times and noise.
        generator: As of ``amnesia``.
        variables: Of the original.
        prompts: Its anchors are not read.
        part: What moves.
        solve: Its steps, F as of ``amnesia``.
        memories: Images that the original draws.

    Raises:
        ValueError: as :func:`esd_newton`.

    Cost: as :func:`esd_newton`, with ``memories`` images.
    Source: the loss of arXiv 2305.10120; see :func:`esd_newton`.
    """
    check_solve(solve)
    first, second, third, last = jax.random.split(key, 4)
    memory = recalled(first, generator, variables, prompts, memories=memories)
    stay = noisy(second, generator, memory, solve.kept)
    count = solve.points * min(solve.steps, 4)
    pool = surrogate(third, generator, jnp.asarray(prompts.forget), count)
    return stepped(last, generator, variables, pool, stay, solve, part=part)


def remaining(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    solve: Solve = SOLVE,
    ways: int = 32,
) -> Batch:
    """Points that a Fisher is found from: retained prompts, targets that are drawn."""
    first, second, third = jax.random.split(key, 3)
    stay = staying(first, generator, variables, prompts, ways=ways)
    return as_drawn(third, picked(second, stay, solve.kept))
