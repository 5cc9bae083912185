"""The numbers that the figures draw, as rows that also go to a CSV file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unlearn_jax.results import checks
from unlearn_jax.results.record import Record
from unlearn_jax.results.summary import (
    FLOOR,
    ORACLE,
    ORIGINAL,
    Summary,
    lookup,
    methods_in_order,
    summarise,
)

SPLITS = ("retain", "forget", "test")
LEAST_LOSS = 1e-6
"""Losses under it are drawn at it: the axis is logarithmic."""

NEAREST = 0.05
"""Floors; what is nearer is drawn at it: the axis is logarithmic."""

Row = dict[str, Any]


def gap_data(records: Sequence[Record]) -> list[Row]:
    """Per method and split: gap to the oracle, its interval, the floor's half-width.

    The metric is accuracy, or rmse where there are no classes. Cells without a gap
    (failed, or not finite) make no row.
    """
    summaries = summarise(records)
    rows = []
    for method in methods_in_order(records):
        for metric in ("accuracy", "rmse"):
            for split in SPLITS:
                found = lookup(summaries, method, metric, split)
                if found is None or found.gap is None or method in (ORACLE, FLOOR):
                    continue
                rows.append(
                    {
                        "method": method,
                        "metric": metric,
                        "split": split,
                        "unit": "points" if found.unit == "%" else found.unit,
                        "gap": found.gap.mean,
                        "low": found.gap.low,
                        "high": found.gap.high,
                        "floor": found.floor.half_width if found.floor else np.nan,
                    }
                )
    return rows


def price_data(records: Sequence[Record]) -> list[Row]:
    """Per method: its price, in units of retraining, and its distance, in floors.

    ``request`` is the processor time of one request over that of one training run of an
    oracle; ``prepare`` that of what is done before any request, 0 where nothing is.
    Rows without a price or a distance (failed, not finite) are left out; the original,
    whose price is 0, is there.
    """
    summaries = summarise(records)
    whole = lookup(summaries, ORACLE, "forget_cpu_seconds", None)
    if whole is None or whole.failure or not whole.mean > 0:
        return []
    rows = []
    for method in methods_in_order(records):
        far = checks.distance(method, summaries)
        if method in (ORACLE, FLOOR) or not np.isfinite(far):
            continue
        request, prepare = (
            _mean(lookup(summaries, method, f"{step}_cpu_seconds", None))
            for step in ("forget", "prepare")
        )
        if request is None and method != ORIGINAL:
            continue
        rows.append(
            {
                "method": method,
                "request": (request or 0.0) / whole.mean,
                "prepare": (prepare or 0.0) / whole.mean,
                "floors": far,
            }
        )
    return rows


def _mean(found: Summary | None) -> float | None:
    return None if found is None or found.failure else found.mean


def loss_data(
    arrays: Mapping[str, Any], request: str, methods: Sequence[str]
) -> list[Row]:
    """Histograms of per-example losses: share of examples by bin, forget and unseen.

    Args:
        arrays: ``losses/REQUEST/METHOD/{forget,unseen}``, each (seeds, n).
        request: Which request.
        methods: Which methods, in this order; those without arrays are left out.

    Returns:
        A row per method, group and bin; bins are equal on a logarithmic axis and the
        same for all.
    """
    groups = {
        (method, group): np.maximum(np.ravel(arrays[name]), LEAST_LOSS)
        for method in methods
        for group in ("forget", "unseen")
        if (name := f"losses/{request}/{method}/{group}") in arrays
    }
    finite = {key: losses[np.isfinite(losses)] for key, losses in groups.items()}
    finite = {key: losses for key, losses in finite.items() if losses.size}
    if not finite:
        return []
    low = min(losses.min() for losses in finite.values())
    high = max(losses.max() for losses in finite.values())
    edges = np.geomspace(low, max(high, 10 * low), 31)
    edges[-1] *= 1 + 1e-9
    rows = []
    for (method, group), losses in finite.items():
        shares = np.histogram(losses, edges)[0] / groups[method, group].size
        rows += [
            {"method": method, "group": group, "low": a, "high": b, "share": share}
            for a, b, share in zip(
                edges[:-1].tolist(), edges[1:].tolist(), shares.tolist(), strict=True
            )
        ]
    return rows
