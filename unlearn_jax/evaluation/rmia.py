"""RMIA, offline: is a point likelier under the model than other points are?"""

import numpy as np
from jaxtyping import Float

from unlearn_jax.evaluation.membership import Attack, threshold_attack
from unlearn_jax.evaluation.outputs import SplitOutputs, check_finite, confidences
from unlearn_jax.evaluation.ranking import area
from unlearn_jax.types import PRNGKey

SLOPE = 0.3
_SLOPES = tuple(i / 10 for i in range(11))


def rmia_attack(
    key: PRNGKey,
    target: SplitOutputs,
    references: SplitOutputs,
    *,
    slope: float = SLOPE,
    gamma: float = 1.0,
    paired: SplitOutputs | None = None,
) -> Attack:
    """Membership by pairwise likelihood ratios; forget against unseen.

        p(x) = (1 + a) / 2 mean_references p(y | x) + (1 - a) / 2
        ratio(x) = p_target(y | x) / p(x),    a the slope
        score(x) = Pr_z( ratio(x) > gamma ratio(z) )

    p(x) stands for the mean over models with and without x, of which only the latter
    are at hand: a line of slope a through (1, 1) leads from one to the other. z runs
    over the unseen examples; a tie counts one half, so that an unseen example compared
    with itself gains nothing. A score only grows with its ratio: gamma and the choice
    of z set how finely it tells examples apart, never their order.

    Args:
        key: Evaluation seed; halves the points for the balanced accuracy.
        target: The model under attack.
        references: Models trained without forget and unseen, with a leading member
            axis; one to four are enough. The target is never among them.
        slope: a, from 0 (p(x) near one half) to 1 (p(x) is the references' mean); not
            read where ``paired`` is given (no unit).
        gamma: How much likelier x must be than z (no unit).
        paired: A model trained with forget and without unseen, such as an original of
            another seed: the slope is then the one that attacks it best.

    Returns:
        Attack; 0.5 and 50 for an oracle, up to the error, when forget and unseen are
        as hard as each other. Where forget is harder for every model alike, slopes
        below 1 leave an oracle below 0.5: compare with the oracle's own value.

    Raises:
        ValueError: regression, references without a member axis, or numbers out of
            range.

    Cost: one pass over members x (forget + unseen) x classes numbers, and sorts.
    Source: Zarifzadeh et al. 2024, arXiv 2312.03262, offline attack, plain softmax
        probabilities. Differs: the reference models are oracles of the same request;
        the population is the unseen set; ties count one half.
    """
    if paired is not None:
        slope = choose_slope(paired, references, gamma=gamma)
    members, others = _attacked(target, references, slope, gamma)
    return threshold_attack(key, members, others)


def choose_slope(
    paired: SplitOutputs, references: SplitOutputs, *, gamma: float = 1.0
) -> float:
    """The slope in 0, 0.1, ..., 1 with the highest AUC against a model of one's own.

    The least of several that are equally good. See :func:`rmia_attack`.
    """

    def found(slope: float) -> float:
        return area(*_attacked(paired, references, slope, gamma)).auc

    return max(_SLOPES, key=found)


def likelihood_ratios(
    probabilities: Float[np.ndarray, " n"],
    out_probabilities: Float[np.ndarray, "m n"],
    *,
    slope: float,
) -> Float[np.ndarray, " n"]:
    """p_target / p, unit 1, range [0, inf): how the target stands out on each point.

    Raises:
        ValueError: a slope outside [0, 1], or a probability that is not finite.
    """
    if not 0 <= slope <= 1:
        raise ValueError(f"slope is {slope}, expected a number from 0 to 1")
    check_finite("probabilities", probabilities, out_probabilities)
    blended = 0.5 * (1 + slope) * out_probabilities.mean(axis=0) + 0.5 * (1 - slope)
    return probabilities / np.maximum(blended, np.finfo(np.float64).tiny)


def rmia_scores(
    ratios: Float[np.ndarray, " n"],
    population_ratios: Float[np.ndarray, " z"],
    *,
    gamma: float = 1.0,
) -> Float[np.ndarray, " n"]:
    """Share of the population that a point outdoes, ties counted half.

    Unit 1, range 0 to 1; the higher, the more like a member.

    Raises:
        ValueError: no population, gamma not positive, or a ratio that is not finite.

    Cost: one sort of the population.
    """
    if population_ratios.size == 0 or not gamma > 0:
        raise ValueError(
            f"expected gamma > 0 and a population of one or more, got gamma {gamma} "
            f"and {population_ratios.size} points"
        )
    check_finite("ratios", ratios, population_ratios)
    ordered = np.sort(gamma * population_ratios)
    left = np.searchsorted(ordered, ratios, "left")
    right = np.searchsorted(ordered, ratios, "right")
    return 0.5 * (left + right) / ordered.size


def _attacked(
    target: SplitOutputs, references: SplitOutputs, slope: float, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of forget and of unseen."""
    ratios = []
    for own, other in (
        (target.forget, references.forget),
        (target.unseen, references.unseen),
    ):
        mine, theirs = confidences(own), confidences(other)
        if theirs.ndim != 2 or theirs.shape[1:] != mine.shape:
            raise ValueError(
                f"reference probabilities of shape {theirs.shape} do not fit the "
                f"target's {mine.shape}: expected (members, examples)"
            )
        ratios.append(likelihood_ratios(mine, theirs, slope=slope))
    forget, unseen = (rmia_scores(part, ratios[1], gamma=gamma) for part in ratios)
    return forget, unseen
