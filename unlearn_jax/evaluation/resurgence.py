"""What comes back in context, and whether neighbours are refused: numbers of texts."""

from collections.abc import Sequence

import numpy as np


def resurgence(before: float, after: float, original: float) -> float:
    """Share of the original's knowledge that facts in the prompt bring back.

    (A_k - A_0) / (A - A_0), A_0 and A_k scores of the unlearned model without and with
    k supporting facts in the prompt, A the original's with them.

    Unit 1, range unbounded; 0 nothing, 1 all. Direction: towards the oracle's own
    ratio: a sound unlearner reads what it is told. Much less than the oracle's says
    that reading was damaged, much more that knowledge had only been hidden. Value of
    oracle against oracle: a difference that is 0 but for their spread.

    Args:
        before: A_0.
        after: A_k.
        original: A.

    Raises:
        ValueError: the original with facts scores as the unlearned model without them,
            so that there is nothing to come back.

    Source: the claim of Shumailov et al. 2024, arXiv 2407.00106; the ratio is ours.
    """
    gap = original - before
    if gap == 0:
        raise ValueError(
            f"the original scores {original} with the facts and the unlearned model "
            "the same without them, expected a difference: nothing was forgotten"
        )
    return (after - before) / gap


def refused(
    texts: Sequence[str],
    refusals: Sequence[str],
    *,
    gram: int = 3,
    share: float = 0.5,
) -> np.ndarray:
    """(n,) whether an answer is none: empty, a refusal, or words going in circles.

    Args:
        texts: Answers.
        refusals: Phrases; one that a text holds, in any case, makes it a refusal.
        gram: Words of the sequences whose repetition is counted.
        share: Repeated ones among them from which on a text goes in circles.

    Raises:
        ValueError: an empty phrase, which every text holds.
    """
    if not all(phrase.strip() for phrase in refusals):
        raise ValueError(
            "one of the refusals is empty, which every text holds: leave it out"
        )
    phrases = [phrase.strip().rstrip(".").casefold() for phrase in refusals]

    def none(text: str) -> bool:
        words = text.split()
        grams = [tuple(words[at : at + gram]) for at in range(len(words) - gram + 1)]
        repeated = 1 - len(set(grams)) / len(grams) if grams else 0.0
        held = any(phrase in text.casefold() for phrase in phrases)
        return not words or held or repeated >= share

    return np.array([none(text) for text in texts], bool)


def safe_refusal_rate(neighbours: Sequence[str], refusals: Sequence[str]) -> float:
    """SARR: share of questions about what is retained that get no answer.

    Unit per cent, range 0 to 100. Direction: towards the oracle, whose value is near 0;
    oracle against oracle a difference of two such shares.

    Raises:
        ValueError: no neighbours, or as :func:`refused`.

    Source: Chen et al. 2025, arXiv 2502.12520. Differs: there a language model judges
        answers about images; here phrases and repetition do.
    """
    if not len(neighbours):
        raise ValueError("got no answers, expected at least one of a retained question")
    return float(100 * refused(neighbours, refusals).mean())
