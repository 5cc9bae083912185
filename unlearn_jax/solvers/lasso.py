"""Many lasso regressions on one design at once, each with a certificate.

    minimise over β, b:  ‖y − X β − b‖² / (2 m) + l1 ‖β‖₁

for each column y of the targets. The products with the design are shared by all
columns, so the work is that of dense matrix products.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from unlearn_jax.loop import scan, while_loop
from unlearn_jax.solvers.solution import CONVERGED, NOT_FINITE, OUT_OF_STEPS
from unlearn_jax.types import Array
from unlearn_kernels.precision import exact_product

RATIOS = tuple(10.0 ** (-e / 4) for e in range(9))
"""From the smallest l1 at which all coefficients are zero down to a hundredth."""


class LassoSolution(NamedTuple):
    """Value: q regressions; nothing raises inside ``jit``, so read ``converged``.

    Attributes:
        coef: β of each target.
        intercept: b of each target, not penalised.
        gap: Duality gap over ‖y − mean‖² / (2 m) (no unit), from the coefficients that
            are returned: how much lower the objective could be at most.
        steps: Iterations until the gap was small.
        converged: Whether the gap reached the tolerance.
        code: Index into ``solution.REASONS``.
    """

    coef: Float[Array, "q n"]
    intercept: Float[Array, " q"]
    gap: Float[Array, " q"]
    steps: Int[Array, " q"]
    converged: Bool[Array, " q"]
    code: Int[Array, " q"]


class _Centred(NamedTuple):
    """Value: design and targets less their means over the rows that count."""

    x: Array
    y: Array
    x_mean: Array
    y_mean: Array
    rows: Array
    mass: Array
    bound: Array


class _State(NamedTuple):
    """Value: iterate and the one before, with Xᵀ residual of both."""

    beta: Array
    before: Array
    pull: Array
    pull_before: Array
    t: Array
    gap: Array
    steps: Array


def lasso(
    design: Any,
    targets: Any,
    *,
    l1: Any,
    weights: Any = None,
    start: Any = None,
    tol: float = 1e-4,
    max_steps: int = 2000,
) -> LassoSolution:
    """Lasso regressions with an intercept, all targets at once.

    Args:
        design: X (m, n), such as the masks of an ensemble.
        targets: (m, q), one regression for each column.
        l1: One for all, or (q,); positive.
        weights: Of the rows (m,), 0 or 1; None for ones. m above is their sum.
        start: First coefficients (q, n), such as those for a larger l1; None for 0.
        tol: Bound on the duality gap over ‖y − mean‖² / (2 m) (no unit).
        max_steps: Most iterations.

    Returns:
        LassoSolution; a target that has converged waits for the others.

    Raises:
        ValueError: shapes do not fit.

    Cost: eigenvalues of the smaller Gram matrix once; for each step 4 m n q operations;
        memory four arrays n × q.
    Source: Beck & Teboulle 2009, FISTA; restarts by O'Donoghue & Candès 2015, arXiv
        1204.3982, gradient scheme. Differs: each target restarts on its own, and stops
        by its duality gap, which the products at hand give.
    """
    data = _centred(design, targets, weights)
    return _solve(data, _levels(l1, data), start, tol, max_steps)


def largest_l1(design: Any, targets: Any, *, weights: Any = None) -> Float[Array, " q"]:
    """The smallest l1 of each target at which all its coefficients are zero."""
    x, y, _, _, _, mass = _means(design, targets, weights)
    return jnp.max(jnp.abs(exact_product(x.T, y)), axis=0, initial=0) / mass


def lasso_path(
    design: Any,
    targets: Any,
    *,
    ratios: Any = RATIOS,
    weights: Any = None,
    tol: float = 1e-4,
    max_steps: int = 2000,
) -> LassoSolution:
    """Regressions for falling l1, each started where the one before ended.

    Args:
        design: X (m, n).
        targets: (m, q).
        ratios: (p,) l1 over :func:`largest_l1` of each target, falling.
        weights: Of the rows; see :func:`lasso`.
        tol: As in :func:`lasso`.
        max_steps: For each point of the path.

    Returns:
        LassoSolution with a further first axis p in all fields.

    Cost: that of :func:`lasso` for each point, less the eigenvalues; memory p n q.
    """
    data = _centred(design, targets, weights)
    highest = _highest(data)

    def point(start: Array, ratio: Array) -> tuple[Array, LassoSolution]:
        found = _solve(data, ratio * highest, start, tol, max_steps)
        return found.coef, found

    first = jnp.zeros((data.y.shape[1], data.x.shape[1]), data.x.dtype)
    ratios = jnp.asarray(ratios, data.x.dtype)
    return scan(point, first, ratios, data)[1]


def held_out_errors(
    design: Any,
    targets: Any,
    held_out: Any,
    *,
    ratios: Any = RATIOS,
    tol: float = 1e-4,
    max_steps: int = 2000,
) -> Float[Array, "p q"]:
    """Mean squared error on rows kept apart, along the path fitted to the others.

    Args:
        design: X (m, n).
        targets: (m, q).
        held_out: (m,), 1 for the rows kept apart, 0 for those that are fitted.
        ratios: As in :func:`lasso_path`.
        tol: As in :func:`lasso`.
        max_steps: For each point of the path.

    Cost: that of :func:`lasso_path`, memory of one of its points.
    """
    design, targets = _arrays(design, targets)
    apart = jnp.asarray(held_out, design.dtype)
    data = _centred(design, targets, 1 - apart)
    highest = _highest(data)

    def point(start: Array, ratio: Array) -> tuple[Array, Array]:
        found = _solve(data, ratio * highest, start, tol, max_steps)
        errors = exact_product(design, found.coef.T) + found.intercept[None] - targets
        count = jnp.maximum(jnp.sum(apart), 1)
        return found.coef, exact_product(apart, jnp.square(errors)) / count

    first = jnp.zeros((data.y.shape[1], data.x.shape[1]), data.x.dtype)
    return scan(point, first, jnp.asarray(ratios, data.x.dtype), data)[1]


def _arrays(design: Any, targets: Any) -> tuple[Array, Array]:
    targets = jnp.asarray(targets)
    dtype = jnp.result_type(targets.dtype, jnp.float32)
    design, targets = jnp.asarray(design).astype(dtype), targets.astype(dtype)
    if design.ndim != 2 or targets.ndim != 2 or len(design) != len(targets):
        raise ValueError(
            f"got a design {design.shape} and targets {targets.shape}, expected (m, n) "
            f"and (m, q); reshape the targets to one column each"
        )
    return design, targets


def _means(design: Any, targets: Any, weights: Any) -> tuple[Array, ...]:
    """Centred x and y, zero in rows that do not count; their means, rows and mass."""
    x, y = _arrays(design, targets)
    rows = jnp.ones(len(x), x.dtype) if weights is None else jnp.asarray(weights)
    rows = (rows > 0).astype(x.dtype)
    mass = jnp.maximum(jnp.sum(rows), 1)
    x, y = (jnp.where(rows[:, None] > 0, part, 0) for part in (x, y))
    x_mean, y_mean = exact_product(rows, x) / mass, exact_product(rows, y) / mass
    return (
        rows[:, None] * (x - x_mean[None]),
        rows[:, None] * (y - y_mean[None]),
        x_mean,
        y_mean,
        rows,
        mass,
    )


def _centred(design: Any, targets: Any, weights: Any) -> _Centred:
    x, y, x_mean, y_mean, rows, mass = _means(design, targets, weights)
    gram = exact_product(x, x.T) if len(x) < x.shape[1] else exact_product(x.T, x)
    # A little above the largest eigenvalue, so that rounding never makes steps too
    # long; never zero, so that an empty design gives zeros.
    bound = 1.001 * jnp.max(jnp.linalg.eigvalsh(gram)) / mass
    bound = jnp.maximum(bound, jnp.finfo(x.dtype).tiny ** 0.5)
    return _Centred(x, y, x_mean, y_mean, rows, mass, bound)


def _highest(data: _Centred) -> Array:
    return (
        jnp.max(jnp.abs(exact_product(data.x.T, data.y)), axis=0, initial=0) / data.mass
    )


def _levels(l1: Any, data: _Centred) -> Array:
    return jnp.broadcast_to(jnp.asarray(l1, data.x.dtype), data.y.shape[1:])


def _gap(data: _Centred, l1: Array, beta: Array, residual: Array, pull: Array) -> Array:
    """P(β) − D(u), u = s · residual / m the best feasible multiple."""
    m = data.mass
    square = jnp.sum(residual**2, axis=0)
    primal = square / (2 * m) + l1 * jnp.sum(jnp.abs(beta), axis=0)
    steepest = jnp.max(jnp.abs(pull), axis=0, initial=0) / m
    limit = l1 / jnp.maximum(steepest, jnp.finfo(pull.dtype).tiny)
    along = jnp.sum(data.y * residual, axis=0)
    best = along / jnp.where(square > 0, square, 1)
    s = jnp.clip(best, -limit, limit)
    dual = s * along / m - s**2 * square / (2 * m)
    scale = jnp.sum(data.y**2, axis=0) / (2 * m)
    return jnp.maximum(primal - dual, 0) / jnp.where(scale > 0, scale, 1)


def _solve(
    data: _Centred, l1: Array, start: Any, tol: float, max_steps: int
) -> LassoSolution:
    m, bound = data.mass, data.bound

    def at(beta: Array) -> tuple[Array, Array]:
        residual = data.y - exact_product(data.x, beta)
        pull = exact_product(data.x.T, residual)
        return pull, _gap(data, l1, beta, residual, pull)

    def step(s: _State) -> _State:
        t = (1 + jnp.sqrt(1 + 4 * s.t**2)) / 2
        momentum = ((s.t - 1) / t)[None]
        # The pull is affine in β, so at the extrapolated point it costs no product.
        point = s.beta + momentum * (s.beta - s.before)
        pull = s.pull + momentum * (s.pull - s.pull_before)
        moved = point + pull / (m * bound)
        beta = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - l1[None] / bound, 0)
        uphill = jnp.sum((point - beta) * (beta - s.beta), axis=0) > 0
        live = (s.gap > tol)[None]
        beta = jnp.where(live, beta, s.beta)
        pull, gap = at(beta)
        return _State(
            beta,
            s.beta,
            pull,
            s.pull,
            jnp.where(uphill, 1, t),
            gap,
            s.steps + live[0],
        )

    def go_on(s: _State) -> Array:
        return jnp.any(s.gap > tol) & (jnp.max(s.steps, initial=0) < max_steps)

    q, n = data.y.shape[1], data.x.shape[1]
    first = jnp.zeros((n, q), data.x.dtype) if start is None else jnp.asarray(start).T
    pull, gap = at(first)
    ones, steps = jnp.ones(q, data.x.dtype), jnp.zeros(q, jnp.int32)
    last = while_loop(go_on, step, _State(first, first, pull, pull, ones, gap, steps))
    beta = last.beta.T
    converged = last.gap <= tol
    code = jnp.where(jnp.isfinite(last.gap), OUT_OF_STEPS, NOT_FINITE)
    code = jnp.where(converged, CONVERGED, code).astype(jnp.int32)
    intercept = data.y_mean - exact_product(beta, data.x_mean)
    return LassoSolution(beta, intercept, last.gap, last.steps, converged, code)
