"""How many members train at once: as many as the memory holds."""

import contextlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn_jax.train.ensemble import member_program
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Batch


class ChunkMemory(NamedTuple):
    """Value: memory of one training program, linear in its members.

    Attributes:
        fixed: Bytes whatever the number of members: the data, what is shared.
        member: Bytes that each member adds.
    """

    fixed: int
    member: int

    def members(self, budget: int) -> int:
        """Most members within a budget of bytes; 0 if not even one."""
        return max(0, int((budget - self.fixed) // max(self.member, 1)))


def chunk_memory(learner: Learner, data: Batch) -> ChunkMemory:
    """What the compiled program says that it needs, from two small numbers of members.

    Cost: two compilations, nothing is run.
    """
    few, more = 2, 4
    low, high = (_program_bytes(learner, data, members) for members in (few, more))
    member = max((high - low) // (more - few), 1)
    return ChunkMemory(max(low - few * member, 0), member)


def choose_chunk(
    learner: Learner,
    data: Batch,
    members: int,
    *,
    budget: int | None = None,
    most: int | None = None,
) -> int:
    """Members per program: as few programs as fit the memory, evenly filled.

    Args:
        learner: What is trained.
        data: On what.
        members: In all.
        budget: Bytes that one program may take; None is :func:`memory_budget`.
        most: At most so many, whatever the memory.

    Returns:
        Between 1 and ``members``.

    Raises:
        ValueError: not even one member fits the budget; nothing was trained.

    Cost: one compilation where the largest chunk fits, which is not repeated when that
    chunk is trained; two more where it does not.
    """
    budget = memory_budget() if budget is None else budget
    largest = _even(members, min(members, members if most is None else max(most, 1)))
    if _fits(learner, data, largest, budget):
        return largest
    need = chunk_memory(learner, data)
    if need.members(budget) < 1:
        raise ValueError(
            f"training one member needs {need.fixed + need.member} bytes and the budget"
            f" is {budget}; raise the budget, or lower the batch size or the net's "
            "width"
        )
    return _even(members, min(need.members(budget), largest))


def memory_budget() -> int:
    """Half of :func:`free_memory` [bytes]."""
    return free_memory() // 2


def free_memory() -> int:
    """Memory that is free on this process's first device, or on the machine [bytes]."""
    told = jax.local_devices()[0].memory_stats()
    if told and "bytes_limit" in told:
        return told["bytes_limit"] - told.get("bytes_in_use", 0)
    return _machine_memory()


def _machine_memory() -> int:
    """Bytes to be had; what the system keeps of files counts, for it gives that up."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return 1024 * int(rest.split()[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _even(members: int, most: int) -> int:
    """The size of equal parts of at most ``most``."""
    return -(-members // -(-members // most))


def _fits(learner: Learner, data: Batch, members: int, budget: int) -> bool:
    try:
        return _program_bytes(learner, data, members) <= budget
    except jax.errors.JaxRuntimeError:  # so large that the compiler gives up
        return False


def _program_bytes(learner: Learner, data: Batch, members: int) -> int:
    shapes: Any = jax.eval_shape(
        lambda: (
            jax.random.split(jax.random.key(0), members),
            jnp.zeros((members, *data.weights.shape), data.weights.dtype),
        )
    )
    shared = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), data
    )
    found = member_program(learner).lower(*shapes, shared).compile().memory_analysis()
    if found is None:  # a back end that does not say
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    return (
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
    )
