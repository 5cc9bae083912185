"""Who leads a column, if anybody does beyond doubt."""

import math
from collections.abc import Mapping, Sequence

from unlearn_jax.results.about import about
from unlearn_jax.results.columns import Column
from unlearn_jax.results.summary import CellKey, Summary, lookup


def leader(
    column: Column,
    columns: Sequence[Column],
    methods: Sequence[str],
    summaries: Mapping[CellKey, Summary],
) -> str | None:
    """The method whose lead over the second exceeds two standard errors, if any."""
    direction = about(column.metric).direction
    twin = (column.metric, column.split, "gap")
    gap_beside = any((c.metric, c.split, c.kind) == twin for c in columns)
    if not direction or (column.kind == "value" and gap_beside):
        return None
    scores = []
    for method in methods:
        found = lookup(summaries, method, column.metric, column.split)
        if found is None or found.failure or not math.isfinite(found.mean):
            continue
        if direction != "oracle":
            sign = -1.0 if direction == "up" else 1.0
            scores.append((sign * found.mean, found.standard_error, method))
        elif found.gap is not None:
            scores.append((abs(found.gap.mean), found.gap.standard_error, method))
    if len(scores) < 2:
        return None
    best, second = sorted(scores)[:2]
    clear = second[0] - best[0] > 2.0 * math.hypot(best[1], second[1])
    return best[2] if clear else None
