"""Membership attacks on regression that know how hard an example is.

A threshold on the error mistakes an easy example for a member. Models that never saw
the example say how large its error is anyway; what is smaller than that gives it away.
"""

import numpy as np
from jaxtyping import Float

from unlearn_jax.evaluation.lira import lira_scores
from unlearn_jax.evaluation.membership import Attack, threshold_attack
from unlearn_jax.evaluation.outputs import SplitOutputs, losses
from unlearn_jax.types import PRNGKey

_LEAST = 1e-6
"""Errors below so much of the typical one count as so much: logarithms stay finite."""


def calibrated_attack(
    key: PRNGKey, target: SplitOutputs, references: SplitOutputs
) -> Attack:
    """Mean loss of the references on an example, less the target's own.

    Args:
        key: Evaluation seed; halves the examples for the balanced accuracy.
        target: The model under attack.
        references: Models trained without forget and unseen, with a leading member
            axis; the target is never among them.

    Raises:
        ValueError: the references have no member axis or other examples.

    Cost: one pass over members × (forget + unseen) × outputs numbers.
    Source: no single one; difficulty calibration of membership scores.
    """
    mine, theirs = _losses(target, references)
    gaps = [other.mean(axis=0) - own for own, other in zip(mine, theirs, strict=True)]
    return threshold_attack(key, *gaps)


def residual_ratio_attack(
    key: PRNGKey, target: SplitOutputs, references: SplitOutputs
) -> Attack:
    """Is the error smaller than models without the example give? In their deviations.

    The offline likelihood ratio (:func:`lira_scores`) on minus the logarithm of the
    loss, which is nearer to a Gaussian over models than the loss is. Losses below a
    millionth of the references' median are taken for that.

    Args:
        key: As for :func:`calibrated_attack`.
        target: As for ``calibrated_attack``.
        references: As for ``calibrated_attack``.

    Raises:
        ValueError: as ``calibrated_attack``.

    Cost: as ``calibrated_attack``.
    Source: Carlini et al. 2022, arXiv 2112.03570, offline attack. Differs: published
        for the margin of a classifier; a regression has a residual instead.
    """
    mine, theirs = _losses(target, references)
    least = _LEAST * float(np.median(np.concatenate(theirs, axis=1)))
    least = least if least > 0 else np.finfo(np.float64).tiny

    def surprise(loss: np.ndarray) -> np.ndarray:
        return -np.log(np.maximum(loss, least))

    scores = lira_scores(
        surprise(np.concatenate(mine)), surprise(np.concatenate(theirs, axis=1))
    )
    return threshold_attack(key, scores[: mine[0].size], scores[mine[0].size :])


def _losses(
    target: SplitOutputs, references: SplitOutputs
) -> tuple[list[Float[np.ndarray, " n"]], list[Float[np.ndarray, "m n"]]]:
    """Of forget and unseen, the target's and the references'."""
    mine = [losses(target.forget), losses(target.unseen)]
    theirs = [losses(references.forget), losses(references.unseen)]
    for own, other in zip(mine, theirs, strict=True):
        if other.ndim != 2 or other.shape[1:] != own.shape:
            raise ValueError(
                f"reference losses of shape {other.shape} do not fit the target's "
                f"{own.shape}: expected (members, examples)"
            )
    return mine, theirs
