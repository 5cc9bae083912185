"""Leave-one-out distinguishability: what a model's outputs tell of one training row.

D holds all rows but one, D' that row too. At queries Q the two Gaussian processes have
posteriors N(μ, S) and N(μ', S'). With u the covariance of the outputs at Q and at the
row, and c the variance of its target, both given D, and r the residual of the target,

    μ' − μ = u r / c,    S' = S − u uᵀ / c,

so with t = uᵀ S⁻¹ u / c, τ = t / (1 − t) and k outputs, both divergences are numbers:

    KL(N_D ‖ N_D') = ½ [k (τ − log(1 + τ)) + τ Σ r² / c],
    KL(N_D' ‖ N_D) = ½ [k (log(1 + τ) − t) + t Σ r² / c].

t is the share of the target's variance that the outputs at Q explain; no Q has more
than the row itself, t = v / (v + noise): for the divergences it is the best query.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jax.scipy.stats import norm
from jaxtyping import Float, Shaped

from unlearn_jax.attribution.gaussian_process import (
    GaussianProcess,
    Kernel,
    Posterior,
    gp_leave_one_out,
    gp_predict,
)
from unlearn_jax.loop import repeat, tracing
from unlearn_jax.types import Array, Estimate, PRNGKey
from unlearn_kernels.precision import exactly


class Distinguishability(NamedTuple):
    """Value: how far apart the outputs without and with some rows are.

    Attributes:
        mean_distance: ½ of the mean over queries and outputs of (μ − μ')².
        divergence: KL(N_D ‖ N_D') [nats]: without the rows, from with them.
        reverse: KL(N_D' ‖ N_D) [nats].
    """

    mean_distance: Float[Array, "*g"]
    divergence: Float[Array, "*g"]
    reverse: Float[Array, "*g"]


class Found(NamedTuple):
    """Value: the best query met on the way from each start.

    Attributes:
        query: Like the starts.
        value: The measure there.
        start_value: The measure at the start, never above ``value``.
    """

    query: Shaped[Array, "m ..."]
    value: Float[Array, " m"]
    start_value: Float[Array, " m"]


def distinguishability(without: Posterior, complete: Posterior) -> Distinguishability:
    """Distance between two posteriors at the same queries, whatever sets them apart.

    Args:
        without: N_D at q queries, of the process that saw less.
        complete: N_D' at the same queries.

    Returns:
        Three numbers; NaN where a covariance is not positive definite.

    Raises:
        ValueError: the shapes differ.

    Cost: a few q³.
    Source: Ye, Borovykh, Hayou & Shokri 2024, Leave-one-out distinguishability in
        machine learning, arXiv 2309.17310. Differs: the log-determinant of one matrix
        near the identity; the public code divides two determinants, which are both 0
        in float64 from some hundred queries on.
    """
    _same(without, complete)
    outputs, shift = without.mean.shape[1], complete.mean - without.mean
    distance = 0.5 * jnp.mean(shift**2)
    forward = _divergence(without.covariance, complete.covariance, shift, outputs)
    reverse = _divergence(complete.covariance, without.covariance, shift, outputs)
    return Distinguishability(distance, forward, reverse)


@exactly
def lood(
    kernel: Kernel, state: GaussianProcess, queries: Any, *, query_noise: Any = 0.0
) -> Distinguishability:
    """Every row's leave-one-out distinguishability at the same queries, closed form.

    Args:
        kernel: The one that the state was fitted with.
        state: The process fitted on all rows; each is left out in turn.
        queries: Inputs (q, ...), looked at jointly.
        query_noise: Variance added to every output that is looked at. Needed where
            queries outnumber what the kernel can tell apart: without noise such
            outputs give NaN.

    Returns:
        One number per row in each field; zero for an absent row.

    Cost: one posterior, q³/3, and q² n: nothing is fitted again.
    Source: Ye et al. 2024, arXiv 2309.17310. Differs: all rows from one inverse, by
        the change of rank one; no determinant.
    """
    cross = kernel(queries, state.inputs)
    # (K_QX B)ₙ = Bₙₙ uₙ, and 1 / Bₙₙ is the variance c of the target.
    scale, residual = _left_out(state)
    reach = (cross @ state.inverse) * scale[None]
    full = gp_predict(kernel, state, queries).covariance
    full = full + query_noise * jnp.eye(full.shape[0], dtype=full.dtype)
    half = solve_triangular(jnp.linalg.cholesky(full), reach, lower=True)
    odds = jnp.sum(half**2, axis=0) / scale
    distance = 0.5 * jnp.mean((reach / scale[None]) ** 2, axis=0)
    return _closed(state, distance, odds, residual, scale)


def self_lood(state: GaussianProcess) -> Distinguishability:
    """Every row's distinguishability at itself as the only query, closed form.

    With v the variance at the row without it: u = v, c = v + noise, τ = v / noise.

    Args:
        state: The process fitted on all rows; each is left out in turn.

    Returns:
        One number per row in each field; zero for an absent row. The divergences are
        the largest that any queries have. Where v is below the rounding of the noise
        they are noise themselves or zero, never negative.

    Cost: n k, from the state.
    Source: Ye et al. 2024, arXiv 2309.17310. As published, for all rows at once.
    """
    scale, residual = _left_out(state)
    variance = gp_leave_one_out(state).variance
    odds = variance / jnp.where(state.present, state.noise, 1)
    distance = 0.5 * (variance / scale) ** 2
    return _closed(state, distance, odds, residual, scale)


@exactly
def optimise_query(
    kernel: Kernel,
    state: GaussianProcess,
    row: Any,
    starts: Any,
    *,
    measure: str = "mean_distance",
    steps: int = 600,
    learning_rate: float = 3.0,
    project: Callable[[Any], Any] | None = None,
) -> Found:
    """Ascend from each start to a single query that tells most of one row.

    Args:
        kernel: The one that the state was fitted with; differentiable.
        state: The process fitted on all rows.
        row: The row left out, an index; may be traced, so that rows can be mapped over.
        starts: Queries (m, ...), each ascended on its own.
        measure: A field of :class:`Distinguishability`.
        steps: Gradient steps.
        learning_rate: Length of a step as a multiple of the gradient.
        project: Applied to each query after each step: a clip to the range of pixels.

    Returns:
        The best query of each path: its start where each step is worse or not finite.

    Raises:
        ValueError: no such measure, no steps, no starts, or a row out of range.

    Cost: for each step and start the kernel's n entries and their gradient; for the
        divergences n² besides.
    Source: Ye et al. 2024, arXiv 2309.17310; steps and learning rate as published.
        Differs: plain gradient ascent that returns the best query met, not the last.
    """
    starts = jnp.asarray(starts)
    if measure not in Distinguishability._fields:
        raise ValueError(
            f"measure is {measure!r}, expected one of {Distinguishability._fields}"
        )
    if steps < 1 or starts.ndim < 1 or not starts.shape[0]:
        raise ValueError(
            f"got {steps} steps from starts {starts.shape}, expected at least one of "
            f"each"
        )
    n = state.present.shape[0]
    if not tracing(row) and not 0 <= row < n:
        raise ValueError(f"row is {row}, expected 0 to {n - 1}")
    scale, residual = _left_out(state)
    own = scale[row], residual[row], state.inverse[row]

    def value(query: Array, state: GaussianProcess, own: Any) -> Array:
        scale, residual, inverse = own
        cross = kernel(query[None], state.inputs)[0]
        reach = jnp.dot(cross, inverse) * scale
        power = jnp.sum(residual**2) / residual.shape[0]
        if measure == "mean_distance":
            return 0.5 * (reach / scale) ** 2 * power
        full = kernel(query[None], query[None])[0, 0] - cross @ state.inverse @ cross
        odds = reach**2 / (scale * full)
        return _divergences(odds, jnp.sum(residual**2) / scale, residual.shape[0])[
            measure == "reverse"
        ]

    def step(_: Any, carried: Any, constants: Any) -> Any:
        query, slope, best, top = carried
        query = query + learning_rate * slope
        query = query if project is None else project(query)
        height, slope = jax.value_and_grad(value)(query, *constants)
        better = ~(height <= top) & jnp.isfinite(height)
        best, top = jnp.where(better, query, best), jnp.where(better, height, top)
        return query, slope, best, top

    def ascend(start: Array) -> Found:
        height, slope = jax.value_and_grad(value)(start, state, own)
        carried = (start, slope, start, height)
        _, _, best, top = repeat(steps, step, carried, (state, own))
        return Found(best, top, height)

    return jax.vmap(ascend)(starts)


def attack_auc(
    key: PRNGKey, without: Posterior, complete: Posterior, *, samples: int = 5000
) -> Estimate:
    """AUC of the likelihood-ratio test between two posteriors, by sampling.

    No attack that sees the outputs at the queries once, of a model drawn from either
    posterior, ranks better.

    Args:
        key: For the draws.
        without: N_D at q queries.
        complete: N_D' at the same queries.
        samples: Draws of each.

    Returns:
        The AUC and its standard error; NaN where a covariance is not positive definite.

    Raises:
        ValueError: the shapes differ, or fewer than two samples.

    Cost: samples · q² · k and two sorts.
    Source: Ye et al. 2024, arXiv 2309.17310, §3: 5,000 samples; standard error by
        DeLong et al. 1988. Differs: the ratio of both full covariances.
    """
    _same(without, complete)
    if samples < 2:
        raise ValueError(f"samples is {samples}, expected at least 2")
    laws = [(p.mean, jnp.linalg.cholesky(p.covariance)) for p in (without, complete)]

    def distance(law: Any, outputs: Array) -> Array:
        mean, lower = law
        q, k = mean.shape
        flat = jnp.moveaxis(outputs - mean[None], 0, -1).reshape(q, -1)
        white = solve_triangular(lower, flat, lower=True).reshape(q, k, samples)
        return jnp.sum(white**2, axis=(0, 1))

    def scores(key: PRNGKey, law: Any) -> Array:
        mean, lower = law
        drawn = jax.random.normal(key, (samples, *mean.shape), mean.dtype)
        outputs = mean[None] + jnp.einsum("pq,sqk->spk", lower, drawn)
        # Twice the log-ratio, less the determinants: no rank depends on those.
        return distance(laws[0], outputs) - distance(laws[1], outputs)

    low, high = (
        scores(k, law) for k, law in zip(jax.random.split(key), laws, strict=True)
    )
    below, above = _rank(low, high), 1 - _rank(high, low)
    spread = (jnp.var(below, ddof=1) + jnp.var(above, ddof=1)) / samples
    fine = jnp.all(jnp.isfinite(low)) & jnp.all(jnp.isfinite(high))
    auc = jnp.where(fine, jnp.mean(below), jnp.nan)
    return Estimate(auc, jnp.where(fine, jnp.sqrt(spread), jnp.nan))


def equal_covariance_auc(mean_change: Any, covariance: Any) -> Float[Array, ""]:
    """AUC of the likelihood-ratio test where both covariances are the same: Φ(d / √2).

    Args:
        mean_change: μ' − μ, shape (q, k).
        covariance: S (q, q), positive definite, shared by the outputs.

    Returns:
        With d² = Σ over outputs of (μ' − μ)ᵀ S⁻¹ (μ' − μ).

    Cost: q³/3.
    Source: Green & Swets 1966, Signal detection theory. As published.
    """
    lower = jnp.linalg.cholesky(jnp.asarray(covariance))
    white = solve_triangular(lower, jnp.asarray(mean_change), lower=True)
    return norm.cdf(jnp.sqrt(jnp.sum(white**2) / 2))


def threshold_auc(without: Posterior, complete: Posterior) -> Float[Array, "q k"]:
    """AUC of a threshold on one output at one query: Φ(|μ' − μ| / √(S + S')).

    Returns:
        One number per query and output, from 0.5.

    Raises:
        ValueError: the shapes differ.

    Cost: q k.
    Source: Green & Swets 1966, Signal detection theory. As published.
    """
    _same(without, complete)
    spread = jnp.diagonal(without.covariance) + jnp.diagonal(complete.covariance)
    shift = jnp.abs(complete.mean - without.mean)
    return norm.cdf(shift / jnp.sqrt(spread)[:, None])


def _same(without: Posterior, complete: Posterior) -> None:
    shapes = [tuple(np.shape(part) for part in law) for law in (without, complete)]
    if shapes[0] != shapes[1] or len(shapes[0][0]) != 2:
        raise ValueError(
            f"got posteriors of shapes {shapes[0]} and {shapes[1]}, expected mean "
            f"(q, k) and covariance (q, q) twice; map over sets with jax.vmap"
        )


def _divergence(from_: Array, to: Array, shift: Array, outputs: int) -> Array:
    """KL(N(·, from_) ‖ N(· + shift, to)), the covariance shared by the outputs."""
    lower = jnp.linalg.cholesky(to)
    half = solve_triangular(lower, from_, lower=True)
    inner = solve_triangular(lower, half.T, lower=True)
    sign, logdet = jnp.linalg.slogdet(inner)
    eye = jnp.eye(inner.shape[0], dtype=inner.dtype)
    shape = jnp.trace(inner - eye) - jnp.where(sign > 0, logdet, jnp.nan)
    moved = jnp.sum(shift * cho_solve((lower, True), shift))
    return 0.5 * (outputs * shape + moved)


def _left_out(state: GaussianProcess) -> tuple[Array, Array]:
    """Each row's c = 1 / Bₙₙ, one where absent, and its residual without itself."""
    scale = 1 / jnp.where(state.present, jnp.diagonal(state.inverse), 1)
    return scale, state.pull * scale[:, None]


def _divergences(odds: Array, power: Array, outputs: int) -> tuple[Array, Array]:
    share, growth = odds / (1 + odds), jnp.log1p(odds)
    forward = 0.5 * (outputs * (odds - growth) + odds * power)
    return forward, 0.5 * (outputs * (growth - share) + share * power)


def _closed(
    state: GaussianProcess, distance: Array, odds: Array, residual: Array, scale: Array
) -> Distinguishability:
    outputs = residual.shape[1]
    square = jnp.sum(residual**2, axis=1)
    forward, reverse = _divergences(odds, square / scale, outputs)
    values = distance * square / outputs, forward, reverse
    return Distinguishability(*(jnp.where(state.present, v, 0) for v in values))


def _rank(low: Array, high: Array) -> Array:
    """Share of ``low`` below each of ``high``, ties counted half."""
    ordered = jnp.sort(low)
    left = jnp.searchsorted(ordered, high, side="left")
    right = jnp.searchsorted(ordered, high, side="right")
    return (left + right).astype(low.dtype) / (2 * low.shape[0])
