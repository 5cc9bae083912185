"""The house figure style: sizes, panels, notes, legends, and names beside dots."""

import csv
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from unlearn_jax.results.cells import csv_cell
from unlearn_jax.results.html import DPI
from unlearn_jax.results.plot_looks import GREY
from unlearn_jax.storage.write import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

PANEL_INCHES = 3.3
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


def panels(
    lines: int,
    columns: int,
    height: float,
    *,
    sharex: bool = False,
    sharey: bool = False,
) -> "tuple[Figure, list[Axes]]":
    """A figure of the house style, ``height`` inches tall, and its panels in a row."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(PANEL_INCHES * columns, height), layout="constrained")
        axes = figure.subplots(
            lines, columns, squeeze=False, sharex=sharex, sharey=sharey
        )
    return figure, list(axes.ravel())


def note(figure: "Figure", text: str) -> None:
    """How to read the figure, in small letters below it, no wider than it is."""
    letters = max(30, int(figure.get_figwidth() / _LETTER_INCHES))
    lines = [textwrap.fill(line, letters) for line in text.splitlines()]
    figure.supxlabel("\n".join(lines), fontsize=7, color="#444444")


def legend(
    figure: "Figure", looks: Mapping[str, Mapping[str, Any]], *, columns: int = 4
) -> None:
    """Names above the panels, each beside what it is drawn with.

    Args:
        figure: Of its final width.
        looks: What Matplotlib draws each name with.
        columns: Of names side by side, fewer where the figure is narrow.
    """
    wide = 0.45 + 1.15 * _LETTER_INCHES * max(map(len, looks), default=0)
    columns = max(1, min(columns, int(figure.get_figwidth() / wide)))
    from matplotlib.lines import Line2D

    figure.legend(
        handles=[Line2D([], [], label=name, **own) for name, own in looks.items()],
        loc="outside upper center",
        ncols=columns,
        frameon=False,
        fontsize=7,
    )


def save_figure(
    figure: "Figure", stem: Path, data: Sequence[Mapping[str, Any]]
) -> list[Path]:
    """Write ``STEM.pdf``, ``STEM.png`` and ``STEM.csv``, the numbers that were drawn.

    Raises:
        StorageError: the folder cannot take a file.
    """
    engine = figure.get_layout_engine()
    if engine is not None:  # Laid out once, not by each of the two renderers anew.
        engine.execute(figure)
        figure.set_layout_engine(None)  # "none" would draw once more for each of them
    stem = Path(stem)
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("pdf", "png", "csv")]
    for path in paths[:2]:
        content = io.BytesIO()
        kind = path.suffix[1:]
        undated = {"CreationDate": None} if kind == "pdf" else None
        figure.savefig(content, format=kind, dpi=DPI, metadata=undated)
        write_bytes(path, content.getvalue())
    text = io.StringIO()
    if data:
        writer = csv.DictWriter(text, fieldnames=list(data[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: csv_cell(v) for k, v in row.items()} for row in data)
    write_bytes(paths[2], text.getvalue().encode())
    return paths


_LETTER_INCHES = 0.05
"""Width of a small letter, on average."""
_NAMES_BELOW = 20
"""Names of a key that stand below one another."""
_NEAR = 9
"""Points from a dot, within which its name needs no line."""
_OFFSETS = [
    (radius * math.cos(angle) * side, radius * math.sin(angle))
    for radius in (6, 9, 14, 20, 27, 36, 45, 54, 70, 90, 110, 130)
    for angle in (0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5)
    for side in (1, -1)
]
"""Where a name may stand, in points from its dot: the nearest first."""


Named: TypeAlias = "tuple[Axes, Sequence[tuple[float, float]], Sequence[str]]"
"""A panel, its dots, and a name for each."""


def name_dots(figure: "Figure", panels: "Sequence[Named]") -> None:
    """Name every dot where its name meets no other name, dot or bar and no frame.

    Where names do not fit, the dots bear numbers, and the names stand beside the
    panels. Called last, when the layout is settled.
    """
    if _named(figure, panels):
        return
    from matplotlib.lines import Line2D

    names = list(dict.fromkeys(name for *_, own in panels for name in own))
    keys = {name: str(number) for number, name in enumerate(names, start=1)}
    columns = math.ceil(len(names) / _NAMES_BELOW)
    wide = 0.35 + 0.062 * max(map(len, names))
    width, height = figure.get_size_inches()
    tall = 0.8 + 0.14 * math.ceil(len(names) / columns)
    figure.set_size_inches(width + columns * wide, max(height, tall))
    figure.legend(
        handles=[
            Line2D([], [], linestyle="none", label=f"{key}  {name}")
            for name, key in keys.items()
        ],
        loc="outside right upper",
        ncols=columns,
        frameon=False,
        fontsize=7,
        handlelength=0,
        handletextpad=0,
    )
    told = [(panel, dots, [keys[name] for name in own]) for panel, dots, own in panels]
    _named(figure, told)


def _named(figure: "Figure", panels: "Sequence[Named]") -> bool:
    """Write the names beside their dots; if one has no place, write none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # settles the layout
    labels: list[Annotation] = []
    if all(_name_panel(named, renderer, labels) for named in panels):
        return True
    for label in labels:
        label.remove()
    return False


def _name_panel(named: "Named", renderer: Any, labels: "list[Annotation]") -> bool:
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    panel, dots, names = named
    places = [panel.transData.transform(dot) for dot in dots]
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in places]
    bars = [line for line in panel.lines if np.size(line.get_xdata()) == 2]
    taken += [line.get_window_extent(renderer).padded(1) for line in bars]
    frame = panel.get_window_extent(renderer)
    for dot, name in zip(dots, names, strict=True):
        label = panel.annotate(
            name,
            dot,
            (0, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": GREY},
        )
        labels.append(label)
        for dx, dy in _OFFSETS:
            label.set_position((dx, dy))
            label.set_horizontalalignment("left" if dx >= 0 else "right")
            label.update_positions(renderer)
            box = Text.get_window_extent(label, renderer)
            within = frame.x0 <= box.x0 and box.x1 <= frame.x1
            within = within and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if within and box.count_overlaps(taken) == 0:
                break
        else:
            return False
        near = label.arrow_patch
        if near is not None and math.hypot(dx, dy) < _NEAR:
            near.set_visible(False)
        label.set_in_layout(False)
        taken.append(box)
    return True
