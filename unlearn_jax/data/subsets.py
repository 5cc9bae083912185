"""Random subsets of the training examples: one row of 0/1 weights for each member."""

import numpy as np


def subset_masks(
    seed: int,
    members: int,
    n: int,
    share: float,
    *,
    always: np.ndarray | None = None,
) -> np.ndarray:
    """Which examples each member of an ensemble is trained on.

    Row i depends on ``seed`` and i alone: asking for more members later gives the same
    rows first, so an ensemble can be extended.

    Args:
        seed: At least 0.
        members: Rows m.
        n: Training examples.
        share: Every row holds exactly ``round(share * n)`` ones, between 1 and n.
        always: Indices of examples that every row holds; they count.

    Returns:
        (m, n) array of 0 and 1 in uint8, drawn uniformly among such rows.

    Raises:
        ValueError: numbers that make no sense, or more ``always`` than a row holds.
    """
    if seed < 0 or members < 1 or n < 1:
        raise ValueError(
            f"got seed {seed}, {members} members, {n} examples; expected a seed of at "
            "least 0 and at least one member and one example"
        )
    size = round(share * n) if 0 <= share <= 1 else 0
    if not 1 <= size <= n:
        raise ValueError(
            f"share {share} of {n} examples is no subset; choose it between {0.5 / n:g}"
            " and 1"
        )
    kept = np.unique(_indices(always, n))
    if len(kept) > size:
        raise ValueError(
            f"{len(kept)} examples must always be there and a row holds {size}; raise "
            "the share or name fewer"
        )
    free = np.setdiff1d(np.arange(n), kept)
    masks = np.zeros((members, n), np.uint8)
    masks[:, kept] = 1
    for member, row in enumerate(masks):
        random = np.random.default_rng([seed, member])
        row[random.choice(free, size - len(kept), replace=False, shuffle=False)] = 1
    return masks


def _indices(always: np.ndarray | None, n: int) -> np.ndarray:
    if always is None or len(always) == 0:
        return np.zeros(0, np.int64)
    always = np.asarray(always)
    if always.ndim != 1 or not np.issubdtype(always.dtype, np.integer):
        raise ValueError(
            f"always is {always.dtype} of shape {always.shape}, expected a list of "
            "indices: turn a mask into indices with numpy.flatnonzero"
        )
    if always.min() < 0 or always.max() >= n:
        raise ValueError(f"always names indices outside 0 to {n - 1}; draw them anew")
    return always
