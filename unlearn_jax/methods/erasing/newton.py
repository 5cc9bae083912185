"""Few steps that know the curvature, in place of hundreds that do not.

An erasing loss is a least-squares problem over points of the generator, and what should
stay is a quadratic form around the original: ½ ‖ε_θ(points) − targets‖² + λ/2 ‖θ −
θ*‖²_F. A step solves its Gauss-Newton model by so many products of conjugate gradients,
preconditioned by (F + δ)⁻¹: one product is a step along the natural gradient, as long
as is best on that line. Where few numbers move, it is solved densely.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from unlearn_jax import tree
from unlearn_jax.curvature.gauss_newton import dense_gauss_newton, gauss_newton
from unlearn_jax.curvature.operator import damped, dense
from unlearn_jax.diffusion.draws import diffusion_objective
from unlearn_jax.loop import fori_loop, repeat
from unlearn_jax.methods.erasing.curvature import (
    check_kind,
    curvature,
    inverse,
    product,
    unit,
)
from unlearn_jax.methods.erasing.parts import of_part, taken_out
from unlearn_jax.methods.erasing.rollouts import Generator
from unlearn_jax.methods.erasing.tune import picked
from unlearn_jax.methods.masked import Mask
from unlearn_jax.options import check_number, check_whole
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Batch, Params, PRNGKey, Variables

Chosen = Callable[[Any, Any, Any], Batch]
"""``(key, params, pool) -> Batch``: the examples of a step."""


class Solve(NamedTuple):
    """Description: Gauss-Newton steps, and the curvature that holds what stays.

    Attributes:
        kind: Of F, see ``curvature.curvature``.
        weight: λ.
        damping: δ, in mean eigenvalues of F.
        steps: Solves.
        products: Of conjugate gradients in each; None: a dense solve.
        points: In each step, drawn anew.
        kept: Points that F is found from.
    """

    kind: str = "ekfac"
    weight: float = 10.0
    damping: float = 0.1
    steps: int = 1
    products: int | None = 1
    points: int = 256
    kept: int = 512


SOLVE = Solve()


def check_solve(solve: Solve) -> None:
    """Refuse what cannot be meant.

    Raises:
        ValueError: an unknown kind, no steps, products or points, a weight or damping
            that is not positive.
    """
    check_kind(solve.kind)
    for name in ("steps", "products", "points", "kept"):
        if name != "products" or solve.products is not None:
            check_whole(name, getattr(solve, name))
    for name in ("weight", "damping"):
        check_number(name, getattr(solve, name), positive=True)


def newton_steps(
    key: PRNGKey,
    objective: Objective,
    params: Params,
    pool: Any,
    matrix: Any,
    solve: Solve = SOLVE,
    *,
    chosen: Chosen | None = None,
    mask: Mask | None = None,
) -> Params:
    """θ ← θ + d with (G + λ (F + δ)) d ≈ −(∇R(θ) + λ F (θ − θ*)).

    Args:
        key: Draws the points of each step.
        objective: Of R, and of what moves alone, see ``parts.of_part``.
        params: θ*, where it starts.
        pool: Examples of R, or what ``chosen`` makes them from.
        matrix: F, from ``curvature.curvature``.
        solve: Its ``kind`` and ``kept`` are not read. Conjugate gradients go from zero
            and without a test to end them: their model loss falls with each product.
        chosen: Examples of a step; None draws ``solve.points`` of the pool.
        mask: Booleans like the parameters: where nothing moves the model has neither
            rows nor columns. None: everything moves. Not read by a dense solve.

    Raises:
        ValueError: as :func:`check_solve`.

    Cost: for each step one gradient and ``products`` Gauss-Newton products a point; a
        dense one as ``dense_gauss_newton``, and p³ / 3 for p parameters.
    """
    check_solve(solve)
    weight = solve.weight

    def drawn(key: Any, at: Params, pool: Any) -> Batch:
        return picked(key, pool, solve.points)

    choose = drawn if chosen is None else chosen

    def step(i: Any, at: Params, given: Any) -> Params:
        key, pool, matrix, mask, home = given
        own = choose(jax.random.fold_in(key, i), at, pool)
        stiff, floor = product(matrix, at).matvec, solve.damping * unit(matrix)
        slope = jax.grad(objective.risk)(at, own)
        pull = stiff(tree.subtract(at, home))
        rest = tree.scale(-1.0, tree.axpy(weight, pull, slope))
        if solve.products is None:
            bend = dense_gauss_newton(objective, at, own)
            tether = dense(damped(product(matrix, at), floor))
            return tree.add(at, _solved(bend + weight * tether, rest))

        def inside(v: Params) -> Params:
            if mask is None:
                return v
            return jax.tree.map(lambda x, m: jnp.where(m, x, 0), v, mask)

        bend, soft = gauss_newton(objective, at, own).matvec, inverse(matrix, floor)

        def model(v: Params) -> Params:
            tether = tree.axpy(floor, v, stiff(v))
            return inside(tree.axpy(weight, tether, bend(v)))

        def soften(v: Params) -> Params:
            return inside(tree.scale(1 / weight, soft(v)))

        move = _conjugate(model, soften, inside(rest), solve.products)
        return tree.add(at, move)

    return repeat(solve.steps, step, params, (key, pool, matrix, mask, params))


def stepped(
    key: PRNGKey,
    generator: Generator,
    variables: Variables,
    pool: Any,
    stay: Batch,
    solve: Solve,
    *,
    part: str,
    predict: Callable[[Params, Any], Any] | None = None,
    chosen: Chosen | None = None,
    mask: Mask | None = None,
) -> Variables:
    """:func:`newton_steps` of a part of a denoiser, held where it tells what it told.

    Args:
        key: Draws the points of each step.
        generator: Whose denoiser moves.
        variables: Of the original.
        pool: What it should tell, and where.
        stay: Examples that F is found from, with targets that are drawn.
        solve: How.
        part: What moves.
        predict: ``(params, inputs) -> outputs``, what the pool is a regression of;
            None: of the denoiser's predictions.
        chosen: As of :func:`newton_steps`, but told all parameters.
        mask: Like all parameters; read in the part alone.

    Raises:
        ValueError: as :func:`check_solve`, an unknown part.
    """
    denoiser = generator.denoiser
    own, back = taken_out(denoiser, variables.params, part)
    objective = diffusion_objective(denoiser)
    matrix = curvature(solve.kind, of_part(objective, back), own, stay)
    if predict is not None:
        objective = objective._replace(predict=predict)
    if mask is not None:
        leaves = jax.tree_util.tree_leaves_with_path(mask)
        masks = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
        mask = {name: masks[name] for name in own}
    choose = None
    if chosen is not None:
        choose = lambda key, at, pool: chosen(key, back(at), pool)  # noqa: E731
    given = of_part(objective, back), own, pool, matrix, solve
    moved = newton_steps(key, *given, chosen=choose, mask=mask)
    return variables._replace(params=back(moved))


def _solved(matrix: Array, rest: Params) -> Params:
    """A positive definite matrix, in the order of ``ravel_pytree``, divided out."""
    flat, back = ravel_pytree(rest)
    return back(jax.scipy.linalg.solve(matrix, flat, assume_a="pos"))


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
