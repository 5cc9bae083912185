"""Which parameters of a denoiser a method moves."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from unlearn_jax import tree
from unlearn_jax.models.denoiser import Denoiser
from unlearn_jax.train.objective import Objective
from unlearn_jax.types import Array, Params, Path


def _cross(path: Path) -> bool:
    return path[0] == "network" and "cross" in path


def _rest(path: Path) -> bool:
    return path[0] == "network" and "cross" not in path


def _inner(path: Path) -> bool:
    return _rest(path) and not {"time", "time_out", "head"} & set(path)


def _steering(path: Path) -> bool:
    return "attention" in path or (_cross(path) and "query" in path)


PARTS: dict[str, Callable[[Path], bool]] = {
    "x": _cross,
    "u": _rest,
    "noxattn": _inner,
    "steering": lambda path: path[0] == "network" and _steering(path),
    "text": lambda path: path[0] == "text",
    "network": lambda path: path[0] == "network",
    "all": lambda path: True,
}
"""Name -> whether a path belongs to it; "strict" is the denoiser's own K and V maps."""


def part_of(denoiser: Denoiser, params: Params, name: str) -> PyTree[bool]:
    """A tree of booleans like the parameters: True on the leaves that move.

    Args:
        denoiser: Says which maps read the text.
        params: Whose paths are asked.
        name: "x": all of cross-attention, query and output too. "strict": its K and V
            maps. "u": the network without cross-attention. "noxattn": that without what
            tells the time and without the last map. "steering": self-attention, and the
            queries of cross-attention. "text": the encoder. "network": all the rest.
            "all".

    Raises:
        ValueError: an unknown name, or a part that this denoiser does not have.

    Source: the parts of ESD, arXiv 2303.07345. Its first release calls "noxattn" what
        its second calls "esd-u", which leaves out cross-attention alone.
    """
    names = ("strict", *PARTS)
    if name not in names:
        raise ValueError(f"part is {name!r}; choose from {', '.join(names)}")
    chosen = tree.select(params, PARTS.get(name, denoiser.reads_text))
    if not any(jax.tree.leaves(chosen)):
        raise ValueError(
            f"the denoiser has no part {name!r}, expected parameters to move: take "
            "'all', or a diffusion_transformer"
        )
    return chosen


def taken_out(
    denoiser: Denoiser, params: Params, name: str
) -> tuple[dict[str, Array], Callable[[Any], Params]]:
    """What a part holds, by its paths, and how it goes back among the rest.

    Curvature of a part alone is cheaper by what the rest would have cost.

    Args:
        denoiser: As of :func:`part_of`.
        params: As there.
        name: As there.

    Raises:
        ValueError: as there.
    """
    moves = jax.tree.leaves(part_of(denoiser, params, name))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    own = {
        jax.tree_util.keystr(path): leaf
        for (path, leaf), moving in zip(leaves, moves, strict=True)
        if moving
    }

    def back(part: Any) -> Params:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: part.get(jax.tree_util.keystr(path), leaf), params
        )

    return own, back


def of_part(objective: Objective, back: Callable[[Any], Params]) -> Objective:
    """The objective as a function of a part, all else where it is."""

    def predict(part: Any, inputs: Any) -> Any:
        return objective.predict(back(part), inputs)

    return objective._replace(predict=predict)
