"""Which texts of a figure lie over one another, told from what is drawn."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg


def texts(figure):
    """Every text that is drawn: labels, ticks within the axes, notes, legends."""
    found = list(figure.texts)
    legends = list(figure.legends)
    for panel in figure.axes:
        if not panel.get_visible():
            continue
        found += [*panel.texts, panel.title, panel.xaxis.label, panel.yaxis.label]
        found += [panel.xaxis.offsetText, panel.yaxis.offsetText]
        legends += [panel.get_legend()] if panel.get_legend() else []
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
            found += [t.label1 for t in ticks if low <= t.get_loc() <= high]
    found += [text for legend in legends for text in legend.get_texts()]
    return [text for text in found if text.get_visible() and text.get_text().strip()]


def overlaps(figure):
    """Pairs of texts whose boxes meet, and texts that leave the figure."""
    from matplotlib.text import Text

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [(t.get_text(), Text.get_window_extent(t, renderer)) for t in texts(figure)]
    met = [
        (a, b)
        for (a, one), (b, other) in itertools.combinations(boxes, 2)
        if one.x0 < other.x1 - 0.5
        and other.x0 < one.x1 - 0.5
        and one.y0 < other.y1 - 0.5
        and other.y0 < one.y1 - 0.5
    ]
    page = figure.bbox
    out = [
        (name, "outside")
        for name, box in boxes
        if box.x0 < page.x0 - 1
        or box.x1 > page.x1 + 1
        or box.y0 < page.y0 - 1
        or box.y1 > page.y1 + 1
    ]
    return met + out
