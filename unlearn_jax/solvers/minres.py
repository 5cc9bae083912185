"""MINRES-QLP: the least residual of a symmetric system that may be indefinite."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.operator import LinearOperator, damped
from unlearn_jax.loop import while_loop
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.solvers.krylov import three_term
from unlearn_jax.solvers.refinement import RUNNING, either, epsilon, refine
from unlearn_jax.solvers.solution import (
    INCONSISTENT,
    NOT_FINITE,
    OUT_OF_STEPS,
    STAGNATED,
    Solution,
)
from unlearn_jax.types import Array, Params

FLAT = 2.0
"""What is below this many ε ‖A‖ cannot be told from zero."""


class _State(NamedTuple):
    """Value: x = settled + mu[1] w_old + mu[0] w, and what the next step needs.

    v, v_old, beta: Lanczos vectors and their last coefficient. left: the last rotation
    from the left. right: the one of columns k − 2 and k from the right. delta, epsln:
    entries of the next column of the triangular factor R. gamma, theta, eta: diagonal,
    first and second subdiagonal of L = R P, the present ones first. tau: entries of
    the rotated right-hand side. mu: the solution of L mu = tau. phi: ‖residual‖.
    length: ‖settled‖. flat: an earlier x whose residual seemed to be outside of the
    range, and flat_phi its norm, infinite if there was none.
    """

    settled: Params
    w: Params
    w_old: Params
    v: Params
    v_old: Params
    beta: Array
    left: tuple[Array, Array]
    right: tuple[Array, Array]
    delta: Array
    epsln: Array
    gamma: tuple[Array, Array]
    theta: tuple[Array, Array]
    eta: tuple[Array, Array]
    tau: tuple[Array, Array]
    mu: tuple[Array, Array, Array, Array]
    phi: Array
    length: Array
    width: Array
    flat: Params
    flat_phi: Array
    steps: Array
    code: Array


@automatic
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

    The triangular factor of the Lanczos matrix is made lower triangular by rotations
    from the right, which show a small singular value before anything is divided by it.
    The recurrence of Paige & Saunders divides first: its errors grow with the square of
    the condition number, so that float32 ends at a condition of some thousands.

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
    Source: Choi, Paige & Saunders 2011, SIAM J. Sci. Comput. 33 (MINRES-QLP), table
        3.5. Differs: its recurrence from the first step on, never that of MINRES; the
        residual is confirmed, see :func:`unlearn_jax.solvers.refinement.refine`.
    """
    shifted = damped(operator, -shift)
    tiny = epsilon(rhs)

    def correct(residual: Params, target: Array, steps: Array) -> Any:
        def at(s: _State) -> Params:
            x = tree.axpy(s.mu[1], s.w_old, s.settled)
            return tree.axpy(s.mu[0], s.w, x)

        def step(s: _State) -> _State:
            alpha, beta, v = three_term(shifted, s.v, s.v_old, s.beta)
            finite = jnp.isfinite(alpha) & jnp.isfinite(beta)
            width = jnp.sqrt(alpha**2 + beta**2 + s.beta**2)
            width = jnp.maximum(s.width, width)
            floor = FLAT * tiny * width
            # From the left: one more column of R.
            c, turn = s.left
            delta, pivot = c * s.delta + turn * alpha, turn * s.delta - c * alpha
            epsln, delta_next = turn * beta, -c * beta
            # ‖A r‖ / ‖r‖ of the residual before this step. Lanczos vectors lose their
            # orthogonality, so that it stops falling at √ε; but a regular matrix may
            # have eigenvalues below that, so that the iteration goes on.
            flat = jnp.hypot(pivot, delta_next) <= tiny**0.5 * width
            flat &= s.phi < 0.5 * s.flat_phi
            flat_phi = jnp.where(flat, s.phi, s.flat_phi)
            c, turn, gamma = _rotation(pivot, beta)
            tau, phi = c * s.phi, turn * s.phi
            # From the right: that column's entries above the diagonal go below it.
            far_c, far = s.right
            theta_old, delta = (
                far_c * s.theta[0] + far * delta,
                far * s.theta[0] - far_c * delta,
            )
            eta, gamma = far * gamma, -far_c * gamma
            near_c, near, gamma_old = _rotation(s.gamma[0], delta)
            theta, gamma = near * gamma, -near_c * gamma
            # Two entries of mu change no more after this step.
            mu2 = s.tau[1] - s.eta[1] * s.mu[3] - s.theta[1] * s.mu[2]
            mu2 = _over(mu2, s.gamma[1])
            mu1 = s.tau[0] - s.eta[0] * s.mu[2] - theta_old * mu2
            mu1 = _over(mu1, gamma_old)
            length = jnp.hypot(s.length, mu2)
            lost = jnp.abs(gamma) <= floor
            # So long an x takes such a residual along an eigenvalue of ε ‖A‖.
            lost |= jnp.hypot(length, mu1) * floor > flat_phi
            phi = jnp.where(lost, s.phi, phi)
            mu0 = jnp.where(lost, 0, _over(tau - eta * mu2 - theta * mu1, gamma))
            # The directions, by the same two rotations.
            w2 = tree.axpy(far_c, s.w_old, tree.scale(far, s.v))
            w = tree.axpy(far, s.w_old, tree.scale(-far_c, s.v))
            w, w_old = (
                tree.axpy(near, s.w, tree.scale(-near_c, w)),
                tree.axpy(near_c, s.w, tree.scale(near, w)),
            )
            far_c, far, gamma_old = _rotation(gamma_old, epsln)
            code = jnp.where(lost, STAGNATED, RUNNING)
            code = jnp.where(finite, code, NOT_FINITE).astype(jnp.int32)
            new = _State(
                *(tree.axpy(mu2, w2, s.settled), w, w_old, v, s.v, beta),
                *((c, turn), (far_c, far), delta_next, epsln),
                *((gamma, gamma_old), (theta, theta_old), (eta, s.eta[0])),
                *((tau, s.tau[0]), (mu0, mu1, mu2, s.mu[2])),
                *(phi, length, width, tree.where(flat, at(s), s.flat), flat_phi),
                *(s.steps + 1, code),
            )
            stay = s._replace(steps=s.steps + 1, code=code)
            return either(finite, new, stay)

        def go_on(s: _State) -> Array:
            return (s.code == RUNNING) & (s.phi > target) & (s.steps < max_steps)

        zero, size = tree.zeros_like(residual), tree.norm(residual)
        none, one = jnp.zeros_like(size), jnp.ones_like(size)
        two, turn = (none, none), (-one, none)
        first = _State(
            *(zero, zero, zero),
            *(tree.scale(1 / jnp.where(size > 0, size, 1), residual), zero, none),
            *(turn, turn, none, none, two, two, two, two, (*two, *two)),
            *(size, none, none, zero, jnp.full_like(size, jnp.inf)),
            *(steps, jnp.asarray(RUNNING, jnp.int32)),
        )
        last = while_loop(go_on, step, first)
        # Not half of it was taken since: what followed was rounding.
        flat = (last.phi > target) & (last.phi >= 0.5 * last.flat_phi)
        late = (last.code == RUNNING) & (last.phi > target)
        code = jnp.where(flat & (last.code == STAGNATED), INCONSISTENT, last.code)
        code = jnp.where(late, OUT_OF_STEPS, code)
        return tree.where(flat, last.flat, at(last)), last.steps, last.width, code

    return refine(correct, shifted, rhs, tol=tol, max_steps=max_steps)


def _rotation(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """c, s and r with [c s; s −c] [a; b] = [r; 0]; c = −1 where both are zero."""
    r = jnp.hypot(a, b)
    safe = jnp.where(r > 0, r, 1)
    return jnp.where(r > 0, a / safe, -1), b / safe, r


def _over(a: Array, b: Array) -> Array:
    """A / b; zero where b is."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))
