"""Sequences of a few Markov chains whose transition matrices are known.

Every chain lives mostly on a block of states of its own and leaks into the others, so
that a model has to tell from what it has seen which chain it reads. What the next token
is distributed like is known for every chain, and so is the divergence of any model from
it: the truth that benchmarks of text lack.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unlearn_jax.data.batch import Dataset, Splits
from unlearn_jax.data.tokens import IGNORED
from unlearn_jax.types import Batch

START = 0
"""The state that every sequence begins with and none returns to."""


class Chains(NamedTuple):
    """Value: where the sequences come from.

    Attributes:
        names: Of the chains, the first one to retain.
        matrices: (c, k, k) float64, rows summing to one: P(next | state) of each.
    """

    names: tuple[str, ...]
    matrices: np.ndarray


def draw_chains(
    seed: int,
    *,
    names: Sequence[str] = ("retain", "forget1", "forget2"),
    block: int = 3,
    leakage: float = 0.2,
) -> Chains:
    """Transition matrices, each with a block of states of its own.

    From any state a chain goes into its own block with probability 1 - leakage, there
    by a distribution drawn for that state (Dirichlet, all ones), and else to any state
    of the other blocks, all alike.

    Args:
        seed: Draws the distributions.
        names: One for each chain.
        block: States of a block; with the start there are 1 + chains · block.
        leakage: Probability of leaving one's block, from 0 to below 1.

    Raises:
        ValueError: fewer than two chains, a block without states, or a leakage that is
            no probability.

    Source: the mixture of Fan et al. 2024, arXiv 2410.07163 (ten states in three
        blocks, leakage 0.2), as told there; the distributions inside a block are ours.
    """
    if len(names) < 2 or block < 1 or not 0 <= leakage < 1:
        raise ValueError(
            f"got {len(names)} chains, blocks of {block} states and leakage {leakage}; "
            "expected two chains or more, a state or more, and 0 <= leakage < 1"
        )
    random = np.random.Generator(np.random.PCG64([seed, 0]))
    states = 1 + len(names) * block
    matrices = np.zeros((len(names), states, states))
    for chain, matrix in enumerate(matrices):
        own = 1 + chain * block + np.arange(block)
        others = np.setdiff1d(np.arange(1, states), own)
        matrix[:, others] = leakage / len(others)
        matrix[:, own] = (1 - leakage) * random.dirichlet(np.ones(block), states)
    return Chains(tuple(names), matrices)


def draw_sequences(
    seed: int, chains: Chains, chain: int, count: int, *, length: int, kept: int = 0
) -> Batch:
    """Sequences of one chain, from the start.

    Args:
        seed: Draws the steps.
        chains: Their matrices.
        chain: Which of them.
        count: n.
        length: t, tokens in a row and steps taken.
        kept: Of the steps, so many from the first count; 0 for all.

    Returns:
        Batch of (n, t) tokens from 0 to k - 1, the first one :data:`START`, and targets
        that are the states one step later; in numpy, every weight one.
    """
    random = np.random.Generator(np.random.PCG64([seed, 1, chain]))
    ends = np.cumsum(chains.matrices[chain], axis=1)
    walk = np.full((count, length + 1), START, np.int32)
    for step in range(length):
        drawn = random.random(count)[:, None] * ends[walk[:, step], -1:]
        walk[:, step + 1] = np.sum(drawn >= ends[walk[:, step]], axis=1)
    targets = walk[:, 1:].copy()
    if kept:
        targets[:, kept:] = IGNORED
    inputs = np.where(targets == IGNORED, START, walk[:, :-1]).astype(np.int32)
    return Batch(inputs, targets, np.ones(count, np.float32))


def markov(
    seed: int,
    counts: Sequence[int],
    *,
    tests: Sequence[int],
    lengths: Sequence[int] = (20, 20, 20),
    leakage: float = 0.2,
) -> tuple[Dataset, Chains]:
    """A mixture of Markov chains as a data set; chains are its subclasses.

    Args:
        seed: Draws chains and sequences.
        counts: Training sequences of each chain; the last ones may have none, and are
            called unseen.
        tests: Test sequences of each chain.
        lengths: Supervised steps of each chain's sequences; all rows are as long as the
            longest.
        leakage: As in :func:`draw_chains`.

    Returns:
        (data set, chains): tokens (n, t), one chain after another; ``classes`` is the
        number of states, ``subclasses`` says the chain of each sequence.

    Raises:
        ValueError: not one count and length of at least 1 for each chain, or as
            :func:`draw_chains`.
    """
    told = [list(map(int, given)) for given in (counts, tests, lengths)]
    known = np.count_nonzero(told[0])
    least = min(min(own, default=0) for own in (told[0][:known], *told[1:]))
    if len({len(one) for one in told}) != 1 or least < 1:
        raise ValueError(
            f"got counts {told[0]}, tests {told[1]} and lengths {told[2]}, expected "
            "one number of at least 1 for each chain, but 0 for last ones that nobody "
            "is trained on: make them as long"
        )
    names = (
        "retain",
        *(f"forget{i}" for i in range(1, known)),
        *(f"unseen{i}" for i in range(known, len(told[0]))),
    )
    chains = draw_chains(seed, names=names, leakage=leakage)
    longest = max(told[2])

    def split(sizes: Sequence[int], seed: int) -> tuple[Batch, np.ndarray]:
        parts = [
            draw_sequences(
                seed, chains, c, size, length=longest, kept=told[2][c] % longest
            )
            for c, size in enumerate(sizes)
        ]
        joined = [np.concatenate(fields) for fields in zip(*parts, strict=True)]
        labels = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        return Batch(*joined), labels

    (train, sources), (test, test_sources) = (
        split(told[0], 2 * seed),
        split(told[1], 2 * seed + 1),
    )
    dataset = Dataset(
        name="markov",
        title="Mixture of Markov chains",
        task="tokens",
        classes=chains.matrices.shape[1],
        splits=Splits(train, test),
        subclasses=sources,
        test_subclasses=test_sources,
    )
    return dataset, chains


def true_log_probabilities(
    chains: Chains, inputs: np.ndarray, sources: np.ndarray
) -> np.ndarray:
    """Log-probabilities of the next state under each sequence's own chain.

    Args:
        chains: Their matrices.
        inputs: (n, t) states.
        sources: (n,) chain of each sequence.

    Returns:
        (n, t, k) float64, -inf where a step is impossible.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(chains.matrices)
    return logs[np.asarray(sources)[:, None], np.asarray(inputs)]
