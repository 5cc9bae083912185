"""How well a score separates two groups: exact AUC, low error rates, thresholds.

Every score points the same way: the higher, the more like a member.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Ranked = Float[np.ndarray, " n"]


def check_scores(least: int, members: np.ndarray, non_members: np.ndarray) -> None:
    """Refuse scores that no attack can rank.

    Raises:
        ValueError: fewer than ``least`` on a side, or NaN among them.
    """
    sizes = members.size, non_members.size
    if min(sizes) < least:
        raise ValueError(
            f"an attack needs {least} members and {least} non-members or more, got "
            f"{sizes[0]} and {sizes[1]}"
        )
    broken = [np.count_nonzero(np.isnan(side)) for side in (members, non_members)]
    if any(broken):
        raise ValueError(
            f"{broken[0]} of {sizes[0]} members' scores and {broken[1]} of {sizes[1]} "
            "non-members' are NaN, expected numbers: drop these examples or mend the "
            "model"
        )


class Area(NamedTuple):
    """Value: area under the ROC curve with its standard error, both unit 1."""

    auc: float
    error: float


def area(members: Ranked, non_members: Float[np.ndarray, " q"]) -> Area:
    """P(member's score > non-member's) + P(equal) / 2, exactly, and its error.

    Range 0 to 1; 0.5 when the score tells nothing, as for two oracles. The error is
    0 where the sample shows no spread: all scores tied, or the groups fully apart.

    Raises:
        ValueError: fewer than two scores on a side, or NaN among them.

    Cost: two sorts, O((n + q) log(n + q)); the n q pairs are never formed.
    Source: DeLong, DeLong & Clarke-Pearson 1988, eq. 2-5 (placement values).
    """
    check_scores(2, members, non_members)
    above = _share_below(members, non_members)  # one placement per member
    below = 1.0 - _share_below(non_members, members)
    variance = above.var(ddof=1) / above.size + below.var(ddof=1) / below.size
    return Area(float(above.mean()), float(np.sqrt(variance)))


def true_positive_rate(
    members: Ranked, non_members: Float[np.ndarray, " q"], *, at: float
) -> float:
    """Share of members found while no more than a share ``at`` of others is accused.

    Conservative: the largest threshold set by the non-members themselves, with at most
    floor(at * q) of them strictly above it. With q < 1 / at that is none, so the
    number is the share of members above every non-member. Ties are never found.

    Args:
        members: Scores of the members.
        non_members: Scores of the non-members.
        at: False-positive rate allowed, in [0, 1) (no unit).

    Returns:
        Unit %, range 0 to 100. Where the score tells nothing, as for two oracles,
        ``100 (floor(at q) + 1) / (q + 1)`` on average: 1.3 at 1% with q = 300, and
        0.3 at 0.1%. Compare with the oracle's own value.

    Raises:
        ValueError: no score on a side, or NaN among them.
    """
    check_scores(1, members, non_members)
    allowed = int(np.floor(at * non_members.size + 1e-9))
    threshold = np.sort(non_members)[non_members.size - 1 - allowed]
    return 100.0 * float(np.mean(members > threshold))


def best_threshold(members: Ranked, non_members: Float[np.ndarray, " q"]) -> float:
    """The threshold with the highest balanced accuracy on these very scores.

    A score above it is judged a member. Apply it to other scores than these.

    Raises:
        ValueError: no score on a side, or NaN among them.
    """
    check_scores(1, members, non_members)
    values = np.unique(np.concatenate([members, non_members]))
    cuts = np.concatenate([[-np.inf], 0.5 * (values[1:] + values[:-1])])
    found = 1.0 - np.searchsorted(np.sort(members), cuts, "right") / members.size
    spared = np.searchsorted(np.sort(non_members), cuts, "right") / non_members.size
    return float(cuts[np.argmax(found + spared)])


def balanced_accuracy(
    members: np.ndarray, non_members: np.ndarray, *, threshold: float = 0.0
) -> float:
    """Mean of the shares of members above and of others not above the threshold.

    Unit %, range 0 to 100; 50 when the score tells nothing.

    Raises:
        ValueError: no score on a side, or NaN among them.
    """
    check_scores(1, members, non_members)
    found, accused = np.mean(members > threshold), np.mean(non_members > threshold)
    return 50.0 * float(found + 1.0 - accused)


def _share_below(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    ordered = np.sort(others)
    left = np.searchsorted(ordered, scores, "left")
    right = np.searchsorted(ordered, scores, "right")
    return 0.5 * (left + right) / others.size
