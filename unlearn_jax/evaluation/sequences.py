"""How well a model of language still knows its sequences: numbers per sequence.

All read outputs and targets, as :class:`Told` holds them, and return one number per
sequence. The oracle's own value is the aim of each: a model that was retrained knows
some of what it never saw. The value of oracle against oracle is a difference of two
such means, and 0 is not promised: compare with the spread over oracles.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unlearn_jax.train.asked import asked


class Told(NamedTuple):
    """Value: what a model says of sequences, in numpy.

    Attributes:
        log_likelihoods: (n, t) of each token that is asked for [nats].
        kept: (n, t) which are.
        right: (n, t) whether the likeliest token is the true one.
        mean: (n, t) mean of log p over the vocabulary, weighted by p.
        deviation: (n, t) standard deviation of log p, weighted by p.
    """

    log_likelihoods: np.ndarray
    kept: np.ndarray
    right: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray


def told(outputs: Any, targets: Any) -> Told:
    """What the metrics read, from logits (n, t, k) and targets (n, t).

    Raises:
        ValueError: a sequence of which no token is asked for.
    """
    found = Told(*(np.asarray(field) for field in tell(outputs, targets)))
    empty = np.flatnonzero(~found.kept.any(1))
    if empty.size:
        raise ValueError(
            f"{empty.size} sequences ask for no token, the first is {int(empty[0])}, "
            "expected at least one in each: drop them"
        )
    return found


def tell(outputs: Any, targets: Any) -> tuple[Any, ...]:
    """Fields of :class:`Told` as arrays; traceable, and nothing is refused."""
    seen = asked(jnp.asarray(outputs), targets)
    logp = jax.nn.log_softmax(seen.outputs, axis=-1)
    p = jnp.exp(logp)
    finite = jnp.where(p > 0, logp, 0)
    mean = jnp.sum(p * finite, axis=-1)
    square = jnp.sum(p * jnp.square(finite - mean[..., None]), axis=-1)
    right = jnp.argmax(seen.outputs, axis=-1) == seen.tokens
    return seen.log_likelihoods, seen.kept, right & seen.kept, mean, jnp.sqrt(square)


def probability(told: Told) -> np.ndarray:
    """Geometric mean of the probabilities of an answer's tokens, exp(-NLL / L).

    Unit 1, range 0 to 1. Direction: towards the oracle.
    """
    return np.exp(_mean(told.log_likelihoods, told.kept))


def exact_memorisation(told: Told) -> np.ndarray:
    """Share of tokens that are the likeliest ones where they stand.

    Unit 1, range 0 to 1. Direction: towards the oracle, whose value is that of a model
    that can guess.
    """
    return _mean(told.right, told.kept)


def extraction_strength(told: Told) -> np.ndarray:
    """1 - k / L, k the least prefix after which every token is the likeliest one.

    With the true tokens as what is read (teacher forcing), which for greedy decoding is
    the same: up to the first error both read alike. Unit 1, range 0 to 1: 1 where the
    whole is extracted from its prompt, 0 where even the last token is not. Direction:
    towards the oracle.
    """
    wrong = told.kept & ~told.right
    length = told.kept.sum(1)
    # Number of asked tokens up to and with the last wrong one.
    rank = np.cumsum(told.kept, axis=1)
    last = np.max(np.where(wrong, rank, 0), axis=1)
    return 1 - last / length


def min_k(told: Told, share: float = 0.4) -> np.ndarray:
    """Mean log-probability of the share of tokens that are least likely (Min-K %).

    Unit nats, range -inf to 0; high for what was trained on. As an attack compare two
    sets by its AUC: 0.5 for what neither was, 1 for memorised against unseen. At least
    one token counts.

    Raises:
        ValueError: ``share`` is outside (0, 1].

    Source: as MUSE uses it (K = 40), Shi et al. 2025, arXiv 2407.06460.
    """
    return _lowest(told.log_likelihoods, told.kept, share)


def min_k_plus(told: Told, share: float = 0.4) -> np.ndarray:
    """:func:`min_k` of log-probabilities standardised at each position (Min-K %++).

    (log p(token) - mean) / deviation, both over the vocabulary as the model weighs it.
    Unit 1, range unbounded; direction as :func:`min_k`. Where the model is certain the
    deviation is 0 and the token counts as 0.

    Raises:
        ValueError: ``share`` is outside (0, 1].

    Source: as in open-unlearning, Dorna et al. 2025, arXiv 2506.12618.
    """
    sure = told.deviation < 1e-9
    gap = (told.log_likelihoods - told.mean) / np.where(sure, 1, told.deviation)
    return _lowest(np.where(sure, 0, gap), told.kept, share)


def zlib_score(told: Told, texts: Sequence[str]) -> np.ndarray:
    """Log-likelihood of a whole answer [nats] over the bytes that zlib needs for it.

    Unit nats per byte, range -inf to 0; high for what was trained on. Direction as
    :func:`min_k`.

    Raises:
        ValueError: not one text for each sequence.
    """
    if len(texts) != len(told.kept):
        raise ValueError(
            f"got {len(texts)} texts for {len(told.kept)} sequences, expected one for "
            "each: give the answers in the order of the sequences"
        )
    sizes = [len(zlib.compress(text.encode())) for text in texts]
    whole = np.sum(np.where(told.kept, told.log_likelihoods, 0), axis=1)
    return whole / np.array(sizes, float)


def _mean(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    return np.sum(np.where(kept, values, 0), axis=1) / kept.sum(1)


def _lowest(values: np.ndarray, kept: np.ndarray, share: float) -> np.ndarray:
    if not 0 < share <= 1:
        raise ValueError(
            f"share must be above 0 and at most 1, the part of the tokens that is "
            f"averaged; got {share}"
        )
    count = np.maximum(1, np.floor(share * kept.sum(1))).astype(int)
    ordered = np.sort(np.where(kept, values, np.inf), axis=1)
    taken = np.arange(values.shape[1])[None] < count[:, None]
    return np.sum(np.where(taken, ordered, 0), axis=1) / count
