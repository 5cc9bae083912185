"""One piece of an ensemble: train its members, apply them to all points, write."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from unlearn_jax.ensembles.disk import (
    Range,
    new_piece,
    write_about,
    write_outputs,
    write_variables,
)
from unlearn_jax.ensembles.plan import wrap_keys
from unlearn_jax.parallel.mesh import own_mesh, replicate, shard_members
from unlearn_jax.storage.digest import digest_arrays
from unlearn_jax.train.ensemble import member_program, single_program
from unlearn_jax.train.fit import choose_fit_loop, fit
from unlearn_jax.train.recipe import Learner
from unlearn_jax.types import Array, Batch, Variables

_BLOCK_SCALARS = 1 << 20
"""Scalars of input, over members, that one forward pass takes."""


def piece_trainer(
    learner: Learner, data: Batch, points: Any, way: str, size: int
) -> Callable[[Path, Range, Any, Any], None]:
    """The function that makes a piece: ``(folder, members, keys, weights)``.

    Programs are compiled once, at the first piece, and outside the time that is told.

    Args:
        learner: What is trained.
        data: On what; its weights are those of the members.
        points: (p, ...) inputs that the members are applied to.
        way: "vmap": one program trains ``size`` members, laid over the devices of this
            process; a smaller piece is filled up with copies that are thrown away, so
            that a member does not depend on the piece that it is in. "loop": member by
            member.
        size: Most members of a piece.
    """
    mesh = own_mesh() if way == "vmap" and len(jax.local_devices()) > 1 else None
    held = Batch(*(jnp.asarray(field) for field in data))
    held = held if mesh is None else replicate(mesh, held)
    forward = _forward(learner, points, way, size)
    compiled: list[Any] = []

    def train(keys: Array, weights: Array) -> tuple[Variables, float]:
        if mesh is not None:
            keys, weights = shard_members(mesh, (keys, weights))
        if not compiled:
            compiled.append(_compile(learner, keys, weights, held, way, mesh))
        start = time.perf_counter()
        trained = jax.block_until_ready(compiled[0](keys, weights, held))
        return trained, time.perf_counter() - start

    def make(folder: Path, part: Range, keys: Any, weights: Any) -> None:
        count = part.last - part.first
        members = np.minimum(np.arange(part.first, part.first + size), part.last - 1)
        rows = jnp.asarray(np.asarray(weights[members]), held.weights.dtype)
        variables, seconds = train(wrap_keys(keys[members]), rows)
        start = time.perf_counter()
        with new_piece(folder, part) as place:
            forward(place, variables, count)
            write_variables(place, jax.tree.map(lambda leaf: leaf[:count], variables))
            about = {
                "first": part.first,
                "last": part.last,
                "way": way,
                "chunk": size,
                "seconds": seconds,
                "apply_seconds": time.perf_counter() - start,
                "rows": row_digests(keys, weights, part),
            }
            write_about(place, about)

    return make


def row_digests(keys: Any, weights: Any, part: Range) -> list[str]:
    """What tells one member's key and weights from another's."""
    return [
        digest_arrays(
            b"",
            "member",
            {
                "key": np.asarray(keys[i], np.uint32),
                "weights": np.asarray(weights[i], np.float32),
            },
        ).hex()
        for i in range(part.first, part.last)
    ]


def _compile(
    learner: Learner,
    keys: Array,
    weights: Array,
    held: Batch,
    way: str,
    mesh: Mesh | None,
) -> Callable[..., Variables]:
    if way == "vmap":
        return member_program(learner, mesh).lower(keys, weights, held).compile()
    if choose_fit_loop(learner, held) == "host":
        run: Any = lambda key, row, d: fit(key, learner, d._replace(weights=row))  # noqa: E731
    else:
        run = single_program(learner).lower(keys[0], weights[0], held).compile()

    def one(keys: Array, weights: Array, held: Batch) -> Variables:
        return jax.tree.map(lambda leaf: leaf[None], run(keys[0], weights[0], held))

    return one


def _forward(
    learner: Learner, points: Any, way: str, size: int
) -> Callable[[Path, Variables, int], None]:
    """The function that writes outputs on all points, some points at once."""
    scalars = max(1, int(np.prod(points.shape[1:]))) * size
    block = max(1, min(len(points), _BLOCK_SCALARS // scalars))

    apply = _apply_program(learner.model.apply, way)

    def write(place: Path, variables: Variables, count: int) -> None:
        array = None
        for first in range(0, len(points), block):
            last = min(first + block, len(points))
            # The last block reaches back instead of being a program of its own.
            start = max(0, last - block)
            found = np.asarray(apply(variables, jnp.asarray(points[start:last])))
            if array is None:
                shape = (count, len(points), *found.shape[2:])
                array = write_outputs(place, shape, found.dtype)
            array[:, start:last] = found[:count].view(array.dtype)
        if array is not None:
            array.flush()  # type: ignore[attr-defined]

    return write


@functools.lru_cache(maxsize=8)
def _apply_program(apply: Callable[..., Any], way: str) -> Callable[..., Any]:
    """Stacked variables and inputs to stacked outputs, compiled."""

    def alone(variables: Variables, inputs: Any) -> Any:
        return apply(jax.tree.map(lambda leaf: leaf[0], variables), inputs)[None]

    return jax.jit(jax.vmap(apply, (0, None)) if way == "vmap" else alone)
