"""Figure of errors over a stream of requests, a panel for each ridge."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unlearn_jax.results.plot_data import Row
from unlearn_jax.results.plot_looks import GREY, look
from unlearn_jax.results.plot_style import legend, note, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 1e-18
"""Errors under it, 0 among them, are drawn at it."""
BOUND = 1e-8


def exactness_figure(rows: Sequence[Row]) -> "Figure":
    """Errors of head and predictions, logarithmic, over the requests.

    Args:
        rows: ``panel`` (its title), ``quantity`` ("head", "predictions"), ``form``,
            ``kind`` ("checked", "watched", "refused"), ``position``, ``value``.
    """
    names = list(dict.fromkeys(row["panel"] for row in rows))
    quantities = list(dict.fromkeys(row["quantity"] for row in rows))
    height = 0.8 + 2.2 * len(quantities)
    shape = (max(len(quantities), 1), max(len(names), 1))
    figure, axes = panels(*shape, height, sharex=True, sharey=True)
    for place, panel in enumerate(axes[: len(quantities) * len(names)]):
        line, column = divmod(place, len(names))
        quantity, name = quantities[line], names[column]
        own = [
            row for row in rows if (row["panel"], row["quantity"]) == (name, quantity)
        ]
        _draw(panel, own)
        if line == 0:
            panel.text(0.0, 1.02, name, transform=panel.transAxes, fontsize=8)
        if line == len(quantities) - 1:
            panel.set_xlabel("requests")
        if column == 0:
            panel.set_ylabel(f"relative error of {quantity}\n(logarithmic)")
    forms = dict.fromkeys(row["form"] for row in rows)
    legend(
        figure, {f: look(f, marker="o") | {"linewidth": 1.0} for f in forms}, columns=5
    )
    words = "marks: against the truth; lines: against the sums; crosses: refused; "
    note(figure, f"{words}grey line: bound of predictions; smallest drawn {LEAST:g}")
    return figure


def _draw(panel: "Axes", rows: Sequence[Row]) -> None:
    panel.set_yscale("log")
    panel.axhline(BOUND, color=GREY, linewidth=0.8, zorder=0)
    for form in dict.fromkeys(row["form"] for row in rows):
        style = look(form, marker="o")
        for kind in ("watched", "checked", "refused"):
            own = [r for r in rows if (r["form"], r["kind"]) == (form, kind)]
            x = np.array([row["position"] for row in own])
            y = np.array([row["value"] for row in own], dtype=float)
            y = np.maximum(y, LEAST)
            if kind == "watched":
                panel.plot(x, y, color=style["color"], linewidth=1.0)
            elif kind == "checked":
                panel.plot(x, y, linestyle="", **style)
            else:
                low = np.full(len(x), 0.03)
                across = panel.get_xaxis_transform()
                panel.plot(x, low, "x", color=style["color"], transform=across)
