"""Three words about a row of the comparison, each a function of its numbers."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from unlearn_jax.evaluation.outputs import AnyArray

CHANGED_NOTHING = "changed nothing"
DESTROYED = "destroyed"
INSIDE_THE_FLOOR = "inside the floor"


def verdict(
    *,
    relative_change: float,
    test_accuracy: float | None,
    chance: float,
    examples: int,
    gaps: Mapping[str, float],
    half_widths: Mapping[str, float],
    identical_outputs: bool = False,
) -> tuple[str, ...]:
    """The words that hold, in a fixed order; none, some or all of three.

    * "changed nothing": the parameters moved by exactly 0, or all outputs are equal to
      the original's.
    * "destroyed": test accuracy is not above chance by more than four binomial standard
      errors, or a number is NaN or infinite.
    * "inside the floor": for every core metric the mean difference to the oracle lies
      within the floor's half-width, a finite one. The method cannot be told from
      retraining by these metrics and this many seeds; that is not a proof of equality.

    Args:
        relative_change: |unlearned - original| / |original|, parameters (no unit).
        test_accuracy: On the test split (%); None for a task without classes, where
            only numbers that are not finite destroy.
        chance: Accuracy of always naming the commonest class, see ``chance_level`` (%).
        examples: Examples in the test split (count).
        gaps: Mean difference to the oracle by core metric, each in its unit.
        half_widths: The floor's half-width by core metric, in the same units.
        identical_outputs: Every output equals the original's, bit for bit.

    Raises:
        ValueError: gaps and half-widths do not name the same metrics.
    """
    if set(gaps) != set(half_widths):
        raise ValueError(
            f"gaps {sorted(gaps)} and half-widths {sorted(half_widths)} must name the "
            "same metrics"
        )
    words = []
    if relative_change == 0.0 or identical_outputs:
        words.append(CHANGED_NOTHING)
    if _destroyed(relative_change, test_accuracy, chance, examples):
        words.append(DESTROYED)
    if gaps and all(abs(gaps[name]) <= half_widths[name] < np.inf for name in gaps):
        words.append(INSIDE_THE_FLOOR)
    return tuple(words)


def chance_level(targets: Shaped[AnyArray, " n"]) -> float:
    """Share of the commonest class among the targets, in %."""
    counts = np.unique(np.asarray(targets), return_counts=True)[1]
    return 100.0 * float(counts.max() / counts.sum())


def _destroyed(
    relative_change: float, test_accuracy: float | None, chance: float, examples: int
) -> bool:
    if not np.isfinite(relative_change):
        return True
    if test_accuracy is None:
        return False
    error = np.sqrt(chance * (100.0 - chance) / examples)
    return not (np.isfinite(test_accuracy) and test_accuracy > chance + 4.0 * error)
