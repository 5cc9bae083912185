"""Picture of what generators draw: a row for each model, a column for each prompt."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from unlearn_jax.results.plot_style import STYLE, note

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL_INCHES = 0.42
_NAME_INCHES = 1.6
_CROSS = "\N{MULTIPLICATION SIGN}"
_CENTRED: Mapping[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}


def grid_figure(
    images: Mapping[str, Float[np.ndarray, "m h w c"]],
    prompts: Sequence[str],
    text: str,
) -> "Figure":
    """Images side by side, the same prompt and the same seed below one another.

    Args:
        images: Name of a row → an image for each prompt, pixels from -1 to 1; grey, or
            of three channels; one that is not finite is crossed out.
        prompts: Titles of the columns.
        text: How to read it.

    Raises:
        ValueError: a row with another number of images than there are prompts.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    for name, row in images.items():
        if len(row) != len(prompts):
            raise ValueError(
                f"{name} has {len(row)} images for {len(prompts)} prompts, expected "
                "one for each"
            )
    size = (
        _NAME_INCHES + _CELL_INCHES * len(prompts),
        1.2 + _CELL_INCHES * len(images),
    )
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(images), len(prompts), squeeze=False)
    for line, (name, row) in zip(axes, images.items(), strict=True):
        for panel, image in zip(line, row, strict=True):
            pixels = np.clip((np.asarray(image, np.float64) + 1) / 2, 0, 1)
            grey = pixels.shape[-1] == 1
            shown = pixels[..., 0] if grey else pixels
            panel.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            panel.spines[:].set_visible(False)
            if not np.isfinite(pixels).all():  # It would be as white as the page.
                panel.set_facecolor("0.85")
                panel.text(0.5, 0.5, _CROSS, transform=panel.transAxes, **_CENTRED)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)
    for panel, title in zip(axes[0], prompts, strict=True):
        panel.set_title(title, rotation=60, ha="left", fontsize=6, x=0.1)
    broken = not all(np.isfinite(row).all() for row in images.values())
    note(figure, text + broken * " A cross: not finite.")
    return figure
