"""Few steps that know the curvature, in place of hundreds that do not.

An erasing loss is a least-squares problem over points of the generator, and what should
stay is a quadratic form around the original: ½ ‖ε_θ(points) − targets‖² + λ/2 ‖θ −
θ*‖²_F. A step solves its Gauss-Newton model by so many products of conjugate gradients,
preconditioned by (F + δ)⁻¹: one product is a step along the natural gradient, as long
as is best on that line.
"""

from typing import Any

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.gauss_newton import gauss_newton
from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.loop import fori_loop, repeat
from unlearn_jax.methods.erasing.amnesia import recalled, surrogate
from unlearn_jax.methods.erasing.curvature import (
    KINDS,
    as_drawn,
    check_kind,
    curvature,
    inverse,
    product,
    unit,
)
from unlearn_jax.methods.erasing.esd import erasing, staying
from unlearn_jax.methods.erasing.images import noisy
from unlearn_jax.methods.erasing.parts import of_part, taken_out
from unlearn_jax.methods.erasing.rollouts import Generator, Prompts
from unlearn_jax.methods.erasing.tune import picked
from unlearn_jax.options import check_number, check_whole, checked
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Batch, Params, PRNGKey, Variables


@checked()
def esd_newton(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    part: str = "x",
    strength: float = 1.0,
    kind: str = "ekfac",
    weight: float = 10.0,
    damping: float = 0.1,
    steps: int = 1,
    products: int = 1,
    points: int = 256,
    kept: int = 512,
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
        kind: Of F, the Fisher of the original on points of retained prompts.
        weight: λ.
        damping: δ, in mean eigenvalues of F.
        steps: Gauss-Newton steps, each at points of its own.
        products: Of conjugate gradients, in each.
        points: To erase at, in each step.
        kept: Points that F is found from.
        ways: Rollouts of either kind.

    Raises:
        ValueError: an unknown part or kind, no steps or products, a weight or damping
            that is not positive.

    Cost: 2 × ``ways`` images, F, and for each step one gradient and ``products``
        Gauss-Newton products a point.
    Source: no single one; the loss of arXiv 2303.07345, the matrix of George et al.
        2018, arXiv 1806.03884.
    """
    _check(kind, steps, products, weight, damping)
    own, back = taken_out(generator.denoiser, variables.params, part)
    objective = of_part(diffusion_objective(generator.denoiser), back)
    first, second, third, fourth, last = jax.random.split(key, 5)
    given = generator, variables, prompts
    pool = erasing(first, *given, strength=strength, ways=ways)
    stay = picked(third, staying(second, *given, ways=ways), kept)
    drawn = as_drawn(fourth, stay)
    matrix = curvature(kind, objective, own, drawn)
    moved = newton_steps(
        last,
        objective,
        own,
        pool,
        matrix,
        weight=weight,
        damping=damping,
        steps=steps,
        products=products,
        points=points,
    )
    return variables._replace(params=back(moved))


@checked()
def amnesia_newton(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    prompts: Prompts,
    *,
    part: str = "all",
    kind: str = "ekfac",
    weight: float = 100.0,
    damping: float = 0.1,
    steps: int = 1,
    products: int = 1,
    points: int = 256,
    memories: int = 500,
    kept: int = 2000,
) -> Variables:
    """Selective Amnesia's surrogate and curvature, without replay, by such steps.

    Args:
        key: Draws memories, surrogates, times and noise.
        generator: As of ``amnesia``.
        variables: Of the original.
        prompts: Its anchors are not read.
        part: What moves.
        kind: Of F, as of ``amnesia``.
        weight: λ.
        damping: δ, in mean eigenvalues of F.
        steps: See :func:`esd_newton`.
        products: See :func:`esd_newton`.
        points: Noised surrogates, in each step.
        memories: Images that the original draws.
        kept: Noised memories that F is found from.

    Raises:
        ValueError: as :func:`esd_newton`.

    Cost: as :func:`esd_newton`, with ``memories`` images.
    Source: the loss of arXiv 2305.10120; see :func:`esd_newton`.
    """
    _check(kind, steps, products, weight, damping)
    own, back = taken_out(generator.denoiser, variables.params, part)
    objective = of_part(diffusion_objective(generator.denoiser), back)
    first, second, third, last = jax.random.split(key, 4)
    memory = recalled(first, generator, variables, prompts, memories=memories)
    data = noisy(second, generator, memory, kept)
    matrix = curvature(kind, objective, own, data)
    count = points * min(steps, 4)
    pool = surrogate(third, generator, jnp.asarray(prompts.forget), count)
    moved = newton_steps(
        last,
        objective,
        own,
        pool,
        matrix,
        weight=weight,
        damping=damping,
        steps=steps,
        products=products,
        points=points,
    )
    return variables._replace(params=back(moved))


def newton_steps(
    key: PRNGKey,
    objective: Objective,
    params: Params,
    pool: Batch,
    matrix: Any,
    *,
    weight: float,
    damping: float,
    steps: int = 1,
    products: int = 1,
    points: int | None = None,
) -> Params:
    """θ ← θ + d with (G + λ (F + δ)) d ≈ −(∇R(θ) + λ F (θ − θ*)).

    Args:
        key: Draws the points of each step.
        objective: Of R, and of what moves alone, see ``parts.of_part``.
        params: θ*, where it starts.
        pool: Examples of R.
        matrix: F, from ``curvature.curvature``.
        weight: λ.
        damping: In mean eigenvalues of F.
        steps: Solves.
        products: Of each; conjugate gradients from zero, without a test to end them:
            their model loss falls with each.
        points: Of the pool in each step, drawn anew; None: all of it, every time.

    Raises:
        ValueError: no steps or products, a weight or damping that is not positive.
    """
    _check(KINDS[0], steps, products, weight, damping)

    def step(i: Any, at: Params, given: Any) -> Params:
        key, pool, matrix, home = given
        own = pool
        if points is not None:
            own = picked(jax.random.fold_in(key, i), pool, points)

        stiff, floor = product(matrix, at).matvec, damping * unit(matrix)
        solve = inverse(matrix, floor)
        bend = gauss_newton(objective, at, own).matvec

        def model(v: Params) -> Params:
            tether = tree.axpy(floor, v, stiff(v))
            return tree.axpy(weight, tether, bend(v))

        def soften(v: Params) -> Params:
            return tree.scale(1 / weight, solve(v))

        slope = jax.grad(objective.risk)(at, own)
        pull = stiff(tree.subtract(at, home))
        rest = tree.scale(-1.0, tree.axpy(weight, pull, slope))
        return tree.add(at, _conjugate(model, soften, rest, products))

    return repeat(steps, step, params, (key, pool, matrix, params))


def _check(kind: str, steps: int, products: int, weight: float, damping: float) -> None:
    check_kind(kind)
    for name, count in (("steps", steps), ("products", products)):
        check_whole(name, count)
    for name, number in (("weight", weight), ("damping", damping)):
        check_number(name, number, positive=True)


def _conjugate(model: Any, soften: Any, rest: Params, products: int) -> Params:
    """So many steps of preconditioned conjugate gradients from zero."""
    ready = soften(rest)
    tiny = jnp.finfo(tree.dot(rest, rest).dtype).tiny

    def one(_: Any, state: Any) -> Any:
        x, rest, along, size = state
        bent = model(along)
        length = size / jnp.maximum(tree.dot(along, bent), tiny)
        x, rest = tree.axpy(length, along, x), tree.axpy(-length, bent, rest)
        ready = soften(rest)
        new = tree.dot(rest, ready)
        along = tree.axpy(new / jnp.maximum(size, tiny), along, ready)
        return x, rest, along, new

    state = tree.zeros_like(rest), rest, ready, tree.dot(rest, ready)
    return fori_loop(0, products, one, state)[0]
