"""The figure of unlearning judged by distributions."""

import pytest

from unlearn_jax.results.plot_dmm import dmm_figure

FLOOR = 1.2
FAMILIES = {
    "finetune": 9900.0,
    "direct: trak": 700.0,
    "dmm: trak": 3000.0,
    "original": 0.0,
    "oracle vs oracle": 0.0,
}


def row(request, split, family, chosen):
    return {
        "request": request,
        "split": split,
        "family": family,
        "setting": "one" if chosen else "two",
        "gradients": FAMILIES[family] * (1 if chosen else 2),
        "p95": 1.4 if family == "oracle vs oracle" else 3.0,
        "chosen": chosen,
        "floor": FLOOR,
    }


@pytest.fixture(scope="module")
def figure():
    found = [row(r, s, f, True) for s in "ab" for r in ("x", "y") for f in FAMILIES]
    return dmm_figure([*found, row("y", "b", "dmm: trak", False)])


def test_every_contender_is_a_point_and_references_are_lines(figure):
    panels = figure.axes
    assert len(panels) == 4
    for place, panel in enumerate(panels):
        points = [line for line in panel.lines if line.get_marker() != "None"]
        levels = [line for line in panel.lines if line.get_marker() == "None"]
        assert len(points) == 3 + (place == 3)
        assert sorted(line.get_ydata()[0] for line in levels) == [1.4, 3.0]
        at = sorted(point.get_xdata()[0] for point in points)
        assert at[:2] == [700.0, 3000.0]
        (band,) = panel.patches
        assert band.get_y() + band.get_height() == pytest.approx(FLOOR)


def test_settings_that_were_not_chosen_are_hollow(figure):
    hollow = [
        line.get_xdata()[0]
        for panel in figure.axes
        for line in panel.lines
        if line.get_marker() == "o" and line.get_markerfacecolor() == "none"
    ]
    assert hollow == [6000.0]


def test_the_legend_names_contenders_and_no_reference(figure):
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["finetune", "direct: trak", "dmm: trak"]
