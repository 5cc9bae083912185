"""The figures of a comparison: prices, gaps, losses."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unlearn_jax.results.plot_data import (
    NEAREST,
    SPLITS,
    Row,
    gap_data,
    loss_data,
    price_data,
)
from unlearn_jax.results.plot_looks import BLACK, FLOOR_GREY, GREY, colour
from unlearn_jax.results.plot_style import PANEL_INCHES, name_dots, note, panels
from unlearn_jax.results.record import Record
from unlearn_jax.results.summary import ORIGINAL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def gap_figure(records: Sequence[Record]) -> "Figure":
    """Dots with 95% intervals of the gap to the oracle, a panel per split.

    The grey band is the floor: where the mean difference of two oracles would lie.
    Where a method went far out the axis turns logarithmic; its label says from where.
    """
    rows = gap_data(records)
    methods = list(dict.fromkeys(row["method"] for row in rows))[::-1]
    splits = [name for name in SPLITS if any(row["split"] == name for row in rows)]
    height = 1.0 + 0.19 * max(len(methods), 3)
    figure, axes = panels(1, max(len(splits), 1), height, sharey=True)
    for panel, split in zip(axes, splits, strict=False):
        own = [row for row in rows if row["split"] == split]
        _floor_band(panel, own[0]["floor"], vertical=True)
        panel.axvline(0.0, color=BLACK, linewidth=0.8)
        for row in own:
            _gap_dot(panel, methods.index(row["method"]), row)
        edge = _shorten(panel.xaxis, [row["gap"] for row in own], own[0]["floor"])
        if own[0]["unit"] == "points":  # no accuracy differs by more than 100
            low, high = panel.get_xlim()
            panel.set_xlim(max(low, -105.0), min(high, 105.0))
        label = f"{own[0]['metric']} {split}: gap to the oracle"
        panel.set_xlabel(f"{label}\n{_unit(own[0]['unit'], edge)}")
        panel.set_yticks(range(len(methods)), methods)
        panel.set_ylim(-0.6, len(methods) - 0.4)
        panel.tick_params(axis="y", length=0)
    unknown = any(not np.isfinite(row["low"]) for row in rows)
    none = " (none from one seed)" if unknown else ""
    note(figure, f"bar: 95% interval over training seeds{none}; {_band(rows)}")
    return figure


def price_figure(records: Sequence[Record]) -> "Figure":
    """Distance to retraining against price, both logarithmic; a named dot each.

    A line runs from a request's price, the dot, to that with the preparation. Dots that
    are filled lie inside the floor, which is grey; dashed: the original.
    """
    known = price_data(records)
    rows = [row for row in known if row["request"] > 0]
    before = [max(row["floors"], NEAREST) for row in known if row["method"] == ORIGINAL]
    figure, (panel,) = panels(1, 1, 2.9)
    figure.set_size_inches(1.5 * PANEL_INCHES, 2.9)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("price (processor time ÷ retraining)")
    panel.set_ylabel("distance to the oracles (floors)")
    dots = [(row["request"], max(row["floors"], NEAREST)) for row in rows]
    for row, (x, y) in zip(rows, dots, strict=True):
        hue = colour(row["method"])
        if row["prepare"] > 0:
            panel.plot([x, x + row["prepare"]], [y, y], color=hue, linewidth=0.6)
        face = hue if row["floors"] <= 1.0 else "white"
        panel.plot(x, y, "o", color=hue, markerfacecolor=face, markersize=4)
    if rows:
        ends = [
            x
            for row, (x, _) in zip(rows, dots, strict=True)
            for x in (x, x + row["prepare"], 1.0)
        ]
        panel.set_xlim(min(ends) / 2, max(ends) * 2)
        far = [y for _, y in dots] + before
        panel.set_ylim(min(*far, 0.5) / 1.5, max(*far, 2.0) * 1.8)
        panel.axhspan(panel.get_ylim()[0], 1.0, color=FLOOR_GREY, linewidth=0, zorder=0)
        panel.axvline(1.0, color=BLACK, linewidth=0.6)
    for floors in before:
        panel.axhline(floors, color=GREY, linewidth=0.8, linestyle="--")
    note(
        figure,
        "dot: one request, filled inside the floor (grey);\n"
        "line: with preparation; dashed: the original; upright: retraining",
    )
    name_dots(figure, [(panel, dots, [row["method"] for row in rows])])
    return figure


def loss_histograms(
    arrays: Mapping[str, Any], request: str, methods: Sequence[str]
) -> "Figure":
    """Losses of the forget set (filled) and of unseen examples (line), per method.

    Where unlearning is perfect the two differ no more than in the oracle's panel.

    Args:
        arrays: ``losses/REQUEST/METHOD/{forget,unseen}``, each (seeds, n).
        request: Which request.
        methods: Which methods; usually original, oracle and a few of interest.
    """
    rows = loss_data(arrays, request, methods)
    shown = [m for m in methods if any(row["method"] == m for row in rows)]
    columns = min(3, max(len(shown), 1))
    lines = -(-max(len(shown), 1) // columns)
    figure, axes = panels(lines, columns, 0.5 + 1.45 * lines, sharex=True, sharey=True)
    for panel, method in zip(axes, shown, strict=False):
        for group in ("forget", "unseen"):
            own = [r for r in rows if (r["method"], r["group"]) == (method, group)]
            if own:
                _stairs(panel, own, method, filled=group == "forget")
        panel.text(0.03, 0.97, method, transform=panel.transAxes, va="top")
    for panel in axes[len(shown) :]:
        panel.set_visible(False)
    for i, panel in enumerate(axes[: len(shown)]):
        panel.set_xscale("log")
        if i % columns == 0:
            panel.set_ylabel("share of examples")
        if i + columns >= len(shown):
            panel.set_xlabel("loss (nats, logarithmic)")
            panel.tick_params(labelbottom=True)
    note(figure, "filled: forget set; line: unseen examples; all seeds together")
    return figure


def _shorten(axis: "Axis", gaps: Sequence[float], reach: float) -> float:
    """Make an axis logarithmic far from 0 if one gap dwarfs the rest.

    Returns:
        Where the logarithm begins; inf if the axis stays linear.
    """
    far = max(map(abs, gaps))
    near = max(float(np.median(np.abs(gaps))), float(np.nan_to_num(reach)), far * 1e-3)
    if far <= 8.0 * near or far == 0.0:
        return np.inf
    power = 10.0 ** np.floor(np.log10(2.0 * near))
    edge = float(power * next(n for n in (1, 2, 5, 10) if n * power >= 2.0 * near))
    panel = axis.axes
    level = axis is panel.xaxis
    low, high = panel.dataLim.intervalx if level else panel.dataLim.intervaly
    low, high = (end * 1.8 if abs(end) > edge else end * 1.2 for end in (low, high))
    scale = {"linthresh": edge, "linscale": 1.2}
    if level:
        panel.set_xscale("symlog", **scale)
        panel.set_xlim(low, high)
    else:
        panel.set_yscale("symlog", **scale)
        panel.set_ylim(low, high)
    wide = max(-low, high) > 50.0 * edge  # labels of every half decade would touch
    factors = (1.0, 10.0, 100.0, 1000.0) if wide else (0.5, 1.0, 3.0, 10.0, 30.0)
    sizes = [edge * factor for factor in factors]
    ticks = [-size for size in sizes] + [0.0, *sizes]
    axis.set_ticks([tick for tick in ticks if low <= tick <= high], minor=False)
    axis.set_major_formatter("{x:g}")
    axis.set_ticks([], minor=True)
    return edge


def _band(rows: Sequence[Row]) -> str:
    known = any(np.isfinite(row["floor"]) for row in rows)
    return "band: two oracles, 95%" if known else "no band: fewer than two oracles"


def _unit(unit: str, edge: float) -> str:
    return f"({unit})" if np.isinf(edge) else f"({unit}; log beyond ±{edge:g})"


def _floor_band(panel: "Axes", reach: float, *, vertical: bool) -> None:
    if np.isfinite(reach):
        span = panel.axvspan if vertical else panel.axhspan
        span(-reach, reach, color=FLOOR_GREY, linewidth=0, zorder=0)


def _gap_dot(panel: "Axes", place: int, row: Row) -> None:
    hue = colour(row["method"])
    style = "--" if row["method"] == "original" else "-"
    if np.isfinite(row["low"]) and np.isfinite(row["high"]):
        panel.plot([row["low"], row["high"]], [place, place], style, color=hue)
    panel.plot(row["gap"], place, "o", color=hue, markersize=4)


def _stairs(panel: "Axes", rows: list[Row], method: str, *, filled: bool) -> None:
    edges = [row["low"] for row in rows] + [rows[-1]["high"]]
    shares = [row["share"] for row in rows]
    if filled:
        panel.stairs(shares, edges, fill=True, color=colour(method), alpha=0.55)
    else:
        panel.stairs(shares, edges, color=BLACK, linewidth=1.0)
