"""Which rows lie in which shard and slice, whoever of them is there."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from unlearn_jax.keys import seed_words
from unlearn_jax.options import check_whole


class ShardLayout(NamedTuple):
    """Value: a place for every row number, whether the row is there or not.

    Attributes:
        members: Row numbers of each shard, slice after slice; -1 fills it up.
        slices: Slice of each of them; -1 where there is none.
        shard: Shard of each row number.
        slice: Slice of each row number, in its shard.
    """

    members: Int[np.ndarray, "s c"]
    slices: Int[np.ndarray, "s c"]
    shard: Int[np.ndarray, " n"]
    slice: Int[np.ndarray, " n"]


def shard_layout(
    capacity: int, shards: int, slices: int, *, seed: int = 0, drawn: bool = True
) -> ShardLayout:
    """Give ``capacity`` row numbers a shard and a slice each, as evenly as can be.

    The place of a row depends on its number, on ``capacity`` and on the seed alone: not
    on which other rows are there. So a row that goes leaves all others where they were.

    Args:
        capacity: Row numbers 0 to capacity - 1.
        shards: S, models that are trained apart.
        slices: R, parts of a shard that are learnt one after another.
        seed: Draws the places.
        drawn: If False shard 0 has the first rows, and so on, as in the released code
            of SISA; where rows are sorted by class a shard may then hold one class.

    Raises:
        ValueError: fewer rows than shards × slices.
    """
    check_whole("capacity", capacity)
    check_whole("shards", shards)
    check_whole("slices", slices)
    if shards * slices > capacity:
        raise ValueError(
            f"got {shards} shards of {slices} slices for {capacity} rows, expected at "
            "least one row for each slice: take fewer shards or slices"
        )
    order = np.arange(capacity)
    if drawn:
        generator = np.random.Generator(np.random.PCG64(seed_words(seed)))
        order = generator.permutation(capacity)
    parts = [np.array_split(rows, slices) for rows in np.array_split(order, shards)]
    width = max(sum(map(len, part)) for part in parts)
    members = np.full((shards, width), -1)
    numbers = np.full((shards, width), -1)
    of_shard, of_slice = np.zeros(capacity, int), np.zeros(capacity, int)
    for s, part in enumerate(parts):
        rows = np.concatenate(part)
        number = np.repeat(np.arange(slices), [len(p) for p in part])
        members[s, : len(rows)], numbers[s, : len(rows)] = rows, number
        of_shard[rows], of_slice[rows] = s, number
    return ShardLayout(members, numbers, of_shard, of_slice)
