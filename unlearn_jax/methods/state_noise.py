"""Noise for a ridge regression's statistics, and the (epsilon, delta) that it buys.

Released is G + noise and Q + noise, with G = Σ w x xᵀ and Q = Σ w x yᵀ, and whatever is
computed from them. Protected is the presence of one row, added or removed, hence its
deletion too: each release made before or after counts. A row changed in place, or its
target alone, is a removal and an addition, two rows: (epsilon, delta) does not hold for
it as it stands, see below. Not protected: the total weight, statistics released without
noise, the backbone if it was trained on the same rows.

Sensitivity. A clipped row has √w‖x‖ ≤ C and √w‖y‖ ≤ T. Read G as the vector of its
diagonal and √2 times its upper triangle: the row moves it by w‖x xᵀ‖_F = w‖x‖² ≤ C²,
and Q by w‖x yᵀ‖_F = w‖x‖‖y‖ ≤ C T, both reached at once. With the deviations √2 z C²
and √2 z C T the row moves the pair by (½ + ½)^½ / z deviations: one Gaussian mechanism
of noise multiplier z. Seen in G, that is the deviation √2 z C² on the diagonal and z C²
off it, drawn once and mirrored.

A replacement moves the pair by (1 − c² + 1 + c)^½ / z deviations, c ≤ 1 the cosine of
the old and the new x, their targets opposite: by √2 / z where the target alone changes,
by 3/2 / z at most (c = ½). For a row's values and its target take 3/2 times the noise
multiplier; what a multiplier z gives is ``privacy_spent(z / 1.5, …)``.

The accounting is that of real numbers: noise in floating point leaves gaps that an
adversary who sees every bit may use (Mironov 2012); round the release to close them.
"""

import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from unlearn_jax.types import Array, Batch, PRNGKey, Scalar
from unlearn_kernels.precision import exact_product


class NoisyStatistics(NamedTuple):
    """Value: what may be released.

    Attributes:
        gram: G with symmetric noise; it may have negative eigenvalues.
        moment: Q with noise.
        gram_deviation: Standard deviation of the noise off the diagonal of G, √2 times
            it on the diagonal; public.
        moment_deviation: Standard deviation of the noise in Q; public.
    """

    gram: Float[Array, "f f"]
    moment: Float[Array, "f k"]
    gram_deviation: Scalar
    moment_deviation: Scalar


def noise_multiplier(epsilon: float, delta: float, *, releases: int = 1) -> float:
    """The least noise for (epsilon, delta), in units of the sensitivity.

    Args:
        epsilon: Bound on the privacy loss of a row's presence, positive (no unit).
        delta: Probability with which the bound may fail, in (0, 1).
        releases: Noisy statistics released while a row may be in or out (count); each
            draws its own noise. Models and predictions made from one release are free.

    Raises:
        ValueError: numbers outside of these ranges.
        ImportError: the accounting library is not installed.

    Cost: some ten accountings of 0.2 s each; not for ``jit``.
    Source: Koskela et al. 2020, arXiv 1906.03049 (privacy loss distributions), as in
        dp-accounting. As published; the search starts at the closed form of Balle &
        Wang 2018, arXiv 1805.06530.
    """
    library = _library()
    _check(delta, releases, epsilon=epsilon)
    # Independent Gaussian releases act as one of deviation / √releases.
    start = float(releases**0.5 * library.get_sigma_gaussian(epsilon, delta))

    found = library.calibrate_dp_mechanism(
        lambda: _accountant(start, releases),
        lambda multiplier: _event(multiplier, releases),
        epsilon,
        delta,
        library.ExplicitBracketInterval(0.9 * start, 1.1 * start),
        tol=1e-5 * start,
    )
    return float(found)


def privacy_spent(multiplier: float, delta: float, *, releases: int) -> float:
    """The epsilon that holds for a row's presence at this delta; infinite at no noise.

    Args:
        multiplier: Noise in units of the sensitivity, as given to ``noisy_statistics``.
        delta: Probability with which the bound may fail, in (0, 1).
        releases: As for ``noise_multiplier`` (count).

    Raises:
        ValueError: numbers outside of these ranges.
        ImportError: the accounting library is not installed.

    Cost: 0.2 s; not for ``jit``.
    Source: as ``noise_multiplier``; an upper bound, within 1e-6 relative of the truth
        for an epsilon up to 10 and 1e-3 at 1,000.
    """
    _library()
    _check(delta, releases, multiplier=multiplier)
    if multiplier == 0:
        return float("inf")
    accountant = _accountant(multiplier, releases)
    event = _event(multiplier, releases)
    return float(accountant.compose(event).get_epsilon(delta))


def clip_rows(
    rows: Batch, *, row_norm: float, target_norm: float, grid: float | None = None
) -> Batch:
    """Rows shortened to √w‖x‖ ≤ ``row_norm`` and √w‖y‖ ≤ ``target_norm``.

    Clip each row before it is learned, and again, in the same way, before it is
    removed. Directions are kept, short rows are left as they are. Rows of weight 0
    become zeros, whatever they hold; a present row with NaN keeps it, to be refused.

    Args:
        rows: Features (n, f), targets (n, k), weights.
        row_norm: C, positive.
        target_norm: T, positive; 1 for one-hot targets of weight 1.
        grid: Where the statistics are exact sums of multiples of this number, round
            the clipped features towards zero to them; norms only shrink.

    Raises:
        ValueError: a norm or the grid is not positive.

    Cost: a few passes over the rows.
    Source: Abadi et al. 2016, arXiv 1607.00133, §3.1. Differs: rows, not gradients.
    """
    _positive(row_norm=row_norm, target_norm=target_norm, grid=grid)
    weights = jnp.asarray(rows.weights)
    inputs = _shortened(rows.inputs, weights, row_norm)
    if grid is not None:
        inputs = jnp.trunc(inputs / grid) * grid
    return Batch(inputs, _shortened(rows.targets, weights, target_norm), weights)


def noisy_statistics(
    key: PRNGKey,
    gram: Float[Array, "f f"],
    moment: Float[Array, "f k"],
    *,
    row_norm: float,
    target_norm: float,
    multiplier: float | Scalar,
) -> NoisyStatistics:
    """Statistics of clipped rows with Gaussian noise; the next release needs a new key.

    Args:
        key: Secret, and never used twice: two releases with one key differ by the rows
            alone.
        gram: Σ w x xᵀ over rows from ``clip_rows``.
        moment: Σ w x yᵀ over the same rows.
        row_norm: C, as given to ``clip_rows``.
        target_norm: T, as given to ``clip_rows``.
        multiplier: From ``noise_multiplier``; 0 adds nothing and protects nothing.

    Raises:
        ValueError: a norm is not positive.

    Cost: f (f + k) normal numbers.
    Source: Dwork et al. 2014, "Analyze Gauss", algorithm 1. Differs: √2 less noise off
        the diagonal at the same privacy, since x_i x_j is seen twice in ‖x xᵀ‖_F but
        drawn once; Q is released along, as in Wang 2018, arXiv 1803.02596.
    """
    _positive(row_norm=row_norm, target_norm=target_norm)
    dtype = gram.dtype
    scale = jnp.asarray(multiplier, dtype)
    gram_deviation = scale * row_norm**2
    moment_deviation = scale * (2**0.5 * row_norm * target_norm)
    for_gram, for_moment = jax.random.split(key)
    square = jax.random.normal(for_gram, gram.shape, dtype)
    # Deviation 1 off the diagonal and √2 on it: (N + Nᵀ) / √2, symmetric bit for bit.
    symmetric = (square + square.T) / 2**0.5
    other = jax.random.normal(for_moment, moment.shape, moment.dtype)
    return NoisyStatistics(
        gram + gram_deviation * symmetric,
        moment + moment_deviation.astype(moment.dtype) * other,
        gram_deviation,
        moment_deviation,
    )


def noisy_ridge(
    statistics: NoisyStatistics, *, l2: float | Scalar
) -> Float[Array, "f k"]:
    """The ridge regression of noisy statistics; spends no further privacy.

    G is repaired to its nearest positive semi-definite matrix, and l2 is raised by
    2 √f s, s the deviation of the noise off the diagonal: the spectral norm of such a
    matrix, below which an eigenvalue tells nothing. Without noise this is the exact
    ridge regression.

    Args:
        statistics: From ``noisy_statistics``.
        l2: Coefficient of ½‖W‖² against the sum of squares over 2, positive.

    Returns:
        The weight.

    Cost: one eigendecomposition, about 10 f³.
    Source: Wang 2018, arXiv 1803.02596, algorithm 2 (AdaSSP). Differs: the raise is
        the noise's own spectral norm, not reduced by a noisy smallest eigenvalue.
    """
    gram, moment, deviation, _ = statistics
    values, vectors = jnp.linalg.eigh((gram + gram.T) / 2)
    raised = l2 + 2.0 * gram.shape[0] ** 0.5 * deviation
    values = jnp.maximum(values, 0) + raised
    along = exact_product(vectors.T, moment)
    return exact_product(vectors, along / values[:, None])


def _shortened(values: Any, weights: Array, norm: float) -> Array:
    values = jnp.asarray(values)
    values = jnp.where(weights[:, None] > 0, values, 0)
    # Squares of the entries overflow long before the entries do.
    largest = jnp.maximum(jnp.max(jnp.abs(values), axis=1, initial=0), 1)
    # Both by 8: the reciprocal of the largest numbers is flushed to zero.
    scaled = (values / 8) / (largest / 8)[:, None]
    lengths = jnp.sqrt(weights) * jnp.linalg.norm(scaled, axis=1)
    long = lengths * largest > norm
    factor = (norm / jnp.where(long, lengths, 1)).astype(values.dtype)
    return jnp.where(long[:, None], scaled * factor[:, None], values)


def _event(multiplier: float, releases: int) -> Any:
    library = _library()
    return library.SelfComposedDpEvent(library.GaussianDpEvent(multiplier), releases)


def _accountant(multiplier: float, releases: int) -> Any:
    # Relative to the loss's deviation, so that accuracy and cost stay the same.
    interval = 1e-4 * releases**0.5 / multiplier
    return _library().pld.PLDAccountant(value_discretization_interval=interval)


def _library() -> Any:
    try:
        return importlib.import_module("dp_accounting")
    except ImportError as error:
        raise ImportError(
            "privacy accounting needs dp-accounting, which is not installed: install "
            "it with pip install 'unlearn_jax[privacy]'"
        ) from error


def _check(delta: float, releases: int, **numbers: float) -> None:
    (name, number), *_ = numbers.items()
    allowed = number >= 0 if name == "multiplier" else number > 0
    if not (allowed and number < float("inf") and 0 < delta < 1 and releases >= 1):
        raise ValueError(
            f"expected a positive {name}, a delta between 0 and 1 and at least one "
            f"release, got {name}={number}, delta={delta} and releases={releases}"
        )


def _positive(**numbers: float | None) -> None:
    wrong = [f"{n}={v}" for n, v in numbers.items() if v is not None and not v > 0]
    if wrong:
        raise ValueError(f"expected positive numbers, got {', '.join(wrong)}")
