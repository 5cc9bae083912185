"""Figure of attributions held against retraining: score against seconds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unlearn_jax.results.plot_data import Row
from unlearn_jax.results.plot_looks import (
    BLACK,
    FLOOR_GREY,
    GREY,
    LOOKS,
    MARKERS,
    colour,
)
from unlearn_jax.results.plot_style import legend, note, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def attribution_figure(rows: Sequence[Row]) -> "Figure":
    """Scores against seconds, one example, and removals, a panel each.

    Args:
        rows: Of the ``panel`` "scores": ``attribution``, ``from``, ``seconds``,
            ``lds``, ``stderr``, and the ``attainable`` score with its error; rows of
            one attribution are joined in their order, the last one filled. Of
            "example": ``predicted``, ``retrained``, ``attribution``. Of "removals":
            ``attribution`` and ``retrained`` for each query.
    """
    shown = [
        name
        for name in ("scores", "example", "removals")
        if any(row["panel"] == name for row in rows)
    ]
    names = list(
        dict.fromkeys(row["attribution"] for row in rows if row["panel"] != "example")
    )
    looks = _looks(names)
    figure, axes = panels(1, max(len(shown), 1), 3.4)
    wide = 1.2 + 2.6 * max(len(shown), 1)
    figure.set_size_inches(wide, 3.2 + 0.05 * max(len(looks), 8))
    draw = {"scores": _scores, "example": _example, "removals": _removals}
    for panel, name in zip(axes, shown, strict=False):
        draw[name](panel, [row for row in rows if row["panel"] == name], looks)
    legend(
        figure,
        {n: dict(color=c, marker=m, linestyle="none") for n, (c, m) in looks.items()},
        columns=5,
    )
    note(
        figure,
        "bars: standard error; hollow: from fewer models or members; grey band: "
        "attainable under the noise of retraining, ± its error"
        + ("\n" if len(shown) < 3 else "; ")
        + "middle: line of equality; right: with means",
    )
    return figure


def _looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour by kind, marker within it; variants take markers that are left."""
    looks = {
        name: (LOOKS[name]["color"], LOOKS[name]["marker"])
        for name in names
        if "marker" in LOOKS.get(name, {})
    }
    for name in names:
        hue = colour(name)
        taken = [marker for other, marker in looks.values() if other == hue]
        left = [marker for marker in MARKERS if marker not in taken]
        looks.setdefault(name, (hue, left[0] if left else "."))
    return {name: looks[name] for name in names}


def _scores(
    panel: "Axes", rows: Sequence[Row], looks: dict[str, tuple[str, str]]
) -> None:
    middle, error = rows[0]["attainable"], rows[0]["attainable_stderr"]
    panel.axhspan(
        middle - error, middle + error, color=FLOOR_GREY, linewidth=0, zorder=0
    )
    panel.axhline(0, color=BLACK, linewidth=0.6)
    panel.set_xscale("log")
    for name, (hue, marker) in looks.items():
        own = [row for row in rows if row["attribution"] == name]
        if not own:
            continue
        panel.plot(
            [row["seconds"] for row in own],
            [row["lds"] for row in own],
            color=hue,
            linewidth=0.6,
            alpha=0.6,
        )
        for row in own:
            panel.errorbar(
                row["seconds"],
                row["lds"],
                yerr=row["stderr"],
                color=hue,
                marker=marker,
                markersize=4,
                markerfacecolor=hue if row is own[-1] else "white",
                elinewidth=0.8,
            )
    low, high = np.log10(panel.get_xlim())
    if np.floor(high) - np.ceil(low) < 1:  # two decades must show
        panel.set_xlim(10.0 ** np.floor(low), 10.0 ** np.ceil(high))
    panel.xaxis.set_minor_formatter("")
    panel.set_xlabel("seconds, with training (logarithmic)")
    panel.set_ylabel("linear datamodelling score")


def _example(
    panel: "Axes", rows: Sequence[Row], looks: dict[str, tuple[str, str]]
) -> None:
    del looks
    x = [row["predicted"] for row in rows]
    y = [row["retrained"] for row in rows]
    panel.plot(x, y, "o", color=BLACK, markersize=2.5, alpha=0.7)
    panel.axline((0, 0), slope=1, color=GREY, linewidth=0.6)
    panel.set_xlabel(f"predicted margin, one query (nats)\n{rows[0]['attribution']}")
    panel.set_ylabel("retrained margin (nats)")


def _removals(
    panel: "Axes", rows: Sequence[Row], looks: dict[str, tuple[str, str]]
) -> None:
    names = list(dict.fromkeys(row["attribution"] for row in rows))
    for place, name in enumerate(names):
        shifts = [row["retrained"] for row in rows if row["attribution"] == name]
        hue, marker = looks[name]
        beside = [place + 0.3 * (i / len(shifts) - 0.5) for i in range(len(shifts))]
        panel.plot(
            beside,
            shifts,
            marker,
            color=hue,
            markersize=3,
            linestyle="none",
            alpha=0.7,
        )
        mean = sum(shifts) / len(shifts)
        panel.plot([place - 0.3, place + 0.3], [mean, mean], color=hue, linewidth=1.5)
    panel.axhline(0, color=BLACK, linewidth=0.6)
    panel.set_xlim(-0.6, len(names) - 0.4)
    panel.set_xticks([])
    panel.set_xlabel("supporters taken out, a dot for each query")
    panel.set_ylabel("change of the margin (nats)")
