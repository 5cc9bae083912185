"""U-LiRA: can models that unlearned an example be told from models that never saw it?

An attacker who knows the example, the training and the unlearning trains shadow models
of both kinds, fits a Gaussian to the margins of each kind, and judges a further model
by the likelihood ratio. Perfect unlearning leaves 50% and an AUC of 0.5.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from unlearn_jax.evaluation.lira import POOL_BELOW
from unlearn_jax.evaluation.membership import generator
from unlearn_jax.evaluation.outputs import check_finite
from unlearn_jax.evaluation.ranking import area, true_positive_rate
from unlearn_jax.types import PRNGKey

_LEAST = 4


class UnlearningLira(NamedTuple):
    """Value: what the attack finds; every direction is "towards the control's value".

    Errors are standard errors over draws of the models, the examples held fixed. For
    accuracy and AUC they count the two folds as one: by chance both err to the same
    side. On two equal kinds of 10 to 60 models that is right for the AUC and up to a
    quarter too large for the accuracy (simulated).

    Attributes:
        accuracy: Models of either kind judged rightly, mean over kinds and examples,
            unit %, range 0 to 100; perfect unlearning 50.
        accuracy_error: Its standard error, unit %.
        auc: Area under the ROC curve over models and examples, unit 1; perfect 0.5.
        auc_error: Its standard error.
        tpr_at_1_percent: Unlearned models found at 1% false accusations, unit %.
        tpr_at_1_percent_error: Its standard error.
        tpr_at_0_1_percent: The same at 0.1%.
        tpr_at_0_1_percent_error: Its standard error.
        accuracies: (q,) accuracy on each example alone, unit %; the mean over examples
            is ``accuracy``. A mean near 50 can hide examples near 100.
    """

    accuracy: float
    accuracy_error: float
    auc: float
    auc_error: float
    tpr_at_1_percent: float
    tpr_at_1_percent_error: float
    tpr_at_0_1_percent: float
    tpr_at_0_1_percent_error: float
    accuracies: Float[np.ndarray, " q"]


def unlearning_lira(
    key: PRNGKey,
    unlearned_margins: Float[np.ndarray, "m q"],
    never_margins: Float[np.ndarray, "n _"],
    *,
    resamples: int = 100,
) -> UnlearningLira:
    """Likelihood-ratio attack on unlearning, cross-fitted between two halves of models.

        score = ln N(margin; unlearned) - ln N(margin; never trained)

    The models of each kind are cut in two halves at random. The Gaussians of one half
    judge the models of the other, and the two results are averaged: no model judges
    itself, so that two equal kinds give 0.5 and 50 without bias. A score above 0 says
    "unlearned"; scores of all examples share one ROC curve.

    With fewer than 16 models in a half, all examples share one deviation for each kind
    (root of the mean variance). For regression give outputs or residuals as margins.

    Args:
        key: Evaluation seed: halves, and resamples for errors.
        unlearned_margins: Margins of examples to forget, one row per model that was
            trained with them and then unlearned them.
        never_margins: The same examples by models never trained with them; as many
            rows or another number. Where forget sets differ from model to model, a row
            may hold another model for each example; errors then are approximate.
        resamples: Bootstrap resamples of models for the errors of the two TPRs.

    Raises:
        ValueError: shapes do not fit, fewer than four models of a kind, no examples,
            or a margin that is not finite.

    Cost: a few sorts of all margins, and ``resamples`` selections of a quantile.
    Source: Hayes et al. 2024, arXiv 2403.01218, U-LiRA. Differs: cross-fitting, where
        the paper holds out target models; pooled deviations for few models; ROC curve
        besides the accuracy.
    """
    sides = _checked(unlearned_margins, never_margins)
    rng = generator(key)
    halves = [np.array_split(rng.permutation(len(side)), 2) for side in sides]
    folds = []
    for judge in (0, 1):
        fits = [side[half[judge]] for side, half in zip(sides, halves, strict=True)]
        held = [side[half[1 - judge]] for side, half in zip(sides, halves, strict=True)]
        folds.append([_scores(margins, *fits) for margins in held])
    right = [np.concatenate([_right(scores, i) for scores in folds]) for i in (0, 1)]
    spread = sum(2 * np.var(side.mean(axis=1), ddof=1) / len(side) for side in right)
    accuracies = np.mean([side.mean(axis=0) for side in right], axis=0)
    areas = [_area(*scores) for scores in folds]
    rates = [_rates(rng, folds, at, resamples) for at in (0.01, 0.001)]
    return UnlearningLira(
        float(np.mean(accuracies)),
        0.5 * float(np.sqrt(spread)),
        float(np.mean([auc for auc, _ in areas])),
        float(np.sqrt(np.mean([variance for _, variance in areas]))),
        *rates[0],
        *rates[1],
        accuracies,
    )


def control(
    key: PRNGKey, never_margins: Float[np.ndarray, "n q"], *, resamples: int = 100
) -> UnlearningLira:
    """The same attack between two halves of the models never trained with the examples.

    What comes out is the attack's own noise with half the models: 50% and 0.5 up to
    their errors.

    Raises:
        ValueError: fewer than eight models.
    """
    if len(never_margins) < 2 * _LEAST:
        raise ValueError(
            f"the control needs {2 * _LEAST} models or more, got {len(never_margins)}"
        )
    order = generator(key).permutation(len(never_margins))
    halves = (never_margins[half] for half in np.array_split(order, 2))
    return unlearning_lira(key, *halves, resamples=resamples)


def _scores(
    margins: np.ndarray, unlearned: np.ndarray, never: np.ndarray
) -> np.ndarray:
    """(models, q) log-likelihood ratios by Gaussians of models that are not judged."""
    both = np.concatenate([unlearned, never])
    least = 1e-3 * float(np.sqrt(np.mean(both.var(axis=0))))
    if least == 0.0:
        return np.zeros_like(margins)
    return _log_density(margins, unlearned, least) - _log_density(margins, never, least)


def _log_density(margins: np.ndarray, models: np.ndarray, least: float) -> np.ndarray:
    """Of the Gaussian fitted to each column, without the constant."""
    variance = models.var(axis=0, ddof=1)
    if len(models) < POOL_BELOW:
        variance = np.full_like(variance, variance.mean())
    deviation = np.maximum(np.sqrt(variance), least)
    surprise = (margins - models.mean(axis=0)) / deviation
    return -0.5 * surprise**2 - np.log(deviation)


def _right(scores: list[np.ndarray], kind: int) -> np.ndarray:
    """(models, q) in %: 100 where the models of a kind are judged rightly, ties 50."""
    sign = np.sign(scores[kind])
    return 50.0 * (1.0 + sign if kind == 0 else 1.0 - sign)


def _area(unlearned: np.ndarray, never: np.ndarray) -> tuple[float, float]:
    """AUC over all pairs of scores, and its variance over draws of whole models.

    Examples share their models: the placements are averaged within a model first.
    """
    auc = area(unlearned.ravel(), never.ravel()).auc
    variance = 0.0
    for side, others in ((unlearned, never), (never, unlearned)):
        ordered = np.sort(others, axis=None)
        left = np.searchsorted(ordered, side, "left")
        right = np.searchsorted(ordered, side, "right")
        placed = np.mean(0.5 * (left + right) / ordered.size, axis=1)
        variance += float(np.var(placed, ddof=1)) / len(placed)
    return auc, variance


def _rates(
    rng: np.random.Generator, folds: list[list[np.ndarray]], at: float, resamples: int
) -> tuple[float, float]:
    """TPR averaged over the folds, and its bootstrap error over models."""
    values, variance = [], 0.0
    for unlearned, never in folds:
        values.append(true_positive_rate(unlearned.ravel(), never.ravel(), at=at))
        again = []
        for _ in range(resamples):
            members = unlearned[rng.integers(0, len(unlearned), len(unlearned))]
            others = never[rng.integers(0, len(never), len(never))]
            again.append(true_positive_rate(members.ravel(), others.ravel(), at=at))
        variance += float(np.var(again, ddof=1))
    return float(np.mean(values)), float(np.sqrt(variance)) / 2


def _checked(unlearned: np.ndarray, never: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if unlearned.shape[1] != never.shape[1] or unlearned.shape[1] == 0:
        raise ValueError(
            f"margins of shapes {unlearned.shape} and {never.shape} do not fit; "
            f"expected (models, examples) of the same examples"
        )
    if min(len(unlearned), len(never)) < _LEAST:
        raise ValueError(
            f"the attack needs {_LEAST} models of each kind or more, got "
            f"{len(unlearned)} unlearned and {len(never)} never trained"
        )
    found = tuple(np.asarray(side, np.float64) for side in (unlearned, never))
    check_finite("margins", *found)
    return found[0], found[1]
