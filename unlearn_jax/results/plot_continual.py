"""Figure of a stream of learning and forgetting, one panel for each question."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unlearn_jax.results.plot_data import Row
from unlearn_jax.results.plot_looks import FLOOR_GREY, look
from unlearn_jax.results.plot_style import legend, note, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
        legend(figure, {name: look(name) for name in methods})
        figure.align_ylabels(list(axes))
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
        style = look(method)
        panel.plot(x[~refused], y[~refused], marker="o", markersize=2.2, **style)
        panel.plot(x[refused], y[refused], "x", color=style["color"], markersize=5)
