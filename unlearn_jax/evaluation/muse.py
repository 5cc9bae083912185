"""MUSE's ways to look at a model of language: verbatim, knowledge, privacy, utility.

Source: Shi et al. 2025, arXiv 2407.06460. Of its six, utility is :func:`knowledge` on
what is retained; scalability is all of them as the forget set grows, sustainability the
same after one request upon another, each a curve that :func:`slope` sums up.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unlearn_jax.evaluation.tofu import rouge_l


def verbatim(continuations: Sequence[str], truths: Sequence[str]) -> float:
    """Mean ROUGE-L F of what a model goes on with, and what stood there.

    Unit per cent, range 0 to 100. Direction: towards the oracle, whose value is that
    of a model that can guess. As published, continuations are greedy and at most 128
    tokens, and the truth is cut off there.

    Raises:
        ValueError: not one truth for each continuation, or none.
    """
    if len(continuations) != len(truths) or not len(truths):
        raise ValueError(
            f"got {len(continuations)} texts and {len(truths)} true ones, expected one "
            "for each, at least one: give them in the same order"
        )
    pairs = zip(continuations, truths, strict=True)
    return 100 * float(np.mean([rouge_l(said, true)["f"] for said, true in pairs]))


def knowledge(
    answers: Sequence[str], truths: Sequence[str], *, stops: Sequence[str] = ("\n\n",)
) -> float:
    """:func:`verbatim` of answers, each cut off at the first of the stops.

    On the forget set towards the oracle; on what is retained (utility) up, but no
    further than the oracle.

    Raises:
        ValueError: as there.
    """
    cut = []
    for answer in answers:
        places = [answer.find(stop) for stop in stops if stop in answer]
        cut.append(answer[: min(places)] if places else answer)
    return verbatim(cut, truths)


class Leak(NamedTuple):
    """Value: how far an attack is from what it finds in a retrained model.

    Attributes:
        value: Per cent; negative where memory is left (forgotten too little), positive
            where the forgotten stands out by being avoided. Direction: 0.
        least: What it is at an AUC of 0.
        most: What it is at an AUC of 1.
    """

    value: float
    least: float
    most: float


def privacy_leak(auc: float, oracle: float) -> Leak:
    """100 (AUC - AUC of the oracle) / AUC of the oracle.

    Args:
        auc: Probability that a holdout sequence scores higher than a forgotten one, by
            Min-K with K = 40: 0 where the forgotten is still known.
        oracle: The same of a retrained model.

    A destroyed model can have a value near 0: never read it alone.

    Raises:
        ValueError: an AUC outside of [0, 1], or an oracle's of 0.
    """
    if not (0 <= auc <= 1 and 0 < oracle <= 1):
        raise ValueError(
            f"got an AUC of {auc} and an oracle's of {oracle}, expected numbers from 0 "
            "to 1 and the oracle's above 0: take more sequences for the attack"
        )
    return Leak(100 * (auc - oracle) / oracle, -100.0, 100 * (1 - oracle) / oracle)


def slope(values: Sequence[float]) -> float:
    """Least-squares change of a metric from one fold, or one request, to the next.

    Unit that of the metric per step; 0 for what does not wear off. Direction: towards
    the oracle's, retrained for each fold or after each request.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError(
            f"got {len(values)} values, expected at least two: forget more folds"
        )
    steps = np.arange(len(values)) - (len(values) - 1) / 2
    return float(np.sum(steps * np.asarray(values, float)) / np.sum(steps**2))
