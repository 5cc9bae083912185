"""Gaussian processes as state: fit once, then predict, leave out and remove exactly.

With A = K(X, X) + diag(noise) and B = A⁻¹, taking the rows S out needs no new
factorisation: on the rows that stay, the inverse is B − B[:, S] B[S, S]⁻¹ B[S, :].
That is the oracle of unlearning for every kernel model. A row of weight zero or removed
is not there: its row and column of B are zero, and nothing of it is kept.

A kernel is any function ``(x, z) -> (n, m)``; :mod:`unlearn_jax.curvature.jacobian`
makes one of a trained model::

    kernel = lambda x, z: tangent_kernel(objective, params, x, z, trace=True)

Use float64: what is lost is the condition number of A times the rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Bool, Float, Int, Shaped

from unlearn_jax import tree
from unlearn_jax.attribution import leave_out
from unlearn_jax.data import accumulate
from unlearn_jax.loop import tracing
from unlearn_jax.solvers import refusal
from unlearn_jax.types import Array, Batch
from unlearn_kernels.precision import exactly

Kernel: TypeAlias = Callable[[Any, Any], Any]
"""(n, ...) and (m, ...) inputs -> (n, m)."""


class GaussianProcess(NamedTuple):
    """Value: a fitted process; of absent rows only their place is left.

    Attributes:
        inputs: X; another row's input in place of an absent one.
        targets: y; zero where absent.
        noise: Variance of each row's noise; zero where absent.
        inverse: B; zero in absent rows and columns.
        pull: B y; zero where absent.
        present: Which rows are in.
        code: Index into ``solvers.refusal.REFUSALS`` of the latest request.
    """

    inputs: Shaped[Array, "n ..."]
    targets: Float[Array, "n k"]
    noise: Float[Array, " n"]
    inverse: Float[Array, "n n"]
    pull: Float[Array, "n k"]
    present: Bool[Array, " n"]
    code: Int[Array, ""]


class Posterior(NamedTuple):
    """Value: the joint normal law of the noise-free outputs at some queries.

    Attributes:
        mean: One column per output.
        covariance: Shared by all outputs, which are independent.
    """

    mean: Float[Array, "*g q k"]
    covariance: Float[Array, "*g q q"]


class Marginals(NamedTuple):
    """Value: the normal law of each row's noise-free output, one row at a time."""

    mean: Float[Array, "n k"]
    variance: Float[Array, " n"]


@exactly
def gp_fit(
    kernel: Kernel, inputs: Any, targets: Any, *, noise: Any, weights: Any = None
) -> GaussianProcess:
    """Condition the process of mean zero on observed rows.

    Args:
        kernel: Covariance of the outputs between inputs.
        inputs: Rows (n, ...).
        targets: Shape (n, k): one process per column, all with this kernel.
        noise: Variance of the observations' noise, positive.
        weights: A row of weight w has noise / w, and is absent at zero, whatever it
            holds; None for ones.

    Returns:
        The state; ``code`` tells whether A B y = y up to the root of the rounding and,
        under ``jit``, of a weight that is negative or not finite: ``NOT_FINITE``.

    Raises:
        ValueError: shapes, the noise or a weight do not fit.

    Cost: the kernel's n² entries and n³ multiplications; memory n².
    Source: Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, alg.
        2.1. Differs: the inverse is kept, not the factor; weighted rows.
    """
    inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
    n = inputs.shape[0] if inputs.ndim else 0
    weights = jnp.ones(n, targets.dtype) if weights is None else weights
    weights = leave_out.checked_weights(weights)
    if targets.shape[:1] != (n,) or targets.ndim != 2 or weights.shape != (n,) or not n:
        raise ValueError(
            f"got inputs {inputs.shape}, targets {targets.shape} and weights "
            f"{weights.shape}, expected (n, ...), (n, k) and (n,) with n at least 1"
        )
    if not tracing(noise) and (np.ndim(noise) or not noise > 0):
        raise ValueError(f"noise is {noise}, expected one positive variance")
    inputs = accumulate.present(Batch(inputs, targets, weights)).inputs
    present = weights > 0
    covariance = jnp.asarray(kernel(inputs, inputs))
    dtype = jnp.result_type(covariance, targets)
    targets = jnp.where(present[:, None], targets, 0).astype(dtype)
    spread = jnp.where(present, noise / jnp.where(present, weights, 1), 0)
    spread = spread.astype(dtype)
    both = present[:, None] & present[None]
    eye = jnp.eye(n, dtype=dtype)
    matrix = jnp.where(both, covariance, eye) + jnp.diag(spread)
    lower = jnp.linalg.cholesky(matrix)
    inverse = jnp.where(both, cho_solve((lower, True), eye), 0)
    pull = cho_solve((lower, True), targets)
    probe = jnp.concatenate([targets, present.astype(dtype)[:, None]], axis=1)
    gap = jnp.max(jnp.abs(matrix @ (inverse @ probe) - probe), axis=0)
    solved = gap <= jnp.finfo(dtype).eps ** 0.5 * jnp.max(jnp.abs(probe), axis=0)
    sound = tree.all_finite((matrix, targets, weights))
    code = jnp.where(jnp.all(solved), refusal.APPLIED, refusal.ILL_CONDITIONED)
    code = jnp.where(sound, code, refusal.NOT_FINITE).astype(jnp.int32)
    return GaussianProcess(inputs, targets, spread, inverse, pull, present, code)


@exactly
def gp_predict(kernel: Kernel, state: GaussianProcess, queries: Any) -> Posterior:
    """Posterior of the noise-free outputs at queries (q, ...).

    Args:
        kernel: The one that the state was fitted with.
        state: From :func:`gp_fit` or :func:`gp_remove`.
        queries: Inputs (q, ...).

    Returns:
        Mean K(Q, X) B y and covariance K(Q, Q) − K(Q, X) B K(X, Q).

    Cost: q n kernel entries, q n² + q² n multiplications.
    Source: Rasmussen & Williams 2006, eq. 2.23 and 2.24. As published.
    """
    cross = kernel(queries, state.inputs)
    covariance = kernel(queries, queries) - cross @ state.inverse @ cross.T
    return Posterior(cross @ state.pull, 0.5 * (covariance + covariance.T))


@exactly
def gp_remove(state: GaussianProcess, members: Any) -> GaussianProcess:
    """The process fitted without some rows, by a down-date of the inverse.

    Args:
        state: The fitted process; its shapes stay.
        members: Indices (s,) of rows that are present; −1 pads.

    Returns:
        The state without them. A request that names an absent row is refused: the old
        state with ``code`` set, for ``refusal.check_applied``. Under ``jit`` so are
        rows out of range or named twice.

    Raises:
        ValueError: the set is empty, out of range or names a row twice.

    Cost: s n² multiplications; no factorisation of more than s rows. Rounding adds up
        over requests; fit anew after thousands.
    Source: inverse of a partitioned matrix. As published.
    """
    members = _one_set(members, state)
    real, code = members >= 0, _request_code(state, members)
    taken = jnp.where(real, members, 0)
    lower, across = _blocks(state, members)
    gone = jnp.zeros_like(state.present).at[taken].max(real)
    kept = state.present & ~gone
    half = solve_triangular(lower, across, lower=True)
    own = jnp.where(real[:, None], state.pull[taken], 0)
    inverse = state.inverse - half.T @ half
    pull = state.pull - half.T @ solve_triangular(lower, own, lower=True)
    inverse = jnp.where(kept[:, None] & kept[None], inverse, 0)
    pull = jnp.where(kept[:, None], pull, 0)
    fine = tree.all_finite((inverse, pull)) & jnp.all(jnp.isfinite(lower))
    code = jnp.where((code == refusal.APPLIED) & ~fine, refusal.INDEFINITE, code)
    rest = Batch(state.inputs, state.targets, kept.astype(state.noise.dtype))
    less = state._replace(
        inputs=accumulate.present(rest).inputs,
        targets=jnp.where(kept[:, None], state.targets, 0),
        noise=jnp.where(kept, state.noise, 0),
        inverse=inverse,
        pull=pull,
        present=kept,
    )
    applied = code == refusal.APPLIED
    chosen = jax.tree.map(lambda a, b: jnp.where(applied, a, b), less, state)
    return chosen._replace(code=code)


def gp_leave_one_out(state: GaussianProcess) -> Marginals:
    """Posterior of each row's noise-free output by the process without that row.

    Returns:
        Mean yₙ − (B y)ₙ / Bₙₙ and variance 1 / Bₙₙ − noiseₙ; zero where absent, and
        where the difference is negative by rounding.

    Cost: n k, from the state.
    Source: Rasmussen & Williams 2006, eq. 5.12. Differs: the variance without noise.
    """
    scale = 1 / jnp.where(state.present, jnp.diagonal(state.inverse), 1)
    mean = state.targets - state.pull * scale[:, None]
    variance = jnp.maximum(scale - state.noise, 0)
    return Marginals(mean, jnp.where(state.present, variance, 0))


@exactly
def gp_leave_set_out(
    kernel: Kernel,
    state: GaussianProcess,
    members: Any,
    queries: Any = None,
    *,
    set_batch_size: int = 32,
) -> Posterior:
    """Posterior by the process without a set of rows, for one set or many.

    Args:
        kernel: The one that the state was fitted with; unused without queries.
        state: The fitted process.
        members: Indices (s,) of one set, or (g, s) of g sets; −1 pads.
        queries: Inputs (q, ...); None for the members themselves, zero at the padding.
        set_batch_size: Sets handled at once.

    Returns:
        Posterior of shapes (q, …) or (g, q, …), q = s without queries. NaN for a set
        that names an absent row; under ``jit`` also for one that is out of range or
        repeats itself.

    Raises:
        ValueError: a set is empty, out of range or names a row twice.

    Cost: for each set s³ and, with queries, q n s and q² s; with queries also
        :func:`gp_predict` once. The down-dated inverse is never formed.
    Source: inverse of a partitioned matrix. As published.
    """
    members = leave_out.checked_members(members, state.present.shape[0])
    if queries is None:
        cross, full = None, None
    else:
        cross = kernel(queries, state.inputs)
        full = gp_predict(kernel, state, queries)

    def without(at: Array) -> Posterior:
        real = at >= 0
        taken = jnp.where(real, at, 0)
        lower, across = _blocks(state, at)
        own = jnp.where(real[:, None], state.pull[taken], 0)
        if cross is None or full is None:
            targets = jnp.where(real[:, None], state.targets[taken], 0)
            noise = jnp.where(real, state.noise[taken], 1)
            mean = targets - cho_solve((lower, True), own)
            eye = jnp.eye(at.shape[0], dtype=own.dtype)
            covariance = cho_solve((lower, True), eye) - jnp.diag(noise)
        else:
            half = solve_triangular(lower, across @ cross.T, lower=True)
            mean = full.mean - half.T @ solve_triangular(lower, own, lower=True)
            covariance = full.covariance + half.T @ half
        good = _request_code(state, at) == refusal.APPLIED
        parts = mean, 0.5 * (covariance + covariance.T)
        return Posterior(*(jnp.where(good, part, jnp.nan) for part in parts))

    if members.ndim == 1:
        return without(members)
    return jax.lax.map(without, members, batch_size=set_batch_size)


def _one_set(members: Any, state: GaussianProcess) -> Array:
    members = leave_out.checked_members(members, state.present.shape[0])
    if members.ndim != 1:
        raise ValueError(
            f"members have shape {members.shape}, expected one set (s,); flatten "
            f"it, or map over sets with jax.vmap"
        )
    return members


def _request_code(state: GaussianProcess, members: Array) -> Array:
    n = state.present.shape[0]
    known = (members < 0) | state.present[jnp.clip(members, 0, n - 1)]
    good = leave_out.valid_members(members, n) & jnp.all(known)
    return jnp.where(good, refusal.APPLIED, refusal.TOO_MUCH).astype(jnp.int32)


def _blocks(state: GaussianProcess, members: Array) -> tuple[Array, Array]:
    """Cholesky factor of B[S, S], the identity at padding, and B[S, :]."""
    real = members >= 0
    taken = jnp.where(real, members, 0)
    across = jnp.where(real[:, None], state.inverse[taken], 0)
    eye = jnp.eye(members.shape[0], dtype=across.dtype)
    block = jnp.where(real[:, None] & real[None], across[:, taken], eye)
    return jnp.linalg.cholesky(block), across
