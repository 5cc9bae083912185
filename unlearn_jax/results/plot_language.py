"""Figure of sequences forgotten: distance on what is forgotten against what is kept."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unlearn_jax.results.plot_data import Row
from unlearn_jax.results.plot_looks import BLACK, BLUE, FLOOR_GREY, GREY, ORANGE
from unlearn_jax.results.plot_looks import VERMILION as RED
from unlearn_jax.results.plot_style import legend, name_dots, note, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ORDERS: dict[str, dict[str, Any]] = {
    "second": {"color": BLUE, "marker": "s"},
    "signs": {"color": RED, "marker": "^"},
    "first": {"color": ORANGE, "marker": "o"},
    "control": {"color": GREY, "marker": "X"},
}
"""Order of a method -> how its dot looks."""
_LEAST = 1e-12


def language_figure(rows: Sequence[Row], *, split: str, kept: str) -> "Figure":
    """KL to retrained models, both logarithmic; a panel for each choice of settings.

    Args:
        rows: ``choice``, ``method``, ``order`` (a key of :data:`ORDERS`, or "floor" of
            the oracles, one for each choice), ``forget``, ``retain`` and their standard
            errors ``forget_error`` and ``retain_error``, NaN of one seed.
        split: What is forgotten, for the axis.
        kept: What is retained.
    """
    choices = list(dict.fromkeys(row["choice"] for row in rows))
    figure, axes = panels(1, len(choices), 3.4, sharex=True, sharey=True)
    named = []
    for panel, choice in zip(axes, choices, strict=True):
        own = [row for row in rows if row["choice"] == choice]
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_title(f"settings chosen by {choice}", fontsize=8)
        panel.set_xlabel(f"KL on {kept} (nats per token)")
        dots = [(max(r["retain"], _LEAST), max(r["forget"], _LEAST)) for r in own]
        xs, ys = zip(*dots, strict=True)
        panel.set_xlim(min(xs) / 2, max(xs) * 3)
        panel.set_ylim(min(ys) / 2, max(ys) * 2)
        methods = []
        for row, (x, y) in zip(own, dots, strict=True):
            if row["order"] == "floor":
                panel.axhspan(panel.get_ylim()[0], y, color=FLOOR_GREY, linewidth=0)
                panel.axvline(x, color=BLACK, linewidth=0.8, linestyle=":")
                continue
            look: dict[str, Any] = ORDERS[row["order"]]
            # Nothing is drawn of an error that is not known, that of one seed.
            wide, tall = row["retain_error"], row["forget_error"]
            bar: dict[str, Any] = {"color": look["color"], "linewidth": 0.6}
            panel.plot([max(x - wide, x / 9), x + wide], [y, y], **bar)
            panel.plot([x, x], [max(y - tall, y / 9), y + tall], **bar)
            panel.plot(x, y, markersize=5, linestyle="none", **look)
            methods.append(((x, y), row["method"]))
        named.append((panel, [d for d, _ in methods], [name for _, name in methods]))
    axes[0].set_ylabel(f"KL on {split} (nats per token)")
    shown = [o for o in ORDERS if any(row["order"] == o for row in rows)]
    legend(figure, {o: {**ORDERS[o], "linestyle": "none"} for o in shown})
    note(
        figure,
        "left and below is nearer to retrained models; grey and dotted: one retrained "
        "model against another; bars: standard error",
    )
    name_dots(figure, named)
    return figure
