"""Figure of a stream of learning and forgetting, one panel for each question."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unlearn_jax.results.plot_data import Row
from unlearn_jax.results.plot_style import (
    BLACK,
    BLUE,
    FLOOR_GREY,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    VERMILION,
    note,
    panels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES: dict[str, dict[str, Any]] = {
    "ridge from scratch": {"color": BLACK},
    "ACU": {"color": BLUE, "linewidth": 2.2, "alpha": 0.8},
    "ACU, inverse": {"color": VERMILION, "linestyle": (0, (4, 2))},
    "inverse recomputed": {"color": PURPLE, "linestyle": (0, (1, 1.5))},
    "SGD retrain": {"color": GREY},
    "SGD fine-tune": {"color": ORANGE},
    "SGD, SSD": {"color": GREEN},
}
_WIDE, _TALL = 7.0, 1.45


def continual_figure(rows: Sequence[Row]) -> "Figure":
    """Every head over the stream; panels share the events.

    Args:
        rows: ``panel`` (its label; "(log" makes it logarithmic), ``method``,
            ``position`` and ``event`` in the stream, ``kind``, ``value``.
    """
    names = list(dict.fromkeys(row["panel"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    events = {row["position"]: (row["event"], row["kind"]) for row in rows}
    places = sorted(events)
    figure, axes = panels(max(len(names), 1), 1, 1.0, sharex=True)
    figure.set_size_inches(_WIDE, 1.9 + _TALL * len(names))
    for panel, name in zip(axes, names, strict=False):
        own = [row for row in rows if row["panel"] == name]
        _columns(panel, events)
        _draw(panel, own, methods, logarithmic="(log" in name)
        if "%" in name:
            panel.set_ylim(top=102)
        panel.set_ylabel(name)
    if places:
        axes[-1].set_xlim(places[0] - 0.6, places[-1] + 0.6)
        axes[-1].set_xticks(
            places,
            [events[place][0] for place in places],
            rotation=45,
            ha="right",
            rotation_mode="anchor",
            fontsize=7,
        )
        _legend(figure, axes, methods)
    note(figure, "grey column: learning phase; cross: applied though never learned")
    return figure


def _columns(panel: "Axes", events: dict[int, tuple[str, str]]) -> None:
    for place, (_, kind) in events.items():
        if kind == "learn":
            panel.axvspan(
                place - 0.5, place + 0.5, color=FLOOR_GREY, alpha=0.6, lw=0, zorder=0
            )


def _draw(
    panel: "Axes", rows: Sequence[Row], methods: Sequence[str], *, logarithmic: bool
) -> None:
    if logarithmic:
        panel.set_yscale("log")
        panel.minorticks_off()
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        x = np.array([row["position"] for row in own])
        y = np.array([row["value"] for row in own], dtype=float)
        if logarithmic:
            y = np.where(y > 0, y, np.nan)  # equality has no place there
        refused = np.array([row["kind"] == "never learned" for row in own], dtype=bool)
        style = _LINES.get(method, {"color": GREY})
        panel.plot(x[~refused], y[~refused], marker="o", markersize=2.2, **style)
        panel.plot(x[refused], y[refused], "x", color=style["color"], markersize=5)


def _legend(figure: "Figure", axes: Sequence["Axes"], methods: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], **_LINES.get(name, {"color": GREY})) for name in methods]
    figure.legend(
        lines,
        list(methods),
        loc="outside upper center",
        ncols=4,
        frameon=False,
        fontsize=7,
    )
    figure.align_ylabels(list(axes))
