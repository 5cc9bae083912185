"""The picture of what generators draw."""

import numpy as np

from unlearn_jax.results.plot_canvas import grid_figure


def words(figure):
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def test_images_that_are_no_images_are_crossed_out_and_told():
    """One that is not finite would be as white as the page."""
    good, broken = np.zeros((2, 4, 4, 1)), np.zeros((2, 4, 4, 1))
    broken[1, 0, 0, 0] = np.nan
    figure = grid_figure({"good": good, "broken": broken}, ["a", "b"], "How to read.")
    crossed = [[text.get_text() for text in panel.texts] for panel in figure.axes]
    assert crossed == [[], [], [], ["\N{MULTIPLICATION SIGN}"]]
    assert "not finite" in words(figure)
    plain = grid_figure({"good": good}, ["a", "b"], "How to read.")
    assert "not finite" not in words(plain)
