"""What a solver gives back: the value, and honest words about it."""

from typing import Any, NamedTuple

from jaxtyping import Bool, Float, Int

from unlearn_jax.types import Array, Params

REASONS = (
    "converged: the residual is below the tolerance",
    "out of steps: raise max_steps, the damping, or take a preconditioner",
    "not positive definite: a direction of curvature ≤ 0 was met; raise the damping, "
    "or use the Gauss-Newton matrix, or minres",
    "diverged: the residual grew; raise the damping or lower the step size",
    "not finite: a product held NaN or infinity",
    "step size too large for the largest eigenvalue: lower it below 2 / eigenvalue",
    "stagnated: rounding keeps the residual above the tolerance",
    "preconditioner not positive definite: raise its damping",
    "inconsistent: the right-hand side is outside of the range of the matrix; the "
    "value has the least residual; raise the damping",
    "damping too small for the dtype: below its rounding of the largest eigenvalue; "
    "raise the damping or use float64",
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
) = range(len(REASONS))


class Solution(NamedTuple):
    """Value: the answer of a solver; nothing raises inside ``jit``, so read it.

    Attributes:
        value: x, shaped like the right-hand side.
        residual: ‖A x − b‖ / ‖b‖ (no unit), computed afresh from ``value``.
        steps: Iterations begun: where a product was not finite or its curvature not
            positive, the step it was met.
        converged: Whether ``residual`` reached the tolerance.
        code: Index into ``REASONS``.
    """

    value: Params
    residual: Float[Array, "..."]
    steps: Int[Array, "..."]
    converged: Bool[Array, "..."]
    code: Int[Array, "..."]


def reason(solution: Solution) -> str:
    """The end of a solve in words, for one solution outside of ``jit``."""
    code, steps = int(solution.code), int(solution.steps)
    return f"{REASONS[code]} (step {steps}, residual {float(solution.residual):.2g})"


def check_solution(solution: Any) -> Any:
    """The value of a converged solution.

    Raises:
        ArithmeticError: it did not converge; the reason is told.
    """
    if not bool(solution.converged):
        raise ArithmeticError(f"the solve did not converge: {reason(solution)}")
    return solution.value
