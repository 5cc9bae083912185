"""Figures of what a state reveals: images that were found, attacks, noise."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unlearn_jax.results.plot_data import Row
from unlearn_jax.results.plot_looks import BLACK, BLUE, GREY, look
from unlearn_jax.results.plot_style import STYLE, note, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GROUPS = ("within", "to be deleted", "deleted")
_MARKS = {"residual": "o", "leverage": "s"}


def pictures_figure(images: dict[str, np.ndarray]) -> "Figure":
    """A line of images for each name, one below the other.

    Args:
        images: (columns, height, width) in one range of grey for each image.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    columns = max(len(line) for line in images.values())
    size = (0.55 * columns + 1.6, 0.55 * len(images) + 0.1)
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(images), columns, squeeze=False)
    for line, (name, shown) in zip(axes, images.items(), strict=True):
        for panel in line:
            panel.set_axis_off()
        for panel, image in zip(line, shown, strict=False):
            panel.imshow(image, cmap="gray", interpolation="nearest")
        line[0].text(
            -0.12,
            0.5,
            name,
            transform=line[0].transAxes,
            ha="right",
            va="center",
            fontsize=7,
        )
    return figure


def state_figure(rows: Sequence[Row]) -> "Figure":
    """Attacks against rows for each feature, and accuracy against epsilon.

    Args:
        rows: ``panel`` ("membership" or "noise"), ``group``, ``score``, ``x``,
            ``value``, ``error``.
    """
    attacks = [row for row in rows if row["panel"] == "membership"]
    noise = [row for row in rows if row["panel"] == "noise"]
    figure, axes = panels(1, 2 if noise else 1, 2.7)
    _attacks(axes[0], attacks)
    if noise:
        finite = [row for row in noise if np.isfinite(row["x"])]
        for row in (row for row in noise if not np.isfinite(row["x"])):
            axes[1].axhline(row["value"], color=BLACK, linewidth=0.8)
        x, y, error = (
            [row[name] for row in finite] for name in ("x", "value", "error")
        )
        axes[1].errorbar(x, y, error, fmt="-o", color=BLUE, markersize=3.5)
        axes[1].set_xscale("log")
        axes[1].xaxis.set_major_formatter("{x:g}")
        axes[1].set_xlabel("epsilon of two releases (logarithmic)")
        axes[1].set_ylabel("test accuracy (%)")
    text = "solid: by residual, dashed: by leverage; grey: nothing to tell"
    note(figure, f"{text}; black: no noise" if noise else text)
    return figure


def _attacks(panel: Any, rows: Sequence[Row]) -> None:
    panel.axhline(0.5, color=GREY, linewidth=0.8)
    for group in _GROUPS:
        for score, mark in _MARKS.items():
            own = [r for r in rows if (r["group"], r["score"]) == (group, score)]
            x, y, error = (
                [row[name] for row in own] for name in ("x", "value", "error")
            )
            panel.errorbar(
                x,
                y,
                error,
                marker=mark,
                markersize=3.5,
                linestyle="-" if score == "residual" else "--",
                label=group if score == "residual" else None,
                **look(group),
            )
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.set_ylim(0.35, 1.03)
    panel.set_xlabel("rows within for each feature (logarithmic)")
    panel.set_ylabel("AUC against rows never seen")
    panel.legend(frameon=False, fontsize=7)
