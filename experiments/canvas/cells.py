"""Means over rows of drawings, as numbers and as cells of a table."""

import math
from collections.abc import Sequence

import numpy as np

from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.rows import Rows

_PAIRED = "frechet_oracle"
"""Of an oracle it is a distance of two, which no two pairs have independently."""


def mean_of(rows: Rows, metric: str, **at: str) -> float:
    """Over the rows of a metric at a place; NaN where there are none."""
    found = [row.value for row in rows.where(metric, **at) if row.value is not None]
    return float(np.mean(found)) if found else math.nan


def mean_cell(
    rows: Rows, metric: str, names: Sequence[str], **at: str
) -> str | float | None:
    """A mean, with its error where it is one of independent generators."""
    values = np.array([mean_of(rows, metric, method=name, **at) for name in names])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    if len(values) == 1 or metric == _PAIRED:
        return float(values.mean())
    error = values.std(ddof=1) / math.sqrt(len(values))
    return mean_and_error(float(values.mean()), float(error))
