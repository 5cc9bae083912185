"""Blocks in a list or stacked: the same transformer in its two forms."""

from typing import Any

from unlearn_jax import tree
from unlearn_jax.types import Variables


def stack_blocks(variables: Variables) -> Variables:
    """For ``scan=True``: the blocks' parameters in one tree of leaves (depth, …).

    Raises:
        ValueError: the parameters have no list of blocks.
    """
    return variables._replace(params=_with(variables.params, dict, _stacked))


def unstack_blocks(variables: Variables) -> Variables:
    """For ``scan=False``: the inverse of :func:`stack_blocks`.

    Raises:
        ValueError: the blocks are not stacked.
    """
    return variables._replace(params=_with(variables.params, int, _listed))


def _with(params: Any, wrong: type, change: Any) -> Any:
    blocks = params.get("blocks")
    names = set(map(type, blocks)) if isinstance(blocks, dict) else {None}
    found = "none" if not isinstance(blocks, dict) else ", ".join(map(str, blocks))
    if names != ({int} if wrong is dict else {str}):
        wanted = "a list of blocks" if wrong is dict else "stacked blocks"
        raise ValueError(
            f"expected parameters with {wanted}, got blocks by the names {found}; "
            f"they have the other form already, or are not a transformer's"
        )
    return {**params, "blocks": change(blocks)}


def _stacked(blocks: dict[int, Any]) -> Any:
    return tree.stack([blocks[number] for number in sorted(blocks)])


def _listed(blocks: Any) -> dict[int, Any]:
    depth = tree.leading_axis(blocks)
    return {number: tree.member(blocks, number) for number in range(depth)}
