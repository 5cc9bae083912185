"""What all iterative solvers share: scaling, checks, and a residual that is true."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax import tree
from unlearn_jax.curvature.operator import LinearOperator, check_like
from unlearn_jax.loop import while_loop
from unlearn_jax.solvers.implicit import implicit
from unlearn_jax.solvers.powers import exponent, power_of_two
from unlearn_jax.solvers.solution import (
    CONVERGED,
    DIVERGED,
    INCONSISTENT,
    NOT_FINITE,
    OUT_OF_STEPS,
    PRECISION,
    STAGNATED,
    Solution,
)
from unlearn_jax.types import Array, Params
from unlearn_kernels.varying import vary

RUNNING = -1
"""The code of a solve that has not ended."""

BACKWARD = 1.0
"""Residuals below this, in units of ε (‖A‖ ‖x‖ / ‖b‖ + 1), are rounding."""
UNSURE = 10.0
"""Residuals below this, in the same units, may be, and prove nothing about A or b."""
MEASURED = 0.25
"""Error of a computed residual in the same units, on dense float32 matrices."""
SINGULAR = 0.1
"""Where rounding alone makes a larger residual, A is singular to the dtype."""


class Progress(NamedTuple):
    """Value: where the outer iteration stands; one entry per right-hand side.

    ``width`` is the largest stretch ‖A v‖ / ‖v‖ that was met: a lower bound of ‖A‖;
    ``doubt`` the code of the first round that rounding stopped.
    """

    value: Params
    residual: Params
    relative: Array
    width: Array
    steps: Array
    doubt: Array
    code: Array


def epsilon(vector: Any) -> float:
    """Rounding unit of the coarsest leaf."""
    return max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(vector))


def either(condition: Array, a: Any, b: Any) -> Any:
    """One of two states of a loop."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def together(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function itself: one right-hand side; ``jax.vmap`` stands for several."""
    return function


def refine(
    correct: Callable[[Any, Any, Any], Any],
    operator: LinearOperator,
    rhs: Params,
    *,
    start: Params | None = None,
    tol: float,
    max_steps: int,
    growth: float = 1.0,
    over: Callable[..., Any] = together,
) -> Solution:
    """Correct x by approximate solves of ``A d = b - A x`` until ``b - A x`` is small.

    An iteration believes the residual it carries along, which drifts from the true one
    by rounding. Here that belief is checked with one more product after every round; if
    it was wrong, the iteration goes on from the true residual as long as this at least
    halves it. What is left then is called rounding where it is not above
    ``BACKWARD`` ε (‖A‖ ‖x‖ / ‖b‖ + 1), see :class:`Solution`. The right-hand side is
    scaled by a power of two first, so that neither 1e-30 b nor 1e+30 b meets underflow
    or overflow in an inner product.

    Args:
        correct: ``(residual, target, steps) -> (correction, steps, width, code)``: an
            iteration from zero down to the residual norm ``target``; the largest
            stretch ‖A v‖ / ‖v‖ it met; ``RUNNING`` when it believes to be there,
            otherwise the code of what stopped it.
        operator: A.
        rhs: b.
        start: First x; zero if None.
        tol: Bound on ‖b − A x‖ / ‖b‖ (no unit).
        max_steps: Bound on steps in all rounds together.
        growth: A correction that was stopped is taken back if it raised the residual
            norm by more than this (no unit).
        over: ``jax.vmap`` when ``rhs`` is a stack of right-hand sides.

    Returns:
        Solution, whose residual is the last true one; its derivatives are those of
        A⁻¹ b, see :func:`unlearn_jax.solvers.implicit.implicit`.

    Raises:
        ValueError: ``rhs`` or ``start`` is not like what the operator acts on.

    Cost: one product for each round, nearly always one round.
    Source: iterative refinement; residual replacement as in van der Vorst & Ye 2000,
        SIAM J. Sci. Comput. 22. Differs: restarts the iteration with the true residual.
    """
    one = rhs if over is together else jax.eval_shape(lambda v: tree.member(v, 0), rhs)
    check_like(operator.like, one, "right-hand side")
    if start is not None:
        check_like(rhs, start, "start")
        start = vary(start, rhs, operator.like)
    rhs = vary(rhs, operator.like)
    matvec = over(operator.matvec)

    def run(rhs: Params, start: Params | None) -> Solution:
        return _refine(
            *(correct, matvec, rhs, start, over),
            tol=tol,
            max_steps=max_steps,
            growth=growth,
        )

    return implicit(run, matvec, rhs, start)


def _refine(
    correct: Callable[[Any, Any, Any], Any],
    matvec: Callable[[Any], Any],
    rhs: Params,
    start: Params | None,
    over: Callable[..., Any],
    *,
    tol: float,
    max_steps: int,
    growth: float,
) -> Solution:
    """See :func:`refine`, without derivatives."""
    norm, choose = over(tree.norm), over(tree.where)
    factor = over(_power_of_two)(rhs)
    b = over(tree.scale)(1 / factor, rhs)
    size = norm(b)
    tiny = epsilon(b)

    def residual_at(x: Params) -> tuple[Params, Array, Array]:
        product = matvec(x)
        exact = jax.tree.map(_difference, b, product)
        left = jax.tree.map(lambda r, u: r.astype(u.dtype), exact, b)
        length = norm(x)
        stretch = norm(product) / jnp.where(length > 0, length, 1)
        return left, norm(exact) / jnp.where(size > 0, size, 1), stretch

    def rounding(x: Params, width: Array) -> Array:
        """ε (‖A‖ ‖x‖ / ‖b‖ + 1); nothing was rounded where x is zero."""
        length = norm(x)
        share = width * length / jnp.where(size > 0, size, 1) + 1
        return jnp.where(length > 0, tiny * share, 0)

    def reached(now: Array, blur: Array) -> tuple[Any, Any]:
        surely = (now <= tol) & (now + MEASURED * blur <= 1.2 * tol)
        return (surely, CONVERGED), (now <= tol, PRECISION)

    def one_round(old: Progress) -> Progress:
        active = old.code == RUNNING
        left = choose(active, old.residual, tree.zeros_like(b))
        # Later rounds aim lower: the first has shown what its belief was worth.
        aim = jnp.where(old.steps > 0, 0.1 * tol, tol) * size
        target = jnp.maximum(aim, tiny * norm(left)).astype(size.dtype)
        step, steps, width, code = correct(left, target, old.steps)
        good = over(tree.all_finite)(step)
        x = choose(good & active, tree.add(old.value, step), old.value)
        residual, now, stretch = residual_at(x)
        width = jnp.maximum(old.width, _finite(jnp.maximum(width, stretch)))
        believed = code == RUNNING
        # What rounding stopped may go on from the true residual.
        rounded = (code == STAGNATED) | (code == INCONSISTENT)
        first = rounded & (old.doubt == STAGNATED)
        doubt = jnp.where(first, code, old.doubt)
        better = now < old.relative
        halved = now < 0.5 * old.relative
        # What was believed to help and did not is taken back, and what blew up.
        kept = jnp.where(believed, better, now <= growth * old.relative)
        x = choose(kept, x, old.value)
        reach = jnp.where(kept, now, old.relative)
        blur = rounding(x, width)
        vague = (doubt == INCONSISTENT) & (reach <= UNSURE * blur)
        code = _first(
            *reached(reach, blur),
            ((believed | rounded) & halved & (steps < max_steps), RUNNING),
            (reach <= jnp.minimum(BACKWARD * blur, SINGULAR), PRECISION),
            (~jnp.isfinite(now), NOT_FINITE),
            (~believed & ~rounded, code),
            (halved, OUT_OF_STEPS),
            (believed & ~better & (old.steps == 0), DIVERGED),
            otherwise=jnp.where(vague, STAGNATED, doubt),
        )
        residual = choose(kept, residual, old.residual)
        return Progress(
            choose(active, x, old.value),
            choose(active, residual, old.residual),
            *(
                jnp.where(active, new, before)
                for new, before in zip(
                    (reach, width, steps, doubt, code), old[2:], strict=True
                )
            ),
        )

    x, left = tree.zeros_like(b), b
    now = jnp.where(jnp.isfinite(size), jnp.where(size > 0, 1.0, 0.0), size)
    now, width = now.astype(size.dtype), jnp.zeros_like(size)
    if start is not None:
        x = choose(size == 0, x, over(tree.scale)(1 / factor, start))
        left, now, width = residual_at(x)
    code = _first(
        *reached(now, rounding(x, width)),
        (~jnp.isfinite(now), NOT_FINITE),
        otherwise=RUNNING,
    )
    steps = jnp.zeros(now.shape, jnp.int32)
    doubt = jnp.full_like(code, STAGNATED)
    state = Progress(x, left, now, _finite(width), steps, doubt, code)
    state = while_loop(lambda s: jnp.any(s.code == RUNNING), one_round, state)
    value = over(tree.scale)(factor, state.value)
    return Solution(
        value, state.relative, state.steps, state.code == CONVERGED, state.code
    )


def _difference(a: Array, b: Array) -> Array:
    """A − b in at least float32."""
    dtype = np.result_type(np.float32, a.dtype, b.dtype)
    return a.astype(dtype) - b.astype(dtype)


def _finite(width: Array) -> Array:
    return jnp.where(jnp.isfinite(width), width, 0)


def _first(*cases: tuple[Any, Any], otherwise: Any) -> Array:
    """The value of the first case that holds, as int32."""
    answer = jnp.asarray(otherwise, jnp.int32)
    for condition, value in reversed(cases):
        answer = jnp.where(condition, jnp.asarray(value, jnp.int32), answer)
    return answer


def _power_of_two(rhs: Params) -> Array:
    """The largest entry rounded up to a power of two, one where there is none."""
    dtype = jax.eval_shape(tree.norm, rhs).dtype
    peaks = [
        jnp.max(jnp.abs(leaf), initial=0).astype(dtype) for leaf in jax.tree.leaves(rhs)
    ]
    peak = jnp.max(jnp.stack(peaks)) if peaks else jnp.zeros((), dtype)
    usable = (peak > 0) & jnp.isfinite(peak)
    # Both the power and its inverse must be normal numbers in float32.
    place = jnp.clip(exponent(jnp.where(usable, peak, 1)), -125, 125)
    return power_of_two(place, dtype)
