"""Groups of layers that may be tuned or not, and every choice of them."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, PyTree, Shaped

from unlearn_jax import tree
from unlearn_jax.methods.erasing.tune import Slope, tune
from unlearn_jax.types import Array, Params, Path, PRNGKey

Rule = tuple[str, Callable[[Path], bool]]
"""Name of a group, and whether a path is of it."""
LARGEST = 16
"""Groups of which all choices are listed."""


class Groups(NamedTuple):
    """Description: which group each leaf of the parameters belongs to.

    Attributes:
        names: Of the groups.
        numbers: Tree like the parameters, of indices into ``names``.
    """

    names: tuple[str, ...]
    numbers: PyTree[int]

    def spread(self, values: Shaped[Array, " k"]) -> PyTree[Array]:
        """A tree like the parameters: each leaf has the value of its group."""
        return jax.tree.map(lambda number: values[number], self.numbers)


def grouped(params: Params, rules: Sequence[Rule]) -> Groups:
    """Groups by path; a leaf is of the first whose rule it meets.

    Args:
        params: Whose leaves are grouped.
        rules: Name and rule of each group.

    Raises:
        ValueError: a leaf that meets no rule, or a group without a leaf.
    """

    def number(path: Any, leaf: Array) -> int:
        del leaf
        found = [i for i, (_, rule) in enumerate(rules) if rule(tree.path_names(path))]
        if not found:
            name = jax.tree_util.keystr(path)
            raise ValueError(f"{name} is of no group, expected one: add a rule for it")
        return found[0]

    numbers = jax.tree_util.tree_map_with_path(number, params)
    used = set(jax.tree.leaves(numbers))
    empty = [name for i, (name, _) in enumerate(rules) if i not in used]
    if empty:
        raise ValueError(f"no parameter is of {empty[0]!r}, expected some: omit it")
    return Groups(tuple(name for name, _ in rules), numbers)


def every_mask(count: int) -> Bool[np.ndarray, "m k"]:
    """All 2^k choices of k groups, none first.

    Raises:
        ValueError: no group, or more than :data:`LARGEST`.
    """
    if not 1 <= count <= LARGEST:
        raise ValueError(f"got {count} groups, expected 1 to {LARGEST}: join some")
    return np.array(list(itertools.product([False, True], repeat=count)))


def tuned_under(
    key: PRNGKey,
    params: Params,
    slope: Slope,
    constants: Any,
    groups: Groups,
    free: Bool[Array | np.ndarray, " k"],
    *,
    steps: int,
    learning_rate: float,
) -> Params:
    """Adam on the groups that are free; one program for all masks.

    Args:
        key: Split for each step.
        params: Where to start.
        slope: As of ``tune.tune``.
        constants: As there.
        groups: Of the parameters.
        free: Which may move, may be traced.
        steps: Of Adam.
        learning_rate: Of Adam.
    """
    moves = groups.spread(jnp.asarray(free))
    return tune(
        key,
        params,
        slope,
        constants,
        moves=moves,
        steps=steps,
        learning_rate=learning_rate,
    )
