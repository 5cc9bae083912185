"""Forgetting quality (NeurIPS 2023): many unlearned models against many oracles.

For each forgotten example an attacker sees one number of one model and says whether it
was unlearned or retrained. What the best threshold achieves, as an ε of differential
privacy, is turned into points.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from unlearn_jax.evaluation.outputs import Scores, margins

DELTA, WIDTH, CAP, CONSTANT = 1e-5, 0.5, 50.0, 0.01


class Quality(NamedTuple):
    """Value: what the attacks find.

    Attributes:
        value: F, mean points over examples, from 0 (each is told) to 1.
        epsilons: (n,) of each example, 0 to 50.
    """

    value: float
    epsilons: Float[np.ndarray, " n"]


def forgetting_quality(
    unlearned: Scores, oracles: Scores, *, per_unit: int | None = None
) -> Quality:
    """Points for forgetting: 2^-⌊ε / 0.5⌋ on average over the forget set.

    Two finite sets of oracles do not get 1: compare with their value, the control.

    Args:
        unlearned: Outputs (m, n, k) on the forget set, of models that were unlearned
            from one original with other keys.
        oracles: Outputs (m, n, k) of models that never saw it.
        per_unit: Thresholds for each unit of the margin, 100 as published; None takes
            every cut between two values, which is at least as good an attack.

    Raises:
        ValueError: no member axis, other examples, or fewer than two models.

    Cost: for each example the square of the number of thresholds.
    Source: the public scorer of the challenge (google-deepmind/unlearning_evaluation).
        Differs: every cut, unless ``per_unit``; written anew, since the public one
        raises where more than one threshold survives.
    """
    return quality_of_margins(margins(unlearned), margins(oracles), per_unit=per_unit)


def quality_of_margins(
    unlearned: Any, oracles: Any, *, per_unit: int | None = None
) -> Quality:
    """:func:`forgetting_quality` where margins (models, examples) are known already.

    Args:
        unlearned: Log-odds of the true class, of the unlearned models.
        oracles: The same of models that never saw the examples.
        per_unit: As there.

    Raises:
        ValueError: as there.
    """
    mine, theirs = np.asarray(unlearned), np.asarray(oracles)
    if mine.ndim != 2 or theirs.ndim != 2 or mine.shape[1] != theirs.shape[1]:
        raise ValueError(
            f"got margins of shapes {mine.shape} and {theirs.shape}, expected (models, "
            "examples) of the same forget set"
        )
    if min(len(mine), len(theirs)) < 2:
        raise ValueError(
            f"got {len(mine)} unlearned and {len(theirs)} retrained models, expected "
            "at least two of each: hundreds are usual"
        )
    pairs = zip(mine.T, theirs.T, strict=True)
    found = np.array([epsilon(a, b, per_unit=per_unit) for a, b in pairs])
    return Quality(float(np.mean(points(found, len(mine)))), found)


def final_score(
    quality: float, retain: tuple[float, float], test: tuple[float, float]
) -> float:
    """F × (RA_u / RA_r) × (TA_u / TA_r): accuracies of (unlearned, retrained) models.

    There is no ceiling: accuracy above the oracle's raises the score.

    Raises:
        ValueError: retrained models of no accuracy.
    """
    if not retain[1] > 0 or not test[1] > 0:
        raise ValueError(
            f"the retrained models have accuracies {retain[1]} and {test[1]}, expected "
            "positive ones to divide by"
        )
    return quality * retain[0] / retain[1] * test[0] / test[1]


def points(epsilons: Any, models: int) -> Float[np.ndarray, " n"]:
    """2^-⌊ε / 0.5⌋, and nothing above ⌈ln(N - 1)⌉, 7 for 512 models."""
    epsilons = np.asarray(epsilons, np.float64)
    most = np.ceil(np.log(models - 1)) if models > 2 else 0.0
    return np.where(epsilons > most, 0.0, 2.0 ** -np.floor(epsilons / WIDTH))


def epsilon(unlearned: Any, oracles: Any, *, per_unit: int | None = None) -> float:
    """The largest ε that a threshold, or a pair of them, shows for one example.

    The sample of the larger median is the positive one. A single threshold calls what
    lies above positive, a pair what lies between. With false positive rate FPR and
    false negative rate FNR, ε is the larger of ln((1 - δ - FPR) / FNR) and
    ln((1 - δ - FNR) / FPR), δ = 1e-5; thresholds of which exactly one rate is zero are
    dropped, and 50 stands for perfect separation and for samples that hardly vary.

    Args:
        unlearned: Numbers of the unlearned models.
        oracles: Numbers of the retrained ones.
        per_unit: As for :func:`forgetting_quality`.
    """
    samples = [np.sort(np.asarray(x, np.float64)) for x in (unlearned, oracles)]
    negative, positive = sorted(samples, key=lambda x: float(np.median(x)))
    if any(_constant(sample) for sample in samples):
        return CAP
    cuts = _cuts(np.concatenate(samples), per_unit)
    both = (negative, positive)
    below = [np.searchsorted(x, cuts, side="right") / len(x) for x in both]
    single = _largest(1 - below[0], below[1])
    inside = [part[None, :] - part[:, None] for part in below]
    upper = np.triu_indices(len(cuts), 1)
    double = _largest(inside[0][upper], 1 - inside[1][upper])
    return float(np.clip(max(single, double), 0.0, CAP))


def _largest(false_positive: np.ndarray, false_negative: np.ndarray) -> float:
    """Over thresholds, by their rates."""
    positive, negative = false_positive, false_negative
    # Differences of shares are whole numbers over N up to rounding.
    positive = np.where(np.abs(positive) < 1e-12, 0.0, positive)
    negative = np.where(np.abs(negative) < 1e-12, 0.0, negative)
    if np.any((positive == 0) & (negative == 0)):
        return np.inf
    kept = (positive > 0) & (negative > 0)
    positive, negative = positive[kept], negative[kept]
    if not kept.any():
        return 0.0
    ratios = np.concatenate(
        [(1 - DELTA - positive) / negative, (1 - DELTA - negative) / positive]
    )
    return float(np.log(max(ratios.max(), 1.0)))


def _cuts(values: np.ndarray, per_unit: int | None) -> np.ndarray:
    known = np.unique(values)
    if per_unit is None:
        between = known[:-1] / 2 + known[1:] / 2
        return np.concatenate([known[:1] - 1, between, known[-1:]])
    count = max(2, int(np.ceil(per_unit * (known[-1] - known[0]))) + 1)
    return np.linspace(known[0], known[-1], count)


def _constant(sample: np.ndarray) -> bool:
    """Whether a sample's range is below a hundredth of its size."""
    size = float(np.max(np.abs(sample)))
    return bool(np.ptp(sample) <= CONSTANT * size) if size else True
