"""MINRES: the least residual of a symmetric system that may be indefinite."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.operator import LinearOperator, damped
from unlearn_jax.solvers.krylov import three_term
from unlearn_jax.solvers.refinement import RUNNING, either, epsilon, refine
from unlearn_jax.solvers.solution import (
    INCONSISTENT,
    NOT_FINITE,
    OUT_OF_STEPS,
    Solution,
)
from unlearn_jax.types import Array, Params


class _State(NamedTuple):
    """Value: letters as in Choi, Paige & Saunders 2011.

    v, v_old: Lanczos vectors; d, d_old: directions; delta, epsln: entries of the next
    column of the triangular factor; c, s: the last rotation; phi: ‖residual‖.
    """

    x: Params
    v: Params
    v_old: Params
    beta: Array
    d: Params
    d_old: Params
    delta: Array
    epsln: Array
    c: Array
    s: Array
    phi: Array
    width: Array
    steps: Array
    code: Array


def minres(
    operator: LinearOperator,
    rhs: Params,
    *,
    shift: Any = 0.0,
    tol: float = 1e-6,
    max_steps: int = 100,
) -> Solution:
    """Solve (A − shift · I) x = b for a symmetric A, indefinite or singular too.

    Among all x of the Krylov space the one of least residual is taken, so the residual
    never grows. For a singular A and a b in its range, the answer is the shortest
    solution; for a b outside of its range, the code says "inconsistent" and the value
    has the least residual there is.

    Args:
        operator: A.
        rhs: b, like what the operator acts on.
        shift: Subtracted from the diagonal; damping is a negative shift.
        tol: Bound on the residual relative to ‖b‖ (no unit).
        max_steps: Most steps.

    Returns:
        Solution.

    Raises:
        ValueError: ``rhs`` is not like what the operator acts on.

    Cost: one product per step, plus one to confirm the residual; memory eight vectors.
    Source: Paige & Saunders 1975, SIAM J. Numer. Anal. 12. Differs: the residual is
        confirmed, see :func:`unlearn_jax.solvers.refinement.refine`.
    """
    shifted = damped(operator, -shift)
    tiny = epsilon(rhs)
    # ‖A r‖ / (‖A‖ ‖r‖) below this means that r has left the range of A.
    outside = min(tol, tiny**0.5)

    def correct(residual: Params, target: Array, steps: Array) -> Any:
        def step(s: _State) -> _State:
            alpha, beta, v = three_term(shifted, s.v, s.v_old, s.beta)
            finite = jnp.isfinite(alpha) & jnp.isfinite(beta)
            delta = s.c * s.delta + s.s * alpha
            gamma = s.s * s.delta - s.c * alpha
            epsln, delta_next = s.s * beta, -s.c * beta
            radius = jnp.hypot(gamma, beta)
            width = jnp.maximum(s.width, jnp.sqrt(alpha**2 + beta**2 + s.beta**2))
            slope = jnp.hypot(gamma, delta_next)  # ‖A r‖ / ‖r‖ before this step
            flat = (slope <= outside * width) | (radius <= tiny * width)
            good = finite & ~flat
            safe = jnp.where(good, radius, 1)
            c, turn = gamma / safe, beta / safe
            d = tree.axpy(-delta, s.d, tree.axpy(-s.epsln, s.d_old, s.v))
            d = tree.scale(1 / safe, d)
            x = tree.axpy(c * s.phi, d, s.x)
            code = jnp.where(finite, INCONSISTENT, NOT_FINITE)
            code = jnp.where(good, RUNNING, code).astype(jnp.int32)
            new = _State(
                *(x, v, s.v, beta, d, s.d, delta_next, epsln, c, turn),
                *(turn * s.phi, width, s.steps + 1, code),
            )
            stay = s._replace(steps=s.steps + 1, code=code)
            return either(good, new, stay)

        def go_on(s: _State) -> Array:
            return (s.code == RUNNING) & (s.phi > target) & (s.steps < max_steps)

        zero = tree.zeros_like(residual)
        size = tree.norm(residual)
        none, one = jnp.zeros_like(size), jnp.ones_like(size)
        first = _State(
            *(zero, tree.scale(1 / jnp.where(size > 0, size, 1), residual), zero),
            *(none, zero, zero, none, none, -one, none, size, none),
            *(steps, jnp.asarray(RUNNING, jnp.int32)),
        )
        last = jax.lax.while_loop(go_on, step, first)
        late = (last.code == RUNNING) & (last.phi > target)
        return last.x, last.steps, jnp.where(late, OUT_OF_STEPS, last.code)

    return refine(correct, shifted, rhs, tol=tol, max_steps=max_steps)
