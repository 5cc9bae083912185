"""The figures of one request, with what they show in words."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from unlearn_jax.results.plot import gap_figure, loss_histograms, price_figure
from unlearn_jax.results.plot_data import gap_data, loss_data, price_data
from unlearn_jax.results.record import Record
from unlearn_jax.results.summary import ORACLE, ORIGINAL

LOSS_PANELS = 6


class Picture(NamedTuple):
    """Description: one figure of a comparison.

    Attributes:
        kind: "price", "gap" or "losses".
        figure: What is drawn.
        data: The numbers in it, as rows.
        caption: What it shows.
        spoken: The numbers in words.
    """

    kind: str
    figure: Any
    data: list[dict[str, Any]]
    caption: str
    spoken: str


def comparison_pictures(
    records: Sequence[Record], arrays: Mapping[str, Any], request: str
) -> list[Picture]:
    """Every figure that the records allow: prices, gaps, losses.

    Args:
        records: Of one request.
        arrays: ``losses/REQUEST/METHOD/{forget,unseen}``; may be empty.
        request: Which request.
    """
    gaps, prices = gap_data(records), price_data(records)
    sizes: dict[str, list[float]] = {}
    for row in gaps:
        sizes.setdefault(row["method"], []).append(abs(row["gap"]))
    near = sorted((m for m in sizes if m != ORIGINAL), key=lambda m: np.mean(sizes[m]))
    methods = [ORIGINAL, ORACLE, *near][:LOSS_PANELS]
    losses = loss_data(arrays, request, methods)
    made = []
    if prices:
        listed = "; ".join(
            f"{r['method']} {r['request']:.3g} of retraining, {r['floors']:.3g} floors"
            for r in prices
        )
        caption = (
            "How far from the oracles, in floors, against the price of a request in "
            "units of one retraining; low and left wins."
        )
        made.append(Picture("price", price_figure(records), prices, caption, listed))
    if gaps:
        listed = "; ".join(
            f"{r['method']} {r['split']} {r['gap']:+.3g} {r['unit']}" for r in gaps
        )
        caption = (
            "Gap to the oracle on retain, forget and test set, with 95% intervals over "
            "training seeds. Grey: what the mean of fresh oracles would show."
        )
        made.append(Picture("gap", gap_figure(records), gaps, caption, listed))
    if losses:
        figure = loss_histograms(arrays, request, methods)
        caption = (
            "Losses of forgotten (filled) and unseen examples (line). In the oracle's "
            "panel they differ by chance only; shown: the methods nearest to it."
        )
        listed = "panels: " + ", ".join(dict.fromkeys(r["method"] for r in losses))
        made.append(Picture("losses", figure, losses, caption, listed))
    return made
