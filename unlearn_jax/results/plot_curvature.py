"""Figures of the studies of curvature: fidelity, spectrum, scaling, truth."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unlearn_jax.results.plot_data import Row
from unlearn_jax.results.plot_looks import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    PURPLE,
    VERMILION,
    colour,
)
from unlearn_jax.results.plot_style import name_dots, note, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST_ERROR = 1e-9
"""Errors under it are drawn at it: the axis is logarithmic."""
LEAST_COUNT = 0.02
"""Eigenvalues per decade where the axis begins."""


def truth_figure(rows: Sequence[Row]) -> "Figure":
    """Predicted against retrained, a panel for each kind of retraining.

    Args:
        rows: ``panel``, ``predicted``, ``retrained`` [nats].
    """
    names = list(dict.fromkeys(row["panel"] for row in rows))
    figure, axes = panels(1, len(names), 2.9)
    for panel, name in zip(axes, names, strict=True):
        own = [row for row in rows if row["panel"] == name]
        x = np.array([row["predicted"] for row in own])
        y = np.array([row["retrained"] for row in own])
        panel.axline((0, 0), slope=1, color=GREY, linewidth=0.8, zorder=0)
        panel.plot(x, y, "o", color=BLUE, markersize=3, markeredgewidth=0, alpha=0.6)
        panel.locator_params(nbins=5)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set_xlabel("predicted change of a test loss (nats)")
        panel.set_ylabel("change by retraining (nats)")
        panel.text(0.0, 1.02, name, transform=panel.transAxes, fontsize=8)
    note(figure, "line: prediction equals retraining")
    return figure


def error_figure(rows: Sequence[Row]) -> "Figure":
    """Relative error against seconds, both logarithmic; a panel for each kind.

    Args:
        rows: ``panel``, ``approximation``, ``seconds``, ``error``.
    """
    names = list(dict.fromkeys(row["panel"] for row in rows))
    figure, axes = panels(1, len(names), 3.1)
    named = []
    for panel, name in zip(axes, names, strict=True):
        own = [
            {
                "method": row["approximation"],
                "forget_seconds": row["seconds"],
                "average_gap": max(row["error"], LEAST_ERROR),
            }
            for row in rows
            if row["panel"] == name and np.isfinite(row["error"])
        ]
        panel.set_xscale("log")
        panel.set_yscale("log")
        for row in own:
            x, y = row["forget_seconds"], row["average_gap"]
            panel.plot(x, y, "o", color=colour(row["method"]), markersize=4)
        _widen(panel, own)
        panel.set_xlabel(f"seconds for one {name} (logarithmic)")
        dots = [(row["forget_seconds"], row["average_gap"]) for row in own]
        named.append((panel, dots, [row["method"] for row in own]))
    axes[0].set_ylabel("relative error to the Gauss-Newton matrix")
    note(figure, "compiled and warm; preparation of a state is left out")
    name_dots(figure, named)
    return figure


def _widen(panel: "Axes", rows: Sequence[Row]) -> None:
    """Room for labels, and at least two decades to read a scale from."""
    for setter, key, room in (
        (panel.set_xlim, "forget_seconds", 6.0),
        (panel.set_ylim, "average_gap", 2.5),
    ):
        values = [row[key] for row in rows] or [1.0]
        low, high = np.log10([min(values) / room, max(values) * room])
        if np.floor(high) - np.ceil(low) < 1:
            low, high = np.floor(low), np.ceil(high)
        setter(10.0**low, 10.0**high)


def spectrum_figure(rows: Sequence[Row]) -> "Figure":
    """Eigenvalues per decade of magnitude, a panel per matrix, outliers as ticks.

    Args:
        rows: ``panel``, ``kind`` (positive, negative, outlier), ``eigenvalue``,
            ``value``: eigenvalues per decade; for outliers the number of classes.
    """
    names = list(dict.fromkeys(row["panel"] for row in rows))
    figure, axes = panels(1, len(names), 2.9, sharey=True)
    most = max(row["value"] for row in rows if row["kind"] != "outlier")
    for panel, name in zip(axes, names, strict=True):
        own = [row for row in rows if row["panel"] == name]
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_ylim(LEAST_COUNT, 20 * most)
        panel.set_xlabel(f"|eigenvalue| of the {name} (logarithmic)")
        for kind, hue, place in (
            ("positive", BLUE, 0.90),
            ("negative", VERMILION, 0.82),
        ):
            curve = [row for row in own if row["kind"] == kind]
            x = np.array([abs(row["eigenvalue"]) for row in curve])
            y = np.array([row["value"] for row in curve])
            if np.max(y, initial=0) < LEAST_COUNT:
                kind = f"no {kind}"
            panel.plot(x, np.maximum(y, LEAST_COUNT / 10), color=hue)
            panel.text(0.98, place, kind, color=hue, ha="right", **_at(panel))
            panel.set_xlim(x[0], x[-1])
        outliers = [row for row in own if row["kind"] == "outlier"]
        for row in outliers:
            hue = BLUE if row["eigenvalue"] > 0 else VERMILION
            panel.axvline(abs(row["eigenvalue"]), 0, 0.07, color=hue, linewidth=0.8)
        classes = outliers[0]["value"] if outliers else 0
        words = f"{len(outliers)} largest as ticks; {classes:.0f} classes"
        panel.text(0.98, 0.98, words, ha="right", **_at(panel))
    axes[0].set_ylabel("eigenvalues per decade (logarithmic)")
    note(
        figure,
        "stochastic Lanczos quadrature; bump on the left: too small to be resolved",
    )
    return figure


def scaling_figure(rows: Sequence[Row]) -> "Figure":
    """Seconds and bytes against examples and parameters with fitted powers.

    Args:
        rows: ``against``, ``what``, ``operation``, ``size``, ``value``, ``slope``.
    """
    columns = list(dict.fromkeys(row["against"] for row in rows))
    lines = list(dict.fromkeys(row["what"] for row in rows))
    figure, axes = panels(len(lines), len(columns), 2.6 * len(lines))
    operations = list(dict.fromkeys(row["operation"] for row in rows))
    hues = dict(zip(operations, (BLACK, GREEN, BLUE, VERMILION, PURPLE), strict=False))
    units = {
        "seconds": "seconds (logarithmic)",
        "bytes": "temporaries (bytes, logarithmic)",
    }
    places = [(what, against) for what in lines for against in columns]
    for panel, (what, against) in zip(axes, places, strict=True):
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel(f"{against} (logarithmic)")
        panel.set_ylabel(units[what])
        labels = []
        for operation in operations:
            own = [
                row
                for row in rows
                if (row["what"], row["against"], row["operation"])
                == (what, against, operation)
            ]
            x = np.array([row["size"] for row in own])
            y = np.array([row["value"] for row in own])
            power = own[0]["slope"]
            centre = np.exp(np.mean(np.log(np.maximum(y, 1e-12))))
            fitted = centre * (x / np.exp(np.mean(np.log(x)))) ** power
            panel.plot(x, y, "o", color=hues[operation], markersize=3.5)
            panel.plot(x, fitted, color=hues[operation], linewidth=1.0)
            labels.append(
                (f"{operation}: slope {round(power, 2) + 0.0:.2f}", hues[operation])
            )
        low, high = panel.get_ylim()
        # A legend of its own, above all points.
        panel.set_ylim(low, high * (high / low) ** 0.55)
        if np.log10(high / low) < 1:
            panel.set_ylim(low / 3, high * 30)
        for number, (text, hue) in enumerate(labels):
            panel.text(0.03, 0.97 - 0.075 * number, text, color=hue, **_at(panel))
    note(figure, "lines: powers fitted to the dots; compiled and warm")
    return figure


def _at(panel: "Axes") -> dict[str, Any]:
    """Text placed in parts of the panel, from its top."""
    return {"transform": panel.transAxes, "va": "top", "fontsize": 8}
