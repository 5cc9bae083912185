"""Words about a method, from its summaries: did it do anything, does it still work?"""

import math
from collections.abc import Mapping, Sequence

from unlearn_jax.evaluation.verdict import (
    CHANGED_NOTHING,
    DESTROYED,
    INSIDE_THE_FLOOR,
    verdict,
)
from unlearn_jax.results.summary import (
    FLOOR,
    ORACLE,
    ORIGINAL,
    CellKey,
    Summary,
    lookup,
)

CORE = (
    ("accuracy", "retain"),
    ("accuracy", "forget"),
    ("accuracy", "test"),
    ("rmse", "retain"),
    ("rmse", "forget"),
    ("rmse", "test"),
    ("mia_loss", "forget"),
)
"""Metric and split of the gaps that must all lie inside the floor."""

FOOTNOTE = (
    f'check: "{CHANGED_NOTHING}" parameters as before; "{DESTROYED}" test accuracy not '
    f'above chance by four standard errors, or not finite; "{INSIDE_THE_FLOOR}" no gap '
    "(accuracy or rmse on three splits, loss attack) exceeds what two oracles show, or "
    "one example; "
    '"outside the floor" some gap does; "no floor" fewer than two oracles.'
)


def words(method: str, summaries: Mapping[CellKey, Summary]) -> tuple[str, ...]:
    """The check of one row, always at least one word.

    ``original`` is judged like a method, but for "changed nothing", which it is by
    definition: where it lies inside the floor, nothing can be learned from the rows.
    """
    if method == ORACLE:
        return ("the reference",)
    if method == FLOOR:
        return ("the floor",)
    own = {key[1:]: summary for key, summary in summaries.items() if key[0] == method}
    core = [own[place] for place in CORE if place in own]
    change = lookup(summaries, method, "parameter_change", None)
    if change is None and method != ORIGINAL:
        return ("failed: no parameter change recorded",)
    if change is not None and change.failure:
        return (f"failed: {change.failure}",)
    complete = bool(core) and not any(s.gap is None or s.failure for s in core)
    gaps = {f"{s.metric} {s.split}": s.gap.mean for s in core if s.gap}
    widths = {
        f"{s.metric} {s.split}": max(s.floor.half_width, _one_example(s, summaries))
        if s.floor
        else math.inf
        for s in core
        if s.gap
    }
    accuracy = own.get(("accuracy", "test"))
    found = verdict(
        relative_change=change.mean if change and method != ORIGINAL else 1.0,
        test_accuracy=accuracy.mean if accuracy and not accuracy.failure else None,
        chance=_number(summaries, "chance", 0.0),
        examples=int(_number(summaries, "examples", 1e9)),
        gaps=gaps if complete else {},
        half_widths=widths if complete else {},
    )
    if INSIDE_THE_FLOOR in found or not complete:
        return found or ("failed: gaps incomplete",)
    known = all(math.isfinite(width) for width in widths.values())
    return (*found, "outside the floor" if known else "no floor")


def indistinct(summaries: Mapping[CellKey, Summary], methods: Sequence[str]) -> bool:
    """Whether even the original lies inside the floor."""
    return ORIGINAL in methods and INSIDE_THE_FLOOR in words(ORIGINAL, summaries)


def _one_example(summary: Summary, summaries: Mapping[CellKey, Summary]) -> float:
    """The step of an accuracy: oracles that never differ have a floor of no width."""
    if summary.metric != "accuracy":
        return 0.0
    counts = [
        s.mean
        for key, s in summaries.items()
        if key[1:] == ("examples", summary.split) and not s.failure
    ]
    return 100.0 / counts[0] if counts else 0.0


def _number(
    summaries: Mapping[CellKey, Summary], metric: str, otherwise: float
) -> float:
    """A number of the data, the same for every method: any row's, test split first."""
    found = [s for key, s in summaries.items() if key[1] == metric and not s.failure]
    found.sort(key=lambda summary: summary.split != "test")
    return found[0].mean if found else otherwise
