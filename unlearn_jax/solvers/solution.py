"""What a solver gives back: the value, and honest words about it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from unlearn_jax.loop import tracing
from unlearn_jax.types import Array, Params

REASONS = (
    "converged: the residual is below the tolerance",
    "out of steps: raise max_steps, the damping, or take a preconditioner",
    "not positive definite: a direction of curvature ≤ 0, up to rounding, was met; "
    "raise the damping, or use the Gauss-Newton matrix, or minres",
    "diverged: the residual grew; raise the damping or lower the step size",
    "not finite: a product held NaN or infinity",
    "step size too large for the largest eigenvalue: lower it below 2 / eigenvalue",
    "stagnated: rounding keeps the residual above the tolerance",
    "preconditioner not positive definite: raise its damping",
    "inconsistent: the right-hand side is outside of the range of the matrix; the "
    "value has the least residual; raise the damping",
    "damping too small for the dtype: below its rounding of the largest eigenvalue; "
    "raise the damping or use float64",
    "as good as the dtype can tell: the residual is that of rounding, though it could "
    "not be shown to be below the tolerance; use float64 for more",
    "direct: nothing was iterated, and no residual measured",
)
(
    CONVERGED,
    OUT_OF_STEPS,
    INDEFINITE,
    DIVERGED,
    NOT_FINITE,
    STEP_SIZE,
    STAGNATED,
    PRECONDITIONER,
    INCONSISTENT,
    DAMPING,
    PRECISION,
    DIRECT,
) = range(len(REASONS))


class Solution(NamedTuple):
    """Value: the answer of a solver; nothing raises inside ``jit``, so read it.

    A product ``A x`` carries an error of about ε ‖A‖ ‖x‖, ε the rounding unit of the
    coarsest leaf, and nothing computed in that dtype can tell residuals below it apart.
    A residual that small is answered by the code ``PRECISION``: no failure, since no
    answer in that dtype is better, and no claim to the tolerance either.

    Derivatives, in either mode, are those of A⁻¹ b, whatever kept the iteration from
    it; those of all fields but ``value`` are zero.

    Attributes:
        value: x, shaped like the right-hand side.
        residual: ‖A x − b‖ / ‖b‖ (no unit), computed afresh from ``value``: the product
            in the dtype of the operator, difference and norm in at least float32.
        steps: Iterations begun: where a product was not finite or its curvature not
            positive, the step it was met.
        converged: Whether ``residual`` is below the tolerance, and within the error of
            its own computing below 1.2 times the tolerance.
        code: Index into ``REASONS``.
    """

    value: Params
    residual: Float[Array, "..."]
    steps: Int[Array, "..."]
    converged: Bool[Array, "..."]
    code: Int[Array, "..."]


class Report(NamedTuple):
    """Value: a solution without its value, for who carries on with that.

    Attributes:
        residual: As in :class:`Solution`; NaN where none was measured.
        steps: Iterations begun.
        code: Index into ``REASONS``.
    """

    residual: Float[Array, "..."]
    steps: Int[Array, "..."]
    code: Int[Array, "..."]


def report(solution: Solution) -> Report:
    """What is told of a solve beside its value, in 32 bits whatever the dtype."""
    counts = (solution.steps.astype(jnp.int32), solution.code.astype(jnp.int32))
    return Report(solution.residual.astype(jnp.float32), *counts)


def no_report() -> Report:
    """Before the first of several solves, for :func:`both_reports`."""
    none = jnp.zeros((), jnp.int32)
    return Report(jnp.asarray(jnp.nan, jnp.float32), none, none + CONVERGED)


def both_reports(first: Report, second: Report) -> Report:
    """Of two solves one after the other: all steps, and the first that failed."""
    good = acceptable(first)
    kept: Report = jax.tree.map(lambda a, b: jnp.where(good, b, a), first, second)
    return kept._replace(steps=first.steps + second.steps)


def all_reports(reports: Report) -> Report:
    """Of solves side by side, an axis of them: all steps, and the first that failed."""
    first = jnp.argmin(acceptable(reports))
    kept: Report = jax.tree.map(lambda leaf: leaf[first], reports)
    return kept._replace(steps=jnp.sum(reports.steps, dtype=jnp.int32))


def acceptable(solution: Any) -> Bool[Array, "..."]:
    """Whether a value is within the tolerance, or as good as its dtype can have.

    That of a direct inverse is taken as it is.
    """
    return jnp.isin(solution.code, jnp.asarray((CONVERGED, PRECISION, DIRECT)))


def direct(value: Params) -> Solution:
    """The report on an inverse product that no iteration found."""
    none = jnp.zeros((), jnp.int32)
    return Solution(value, jnp.asarray(jnp.nan), none, none > 0, none + DIRECT)


def usable(solution: Solution) -> Params:
    """The value, for who drops the report.

    A solve that was cut short, by ``max_steps`` or by a direction of negative
    curvature, gives what it had reached, as does one that has the least residual or is
    kept by rounding. One that failed otherwise, or that gained nothing on zero before
    it met negative curvature, is no inverse product: NaN under ``jit``, an error
    outside.

    Raises:
        ArithmeticError: a concrete solution is no inverse product; the reason is told.
    """
    code = solution.code
    failed = (DIVERGED, NOT_FINITE, STEP_SIZE, PRECONDITIONER, DAMPING)
    none = jnp.isin(code, jnp.asarray(failed))
    none |= (code == INDEFINITE) & ~(solution.residual < 1)
    if not tracing(none) and bool(none):
        raise ArithmeticError(f"no inverse product: {reason(solution)}")
    return jax.tree.map(
        lambda leaf: jnp.where(none, jnp.asarray(jnp.nan, leaf.dtype), leaf),
        solution.value,
    )


def reason(solution: Solution) -> str:
    """The end of a solve in words, for one solution outside of ``jit``."""
    code, steps = int(solution.code), int(solution.steps)
    return f"{REASONS[code]} (step {steps}, residual {float(solution.residual):.2g})"


def check_solution(solution: Any) -> Any:
    """The value of a solution that is acceptable; of a block, all of them.

    Raises:
        ArithmeticError: it is not; the reason is told, for the first that is not.
    """
    bad = np.flatnonzero(~np.asarray(acceptable(solution)))
    if bad.size:
        code, steps, residual = (
            np.ravel(field)[bad[0]]
            for field in (solution.code, solution.steps, solution.residual)
        )
        told = reason(solution._replace(code=code, steps=steps, residual=residual))
        raise ArithmeticError(f"the solve did not converge: {told}")
    return solution.value
