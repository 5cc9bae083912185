"""Adaptive unlearning score: what accuracy is left, and how much is forgotten."""

import numpy as np

from unlearn_jax.evaluation.accuracy import accuracy
from unlearn_jax.evaluation.outputs import SplitOutputs


def adaptive_unlearning_score(unlearned: SplitOutputs, original: SplitOutputs) -> float:
    """(1 − (A_original − A)) / (1 + Δ), accuracies as shares.

    A is the accuracy on the test split. Where the forget set has no class that is
    retained, Δ is the accuracy on the unseen split, the test examples of its classes;
    else Δ is |accuracy on the forget set − A|.

    Unit 1; 0 to 2, and 1 for a model that keeps all and forgets all. Direction: towards
    the oracle's value, since it looks at the original alone: above 1 where accuracy
    grows.

    Raises:
        ValueError: outputs are not finite, or targets are no class indices of theirs.

    Source: Cotogni et al. 2023, arXiv 2312.02052, AUS. As released.
    """
    now, before = accuracy(unlearned.test) / 100, accuracy(original.test) / 100
    kept = np.unique(np.asarray(unlearned.retain.targets))
    whole = not np.isin(np.asarray(unlearned.forget.targets), kept).any()
    if whole:
        gap = accuracy(unlearned.unseen) / 100
    else:
        gap = abs(accuracy(unlearned.forget) / 100 - now)
    return (1 - (before - now)) / (1 + gap)
