"""NoMUS: test accuracy and a membership attack in one number, with its ceiling."""

from unlearn_jax.evaluation.accuracy import accuracies
from unlearn_jax.evaluation.membership import logistic_attack
from unlearn_jax.evaluation.outputs import SplitOutputs, losses
from unlearn_jax.types import PRNGKey

_SPLITS = 10


def nomus(key: PRNGKey, unlearned: SplitOutputs, oracle: SplitOutputs | None) -> float:
    """(A + 1 - 2 |M - 1/2|) / 2: test accuracy A, accuracy M of a membership attack.

    Unit 1, range 0 to 1. As published more accuracy is always better, so that a model
    which forgets nothing can stand above retraining. With an oracle, A is at most the
    oracle's: what lies above it is knowledge that retraining does not have.

    Args:
        key: Evaluation seed: the attack's ten folds.
        unlearned: The model to judge.
        oracle: Whose test accuracy is the ceiling; None for no ceiling, as published.

    Raises:
        ValueError: fewer than four examples in forget or unseen.

    Source: Choi & Na 2023, arXiv 2311.02240: logistic regression on the loss, forget
        against unseen, ten stratified splits. Differs: classes are balanced by weights,
        and the ceiling.
    """
    accuracy = accuracies(unlearned)["test"]
    if oracle is not None:
        accuracy = min(accuracy, accuracies(oracle)["test"])
    attack = logistic_attack(
        key, losses(unlearned.forget), losses(unlearned.unseen), folds=_SPLITS
    )
    told = attack.balanced_accuracy / 100 - 0.5
    return (accuracy / 100 + 1 - 2 * abs(told)) / 2
