"""Bands of a regression target: what a class is where there are numbers."""

from typing import Any

import numpy as np
from jaxtyping import Int


def target_bands(
    targets: Any, *others: Any, bands: int = 5
) -> tuple[Int[np.ndarray, " n"], ...]:
    """Band of each number, cut where each band holds as many of the first targets.

    Args:
        targets: (n, 1) or (n,) of the training set; its quantiles are the borders.
        *others: Further targets, cut at the same borders.
        bands: How many; 0 is the lowest.

    Returns:
        int32 for ``targets`` and for each of the others.
    """
    values = np.asarray(targets).reshape(len(targets), -1)[:, 0]
    borders = np.quantile(values, np.arange(1, bands) / bands)

    def cut(given: Any) -> np.ndarray:
        own = np.asarray(given).reshape(len(given), -1)[:, 0]
        return np.searchsorted(borders, own, side="right").astype(np.int32)

    return tuple(cut(given) for given in (targets, *others))
