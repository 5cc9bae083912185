"""Inverse products by a Neumann series: full batches, or minibatches (LiSSA)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax import tree
from unlearn_jax.curvature.operator import LinearOperator, check_like
from unlearn_jax.loop import fori_loop, tracing, while_loop
from unlearn_jax.parallel.explicit import automatic
from unlearn_jax.solvers.krylov import spectral_bounds
from unlearn_jax.solvers.refinement import RUNNING, either, epsilon, refine
from unlearn_jax.solvers.solution import (
    DIVERGED,
    INDEFINITE,
    NOT_FINITE,
    OUT_OF_STEPS,
    STEP_SIZE,
    Solution,
)
from unlearn_jax.types import Array, Estimate, Params, PRNGKey
from unlearn_kernels.varying import vary


class _State(NamedTuple):
    """Value: x, residual r, ‖r‖, the least ‖r‖ so far."""

    x: Params
    r: Params
    size: Array
    least: Array
    steps: Array
    code: Array


@automatic
def neumann(
    operator: LinearOperator,
    rhs: Params,
    *,
    step_size: Any = None,
    start: Params | None = None,
    tol: float = 1e-6,
    max_steps: int = 100,
    spectrum_steps: int = 10,
    key: PRNGKey | None = None,
) -> Solution:
    """Solve A x = b by ``x ← x + step_size (b − A x)``, A symmetric positive definite.

    Converges for step sizes below 2 / λ_max, at the rate 1 − step_size λ_min: slower
    than conjugate gradients always, kept as the baseline that much of the literature
    uses.

    A few Lanczos steps look at the spectrum first. Their Ritz value is a lower bound of
    λ_max, so a step size of 2 / Ritz value or more surely diverges and is refused. A
    Ritz value below zero proves that A is not positive definite. A larger λ_max that
    they miss shows as a growing residual, and ends the iteration with "diverged".

    Args:
        operator: A.
        rhs: b, like what the operator acts on.
        step_size: In units of 1 / eigenvalue. None takes 1 / (Ritz value + residual
            norm of the last Lanczos step), nearly always below 1 / λ_max.
        start: First x; zero if None.
        tol: Bound on ‖A x − b‖ / ‖b‖ (no unit).
        max_steps: Most steps.
        spectrum_steps: Lanczos steps.
        key: Draws the start of the Lanczos steps. None starts them from b, whose
            Krylov space is the one that the iteration moves in.

    Returns:
        Solution; the start itself if the step size was refused.

    Raises:
        ValueError: ``rhs`` or ``start`` is not like what the operator acts on, or a
            concrete ``step_size`` is not positive.

    Cost: ``spectrum_steps`` products, one per step, one to confirm the residual.
    Source: Richardson 1910; the series as in Koh & Liang 2017, arXiv 1703.04730, §3.
        Differs: checks the step size.
    """
    if step_size is not None and not tracing(step_size) and not step_size > 0:
        raise ValueError(f"step_size is {step_size}, expected a positive number")
    check_like(operator.like, rhs, "right-hand side")
    rhs = vary(rhs, operator.like)
    probe = rhs if key is None else tree.random_like(key, rhs, jax.random.normal)
    bounds = spectral_bounds(operator, probe, steps=spectrum_steps)
    usable = jnp.isfinite(bounds.upper) & (bounds.upper > 0)
    if step_size is None:
        rate = jnp.where(usable, 1 / jnp.where(usable, bounds.upper, 1), 1)
    else:
        rate = jnp.asarray(step_size, bounds.upper.dtype)
    refused = jnp.where(rate * bounds.largest >= 2, STEP_SIZE, RUNNING)
    negative = bounds.lowest < -100 * epsilon(rhs) * jnp.abs(bounds.upper)
    refused = jnp.where(negative, INDEFINITE, refused).astype(jnp.int32)

    def correct(residual: Params, target: Array, steps: Array) -> Any:
        def step(s: _State) -> _State:
            r = tree.axpy(-rate, operator.matvec(s.r), s.r)
            size = tree.norm(r)
            # Without rounding ‖r‖ falls at every step; a grown one proves an
            # eigenvalue outside of (0, 2 / step_size).
            good = size <= 1.001 * s.least
            code = jnp.where(jnp.isfinite(size), DIVERGED, NOT_FINITE)
            code = jnp.where(good, RUNNING, code).astype(jnp.int32)
            x = tree.axpy(rate, s.r, s.x)
            least = jnp.minimum(size, s.least)
            new = _State(x, r, size, least, s.steps + 1, code)
            return either(good, new, s._replace(steps=s.steps + 1, code=code))

        def go_on(s: _State) -> Array:
            return (s.code == RUNNING) & (s.size > target) & (s.steps < max_steps)

        size = tree.norm(residual)
        first = _State(tree.zeros_like(rhs), residual, size, size, steps, refused)
        last = while_loop(go_on, step, first)
        late = (last.code == RUNNING) & (last.size > target)
        code = jnp.where(late, OUT_OF_STEPS, last.code)
        return last.x, last.steps, jnp.abs(bounds.largest), code

    return refine(correct, operator, rhs, start=start, tol=tol, max_steps=max_steps)


@automatic
def lissa(
    key: PRNGKey,
    operator_of: Callable[[Any], LinearOperator],
    rhs: Params,
    *,
    step_size: Any = 1.0,
    steps: int = 100,
    samples: int = 10,
) -> Estimate:
    """A⁻¹ b from minibatch products, with its standard error.

    Each sample runs ``x ← x + step_size (b − A_j x)`` from zero, with a freshly drawn
    A_j of mean A at every step. Its expectation is that of :func:`neumann` after as
    many steps, (I − (I − step_size A)^steps) A⁻¹ b; the standard error does not know
    of that bias, which only more steps reduce. Identical operators scatter not at all,
    so that divergence has to be told apart, see Returns.

    Args:
        key: Split over samples and steps.
        operator_of: From a key to the operator of a minibatch, damping included.
        rhs: b.
        step_size: Below 2 / λ_max of the *minibatch* operators, or the variance
            explodes (in units of 1 / eigenvalue).
        steps: Steps of each sample.
        samples: Independent repeats that are averaged, at least 2.

    Returns:
        Estimate: mean over the samples, and its standard error. Where the mean residual
        did not shrink, beyond what its scatter explains, the series does not converge:
        every entry is NaN then, with an infinite standard error. Zero steps give zeros.

    Raises:
        ValueError: fewer than 2 samples, or ``rhs`` is not like what the operators act
            on.

    Cost: samples × steps minibatch products; memory eight vectors.
    Source: Agarwal, Bullins & Hazan 2017, arXiv 1602.03943, algorithm 1. Differs:
        starts at zero, takes a step size, returns the scatter of the samples, and tells
        divergence.
    """
    if samples < 2:
        raise ValueError(f"got {samples} samples; a standard error needs at least 2")

    middle = steps // 2
    zero = tree.zeros_like(rhs)
    like: Any = ()
    if jax.sharding.get_abstract_mesh().manual_axes:
        like = jax.eval_shape(lambda k: operator_of(k)(rhs), key)

    def one_sample(sample_key: PRNGKey) -> tuple[Params, Params, Params]:
        """The last x, and b − A x at the middle and at the last step."""

        def step(j: Any, state: Any) -> Any:
            x, halfway, _ = state
            operator = operator_of(jax.random.fold_in(sample_key, j))
            check_like(operator.like, rhs, "right-hand side")
            left = tree.axpy(-1.0, operator.matvec(x), rhs)
            halfway = tree.where(j == middle, left, halfway)
            return tree.axpy(step_size, left, x), halfway, left

        return fori_loop(0, steps, step, (zero, rhs, rhs), like)

    def add_sample(i: Any, state: Any) -> Any:
        means, scatters = state
        found = one_sample(jax.random.fold_in(key, i))
        change = tree.subtract(found, means)
        means = tree.axpy(1 / (i + 1), change, means)
        square = jax.tree.map(lambda c: c**2, change)
        return means, tree.axpy(i / (i + 1), square, scatters)

    empty = (zero, zero, zero)
    means, scatters = fori_loop(0, samples, add_sample, (empty, empty), like)
    variances = tree.scale(1 / (samples * (samples - 1)), scatters)
    bad = ~tree.all_finite((means, scatters))
    if steps > 1:
        bad |= _grew(rhs, means[1:], variances[1:])

    def told(value: Params, otherwise: float) -> Params:
        return jax.tree.map(
            lambda leaf: jnp.where(bad, jnp.asarray(otherwise, leaf.dtype), leaf), value
        )

    error = jax.tree.map(lambda v: jnp.sqrt(v).astype(v.dtype), variances[0])
    return Estimate(told(means[0], jnp.nan), told(error, jnp.inf))


def _grew(rhs: Params, residuals: Any, variances: Any) -> Array:
    """Whether the mean residual of independent draws shows that a series diverges.

    The mean of b − A x after j steps is (I − step_size A)ʲ b. If it is not shorter than
    b, or longer at the end than in the middle, some eigenvalue of I − step_size A is
    not inside of the unit circle. The scatter of the mean is allowed for fivefold.
    """
    size = tree.dot(rhs, rhs)
    middle, end = (tree.dot(r, r) for r in residuals)
    noise = [25 * tree.dot(v, jax.tree.map(jnp.ones_like, v)) for v in variances]
    never = end >= size + noise[1]
    again = end > 4 * middle + noise[0] + noise[1]
    again &= end > epsilon(rhs) * size
    return (size > 0) & (never | again)
