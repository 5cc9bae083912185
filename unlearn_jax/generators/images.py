"""What a generator is trained on, held against what it was built for."""

import numpy as np

from unlearn_jax.data.values import check_values
from unlearn_jax.loop import tracing
from unlearn_jax.types import Batch


def check_shape(expected: tuple[int, int, int], data: Batch) -> None:
    """Refuse images of another shape; while being traced too.

    Raises:
        ValueError: names both shapes.
    """
    found = tuple(np.shape(data.inputs)[1:])
    if found != expected:
        raise ValueError(
            f"got images {found}, expected {expected}: build the model for these"
        )


def check_images(
    expected: tuple[int, int, int],
    data: Batch,
    *,
    name: str = "training set",
    classes: int | None = None,
    bounded: bool = False,
    empty: bool = False,
) -> None:
    """Refuse images and labels that no generator can be trained on.

    Args:
        expected: (h, w, c).
        data: Images as inputs; of values nothing is checked while they are traced.
        name: What the sentence calls them.
        classes: Labels that there are, as targets; None where targets are not read.
        bounded: Whether pixels stand for chances, and must be from -1 to 1.
        empty: Every weight may be zero.

    Raises:
        ValueError: another shape, and what ``data.values.check_values`` says; pixels
            out of range.
    """
    check_shape(expected, data)
    if tracing(data):
        return
    check_values(
        data,
        targets="anything" if classes is None else "classes",
        outputs=None if classes is None else (classes,),
        name=name,
        empty=empty,
    )
    there = np.asarray(data.inputs)[np.asarray(data.weights) > 0]
    if bounded and there.size and np.abs(there).max() > 1:
        raise ValueError(
            f"{name}: got pixels from {there.min():.3g} to {there.max():.3g}, expected "
            "-1 to 1, black to white: scale the images"
        )
