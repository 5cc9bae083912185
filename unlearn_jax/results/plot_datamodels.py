"""The figure of the study of datamodels: score against members."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from unlearn_jax.results.plot_data import Row
from unlearn_jax.results.plot_looks import BLUE
from unlearn_jax.results.plot_style import note, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def score_figure(rows: Sequence[Row]) -> "Figure":
    """Linear datamodelling score against the members that a datamodel is fitted to.

    Args:
        rows: ``members``, ``score``, ``stderr``.
    """
    figure, axes = panels(1, 1, 2.6)
    panel = axes[0]
    members = [row["members"] for row in rows]
    panel.errorbar(
        members,
        [row["score"] for row in rows],
        yerr=[row["stderr"] for row in rows],
        color=BLUE,
        marker="o",
        markersize=4,
        capsize=2,
    )
    panel.set_xscale("log", base=2)
    panel.set_xticks(members, [str(m) for m in members], minor=False)
    panel.set_ylim(bottom=min(0.0, *(row["score"] - row["stderr"] for row in rows)))
    panel.set_xlabel("members fitted to")
    panel.set_ylabel("linear datamodelling score")
    note(figure, "bars: bootstrap standard error")
    return figure
