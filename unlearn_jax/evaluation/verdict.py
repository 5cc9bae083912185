"""Words about a row of the comparison, each a function of its numbers."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from scipy.special import fdtri, stdtrit

from unlearn_jax.evaluation.gap import Floor
from unlearn_jax.evaluation.outputs import AnyArray

CHANGED_NOTHING = "changed nothing"
DESTROYED = "destroyed"
INSIDE_THE_FLOOR = "inside the floor"
OUTSIDE_THE_FLOOR = "outside the floor"
UNDECIDED = "undecided"

LEVEL = 0.05
"""How often an oracle may be called outside, over all core metrics together."""
FEWEST_SEEDS = 3
"""Training seeds below which nothing is decided."""


class Comparison(NamedTuple):
    """Value: one core metric of a method against all oracles.

    Attributes:
        name: Of the metric and split.
        gap: Mean over the method's training seeds minus the mean over all oracles.
        half_width: Where oracles, as many as training seeds, would lie.
        deviation: Of the method over its training seeds.
        widest: The deviation that as many oracles would not exceed.
        one_sided: Whether only falling short counts, as for an agreement.
    """

    name: str
    gap: float
    half_width: float
    deviation: float
    widest: float
    one_sided: bool = False

    @property
    def floors(self) -> float:
        """How far, in half-widths of the floor; by the spread where that is further.

        NaN where it cannot be told: a number is NaN, or the floor has no width yet.
        """
        gap = max(-self.gap, 0.0) if self.one_sided else abs(self.gap)
        spread = 0.0 if self.one_sided else _ratio(self.deviation, self.widest)
        far = _ratio(gap, self.half_width), spread
        known = math.isfinite(self.half_width) and not any(map(math.isnan, far))
        return max(far) if known else math.nan


def compare(
    name: str,
    mean: float,
    deviation: float,
    seeds: int,
    floor: Floor,
    *,
    metrics: int,
    step: float = 0.0,
    one_sided: bool = False,
) -> Comparison:
    """Hold one metric of a method against all oracles, unpaired.

        half width = t(1 - a / 2, M - 1) s sqrt(1 / I + 1 / M)
        widest     = s sqrt(F(1 - a, I - 1, M - 1)),     a = 0.05 / 2K

    for I training seeds, M oracles with deviation s, and K core metrics, each tested
    for its mean and its spread (Bonferroni): oracles pass all of them in at least 95 of
    100 cases if their values are Gaussian.

    Args:
        name: Of the metric and split.
        mean: Of the method over its training seeds.
        deviation: Of the method over its training seeds; NaN for a single one.
        seeds: Training seeds I (count).
        floor: Of the oracles.
        metrics: Core metrics K that are tested together (count).
        step: The least difference that there can be (one example), which is never
            held against a method.
        one_sided: Only falling short counts.
    """
    share = LEVEL / (2 * metrics)
    if seeds < 2 or floor.oracles < 2:
        return Comparison(name, mean - floor.mean, math.inf, deviation, math.inf)
    tail = share if one_sided else share / 2
    reach = float(stdtrit(floor.oracles - 1, 1 - tail))
    width = reach * floor.deviation * math.sqrt(1 / seeds + 1 / floor.oracles)
    factor = float(fdtri(seeds - 1, floor.oracles - 1, 1 - share))
    widest = floor.deviation * math.sqrt(factor)
    return Comparison(
        name,
        mean - floor.mean,
        max(width, step),
        deviation,
        max(widest, step),
        one_sided,
    )


def furthest(comparisons: Sequence[Comparison]) -> Comparison | None:
    """The core metric in which a method is furthest from the oracles, in floors.

    One that cannot be told comes before all others.
    """
    # Nothing is greater than NaN, so ``max`` would pass over it.
    return max(
        comparisons,
        key=lambda one: math.inf if math.isnan(one.floors) else one.floors,
        default=None,
    )


def verdict(
    *,
    relative_change: float,
    test_accuracy: float | None,
    chance: float,
    examples: int,
    comparisons: Sequence[Comparison],
    seeds: int,
    identical_outputs: bool = False,
    told_apart: bool = True,
) -> tuple[str, ...]:
    """The words that hold, in a fixed order.

    * "changed nothing": the parameters moved by exactly 0, or all outputs are equal to
      the original's.
    * "destroyed": test accuracy is not above chance by more than four binomial standard
      errors, or a number is NaN or infinite.
    * One of three: "inside the floor": in no core metric do mean or spread over the
      training seeds differ from all oracles' by more than fresh oracles would. The
      method cannot be told from retraining by these metrics and this many seeds; that
      is not a proof of equality. "outside the floor": in some they do. "undecided":
      the seeds cannot tell: fewer than three, no finite floor, or inside while the
      original itself is (``told_apart`` False). None of them without core metrics.

    Args:
        relative_change: |unlearned - original| / |original|, parameters (no unit).
        test_accuracy: On the test split (%); None for a task without classes, where
            only numbers that are not finite destroy.
        chance: Accuracy of always naming the commonest class, see ``chance_level`` (%).
        examples: Examples in the test split (count).
        comparisons: Every core metric against the oracles, see :func:`compare`.
        seeds: Training seeds (count).
        identical_outputs: Every output equals the original's, bit for bit.
        told_apart: Whether the original lies outside.
    """
    words = []
    if relative_change == 0.0 or identical_outputs:
        words.append(CHANGED_NOTHING)
    if _destroyed(relative_change, test_accuracy, chance, examples):
        words.append(DESTROYED)
    if comparisons:
        words.append(_place(comparisons, seeds, told_apart))
    return tuple(words)


def chance_level(targets: Shaped[AnyArray, " n"]) -> float:
    """Share of the commonest class among the targets, in %."""
    counts = np.unique(np.asarray(targets), return_counts=True)[1]
    return 100.0 * float(counts.max() / counts.sum())


def _place(comparisons: Sequence[Comparison], seeds: int, told_apart: bool) -> str:
    known = all(math.isfinite(one.half_width) for one in comparisons)
    if seeds < FEWEST_SEEDS or not known:
        return UNDECIDED
    if not all(one.floors <= 1.0 for one in comparisons):  # NaN is outside
        return OUTSIDE_THE_FLOOR
    return INSIDE_THE_FLOOR if told_apart else UNDECIDED


def _ratio(size: float, limit: float) -> float:
    if size == 0.0:
        return 0.0
    return size / limit if limit else math.inf


def _destroyed(
    relative_change: float, test_accuracy: float | None, chance: float, examples: int
) -> bool:
    if not np.isfinite(relative_change):
        return True
    if test_accuracy is None:
        return False
    error = np.sqrt(chance * (100.0 - chance) / examples)
    return not (np.isfinite(test_accuracy) and test_accuracy > chance + 4.0 * error)
