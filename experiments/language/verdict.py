"""Cells of a study's rows, and whether curvature helped: means over seeds, in words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.language.contenders import CONTENDERS
from unlearn_jax.results.cells import mean_and_error
from unlearn_jax.results.rows import Rows

RIVALS = ("signs", "npo")
"""What a method of second order has to be better than."""


WORDS = {
    "budget": "At equal passes and within the retain budget",
    "unseen": "At equal passes, without a budget",
}
"""Choice of settings -> the beginning of a sentence."""
HOW = {
    "budget": "forgets most in training with a rise of the retain loss of at most "
    "{budget:g} nats",
    "unseen": "ends with the forget loss nearest to what the original says of {kind} "
    "that nobody was trained on, and the retain loss nearest to its own",
}
"""Choice -> which setting is taken."""


def values(rows: Rows, metric: str, **at: Any) -> np.ndarray:
    """Numbers of a metric at a place."""
    return np.array([row.value for row in rows.where(metric, **at)], float)


def number(rows: Rows, metric: str, **at: str) -> float | None:
    """The only value there, NaN where it failed; None where there is none."""
    return rows.value(metric, **at) if rows.where(metric, **at) else None


def cell(rows: Rows, metric: str, **at: Any) -> str | None:
    """Mean ± standard error over what is there; None where nothing is."""
    found = values(rows, metric, **at)
    if not len(found):
        return None
    return mean_and_error(float(found.mean()), error_of(found))


def error_of(found: np.ndarray) -> float:
    """Standard error of the mean, NaN of fewer than two."""
    if len(found) < 2:
        return math.nan
    return float(found.std(ddof=1) / math.sqrt(len(found)))


def setting_of(rows: Rows, name: str, choice: str) -> str | None:
    """What was chosen of a contender, in words."""
    words = []
    for option in (CONTENDERS[name].tries[0], "rho"):
        found = rows.where(f"chosen_{option}", method=name, choice=choice)
        words += [f"{option}={row.value:g}" for row in found]
    return ", ".join(words) or None


def mean_of(distances: np.ndarray) -> float:
    """Mean over seeds; infinite where it is not finite."""
    mean = float(np.mean(distances)) if len(distances) else math.inf
    return mean if math.isfinite(mean) else math.inf


def verdict(distances: Mapping[str, np.ndarray], unit: str, what: str) -> list[str]:
    """Whether the nearest of second order is nearer than each rival, seed by seed.

    Args:
        distances: Of each contender from retraining, one for each seed, of the same
            originals in the same order.
        unit: Of them.
        what: Which comparison this is, the beginning of a sentence.

    Returns:
        A sentence; none where there is no method of second order, or no rival. The
        best of several is favoured by having been picked, which the sentence says.
    """
    second = [name for name in distances if CONTENDERS[name].order == "second"]
    rivals = [name for name in RIVALS if name in distances]
    if not second or not rivals:
        return []
    best = min(second, key=lambda name: mean_of(distances[name]))
    parts = [_against(distances, best, rival, unit) for rival in rivals]
    apart = f"{mean_of(distances[best]):.3g} {unit}"
    told = (
        f"of {len(second)} methods of second order {best} is nearest to retraining "
        f"({apart}, picked after the fact)"
        if len(second) > 1
        else f"{best}, the only method of second order, ends {apart} from retraining"
    )
    return [f"{what}, {told}: {'; '.join(parts)}."]


def _against(
    distances: Mapping[str, np.ndarray], best: str, rival: str, unit: str
) -> str:
    gaps: Any = distances[rival] - distances[best]
    if not np.isfinite(gaps).all():
        return f"not to be compared with {rival}"
    mean = float(gaps.mean())
    if len(gaps) < 2:
        return f"{abs(mean):.2g} {unit} {_side(mean)} than {rival}, one seed"
    error = float(gaps.std(ddof=1) / math.sqrt(len(gaps)))
    sure = "" if abs(mean) > 2 * error else ", which is no difference"
    return f"{abs(mean):.2g} ± {error:.1g} {unit} {_side(mean)} than {rival}{sure}"


def _side(gap: float) -> str:
    return "nearer" if gap > 0 else "further"


def by_distance(names: Sequence[str], distances: Mapping[str, np.ndarray]) -> list[str]:
    """Names, nearest first."""
    return sorted(names, key=lambda name: mean_of(distances[name]))
