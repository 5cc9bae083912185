"""Words about a method, from its summaries: did it do anything, does it still work?"""

import math
from collections.abc import Mapping, Sequence

from unlearn_jax.evaluation.verdict import (
    CHANGED_NOTHING,
    DESTROYED,
    FEWEST_SEEDS,
    INSIDE_THE_FLOOR,
    OUTSIDE_THE_FLOOR,
    UNDECIDED,
    Comparison,
    compare,
    furthest,
    verdict,
)
from unlearn_jax.results.summary import (
    FLOOR,
    ORACLE,
    ORIGINAL,
    CellKey,
    Summary,
    aims_at_oracle,
    lookup,
)
from unlearn_jax.solvers.solution import REASONS

CORE = (
    ("accuracy", "retain"),
    ("accuracy", "forget"),
    ("accuracy", "test"),
    ("rmse", "retain"),
    ("rmse", "forget"),
    ("rmse", "test"),
    ("mia_loss", "forget"),
    ("agreement", "forget"),
    ("agreement", "test"),
)
"""Metric and split that must all lie inside the floor."""

FOOTNOTE = (
    f'check: "{CHANGED_NOTHING}" parameters as before; "{DESTROYED}" test accuracy not '
    "above chance by four standard errors, or not finite; "
    f'"{INSIDE_THE_FLOOR}" in none of accuracy (or rmse) on three splits, loss attack '
    "and agreement with the oracle do mean or spread over training seeds differ from "
    "all oracles by more than as many fresh oracles would in 95 of 100 cases; "
    f'"{OUTSIDE_THE_FLOOR}" in some they do; "{UNDECIDED}" fewer than {FEWEST_SEEDS} '
    "training seeds, or the original is inside too. 1.3 floors (accuracy test): the "
    "furthest of them, in units of what is allowed. Rows: the nearest first."
)

SOLVER_NOTE = (
    'check: "solver ..." the method\'s own solve ended so, short of its tolerance: the '
    "model is what it had by then, not what the method's formula asks for."
)

_UNKNOWN = (math.nan, math.inf, math.nan, math.inf)


def words(method: str, summaries: Mapping[CellKey, Summary]) -> tuple[str, ...]:
    """The check of one row, always at least one word.

    ``original`` is judged like a method, but for "changed nothing", which it is by
    definition.
    """
    if method == ORACLE:
        return ("the reference",)
    if method == FLOOR:
        return ("the floor",)
    change = lookup(summaries, method, "parameter_change", None)
    if change is None and method != ORIGINAL:
        return ("failed: no parameter change recorded",)
    if change is not None and change.failure:
        return (f"failed: {change.failure}",)
    found = comparisons(method, summaries)
    accuracy = summaries.get((method, "accuracy", "test"))
    apart = method == ORIGINAL or not indistinct(summaries)
    said = verdict(
        relative_change=change.mean if change and method != ORIGINAL else 1.0,
        test_accuracy=accuracy.mean if accuracy and not accuracy.failure else None,
        chance=_number(summaries, "chance", 0.0),
        examples=int(_number(summaries, "examples", 1e9)),
        comparisons=found,
        seeds=_seeds(method, summaries),
        told_apart=apart,
    )
    far = furthest(found)
    said = (*said, *_solver(method, summaries))
    if far is None:
        return said or ("failed: gaps incomplete",)
    if math.isfinite(far.floors) and math.isfinite(far.half_width):
        return (*said, f"{_short(far.floors)} floors ({far.name})")
    return said


def _solver(method: str, summaries: Mapping[CellKey, Summary]) -> tuple[str, ...]:
    """How a solver failed; nothing where it did not, or where there is none."""
    found = lookup(summaries, method, "solver_failure", None)
    if found is None or found.failure or not found.mean > 0:
        return ()
    if found.standard_error > 0 and math.isfinite(found.standard_error):
        return ("solver failed on some seeds",)
    return (f"solver {REASONS[round(found.mean)].partition(':')[0]}",)


def comparisons(
    method: str, summaries: Mapping[CellKey, Summary]
) -> tuple[Comparison, ...]:
    """Every core metric of a method against the oracles; none if one is missing."""
    there = [place for place in CORE if (method, *place) in summaries]
    own = [summaries[method, *place] for place in there]
    if not own or any(summary.failure for summary in own):
        return ()
    found = []
    for summary in own:
        closeness = not aims_at_oracle(summary.metric)
        floor = summary.floor
        if floor is None:
            if not closeness:  # fewer than two oracles: nothing can be told
                found.append(Comparison(_name(summary), *_UNKNOWN))
            continue
        seeds = summary.seeds[0]
        found.append(
            compare(
                _name(summary),
                summary.mean,
                summary.standard_error * math.sqrt(seeds),
                seeds,
                floor,
                metrics=len(own),
                step=_one_example(summary, summaries),
                one_sided=closeness,
            )
        )
    return tuple(found)


def distance(method: str, summaries: Mapping[CellKey, Summary]) -> float:
    """How far a method is from the oracles, in floors; infinite where unknown."""
    far = furthest(comparisons(method, summaries))
    return math.inf if far is None or math.isnan(far.floors) else far.floors


def indistinct(
    summaries: Mapping[CellKey, Summary], methods: Sequence[str] = (ORIGINAL,)
) -> bool:
    """Whether even the original lies inside the floor."""
    if ORIGINAL not in methods:
        return False
    found = comparisons(ORIGINAL, summaries)
    return bool(found) and all(one.floors <= 1.0 for one in found)


def _name(summary: Summary) -> str:
    told = {"mia_loss": "loss attack"}.get(summary.metric, summary.metric)
    return f"{told} {summary.split}"


def _short(number: float) -> str:
    return f"{number:.3g}" if number < 100 else f"{number:.0f}"


def _seeds(method: str, summaries: Mapping[CellKey, Summary]) -> int:
    own = [s.seeds[0] for key, s in summaries.items() if key[0] == method]
    return max(own, default=0)


def _one_example(summary: Summary, summaries: Mapping[CellKey, Summary]) -> float:
    """The step of a share: oracles that never differ have a floor of no width."""
    if summary.metric not in ("accuracy", "agreement"):
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
