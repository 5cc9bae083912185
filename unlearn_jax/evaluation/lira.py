"""The likelihood-ratio attack, offline: compare with models without the point."""

import numpy as np
from jaxtyping import Float

from unlearn_jax.evaluation.membership import Attack, threshold_attack
from unlearn_jax.evaluation.outputs import SplitOutputs, check_finite, margins
from unlearn_jax.types import PRNGKey

POOL_BELOW = 16


def lira_attack(key: PRNGKey, target: SplitOutputs, references: SplitOutputs) -> Attack:
    """Is the target's margin on a point higher than models without the point give?

    Args:
        key: Evaluation seed; halves the points for the balanced accuracy.
        target: The model under attack.
        references: Models trained without forget and unseen, with a leading member
            axis; other oracles, the one compared with never among them.

    Raises:
        ValueError: the references have no member axis or other examples.

    Cost: one pass over members x (forget + unseen) x classes numbers.
    Source: Carlini et al. 2022, arXiv 2112.03570, offline attack; against unlearning:
        Hayes et al. 2024, arXiv 2403.01218. Differs: the OUT models are
        oracles of the same request, not models on random halves.
    """
    own = margins(target.forget), margins(target.unseen)
    other = margins(references.forget), margins(references.unseen)
    for mine, theirs in zip(own, other, strict=True):
        if theirs.ndim != 2 or theirs.shape[1:] != mine.shape:
            raise ValueError(
                f"reference margins of shape {theirs.shape} do not fit the target's "
                f"{mine.shape}: expected (members, examples)"
            )
    scores = lira_scores(np.concatenate(own), np.concatenate(other, axis=1))
    forgotten = own[0].size
    return threshold_attack(key, scores[:forgotten], scores[forgotten:])


def lira_scores(
    margin: Float[np.ndarray, " n"], out_margins: Float[np.ndarray, "m n"]
) -> Float[np.ndarray, " n"]:
    """Standardised surprise z of each margin under its Gaussian of OUT models.

        z = (margin - mean_out) / deviation_out

    The offline score is the Gaussian probability Phi(z); z orders the points in the
    same way and does not saturate. Unit 1, range (-inf, inf); the higher, the more
    like a member.

    The mean is the point's own. So is the deviation from 16 members on; with fewer, all
    points share the pooled one (root of the mean variance), for a deviation of a few
    numbers is mostly noise. With one member there is no spread to measure and z is the
    plain difference. A deviation is never less than a thousandth of the pooled one.

    Raises:
        ValueError: a margin is NaN or infinite.
    """
    check_finite("margins", margin, out_margins)
    centred = margin - out_margins.mean(axis=0)
    if out_margins.shape[0] < 2:
        return centred
    variance = out_margins.var(axis=0, ddof=1)
    pooled = float(np.sqrt(variance.mean()))
    if pooled == 0.0:
        return centred
    if out_margins.shape[0] < POOL_BELOW:
        return centred / pooled
    return centred / np.maximum(np.sqrt(variance), 1e-3 * pooled)
