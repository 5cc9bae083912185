"""Distance to the oracle: predictions, output distributions, parameters, accuracies.

All but ``relative_distance`` compare outputs on the same examples in the same order.
"""

from collections.abc import Mapping

import numpy as np

from unlearn_jax import tree
from unlearn_jax.evaluation.accuracy import accuracies
from unlearn_jax.evaluation.outputs import (
    Scores,
    SplitOutputs,
    finite_outputs,
    probabilities,
)
from unlearn_jax.types import Params


def prediction_agreement(a: Scores, b: Scores) -> float:
    """Share of examples on which both models name the same class.

    Unit %, range 0 to 100. Direction: up, but no further than oracle against oracle,
    which lies below 100 by the seed's own disagreement.
    """
    same = np.argmax(finite_outputs(a), axis=-1) == np.argmax(
        finite_outputs(b), axis=-1
    )
    return 100.0 * float(np.mean(same))


def total_variation(a: Scores, b: Scores) -> float:
    """Mean total-variation distance of the softmax outputs, half of sum |p - q|.

    Unit 1, range 0 to 1. Direction: down, but no further than oracle against oracle,
    which lies above 0.
    """
    distances = 0.5 * np.sum(np.abs(probabilities(a) - probabilities(b)), axis=-1)
    return float(np.mean(distances))


def jensen_shannon(a: Scores, b: Scores) -> float:
    """Mean Jensen-Shannon divergence of the softmax outputs.

    Unit nats, range 0 to log 2; the mean runs over examples, not over examples times
    classes. Direction: down, but no further than oracle against oracle, which lies
    above 0.
    """
    p, q = probabilities(a), probabilities(b)
    middle = 0.5 * (p + q)
    divergence = 0.5 * (_kullback_leibler(p, middle) + _kullback_leibler(q, middle))
    return float(np.mean(np.maximum(divergence, 0.0)))


def output_difference(a: Scores, b: Scores) -> float:
    """Root of the mean squared difference between two models' outputs.

    Unit: that of the outputs; range 0 to infinity. Direction: down, but no further than
    oracle against oracle, which lies above 0.
    """
    return float(np.sqrt(np.mean((finite_outputs(a) - finite_outputs(b)) ** 2)))


def relative_distance(a: Params, b: Params) -> float:
    """Distance of two parameter trees over the norm of the second, |a - b| / |b|.

    Unit 1, range 0 to infinity. Direction: down; between two oracles of different seeds
    it is of order 1, for a network has many equivalent parameters.

    Raises:
        ValueError: the second tree is zero or a tree is not finite.
    """
    length, gap = float(tree.norm(b)), float(tree.norm(tree.subtract(a, b)))
    if not np.isfinite(length) or not np.isfinite(gap):
        raise ValueError("a parameter is NaN or infinite: no distance can be given")
    if length == 0.0:
        raise ValueError("the reference parameters are all zero: nothing to divide by")
    return gap / length


def tug_of_war(unlearned: SplitOutputs, oracle: SplitOutputs) -> float:
    """Product over forget, retain and test of 1 - |accuracy - oracle's accuracy|.

    Unit 1, range 0 to 1; accuracies enter as shares. Direction: up, but no further than
    oracle against oracle, which lies below 1.

    Source: Zhao et al. 2024, arXiv 2406.01257, the score "ToW". As published.
    """
    ours, theirs = accuracies(unlearned), accuracies(oracle)
    gaps = [abs(ours[s] - theirs[s]) / 100.0 for s in ("forget", "retain", "test")]
    return float(np.prod([1.0 - gap for gap in gaps]))


def average_gap(ours: Mapping[str, float], theirs: Mapping[str, float]) -> float:
    """Mean absolute gap to the oracle over a set of named numbers.

    The published average takes four percentages: unlearning accuracy (100 - forget
    accuracy), retain accuracy, test accuracy and the confidence attack's efficacy.

    Unit: the numbers' own, here percentage points; range 0 to 100. Direction: down, but
    no further than oracle against oracle, which lies above 0.

    Raises:
        ValueError: the two sides do not hold the same names.

    Source: Fan et al. 2024, arXiv 2310.12508, "Avg. Gap". As published.
    """
    if set(ours) != set(theirs) or not ours:
        raise ValueError(
            f"the two sides must name the same numbers, got {sorted(ours)} and "
            f"{sorted(theirs)}"
        )
    return float(np.mean([abs(ours[name] - theirs[name]) for name in ours]))


def _kullback_leibler(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    # Where p = 0 the term is 0; q > 0 wherever p > 0, for q is half of p or more.
    positive = p > 0
    ratio = np.divide(p, q, out=np.ones_like(p), where=positive)
    return np.sum(p * np.log(ratio), axis=-1)
