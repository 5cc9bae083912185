"""What one who has no oracle sees of a trial: numbers of one unlearned model."""

import math
from collections.abc import Sequence

import numpy as np

from unlearn_jax.evaluation.accuracy import accuracy, mean_loss
from unlearn_jax.evaluation.agreement import prediction_agreement
from unlearn_jax.evaluation.membership import loss_attack
from unlearn_jax.evaluation.outputs import SplitOutputs
from unlearn_jax.types import PRNGKey

UNITS = {
    "retain_accuracy": "%",
    "validation_accuracy": "%",
    "forget_accuracy": "%",
    "held_out_accuracy": "%",
    "forget_loss": "nats",
    "held_out_loss": "nats",
    "attack": "1",
    "agreement_forget": "%",
    "agreement_validation": "%",
}
"""Name of a signal -> its unit."""


def signals(
    key: PRNGKey, outputs: SplitOutputs, surrogates: Sequence[SplitOutputs]
) -> dict[str, float]:
    """Every signal of one model; NaN where its outputs are not finite.

    * ``retain_accuracy``, ``validation_accuracy``: of what stays, and of held-out
      examples like it.
    * ``forget_accuracy``, ``held_out_accuracy``, ``forget_loss``, ``held_out_loss``:
      on the forget set, and on held-out examples like it.
    * ``attack``: AUC of a threshold on the loss, forget set against held-out examples
      like it.
    * ``agreement_forget``, ``agreement_validation``: share of predictions equal to a
      small oracle's, mean over the small oracles.

    Args:
        key: Halves of the attack.
        outputs: Of the model; test and unseen splits hold validation examples.
        surrogates: The same of small oracles.
    """
    if not finite(outputs):
        return dict.fromkeys(UNITS, math.nan)

    def equal(part: str) -> float:
        mine, theirs = (getattr(outputs, part), (getattr(s, part) for s in surrogates))
        return float(np.mean([prediction_agreement(mine, other) for other in theirs]))

    return {
        "retain_accuracy": accuracy(outputs.retain),
        "validation_accuracy": accuracy(outputs.test),
        "forget_accuracy": accuracy(outputs.forget),
        "held_out_accuracy": accuracy(outputs.unseen),
        "forget_loss": mean_loss(outputs.forget),
        "held_out_loss": mean_loss(outputs.unseen),
        "attack": loss_attack(key, outputs).auc,
        "agreement_forget": equal("forget"),
        "agreement_validation": equal("test"),
    }


def finite(outputs: SplitOutputs) -> bool:
    """Whether every output is a number."""
    return all(bool(np.isfinite(part.outputs).all()) for part in outputs)
