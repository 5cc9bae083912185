"""Membership attacks: can forgotten examples be told from examples never seen?

Members are the forget set, non-members the unseen set. An attack on the oracle finds
nothing (AUC 0.5 up to its error), and so does one on perfect unlearning. An AUC below
0.5 is no success: the forget set then stands out by being fitted worse than new data.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from unlearn_jax.evaluation.logistic import fit_logistic, log_odds
from unlearn_jax.evaluation.outputs import SplitOutputs, entropies, losses
from unlearn_jax.evaluation.ranking import (
    area,
    balanced_accuracy,
    best_threshold,
    check_scores,
    true_positive_rate,
)
from unlearn_jax.keys import seed_words
from unlearn_jax.types import PRNGKey


class Attack(NamedTuple):
    """Value: what an attack finds; directions are all "towards the oracle's value".

    Attributes:
        auc: Area under the ROC curve, unit 1, range 0 to 1; oracle 0.5.
        auc_error: Its standard error over draws of the examples, unit 1.
        balanced_accuracy: Of decisions on examples that did not choose the rule,
            unit %, range 0 to 100; oracle 50.
        tpr_at_1_percent: Members found at 1% false accusations or fewer, unit %.
        tpr_at_0_1_percent: The same at 0.1%.
    """

    auc: float
    auc_error: float
    balanced_accuracy: float
    tpr_at_1_percent: float
    tpr_at_0_1_percent: float


def generator(key: PRNGKey) -> np.random.Generator:
    """A host generator that is a function of the evaluation seed."""
    return np.random.default_rng(seed_words(key))


def threshold_attack(
    key: PRNGKey,
    members: Float[np.ndarray, " n"],
    non_members: Float[np.ndarray, " q"],
) -> Attack:
    """Judge by one score: the higher, the more like a member.

    AUC and TPR need no decision rule. For the balanced accuracy each group is cut in
    two halves at random; the threshold that is best on one half judges the other, and
    the two results are averaged.

    Raises:
        ValueError: fewer than two scores on a side, or NaN among them.

    Cost: a few sorts.
    """
    auc, error = area(members, non_members)
    halves = _folds(generator(key), members, non_members, 2)
    accuracies = [
        balanced_accuracy(*halves[j], threshold=best_threshold(*halves[1 - j]))
        for j in (0, 1)
    ]
    return _attack(auc, error, float(np.mean(accuracies)), members, non_members)


def logistic_attack(
    key: PRNGKey,
    members: Float[np.ndarray, " n"],
    non_members: Float[np.ndarray, " q"],
    *,
    folds: int = 5,
) -> Attack:
    """Judge by a class-balanced logistic regression on one feature.

    Each fold, stratified and drawn by the key, is judged by a fit to the others. The
    AUC is the mean of the folds' own AUCs: scores of different fits are never ranked
    against each other there, so two equal distributions give 0.5 without bias. Its
    error counts the folds as independent; they share training examples, and on two
    equal distributions the true error is 1.3 times as large (simulated, 30 to 1,000
    examples a side). The TPRs pool the log-odds of all folds, for one fold holds too
    few non-members.

    Args:
        key: Evaluation seed.
        members: Feature of the members; it may point either way.
        non_members: Feature of the non-members.
        folds: Parts of the cross-validation; fewer when a group is too small for two
            examples a fold (count).

    Raises:
        ValueError: fewer than four examples on a side, or NaN among them.

    Cost: ``folds`` Newton fits of two numbers.
    """
    check_scores(1, members, non_members)
    folds = min(folds, members.size // 2, non_members.size // 2)
    if folds < 2:
        raise ValueError(
            "a cross-validated attack needs four members and four non-members or more, "
            f"got {members.size} and {non_members.size}"
        )
    parts = _folds(generator(key), members, non_members, folds)
    judged = []
    for held_out in range(folds):
        inside = [np.concatenate([p[0] for i, p in enumerate(parts) if i != held_out])]
        outside = [np.concatenate([p[1] for i, p in enumerate(parts) if i != held_out])]
        truth = np.arange(inside[0].size + outside[0].size) < inside[0].size
        model = fit_logistic(np.concatenate(inside + outside), truth)
        judged.append(tuple(log_odds(model, part) for part in parts[held_out]))
    areas = [area(*pair) for pair in judged]
    error = float(np.sqrt(np.sum([a.error**2 for a in areas]))) / folds
    accuracy = float(np.mean([balanced_accuracy(*pair) for pair in judged]))
    pooled = (np.concatenate([p[i] for p in judged]) for i in (0, 1))
    return _attack(float(np.mean([a.auc for a in areas])), error, accuracy, *pooled)


def loss_attack(key: PRNGKey, split: SplitOutputs) -> Attack:
    """Threshold on the loss: a low loss looks like a member.

    Source: Yeom et al. 2018, arXiv 1709.01604. Differs: the threshold is chosen on
        other examples than it judges, not the mean training loss.
    """
    return threshold_attack(key, -losses(split.forget), -losses(split.unseen))


def logistic_loss_attack(key: PRNGKey, split: SplitOutputs) -> Attack:
    """Logistic regression on the loss, forget against unseen.

    Source: Kurmanji et al. 2023, arXiv 2302.09880, and the NeurIPS 2023 unlearning
        challenge's starting kit. Differs: classes are balanced by weights, losses are
        standardised and not clipped.
    """
    return logistic_attack(key, losses(split.forget), losses(split.unseen))


def logistic_entropy_attack(key: PRNGKey, split: SplitOutputs) -> Attack:
    """Logistic regression on the entropy of the softmax, forget against unseen.

    Source: Foster et al. 2024, arXiv 2308.07707, code. Differs: fitted by
        cross-validation to forget and unseen; theirs is fitted to retain and test.
    """
    return logistic_attack(key, entropies(split.forget), entropies(split.unseen))


def _attack(
    auc: float, error: float, accuracy: float, members: np.ndarray, others: np.ndarray
) -> Attack:
    rates = (true_positive_rate(members, others, at=at) for at in (0.01, 0.001))
    return Attack(auc, error, accuracy, *rates)


def _folds(
    rng: np.random.Generator, members: np.ndarray, others: np.ndarray, count: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Both groups shuffled and dealt out into ``count`` parts of nearly equal size."""
    dealt = [
        np.array_split(rng.permutation(group), count) for group in (members, others)
    ]
    return list(zip(*dealt, strict=True))
