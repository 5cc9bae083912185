"""Figure of corrective unlearning: accuracy over the known share of bad examples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unlearn_jax.results.plot_data import Row
from unlearn_jax.results.plot_looks import look
from unlearn_jax.results.plot_style import legend, note, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SPLITS = {
    "corrected": "accuracy where it was\nmanipulated (%)",
    "retained": "accuracy elsewhere (%)",
}


def corrective_figure(rows: Sequence[Row]) -> "Figure":
    """A column for each manipulation; corrected accuracy above, retained below.

    Args:
        rows: ``kind``, ``split`` ("corrected", "retained"), ``method``, ``share``,
            ``value``, ``stderr`` [%]; the method "original" has one row, share 0.
    """
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = panels(2, max(len(kinds), 1), 4.2, sharex=True)
    width = 0.004 * (len(methods) - 1)
    for place, panel in enumerate(axes):
        line, column = divmod(place, max(len(kinds), 1))
        split = list(_SPLITS)[line]
        for number, method in enumerate(methods):
            own = [
                row
                for row in rows
                if (row["kind"], row["split"], row["method"])
                == (kinds[column], split, method)
            ]
            shift = width * (number / max(len(methods) - 1, 1) - 0.5)
            _draw(panel, own, method, shift)
        if line == 0:
            panel.text(0.0, 1.02, kinds[column], transform=panel.transAxes, fontsize=8)
        else:
            panel.set_xlabel("known share of the bad examples")
        values = [row["value"] - _error(row) for row in rows if row["split"] == split]
        low = min([90.0, *values])
        panel.set_ylim(max(low - 0.05 * (100 - low), -3), 100 + 0.03 * (100 - low))
        if column == 0:
            panel.set_ylabel(_SPLITS[split])
        else:
            panel.tick_params(labelleft=False)
    thin = {"linewidth": 1.0, "markersize": 3.5}
    legend(figure, {name: look(name, marker=".") | thin for name in methods})
    note(figure, "bars: standard error over seeds; dashed: before correction")
    return figure


def _draw(panel: "Axes", rows: Sequence[Row], method: str, shift: float) -> None:
    style = look(method, marker=".")
    if method == "original":
        for row in rows:
            panel.axhline(row["value"], linewidth=1.0, zorder=1, **look(method))
        return
    own = sorted(rows, key=lambda row: row["share"])
    x = np.array([row["share"] for row in own]) + shift
    y = np.array([row["value"] for row in own])
    error = np.array([_error(row) for row in own])
    panel.errorbar(
        x, y, error, markersize=3.5, linewidth=1.0, elinewidth=0.7, capsize=0, **style
    )


def _error(row: Row) -> float:
    """Standard error; nothing where one seed tells none."""
    return float(np.nan_to_num(row["stderr"]))
