"""How many deletions a sharded model lives through before no stage is left."""

from typing import Any, NamedTuple

import numpy as np

from unlearn_jax.keys import seed_words
from unlearn_jax.options import check_whole

_TOGETHER = 1 << 22
"""Random numbers that are held at once."""


class Capacity(NamedTuple):
    """Value: requests until the last model is gone, that request among them.

    Attributes:
        value: Mean.
        stderr: Standard error of it.
    """

    value: float
    stderr: float


def deletion_capacity(
    shards: int, slices: int, orders: int = 1, *, rows: int | None = None
) -> float:
    """Expected number of deletions, drawn uniformly, until no model is left.

    An order ends when its first slice is deleted from, and the orders of a shard begin
    with different slices: so the last model goes when each of K = m B slices of m L has
    been hit. Drawn with replacement that is a coupon collector, m L H_K with the
    harmonic number H_K = 1 + 1/2 + … + 1/K. Where the rows r of a slice run out, so
    that no row is deleted twice, it is (m L r + 1) (1 - Π_{i=1..K} i r / (i r + 1)).

    Args:
        shards: m.
        slices: L, of each shard.
        orders: B, that begin with different slices; 1 for SISA that retrains nothing.
        rows: r, of each slice; None for so many that it makes no difference.

    Raises:
        ValueError: more orders than slices.

    Source: the first form is that of S3T (Basu Roy Chowdhury et al. 2024, arXiv
        2406.16257); the second our own, by inclusion and exclusion over the slices that
        are not hit.
    """
    _check(shards, slices, orders)
    first = np.arange(1, shards * orders + 1, dtype=np.float64)
    if rows is None:
        return float(shards * slices * np.sum(1 / first))
    check_whole("rows", rows)
    total = shards * slices * rows
    lasting = np.exp(-np.sum(np.log1p(1 / (first * rows))))
    return float((total + 1) * (1 - lasting))


def simulated_capacity(
    seed: int,
    orders: Any,
    *,
    shards: int,
    rows: int | None = None,
    risk: Any = None,
    draws: int = 1000,
) -> Capacity:
    """:func:`deletion_capacity` by playing the requests, for any orders and any risk.

    Args:
        seed: Draws the requests.
        orders: (B, L) slices in the order of learning, the same in every shard.
        shards: m.
        rows: Rows of a slice, none of which is deleted twice; None for any number.
        risk: (L,) chance of each slice of a shard, all shards alike; None for all the
            same. Not together with ``rows``.
        draws: Histories.

    Raises:
        ValueError: orders that are no permutations, a risk of another length, or both
            ``rows`` and ``risk``.

    Cost: draws × m L numbers (with ``rows``: times them).
    """
    orders = np.asarray(orders)
    check_whole("shards", shards)
    check_whole("draws", draws, least=2)
    slices = orders.shape[-1]
    if orders.ndim != 2 or not np.all(np.sort(orders, 1) == np.arange(slices)):
        raise ValueError(
            f"orders of shape {orders.shape} are no permutations of slices: expected "
            "(B, L), each row 0 to L - 1 in some order"
        )
    if rows is not None and risk is not None:
        raise ValueError("give rows or risk, not both: with rows each row is as likely")
    generator = np.random.Generator(np.random.PCG64(seed_words(seed)))
    chance = np.full(slices, 1 / slices) if risk is None else np.asarray(risk, float)
    if chance.shape != (slices,) or not np.all(chance >= 0) or not chance.sum() > 0:
        raise ValueError(
            f"risk of shape {chance.shape}, expected a chance for each of the {slices} "
            "slices"
        )
    first = np.unique(orders[:, 0])
    places = (np.arange(shards)[:, None] * slices + first).reshape(-1)
    chance = np.tile(chance / chance.sum() / shards, shards)
    if np.any(chance[places] == 0):
        return Capacity(np.inf, 0.0)
    ends = [
        _ends(generator, part, chance, places, rows)
        for part in _parts(draws, len(chance) * (rows or 1))
    ]
    lived = np.concatenate(ends)
    return Capacity(float(lived.mean()), float(lived.std(ddof=1) / np.sqrt(draws)))


def _ends(
    generator: np.random.Generator,
    draws: int,
    chance: np.ndarray,
    places: np.ndarray,
    rows: int | None,
) -> np.ndarray:
    """Number of the request that hits the last of ``places``, for each history."""
    if rows is not None:
        order = generator.permuted(
            np.tile(np.repeat(np.arange(len(chance)), rows), (draws, 1)), axis=1
        )
        hits = [np.argmax(order == place, axis=1) for place in places]
        return 1.0 + np.max(hits, axis=0)
    # Arrivals in continuous time: slice l comes first after an exponential time of rate
    # c_l; of all requests until the last place is hit, the others are Poisson.
    waits = generator.exponential(1 / chance[places], (draws, len(places)))
    end = waits.max(axis=1)
    late = end[:, None] - waits
    repeats = generator.poisson(late * chance[places]).sum(1)
    other = generator.poisson(end * (1 - chance[places].sum()).clip(0))
    return (len(places) + repeats + other).astype(float)


def _parts(draws: int, width: int) -> list[int]:
    most = max(1, _TOGETHER // width)
    return [min(most, draws - start) for start in range(0, draws, most)]


def _check(shards: int, slices: int, orders: int) -> None:
    for name, value in (("shards", shards), ("slices", slices), ("orders", orders)):
        check_whole(name, value)
    if orders > slices:
        raise ValueError(
            f"got {orders} orders of {slices} slices, expected at most {slices}"
        )
