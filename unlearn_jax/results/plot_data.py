"""The numbers that the figures draw, as rows that also go to a CSV file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unlearn_jax.results.record import Record
from unlearn_jax.results.summary import (
    FLOOR,
    ORACLE,
    REFERENCES,
    lookup,
    methods_in_order,
    summarise,
)

SPLITS = ("retain", "forget", "test")
LEAST_LOSS = 1e-6
"""Losses under it are drawn at it: the axis is logarithmic."""

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


def cost_data(records: Sequence[Record]) -> list[Row]:
    """Per method: seconds to forget against the mean |gap| over the splits.

    ``floor`` is the mean over splits of the floor's half-width.
    """
    summaries = summarise(records)
    rows = []
    gaps = gap_data(records)
    for method in methods_in_order(records):
        own = [row for row in gaps if row["method"] == method]
        spent = lookup(summaries, method, "forget_seconds", None)
        if method in REFERENCES or not own or spent is None or spent.failure:
            continue
        rows.append(
            {
                "method": method,
                "forget_seconds": spent.mean,
                "average_gap": float(np.mean([abs(row["gap"]) for row in own])),
                "unit": own[0]["unit"],
                "floor": float(np.mean([row["floor"] for row in own])),
            }
        )
    return rows


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
