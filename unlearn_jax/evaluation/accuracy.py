"""Accuracy, mean loss, and root-mean-square error of one split."""

import numpy as np

from unlearn_jax.evaluation.outputs import (
    Scores,
    SplitOutputs,
    class_indices,
    finite_outputs,
    is_regression,
    losses,
    residuals,
)


def accuracy(scores: Scores) -> float:
    """Share of examples whose largest output is the target's.

    Unit %, range 0 to 100. Direction: towards the oracle's value on every split: high
    on retain and test, and whatever the oracle has on forget and unseen. Two oracles
    differ by their training seed only. A tie between outputs goes to the lowest class
    index.

    Raises:
        ValueError: outputs are not finite, or targets are no class indices of theirs.
    """
    if is_regression(scores):
        raise ValueError("accuracy needs class indices; for regression use rmse")
    outputs = finite_outputs(scores)
    hits = np.argmax(outputs, axis=-1) == class_indices(outputs, scores)
    return 100.0 * float(np.mean(hits))


def mean_loss(scores: Scores) -> float:
    """Mean loss: cross-entropy in nats, or half the squared distance for regression.

    Range 0 to infinity. Direction: towards the oracle's value. Two oracles differ by
    their training seed only.
    """
    return float(np.mean(losses(scores)))


def rmse(scores: Scores) -> float:
    """Root of the mean squared error over examples and outputs.

    Unit: that of the targets; range 0 to infinity. Direction: towards the oracle's
    value. Two oracles differ by their training seed only.

    Raises:
        ValueError: outputs are not finite, or targets are class indices.
    """
    if not is_regression(scores):
        raise ValueError("rmse needs floating-point targets; for classes use accuracy")
    return float(np.sqrt(np.mean(residuals(scores) ** 2)))


def accuracies(split: SplitOutputs) -> dict[str, float]:
    """Accuracy of every split, in %, by the split's name."""
    return {name: accuracy(s) for name, s in split._asdict().items()}


def mean_losses(split: SplitOutputs) -> dict[str, float]:
    """Mean loss of every split, by the split's name."""
    return {name: mean_loss(s) for name, s in split._asdict().items()}


def rmses(split: SplitOutputs) -> dict[str, float]:
    """Root-mean-square error of every split, by the split's name."""
    return {name: rmse(s) for name, s in split._asdict().items()}
