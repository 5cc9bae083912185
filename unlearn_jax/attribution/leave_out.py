"""Ridge regression without one row or a set of rows, exactly, from one fit.

The weights W minimise ½ Σₙ wₙ ‖yₙ − xₙ W‖² + l2/2 ‖W‖², a sum and not a mean. With
R = (Xᵀ diag(w) X + l2 I)⁻¹, hₙ = wₙ xₙ R xₙᵀ the leverage and eₙ = yₙ − xₙ W,

    W without row n = W − R xₙᵀ wₙ eₙ / (1 − hₙ),

while the first-order influence has no division: influence = (1 − hₙ) · exact change.
A constant column for a bias is the caller's. A row of weight zero is not there: it may
hold NaN, and what is returned for it is zero. A weight that is negative or not finite
is refused; under ``jit``, where nothing can be raised, everything is then NaN.

The rounding grows by 1 / (1 − h), and with n < f every h goes to 1 as l2 goes to 0.
Rows one by one then take B = (Z Zᵀ + l2 I)⁻¹, Z = diag(w)^½ X: 1 − hₙ = l2 Bₙₙ has no
cancellation. Sets do not: there the Gaussian process with a linear kernel and noise l2
is the same model, keeps B and with it the digits.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Float, Shaped

from unlearn_jax.data.accumulate import accumulate, collect
from unlearn_jax.loop import tracing
from unlearn_jax.types import Array, Batch, PerExample
from unlearn_kernels.precision import exactly


class Effects(NamedTuple):
    """Value: what leaving out each row does to each query, as two factors.

    ``reach[:, :, None] * pull[None]`` is the exact change (q, n, k);
    ``reach[:, :, None] * ((1 - leverage)[:, None] * pull)[None]`` the first-order one.

    Attributes:
        reach: wₙ x_q R xₙᵀ.
        pull: −eₙ / (1 − hₙ).
        leverage: hₙ.
    """

    reach: Float[Array, "q n"]
    pull: Float[Array, "n k"]
    leverage: Float[Array, " n"]


class _Fit(NamedTuple):
    data: Batch
    lower: Array
    solution: Array


@exactly
def leverages(
    features: Any, *, l2: Any, weights: Any = None, batch_size: int = 256
) -> PerExample:
    """Diagonal of the hat matrix: how much each row's own target moves its prediction.

    Args:
        features: Rows (n, f).
        l2: Coefficient of ½‖W‖², at least 0; at 0 the columns must be independent, or
            the rows where they are fewer.
        weights: One per row; None for ones.
        batch_size: Rows handled at once.

    Returns:
        hₙ = wₙ xₙ R xₙᵀ, from 0 to 1.

    Raises:
        ValueError: shapes do not fit, or l2 is negative.

    Cost: n f² + f³/3 multiplications for R, n f² more; memory f². With n < f instead
        n² f + n³ and n².
    Source: Hoaglin & Welsch 1978, The hat matrix in regression and ANOVA. Differs: with
        l2 and weights.
    """
    data = _checked(features, None, l2, weights)
    return _effects(data, jnp.asarray(data.inputs[:0]), l2, batch_size).leverage


@exactly
def leave_one_out(
    features: Any,
    targets: Any,
    *,
    l2: Any,
    weights: Any = None,
    batch_size: int = 256,
) -> Float[Array, "n k"]:
    """Prediction of each row by the model fitted without it.

    Args:
        features: Rows (n, f).
        targets: Shape (n, k).
        l2: Coefficient of ½‖W‖², the same with and without the row.
        weights: One per row; None for ones.
        batch_size: Rows handled at once.

    Returns:
        (xₙ W − hₙ yₙ) / (1 − hₙ). Not finite where hₙ = 1: without the row nothing
        determines its prediction. With n < f it is yₙ − (B y)ₙ / Bₙₙ, at l2 = 0 the
        limit l2 → 0: by the W of least norm.

    Raises:
        ValueError: shapes do not fit, or l2 is negative.

    Cost: that of :func:`leverages`, and n f k.
    Source: Allen 1974, The relationship between variable selection and data
        augmentation (PRESS). Differs: with l2 and weights.
    """
    data = _checked(features, targets, l2, weights)
    effects = _effects(data, jnp.asarray(data.inputs[:0]), l2, batch_size)
    return _seen(data.targets, data.weights) + effects.pull


@exactly
def leave_one_out_effects(
    features: Any,
    targets: Any,
    queries: Any,
    *,
    l2: Any,
    weights: Any = None,
    batch_size: int = 256,
) -> Effects:
    """Exact change of every query's output when each row is left out, factored.

    What influence functions estimate to first order.

    Args:
        features: Rows (n, f).
        targets: Shape (n, k).
        queries: Rows (q, f).
        l2: Coefficient of ½‖W‖², the same with and without the row.
        weights: One per row; None for ones.
        batch_size: Rows handled at once.

    Returns:
        The factors; a column is zero where the weight is.

    Raises:
        ValueError: shapes do not fit, or l2 is negative.

    Cost: that of :func:`leverages`, and q f (f + n); memory (q + k) n and f q.
    Source: Cook 1977, Detection of influential observation in linear regression.
        Differs: with l2 and weights, at any queries, factored.
    """
    data = _checked(features, targets, l2, weights)
    return _effects(data, _queries(queries, data), l2, batch_size)


@exactly
def leave_set_out(
    features: Any,
    targets: Any,
    members: Any,
    *,
    l2: Any,
    queries: Any = None,
    weights: Any = None,
    batch_size: int = 256,
    set_batch_size: int = 32,
) -> Float[Array, "*g q k"]:
    """Predictions by the model fitted without a set of rows, for one set or many.

    Args:
        features: Rows (n, f).
        targets: Shape (n, k).
        members: Indices (s,) of one set, or (g, s) of g sets; −1 pads.
        l2: Coefficient of ½‖W‖², the same with and without the set.
        queries: Rows (q, f) to predict; None for the members themselves, zero at the
            padding.
        weights: One per row; None for ones.
        batch_size: Rows handled at once in the fit.
        set_batch_size: Sets handled at once.

    Returns:
        Shape (q, k) or (g, q, k), with q = s without queries. Under ``jit``, where
        nothing can be raised, NaN for a set that is out of range or repeats itself.

    Raises:
        ValueError: shapes do not fit, l2 is negative, or a set is empty, out of range
            or names a row twice.

    Cost: n f² + f³/3 once; for each set f² s + s³/3 + f s². Memory set_batch_size · f
        · (s + k).
    Source: Sherman-Morrison-Woodbury identity. As published.
    """
    data = _checked(features, targets, l2, weights)
    members = checked_members(members, data.inputs.shape[0])
    fit = _fit(data, l2, batch_size)
    if queries is not None:
        queries = _queries(queries, data)

    def predict(at: Array) -> Array:
        rows, _, _ = _rows(fit, at)
        return (rows if queries is None else queries) @ _without(fit, at)

    return _over_sets(predict, members, set_batch_size)


@exactly
def leave_set_out_weights(
    features: Any,
    targets: Any,
    members: Any,
    *,
    l2: Any,
    weights: Any = None,
    batch_size: int = 256,
    set_batch_size: int = 32,
) -> Float[Array, "*g f k"]:
    """The weights W fitted without a set of rows; see :func:`leave_set_out`.

    Returns:
        Shape (f, k) or (g, f, k).

    Raises:
        ValueError: as :func:`leave_set_out`.

    Cost: that of :func:`leave_set_out`; memory g f k.
    """
    data = _checked(features, targets, l2, weights)
    members = checked_members(members, data.inputs.shape[0])
    fit = _fit(data, l2, batch_size)
    return _over_sets(lambda at: _without(fit, at), members, set_batch_size)


def checked_members(members: Any, count: int) -> Shaped[Array, "*g s"]:
    """Index sets (s,) or (g, s) into ``count`` rows; −1 pads.

    Raises:
        ValueError: not integers of one or two axes, or, where the values are known, a
            set that is empty, out of range, or names a row twice.
    """
    members = members if tracing(members) else np.asarray(members)
    shape, dtype = members.shape, members.dtype
    if len(shape) not in (1, 2) or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"members have shape {shape} and dtype {dtype}, expected integer indices "
            f"(s,) or (g, s); of a mask take np.flatnonzero"
        )
    if 0 in shape:
        raise ValueError(f"members have shape {shape}; give at least one row to leave")
    if tracing(members):
        return jnp.asarray(members)
    sets = np.atleast_2d(members)
    if sets.min() < -1 or sets.max() >= count:
        raise ValueError(
            f"members run from {sets.min()} to {sets.max()}, expected 0 to "
            f"{count - 1}, or -1 for padding"
        )
    if np.any(np.all(sets < 0, axis=1)):
        raise ValueError(
            "a set holds only padding (-1); give at least one row to leave"
        )
    ordered = np.sort(sets, axis=1)
    if np.any((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)):
        raise ValueError("a set names a row twice; give each row once")
    return jnp.asarray(members)


def checked_weights(weights: Any) -> Array:
    """Weights of rows; traced ones all become NaN where one is wrong.

    Raises:
        ValueError: where the values are known, one is negative or not finite.
    """
    if tracing(weights):
        sound = jnp.all((weights >= 0) & jnp.isfinite(weights))
        return jnp.where(sound, weights, jnp.nan)
    known = np.ravel(weights)
    wrong = np.flatnonzero(~((known >= 0) & (known < np.inf)))
    if wrong.size:
        raise ValueError(
            f"weights has {known[wrong[0]]} at row {wrong[0]} and {wrong.size} such in "
            f"all, expected finite ones of at least 0; a row to leave away has 0"
        )
    return jnp.asarray(weights)


def valid_members(members: Shaped[Array, " s"], count: int) -> Array:
    """Whether a traced set is in range and repeats nothing, as a boolean scalar."""
    same = members[:, None] == members[None]
    twice = jnp.tril(same & (members >= 0)[:, None], -1)
    return ~jnp.any(twice) & jnp.all((members >= -1) & (members < count))


def _checked(features: Any, targets: Any, l2: Any, weights: Any) -> Batch:
    features = jnp.asarray(features)
    n = features.shape[0] if features.ndim else 0
    targets = jnp.zeros((n, 0), features.dtype) if targets is None else targets
    weights = jnp.ones(n, features.dtype) if weights is None else weights
    targets, weights = jnp.asarray(targets), checked_weights(weights)
    fits = features.ndim == targets.ndim == 2 and n == targets.shape[0]
    if not (fits and weights.shape == (n,)):
        raise ValueError(
            f"got features {features.shape}, targets {targets.shape} and weights "
            f"{weights.shape}, expected (n, f), (n, k) and (n,)"
        )
    if not tracing(l2) and np.any(np.asarray(l2) < 0):
        raise ValueError(f"l2 is {l2}, expected at least 0")
    return Batch(features, targets, weights)


def _effects(data: Batch, queries: Array, l2: Any, batch_size: int) -> Effects:
    n, f = data.inputs.shape
    if n < f:
        leverage, residual, spread = _dual(data, l2)
        return Effects(queries @ spread, -residual, leverage)
    fit = _fit(data, l2, batch_size)
    spread = cho_solve((fit.lower, True), queries.T)
    constants = fit.lower, fit.solution, spread
    parts = collect(_effect, tuple(data), *constants, batch_size=batch_size)
    return Effects(parts[0].T, *parts[1:])


def _fit(data: Batch, l2: Any, batch_size: int) -> _Fit:
    gram, moment = accumulate(_sums, data, batch_size=batch_size)
    shift = jnp.asarray(l2, gram.dtype) * jnp.eye(gram.shape[0], dtype=gram.dtype)
    lower = jnp.linalg.cholesky(gram + shift)
    return _Fit(data, lower, cho_solve((lower, True), moment))


def _dual(data: Batch, l2: Any) -> tuple[Array, Array, Array]:
    """h, e / (1 − h) and R Xᵀ diag(w) of n < f rows; zero at absent rows."""
    there, root = data.weights > 0, jnp.sqrt(data.weights)[:, None]
    scaled = root * _seen(data.inputs, data.weights)
    gram = scaled @ scaled.T
    l2 = jnp.asarray(l2, gram.dtype)
    lower = jnp.linalg.cholesky(gram + jnp.diag(jnp.where(there, l2, 1)))
    inverse = cho_solve((lower, True), jnp.eye(there.shape[0], dtype=gram.dtype))
    own = jnp.diagonal(inverse)
    pull = cho_solve((lower, True), root * _seen(data.targets, data.weights))
    residual = pull / (own[:, None] * jnp.where(there[:, None], root, 1))
    # Each where it is no small difference of large numbers.
    high = there & (l2 * own < 0.5)
    leverage = jnp.where(high, 1 - l2 * own, jnp.sum(gram * inverse, axis=1))
    return leverage, residual, (scaled.T @ inverse) * root.T


def _queries(queries: Any, data: Batch) -> Array:
    queries, f = jnp.asarray(queries), data.inputs.shape[1]
    if queries.ndim != 2 or queries.shape[1] != f:
        raise ValueError(f"queries have shape {queries.shape}, expected (q, {f})")
    return queries


def _seen(values: Any, weights: Any) -> Array:
    return jnp.where((jnp.asarray(weights) > 0)[:, None], jnp.asarray(values), 0)


def _sums(batch: Batch) -> tuple[Array, Array]:
    rows = _seen(batch.inputs, batch.weights)
    heavy = (rows * batch.weights[:, None]).T
    targets = _seen(batch.targets, batch.weights)
    return heavy @ rows, heavy @ targets


def _effect(
    rows: Any, lower: Array, solution: Array, spread: Array
) -> tuple[Array, Array, Array]:
    features, targets, weights = rows
    seen = _seen(features, weights)
    h = weights * jnp.sum(solve_triangular(lower, seen.T, lower=True) ** 2, axis=0)
    error = _seen(targets, weights) - seen @ solution
    return (weights[:, None] * seen) @ spread, -error / (1 - h)[:, None], h


def _rows(fit: _Fit, members: Array) -> tuple[Array, Array, Array]:
    """Features, targets and weights of one set; zero at padding and absent rows."""
    taken = jnp.where(members >= 0, members, 0)
    inputs, targets, weights = (part[taken] for part in fit.data)
    weights = jnp.where(members >= 0, weights, 0)
    return _seen(inputs, weights), _seen(targets, weights), weights


def _without(fit: _Fit, members: Array) -> Array:
    features, targets, weights = _rows(fit, members)
    root = jnp.sqrt(weights)[:, None]
    half = solve_triangular(fit.lower, (root * features).T, lower=True)
    inner = jnp.eye(members.shape[0], dtype=half.dtype) - half.T @ half
    error = root * (targets - features @ fit.solution)
    pull = cho_solve((jnp.linalg.cholesky(inner), True), error)
    step = solve_triangular(fit.lower, half @ pull, lower=True, trans=1)
    good = valid_members(members, fit.data.inputs.shape[0])
    return jnp.where(good, fit.solution - step, jnp.nan)


def _over_sets(function: Any, members: Array, set_batch_size: int) -> Array:
    if members.ndim == 1:
        return function(members)
    return jax.lax.map(function, members, batch_size=set_batch_size)
