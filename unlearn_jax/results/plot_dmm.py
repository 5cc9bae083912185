"""Figure of unlearning judged by distributions: distance against compute."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unlearn_jax.results.plot_data import Row
from unlearn_jax.results.plot_looks import BLACK, FLOOR_GREY, GREY, LOOKS, TURNS
from unlearn_jax.results.plot_style import legend, note, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def dmm_figure(rows: Sequence[Row]) -> "Figure":
    """P95 of KLoM against example gradients at the request; a panel for each pair.

    Args:
        rows: ``request``, ``split``, ``family``, ``setting``, ``gradients``, ``p95``,
            ``chosen``, and for the rows of family "original" and "oracle vs oracle" no
            gradients; ``floor`` is the simulated one.
    """
    requests = list(dict.fromkeys(row["request"] for row in rows))
    splits = list(dict.fromkeys(row["split"] for row in rows))
    families = [
        name
        for name in dict.fromkeys(row["family"] for row in rows)
        if any(row["family"] == name and row["gradients"] for row in rows)
    ]
    looks = _looks(families)
    figure, axes = panels(
        len(splits), len(requests), 1.0 + 1.8 * len(splits), sharex=True, sharey=True
    )
    figure.set_size_inches(1.0 + 2.3 * len(requests), 1.3 + 1.8 * len(splits))
    for place, panel in enumerate(axes):
        line, column = divmod(place, len(requests))
        own = [
            row
            for row in rows
            if row["split"] == splits[line] and row["request"] == requests[column]
        ]
        _draw(panel, own, looks)
        if line == 0:
            panel.text(
                0.5, 1.03, requests[column], transform=panel.transAxes, ha="center"
            )
        if column == 0:
            panel.set_ylabel(f"KLoM P95, {splits[line]}\n(nats, logarithmic)")
        if line == len(splits) - 1:
            panel.set_xlabel("example gradients at the request")
    legend(
        figure,
        {n: dict(color=c, marker=m, linestyle="none") for n, (c, m) in looks.items()},
    )
    note(
        figure,
        "filled: setting chosen on the first forget set; grey: at most the simulated "
        "floor; dashed: original; dotted: two sets of oracles",
    )
    return figure


def _looks(families: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker: matching round, its prediction alone a cross."""
    looks, turn = {}, 0
    names = list(dict.fromkeys(f.split(": ")[-1] for f in families if ": " in f))
    for family in families:
        if "marker" in LOOKS.get(family, {}):
            looks[family] = (LOOKS[family]["color"], LOOKS[family]["marker"])
            continue
        turn = names.index(family.split(": ")[-1]) if ": " in family else turn + 1
        direct = family.startswith("direct")
        looks[family] = (TURNS[turn % len(TURNS)], "x" if direct else "o")
    return looks


def _draw(
    panel: "Axes", rows: Sequence[Row], looks: dict[str, tuple[str, str]]
) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    floor = rows[0]["floor"]
    panel.axhspan(floor / 3, floor, color=FLOOR_GREY, linewidth=0, zorder=0)
    lines = {"original": (GREY, "--"), "oracle vs oracle": (BLACK, ":")}
    for row in rows:
        if row["family"] in lines:
            hue, style = lines[row["family"]]
            panel.axhline(row["p95"], color=hue, linestyle=style, linewidth=1)
        elif row["gradients"]:
            hue, marker = looks[row["family"]]
            full = row["chosen"] or marker == "x"
            panel.plot(
                row["gradients"],
                row["p95"],
                marker,
                color=hue,
                markerfacecolor=hue if full else "none",
                markersize=5 if full else 3,
                linestyle="none",
                alpha=1 if full else 0.6,
            )
